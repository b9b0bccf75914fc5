"""However many photos come at once, reading them takes bounded memory, or they are refused in time."""

import math
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from captioner.exceptions import InvalidImage, Overloaded
from captioner.intake import memory
from captioner.intake.decode import photo_decode
from captioner.intake.limits import DECODE_MEMORY
from tests import corpus


def test_photos_share_the_memory_they_may_take() -> None:
    budget = memory.MemoryBudget(100)
    running, most = 0, 0
    lock = threading.Lock()

    def use(size: int) -> None:
        nonlocal running, most
        for _ in range(50):
            with budget.reserve(size, math.inf):
                with lock:
                    running += size
                    most = max(most, running)
                with lock:
                    running -= size

    threads = [threading.Thread(target=use, args=(size,)) for size in (10, 30, 60, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert running == 0
    assert most <= 100


def test_memory_is_given_back_after_a_photo_that_cannot_be_read() -> None:
    for _ in range(20):
        with pytest.raises(InvalidImage):
            photo_decode(corpus.BROKEN["webp cut"]())
        with pytest.raises(InvalidImage):
            photo_decode(corpus.BROKEN["png cut"]())

    assert memory.BUDGET.free == DECODE_MEMORY


def test_an_error_does_not_hold_on_to_the_pixels() -> None:
    with pytest.raises(InvalidImage) as refusal:
        photo_decode(corpus.BROKEN["png cut"]())

    assert isinstance(refusal.value.__cause__, OSError)
    assert refusal.value.__cause__.__traceback__ is None


DECODE_ALL = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from captioner.intake.decode import photo_decode
from captioner.ops.heap import heap_share
from captioner.exceptions import InvalidImage, Overloaded

def megabytes(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))

def decode(path):
    try:
        photo_decode(path.read_bytes()).jpeg
    except InvalidImage:
        pass

heap_share()
files = sorted(Path(sys.argv[1]).iterdir())
decode(files[0])
at_rest = megabytes("VmRSS")
with ThreadPoolExecutor(8) as pool:
    list(pool.map(decode, files))
print(megabytes("VmHWM") - at_rest)
"""


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="reads the process's memory from Linux's /proc"
)
def test_eight_threads_read_the_whole_corpus_within_600_megabytes(tmp_path: Path) -> None:
    large = [build() for build in corpus.LARGE.values()]
    webp = corpus.LARGE["webp"]()
    others = [build() for build in (*corpus.BROKEN.values(), *corpus.ODD.values())]
    for number, data in enumerate([corpus.jpeg(), webp, webp, webp, *large, *others, *large]):
        (tmp_path / f"{number:03}").write_bytes(data)

    run = subprocess.run(
        [sys.executable, "-c", DECODE_ALL, str(tmp_path)], check=True, capture_output=True, text=True
    )

    assert float(run.stdout) < 600


def test_a_photo_that_cannot_be_decoded_in_time_is_refused() -> None:
    with ExitStack() as held:
        for _ in range(4):
            held.enter_context(memory.DECODERS)
        with pytest.raises(Overloaded) as caught:
            photo_decode(corpus.ODD["webp"](), max_wait_seconds=0.01)
    assert caught.value.retry_after > 0
    assert photo_decode(corpus.ODD["webp"](), max_wait_seconds=0.01).image


def test_a_photo_that_finds_no_memory_in_time_is_refused() -> None:
    with memory.BUDGET.reserve(DECODE_MEMORY, time.monotonic()), pytest.raises(Overloaded):
        photo_decode(corpus.ODD["webp"](), max_wait_seconds=0.01)
    assert photo_decode(corpus.ODD["webp"](), max_wait_seconds=0.01).image
