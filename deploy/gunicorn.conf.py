"""Gunicorn: few workers, many threads, for batching needs concurrent requests in one process.

Never preloaded: torch and the engine are made after the fork, once per worker.
"""

import errno
import os
import select
import signal
import socket
import struct
from pathlib import Path
from types import FrameType
from typing import Any

from gunicorn.http.errors import NoMoreData, ParseException
from gunicorn.workers.gthread import ThreadWorker

from captioner import settings
from captioner.ops.heap import heap_share
from captioner.ops.logs import gunicorn_logging

# Threads of the model that wait for each other spin for a fraction of a millisecond, then sleep. Without the spinning,
# waking them for each of the many small operations of a token more than doubles the time of a caption; without the
# sleep, one takes the very core that another needs on a busy machine. Read by OpenMP when torch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
# Each process keeps its numbers in files of its own there, and whichever answers /metrics adds them up.
os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(settings.METRICS_DIR)


# Seconds that a client may be silent in the middle of its request, or take nothing of its answer. Each of these
# occupies a thread, and clients that all went silent would otherwise occupy every one of them for good.
STALL_SECONDS = 30


# Of a body that the application did not want, so many bytes are read, to keep the connection; a longer one ends it.
UNREAD_BYTES = 256 * 1024


class ClientSocket(socket.socket):
    """A client's connection, which counts as lost once it stalls.

    The kernel counts each wait. Python's own timeout would bound the whole of an answer, however fast it is read.
    """

    def __init__(self, accepted: socket.socket) -> None:
        super().__init__(fileno=accepted.detach())
        seconds = struct.pack("ll", STALL_SECONDS, 0)
        self.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, seconds)
        self.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, seconds)

    def recv(self, *args: Any) -> bytes:
        try:
            return super().recv(*args)
        except BlockingIOError:
            raise ConnectionResetError(errno.ECONNRESET, "The client is silent") from None

    def sendall(self, *args: Any) -> None:
        try:
            super().sendall(*args)
        except BlockingIOError:
            raise ConnectionResetError(errno.ECONNRESET, "The client does not read") from None


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """Gives up on clients that stall; told to stop, takes whoever has connected already and closes its door.

    The worker it extends leaves the listening socket open until the work is done: clients still connect, wait for as
    long as that takes, and are cut off at the end. A closed door sends them to another host at once.
    """

    def handle(self, conn: Any) -> Any:
        if not isinstance(conn.sock, ClientSocket):
            conn.sock = ClientSocket(conn.sock)
        return super().handle(conn)

    wsgi: Any

    def load_wsgi(self) -> None:
        """An answer whose request was not read to its end says that the connection ends with it.

        Else the client sends its next request on a connection that is being closed, and loses it.
        """
        super().load_wsgi()
        application = self.wsgi

        def answer(environ: dict[str, Any], start_response: Any) -> Any:
            response = application(environ, start_response)
            try:
                is_read = len(environ["wsgi.input"].read(UNREAD_BYTES + 1)) <= UNREAD_BYTES
            except (OSError, NoMoreData, ParseException):
                is_read = False
            if not is_read:
                start_response.__self__.force_close()
            return response

        self.wsgi = answer

    def set_accept_enabled(self, enabled: bool) -> None:
        super().set_accept_enabled(enabled)
        if self.alive:
            return
        for listener in self.sockets:
            while self.nr_conns < self.worker_connections and select.select([listener], [], [], 0)[0]:
                self.accept(listener)
            listener.close()
        self.sockets: list[Any] = []


wsgi_app = "captioner.wsgi:application"
bind = f"{f'[{settings.HOST}]' if ':' in settings.HOST else settings.HOST}:{settings.PORT}"
worker_class = Worker
workers = settings.WEB_WORKERS
threads = settings.WEB_THREADS
sendfile = False  # which knows no bound of a client that does not read
preload_app = False
timeout = 60  # seconds without a sign of life from a worker's main thread
graceful_timeout = settings.STOP_SECONDS  # for accepted requests after TERM
keepalive = 75  # seconds; longer than a proxy keeps its own connections
# Workers show they are alive by touching a file; in memory, so that a slow disk does not look like a dead worker.
_MEMORY = Path("/dev/shm")  # noqa: S108
worker_tmp_dir = str(_MEMORY) if _MEMORY.is_dir() else None
proc_name = "captioner-web"
if settings.LOG_FORMAT == "json":
    logconfig_dict = gunicorn_logging()
control_socket_disable = True  # it would lie outside of CAPTIONER_DATA_DIR, shared by all instances


def when_ready(server: Any) -> None:
    """Say once more where, for what the other processes say has moved it out of sight."""
    server.log.info("Captioner: http://%s/, administration: http://%s/admin/", bind, bind)


def post_fork(server: Any, worker: Any) -> None:
    heap_share()


def post_worker_init(worker: Any) -> None:
    """Start loading the model, and turn `/readyz` red as soon as this worker is told to stop."""
    from captioner.ops import metrics
    from captioner.ops.storage import data_dir_ensure
    from captioner.serving import follower
    from captioner.serving.process import serving

    data_dir_ensure()
    metrics.serving_start()
    stop: Any = signal.getsignal(signal.SIGTERM)

    def drain_then_stop(number: int, frame: FrameType | None) -> None:
        serving.drain_begin()
        stop(number, frame)

    signal.signal(signal.SIGTERM, drain_then_stop)
    follower.engine_start()


def child_exit(server: Any, worker: Any) -> None:
    """In the master, however the worker has ended: what it was doing does not count any more."""
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def worker_exit(server: Any, worker: Any) -> None:
    from captioner.serving.process import serving

    if os.getpid() == worker.pid and not serving.drain(timeout=graceful_timeout):
        # Torch still runs in a thread, on a model nobody uses yet: leaving the usual way would wait for it, or abort.
        os._exit(0)
