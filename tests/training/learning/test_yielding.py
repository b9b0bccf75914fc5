"""A run is at the lowest priority, and nobody else is: not the session's other processes, not those after it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

# As `make run` starts them: a supervisor whose session holds the web server and, forked by Celery, the trainer.
_SUPERVISOR = """
import json, os, subprocess, sys
from pathlib import Path
import billiard

def run(begun, go):
    from training.learning.yielding import yield_processor
    yield_processor(19)
    begun.set()
    go.wait()

def seen():
    return Path(f"/proc/{web.pid}/autogroup").read_text().split()[-1]

web = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"])
begun, go = billiard.Event(), billiard.Event()
before = seen()
trainer = billiard.Process(target=run, args=(begun, go))
trainer.start()
begun.wait(60)
during = seen()
own = Path(f"/proc/{trainer.pid}/autogroup").read_text().split()[-1]
if sys.argv[1:]:
    print(trainer.pid, flush=True)
    trainer.join()
go.set()
trainer.join()
after = seen()
web.kill()
print(json.dumps([before, during, after, own, Path("/proc/self/autogroup").read_text().split()[-1]]))
"""


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="this kernel groups no sessions")
def test_the_web_server_keeps_its_priority_before_during_and_after_a_run() -> None:
    result = subprocess.run(
        [sys.executable, "-c", _SUPERVISOR],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        start_new_session=True,
    )
    before, during, after, trainer, session = json.loads(result.stdout)
    assert (before, during, after, session) == ("0", "0", "0", "0")
    assert trainer == "19"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no signal for the death of a parent")
def test_a_trainer_does_not_outlive_the_worker_it_belongs_to() -> None:
    supervisor = subprocess.Popen(
        [sys.executable, "-c", _SUPERVISOR, "stay"], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert supervisor.stdout is not None
    trainer = int(supervisor.stdout.readline())
    assert os.getsid(trainer) == trainer
    os.killpg(supervisor.pid, signal.SIGKILL)  # as supervisor does with what does not stop in time
    supervisor.wait()
    deadline = time.monotonic() + 30
    while psutil.pid_exists(trainer) and psutil.Process(trainer).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)
