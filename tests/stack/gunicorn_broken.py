"""Gunicorn's configuration for a service in which versions named by the environment do not work once they serve.

`BROKEN_THROWS` and `BROKEN_SLOW` are ids of versions. Both load and warm up, as such versions do in real life.
"""

import os
import threading
import time
from pathlib import Path
from typing import Any

exec((Path(__file__).parents[2] / "deploy" / "gunicorn.conf.py").read_text())  # noqa: S102

_start = post_worker_init  # noqa: F821


def post_worker_init(worker: Any) -> None:
    from captioner.inference.predictor import Predictor

    look = Predictor.look

    def broken(self: Predictor, *args: Any) -> Any:
        if threading.current_thread().name == "inference":
            if self.model_version == os.environ.get("BROKEN_THROWS"):
                raise RuntimeError("broken on purpose")
            if self.model_version == os.environ.get("BROKEN_SLOW"):
                time.sleep(float(os.environ.get("BROKEN_SECONDS", "0.5")))
        return look(self, *args)

    Predictor.look = broken
    _start(worker)
