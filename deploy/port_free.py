"""Exit with a helpful message when the address `make run` wants is taken."""

import os
import socket

host, port = os.environ.get("HOST") or "127.0.0.1", int(os.environ.get("PORT") or 8000)
try:
    socket.create_server((host, port)).close()
except OSError as error:
    raise SystemExit(
        f"Cannot listen on {host}:{port}: {error.strerror}. Stop what uses it, or choose another: make run PORT=8001"
    ) from error
