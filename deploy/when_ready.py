"""Wait until this machine's web server is ready, then become a command: `python deploy/when_ready.py COMMAND ...`.

So a worker leaves the cores to the web server while that loads its model: there is nothing to do before. A server that
is not ready for long is waited for no more; what else there is to do does not need it.
"""

import contextlib
import os
import sys
import time
import urllib.request

SECONDS = 120

host = os.environ.get("HOST", "127.0.0.1")
if host in {"0.0.0.0", "::"}:  # noqa: S104  it listens on all addresses, this one included
    host = "127.0.0.1" if host == "0.0.0.0" else "::1"  # noqa: S104
address = f"http://{f'[{host}]' if ':' in host else host}:{os.environ.get('PORT', '8000')}/readyz"
ask = urllib.request.build_opener(urllib.request.ProxyHandler({})).open  # a proxy would ask its own machine
ends_at = time.monotonic() + SECONDS
while time.monotonic() < ends_at:
    with contextlib.suppress(OSError), ask(address, timeout=4):
        break
    time.sleep(0.5)
os.execv(sys.argv[1], sys.argv[1:])  # noqa: S606
