"""The disk under the data folder is filled to its last byte while people caption photos, and freed again."""

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client import Client
from tests.photos import draw_photo
from tests.processes import missing
from tests.stack import figures, servers

pytestmark = pytest.mark.stack


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 75 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=75m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        missing("disks of a test's own may only be mounted by root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(path: Path) -> None:
    with contextlib.suppress(OSError), path.open("ab", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)


def test_reading_goes_on_and_writing_comes_back(disk: Path, tmp_path: Path) -> None:
    # The log lies elsewhere: supervisord ends where it cannot write its own.
    with servers.captioner(tmp_path, CAPTIONER_DATA_DIR=str(disk / "var")) as site:
        workers = site.status()["pid"]
        client = Client(site.url)
        first = client.caption(draw_photo(0))
        kept = [first.body["id"]]
        reads = [
            "/",
            "/captions/",
            "/jobs/",
            "/api/v1/captions",
            f"/captions/{kept[0]}",
            "/readyz",
            "/metrics",
        ]
        reads += [f"/api/v1/captions/{kept[0]}/photo"]
        filler, refused = disk / "filler", 0
        fill(filler)
        for number in range(1, 30):
            fill(filler)
            answer = client.caption(draw_photo(number), **first.cookie)
            assert answer.status in {201, 503}, answer
            if answer.status == 201:
                kept.append(answer.body["id"])
            refused += answer.status == 503
            for path in reads:
                assert client.request(path, **first.cookie).status == 200, path
        assert refused > 10
        filler.unlink()
        freed = time.monotonic()
        while (answer := client.caption(draw_photo(100), **first.cookie)).status != 201:
            assert time.monotonic() < freed + 10, answer
            time.sleep(0.2)
        figures.SHOWN.append(
            f"full disk: {refused} of 29 photos refused, back after {time.monotonic() - freed:.1f} s"
        )
        for caption in kept:
            assert client.request(f"/api/v1/captions/{caption}", **first.cookie).status == 200
        assert site.status()["pid"] == workers
        assert site.process.is_running
        assert "SIGBUS" not in site.log.read_text()
