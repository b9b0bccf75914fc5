"""`make run`: prepare the data folder, then run web, worker and beat until told to stop.

Exits with success only when it was told to stop. The lock on the data folder goes with the process, however it ends.
"""

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import IO

from django.core.exceptions import ImproperlyConfigured

DEPLOY = Path(__file__).resolve().parent
sys.path.insert(0, str(DEPLOY.parent))
from captioner.env import env_int, env_path, env_text


def main() -> None:
    os.umask(0o077)
    try:
        data = env_path("CAPTIONER_DATA_DIR", DEPLOY.parent / "var")
        host, port = env_text("HOST", "127.0.0.1"), env_int("PORT", 8000, minimum=1, maximum=65535)
    except ImproperlyConfigured as error:
        sys.exit(str(error))
    with data_lock(data):
        port_check(host, port)
        os.environ |= {"CAPTIONER_DATA_DIR": str(data), "VENV": sys.prefix}
        setup = subprocess.run([sys.executable, DEPLOY.parent / "manage.py", "setup"], check=False)
        sys.exit(setup.returncode or supervise())


def data_lock(data: Path) -> IO[str]:
    """The file whose lock says that this process works on `data`; exits when another one has it."""
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (data / "run.lock").open("a+")
    except OSError as error:
        sys.exit(f"Nothing can be written under {data}: {error.strerror}. Choose another CAPTIONER_DATA_DIR.")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        sys.exit(
            f"Captioner runs on {data} already, as process {lock.read().strip()}. "
            "Stop it, or choose another folder: make run CAPTIONER_DATA_DIR=/another/folder PORT=8001"
        )
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock


def port_check(host: str, port: int) -> None:
    """Exits when the address is taken: nobody likes to find that out from a traceback."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        sys.exit(
            f"Cannot listen on {host}:{port}: {error.strerror}. Stop what uses it, or choose another: make run PORT=8001"
        )


def supervise() -> int:
    """Run the supervisor until it ends; the status to exit with. Signals that end us end it first."""
    told_to_stop = False

    def stop(number: int, _frame: object) -> None:
        nonlocal told_to_stop
        told_to_stop = True
        with contextlib.suppress(ProcessLookupError):
            supervisor.send_signal(number)

    # In a group of its own, so that Ctrl-C comes through us, once.
    supervisor = subprocess.Popen(
        [Path(sys.prefix, "bin", "supervisord"), "--configuration", DEPLOY / "supervisord.conf"],
        process_group=0,
    )
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)
    supervisor.wait()
    return 0 if told_to_stop else 1


if __name__ == "__main__":
    main()
