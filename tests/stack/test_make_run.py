"""What `make run` does where it cannot run: deploy/run.py as a process of its own."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT, free_port

pytestmark = pytest.mark.stack


def run(data: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    environment = {"PATH": os.environ["PATH"], "CAPTIONER_DATA_DIR": str(data), **variables}
    return subprocess.run(
        [sys.executable, "deploy/run.py"],
        cwd=ROOT,
        env={"PORT": str(free_port()), **environment},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_a_folder_that_is_in_use_is_left_alone(tmp_path: Path) -> None:
    with (tmp_path / "run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("123\n")
        lock.flush()
        result = run(tmp_path)
    assert result.returncode == 1
    assert f"Captioner runs on {tmp_path} already, as process 123. Stop it" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["run.lock"]


@pytest.mark.parametrize(
    ("variables", "complaint"),
    [
        ({"PORT": "abc"}, "PORT='abc' is not a whole number.\n"),
        ({"WEB_WORKERS": "0"}, "WEB_WORKERS=0 is too small; the least allowed is 1.\n"),
    ],
)
def test_variables_that_cannot_work_are_told(
    tmp_path: Path, variables: dict[str, str], complaint: str
) -> None:
    result = run(tmp_path, **variables)
    assert (result.returncode, result.stderr) == (1, complaint)


def test_without_a_web_server_everything_ends(tmp_path: Path) -> None:
    result = run(tmp_path, GUNICORN_CMD_ARGS="--keyfile /does/not/exist --certfile /does/not/exist")
    assert result.returncode == 1
    assert "The web server cannot be started; see above. Stopping." in result.stdout + result.stderr
