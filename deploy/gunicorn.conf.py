"""Gunicorn: few workers, many threads, for batching needs concurrent requests in one process.

Never preloaded: torch and the engine are made after the fork, once per worker.
"""

import os
import select
import signal
from pathlib import Path
from types import FrameType
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

from captioner.env import env_int, env_text
from captioner.logs import gunicorn_logging

# Threads of the model that wait for each other spin for a fraction of a millisecond, then sleep. Without the spinning,
# waking them for each of the many small operations of a token more than doubles the time of a caption; without the
# sleep, one takes the very core that another needs on a busy machine. Read by OpenMP when torch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")


class DrainingWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """Told to stop, takes whoever has connected already and closes its door before it finishes its work.

    The worker it extends leaves the listening socket open until the work is done: clients still connect, wait for as
    long as that takes, and are cut off at the end. A closed door sends them to another host at once.
    """

    def set_accept_enabled(self, enabled: bool) -> None:
        super().set_accept_enabled(enabled)
        if self.alive:
            return
        for listener in self.sockets:
            while self.nr_conns < self.worker_connections and select.select([listener], [], [], 0)[0]:
                self.accept(listener)
            listener.close()
        self.sockets = []


wsgi_app = "captioner.wsgi:application"
_host = env_text("HOST", "127.0.0.1")
bind = f"{f'[{_host}]' if ':' in _host else _host}:{env_int('PORT', 8000)}"
worker_class = DrainingWorker
workers = env_int("WEB_WORKERS", 1, minimum=1)
threads = env_int("WEB_THREADS", 64, minimum=1)
preload_app = False
timeout = 60  # seconds without a sign of life from a worker's main thread
graceful_timeout = 30  # seconds for accepted requests after TERM
keepalive = 75  # seconds; longer than a proxy keeps its own connections
# Workers show they are alive by touching a file; in memory, so that a slow disk does not look like a dead worker.
_MEMORY = Path("/dev/shm")  # noqa: S108
worker_tmp_dir = str(_MEMORY) if _MEMORY.is_dir() else None
proc_name = "captioner-web"
if env_text("LOG_FORMAT") == "json":
    logconfig_dict = gunicorn_logging()
control_socket_disable = True  # it would lie outside of CAPTIONER_DATA_DIR, shared by all instances


def post_worker_init(worker: Any) -> None:
    """Start loading the model, and turn `/readyz` red as soon as this worker is told to stop."""
    from captioner import runtime

    stop: Any = signal.getsignal(signal.SIGTERM)

    def drain_then_stop(number: int, frame: FrameType | None) -> None:
        runtime.engine_drain_begin()
        stop(number, frame)

    signal.signal(signal.SIGTERM, drain_then_stop)
    runtime.engine_start()


def worker_exit(server: Any, worker: Any) -> None:
    from captioner import runtime

    if os.getpid() == worker.pid and not runtime.engine_drain(timeout=graceful_timeout):
        # Torch still runs in a thread, on a model nobody uses yet: leaving the usual way would wait for it, or abort.
        os._exit(0)
