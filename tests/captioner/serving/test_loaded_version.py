"""A version is warmed before anybody waits for it."""

import time

import pytest
from PIL import Image

from captioner.inference.types import DecodingParameters
from captioner.serving import loaded_version
from captioner.serving.loaded_version import LoadedVersion, version_warm
from tests.captioner.inference.fakes import FakePredictor, photo


class Predictor(FakePredictor):
    default_parameters = DecodingParameters()

    def preprocess(self, image: Image.Image):
        return photo(0)


@pytest.mark.parametrize(("max_batch", "sizes"), [(1, [1]), (6, [1, 6]), (8, [1, 8])])
def test_the_smallest_and_the_largest_batch_are_captioned_twice_and_the_second_round_is_timed(
    settings, monkeypatch: pytest.MonkeyPatch, max_batch: int, sizes: list[int]
) -> None:
    settings.CAPTION_MAX_BATCH = max_batch
    now, turns = [0.0], []
    predictor = Predictor("tiny")
    monkeypatch.setattr(loaded_version.time, "thread_time", lambda: now[0])

    def work(numbers: list[int]) -> None:
        first_round = len(turns) <= 2 * len(sizes)
        now[0] += 100.0 if first_round else 0.1 * len(numbers)

    predictor.on_predict = work
    timings = version_warm(LoadedVersion("tiny", "tiny", predictor), lambda: turns.append(1))
    assert [len(batch) for batch in predictor.batches] == [size for size in sizes for _ in range(2)] * 2
    assert [rows for rows, _ in timings] == [size * beams for size in sizes for beams in (1, 3)]
    assert [seconds for _, seconds in timings] == pytest.approx(
        [0.1 * size for size in sizes for _ in range(2)]
    )
    assert len(turns) == 4 * len(sizes)


def test_what_it_waited_for_others_is_not_counted() -> None:
    predictor = Predictor("tiny")
    predictor.on_predict = lambda _: time.sleep(0.1)
    timings = version_warm(LoadedVersion("tiny", "tiny", predictor))
    assert timings
    assert sum(seconds for _, seconds in timings) < 0.1


def test_what_the_model_raises_is_told(settings) -> None:
    predictor = Predictor("tiny")

    def fail(_: list[int]) -> None:
        raise MemoryError("no room")

    predictor.on_predict = fail
    with pytest.raises(MemoryError, match="no room"):
        version_warm(LoadedVersion("tiny", "tiny", predictor))
