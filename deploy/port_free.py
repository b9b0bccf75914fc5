"""Exit with a helpful message when the address `make run` wants is taken."""

import socket
import sys
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from captioner.env import env_int, env_text

try:
    host, port = env_text("HOST", "127.0.0.1"), env_int("PORT", 8000, minimum=1, maximum=65535)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    socket.create_server((host, port), family=family).close()
except ImproperlyConfigured as error:
    raise SystemExit(str(error)) from error
except OSError as error:
    raise SystemExit(
        f"Cannot listen on {host}:{port}: {error.strerror}. Stop what uses it, or choose another: make run PORT=8001"
    ) from error
