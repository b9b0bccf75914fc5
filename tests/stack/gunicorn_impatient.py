"""Gunicorn's configuration for a service that waits two seconds for silent clients."""

from pathlib import Path

exec((Path(__file__).parents[2] / "deploy" / "gunicorn.conf.py").read_text())  # noqa: S102

STALL_SECONDS = 2
