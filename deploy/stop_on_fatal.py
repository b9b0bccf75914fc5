"""Supervisor's event listener: when the web server cannot be started, ends the rest, which is of no use without it."""

import os
import signal
import sys

while True:
    sys.stdout.write("READY\n")
    sys.stdout.flush()
    header = dict(pair.split(":") for pair in sys.stdin.readline().split())
    if not header:
        break  # supervisor is gone
    event = dict(pair.split(":") for pair in sys.stdin.read(int(header["len"])).split())
    if event["processname"] == "web":
        sys.stderr.write("The web server cannot be started; see above. Stopping.\n")
        os.kill(os.getppid(), signal.SIGTERM)
    sys.stdout.write("RESULT 2\nOK")
    sys.stdout.flush()
