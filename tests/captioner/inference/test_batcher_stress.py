"""Many threads at once, without a fake clock: whatever the interleaving, every promise is kept."""

import random
import threading
from collections import Counter
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor

import pytest
import torch

from captioner.exceptions import DeadlineExceeded, ModelUnavailable, Overloaded
from captioner.inference.batcher import Batcher
from captioner.inference.cost import CostModel
from captioner.inference.predictor import Predictor
from captioner.inference.types import DecodingParameters, Prediction
from tests.captioner.inference.fakes import PATIENCE, FakePredictor, caption, later, photo

PARAMETERS = [DecodingParameters(), DecodingParameters(num_beams=2), DecodingParameters(max_new_tokens=5)]


@pytest.mark.parametrize("max_batch", [1, 3, 8])
def test_every_caller_gets_the_answer_to_its_own_photo(max_batch: int) -> None:
    predictor = FakePredictor()
    batcher = Batcher(predictor, max_batch=max_batch, max_wait_seconds=PATIENCE)

    def call(number: int) -> str:
        future = batcher.submit(photo(number), PARAMETERS[number % 3], later())
        return caption(future.result(PATIENCE))

    with ThreadPoolExecutor(24) as pool:
        assert list(pool.map(call, range(1500))) == [str(number) for number in range(1500)]
    assert batcher.drain(PATIENCE)
    assert sorted(number for batch in predictor.batches for number in batch) == list(range(1500))
    assert max(len(batch) for batch in predictor.batches) <= max_batch


@pytest.mark.parametrize("seed", range(5))
def test_under_random_cancellation_errors_and_drain_every_future_is_resolved(seed: int) -> None:
    predictor = FakePredictor()

    def fail_sometimes(numbers: list[int]) -> None:
        if any(number % 17 == 0 for number in numbers):
            raise ArithmeticError

    predictor.on_predict = fail_sometimes
    # Predicted to be slow, so that the bound is reached too.
    batcher = Batcher(predictor, max_batch=4, max_wait_seconds=2, cost=CostModel([(1, 0.2), (4, 0.8)]))
    futures: dict[int, Future[Prediction]] = {}
    refused: Counter[type] = Counter()
    half_way = threading.Event()

    def call(number: int) -> None:
        generator = random.Random(seed * 10_000 + number)
        if number == 400:
            half_way.set()
        try:
            future = batcher.submit(
                photo(number), generator.choice(PARAMETERS), later(generator.choice([0, 9]))
            )
        except (Overloaded, ModelUnavailable) as error:
            refused[type(error)] += 1
            return
        futures[number] = future
        if generator.random() < 0.3:
            future.cancel()

    def drain() -> bool:
        half_way.wait(PATIENCE)
        return batcher.drain(PATIENCE)

    with ThreadPoolExecutor(16) as pool:
        drained = pool.submit(drain)
        list(pool.map(call, range(800)))
        assert drained.result(PATIENCE)
    outcomes = Counter(outcome(number, future) for number, future in futures.items())
    assert outcomes.total() + refused.total() == 800
    assert set(outcomes) <= {"answered", "cancelled", "expired", "failed"}
    inferred = [number for batch in predictor.batches for number in batch]
    assert len(inferred) == len(set(inferred)) == outcomes["answered"] + outcomes["failed"]


def outcome(number: int, future: Future[Prediction]) -> str:
    assert future.done()
    try:
        assert caption(future.result()) == str(number)
    except CancelledError:
        return "cancelled"
    except DeadlineExceeded:
        return "expired"
    except ArithmeticError:
        return "failed"
    return "answered"


def test_a_real_model_gives_each_photo_the_caption_it_gets_alone(
    predictors: dict[str, Predictor], photos: torch.Tensor
) -> None:
    predictor, parameters = predictors["focalnet_gpt2"], DecodingParameters(max_new_tokens=10)
    alone = [predictor.predict(one[None], parameters)[0][0].caption for one in photos]
    batcher = Batcher(predictor, max_batch=4, max_wait_seconds=PATIENCE)

    def call(index: int) -> str:
        return caption(batcher.submit(photos[index], parameters, later()).result(PATIENCE))

    indices = [number % len(photos) for number in range(60)]
    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(call, indices)) == [alone[index] for index in indices]
    assert batcher.drain(PATIENCE)
    assert batcher.stats().photos == 60
