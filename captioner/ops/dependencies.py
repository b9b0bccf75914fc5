"""The servers this service stands on: wait until they answer."""

import time

from django.db import OperationalError, connection

from captioner.exceptions import ServersUnavailable
from captioner.ops.bucket import bucket_ensure

_PAUSE = 1.0  # seconds between tries


def servers_wait(seconds: float) -> None:
    """Return once the database and the store answer. Raises `ServersUnavailable` naming what did not in time."""
    deadline = time.monotonic() + seconds
    while problem := _problem():
        if time.monotonic() > deadline:
            raise ServersUnavailable(f"Waited {seconds:.0f} seconds in vain: {problem}")
        time.sleep(_PAUSE)


def _problem() -> str:
    """What does not answer yet; empty when all do."""
    try:
        connection.ensure_connection()
        bucket_ensure()
    except OperationalError as error:
        return f"The database cannot be reached: {error}"
    except ServersUnavailable as error:
        return str(error)
    return ""
