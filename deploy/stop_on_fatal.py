"""Supervisor's event listener: when the web server cannot be started, ends the rest, which is of no use without it."""

import os
import signal
import sys

while True:
    print("READY", flush=True)
    header = dict(pair.split(":") for pair in sys.stdin.readline().split())
    if not header:
        break  # supervisor is gone
    event = dict(pair.split(":") for pair in sys.stdin.read(int(header["len"])).split())
    if event["processname"] == "web":
        print("The web server cannot be started; see above. Stopping.", file=sys.stderr, flush=True)
        os.kill(os.getppid(), signal.SIGTERM)
    print("RESULT 2\nOK", end="", flush=True)
