"""Importing a module leaves no trace: no file, no environment variable."""

import os
import subprocess
import sys
from pathlib import Path

from tests import house

EVERY_MODULE = f"""
import django, importlib, os
before = dict(os.environ)
django.setup()
for name in {[module.name for module in house.modules() if not module.name.endswith("__main__")]!r}:
    importlib.import_module(name)
ours = {{name for name in {{**os.environ, **before}} if os.environ.get(name) != before.get(name)}}
# Django sets the time zone, torch the other one.
assert ours <= {{"TZ", "TORCHINDUCTOR_CACHE_DIR"}}, ours
"""


def test_importing_every_module_leaves_no_trace(tmp_path: Path) -> None:
    data = tmp_path / "data"
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "CAPTIONER_DATA_DIR": str(data)}
    subprocess.run(
        [sys.executable, "-c", EVERY_MODULE],
        check=True,
        cwd=house.ROOT,
        env=environment | {"DJANGO_SETTINGS_MODULE": "captioner.settings"},
    )
    assert not data.exists()
