import math
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import pytest

from captioner.exceptions import DeadlineExceeded, ModelUnavailable, Overloaded
from captioner.inference import batcher as batcher_module
from captioner.inference.batcher import Batcher
from captioner.inference.cost import CostModel
from captioner.inference.types import DecodingParameters, Prediction, Seen
from tests.captioner.inference.fakes import PATIENCE, Clock, FakePredictor, caption, photo

GREEDY = DecodingParameters()
BEAMS = DecodingParameters(num_beams=3)
NEVER = math.inf
ONE_SECOND_PER_ROW = [(1, 1.0), (8, 8.0)]

Start = Callable[..., tuple[Batcher, FakePredictor]]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(batcher_module, "time", clock)
    return clock


@pytest.fixture
def start(clock: Clock) -> Iterator[Start]:
    """Starts a batcher whose model is busy with photo 0, unless told that it is idle."""
    started: list[tuple[Batcher, FakePredictor]] = []

    def start(*, idle: bool = False, **options: object) -> tuple[Batcher, FakePredictor]:
        predictor = FakePredictor(gated=True)
        batcher = Batcher(predictor, **options)
        started.append((batcher, predictor))
        if not idle:
            batcher.submit(photo(0), GREEDY, NEVER)
            predictor.wait_entered()
        return batcher, predictor

    yield start
    for batcher, predictor in started:
        predictor.open()
        assert batcher.drain(PATIENCE)


def submit(
    batcher: Batcher, *numbers: int, parameters: DecodingParameters = GREEDY
) -> list[Future[Prediction]]:
    return [batcher.submit(photo(number), parameters, NEVER) for number in numbers]


def fail(_: list[int]) -> None:
    raise MemoryError("no room for a batch of 1")


def answers(futures: list[Future[Prediction]]) -> list[str]:
    return [caption(future.result(PATIENCE)) for future in futures]


def test_a_lone_photo_does_not_wait_for_company(start: Start) -> None:
    batcher, predictor = start(idle=True)
    [future] = submit(batcher, 7)
    predictor.let()
    assert answers([future]) == ["7"]
    assert predictor.batches == [[7]]


def test_everything_queued_meanwhile_is_one_batch(start: Start) -> None:
    batcher, predictor = start()
    futures = submit(batcher, 1, 2, 3, 4, 5)
    predictor.open()
    assert answers(futures) == ["1", "2", "3", "4", "5"]
    assert predictor.batches == [[0], [1, 2, 3, 4, 5]]


def test_a_batch_has_at_most_max_batch_photos(start: Start) -> None:
    batcher, predictor = start(max_batch=4)
    futures = submit(batcher, *range(1, 11))
    predictor.open()
    assert answers(futures) == [str(number) for number in range(1, 11)]
    assert predictor.batches == [[0], [1, 2, 3, 4], [5, 6, 7, 8], [9, 10]]


def test_only_equal_parameters_share_a_batch_and_the_oldest_goes_first(start: Start) -> None:
    batcher, predictor = start(max_batch=3)
    futures = [
        batcher.submit(photo(number), BEAMS if number % 2 else GREEDY, NEVER) for number in range(1, 9)
    ]
    predictor.open()
    assert answers(futures) == [str(number) for number in range(1, 9)]
    assert predictor.batches == [[0], [1, 3, 5], [2, 4, 6], [7], [8]]
    assert predictor.parameters == [GREEDY, BEAMS, GREEDY, BEAMS, GREEDY]


def test_photos_of_different_shapes_do_not_share_a_batch(start: Start) -> None:
    batcher, predictor = start()
    futures = [batcher.submit(photo(number, size=1 + number % 2), GREEDY, NEVER) for number in (1, 2, 3)]
    predictor.open()
    assert answers(futures) == ["1", "2", "3"]
    assert predictor.batches == [[0], [1, 3], [2]]


def test_the_answer_says_how_it_came_about(start: Start, clock: Clock) -> None:
    batcher, predictor = start()
    futures = submit(batcher, 1, 2)
    clock.advance(0.5)
    predictor.let()
    predictor.wait_entered()
    clock.advance(0.25)
    predictor.let()
    prediction = futures[0].result(PATIENCE)
    assert (prediction.queue_seconds, prediction.inference_seconds) == (0.5, 0.25)
    assert (prediction.batch_size, prediction.model_version) == (2, "fake-1")


# Abandoned and late photos


def test_a_cancelled_photo_never_reaches_the_model(start: Start) -> None:
    batcher, predictor = start(max_batch=2)
    futures = submit(batcher, 1, 2, 3, 4)
    assert futures[0].cancel()
    assert futures[2].cancel()
    predictor.open()
    assert answers([futures[1], futures[3]]) == ["2", "4"]
    assert predictor.batches == [[0], [2, 4]]
    assert batcher.stats().rejects == {"cancelled": 2}


def test_a_photo_the_model_has_begun_cannot_be_cancelled(start: Start) -> None:
    batcher, predictor = start(idle=True)
    [future] = submit(batcher, 1)
    predictor.wait_entered()
    assert not future.cancel()
    predictor.let()
    assert answers([future]) == ["1"]


def test_a_photo_past_its_deadline_never_reaches_the_model(start: Start, clock: Clock) -> None:
    batcher, predictor = start()
    late = batcher.submit(photo(1), GREEDY, clock.now + 5)
    [patient] = submit(batcher, 2)
    clock.advance(5)
    predictor.open()
    assert answers([patient]) == ["2"]
    with pytest.raises(DeadlineExceeded, match="deadline passed"):
        late.result(PATIENCE)
    assert predictor.batches == [[0], [2]]
    assert batcher.stats().rejects == {"expired": 1}


def test_a_queue_of_nothing_but_abandoned_photos_is_emptied(start: Start, clock: Clock) -> None:
    batcher, predictor = start()
    [cancelled] = submit(batcher, 1)
    cancelled.cancel()
    late = batcher.submit(photo(2), GREEDY, clock.now + 1)
    clock.advance(1)
    predictor.open()
    assert isinstance(late.exception(PATIENCE), DeadlineExceeded)
    assert answers(submit(batcher, 3)) == ["3"]
    assert predictor.batches == [[0], [3]]


# Overload


def test_work_beyond_the_bound_is_refused_with_the_time_until_there_is_room(
    start: Start, clock: Clock
) -> None:
    batcher, predictor = start(max_wait_seconds=5, cost=CostModel(ONE_SECOND_PER_ROW))
    accepted = submit(batcher, 1, 2, 3, 4, 5)
    with pytest.raises(
        Overloaded, match=r"6\.0 seconds of work are queued\. Try again in 1 seconds"
    ) as refusal:
        submit(batcher, 6)
    assert refusal.value.retry_after == pytest.approx(1.0)
    clock.advance(refusal.value.retry_after)
    accepted += submit(batcher, 6)
    predictor.open()
    assert answers(accepted) == ["1", "2", "3", "4", "5", "6"]
    assert batcher.stats().rejects == {"overloaded": 1}


def test_who_asks_before_is_told_what_submitting_would_say(start: Start, clock: Clock) -> None:
    batcher, _ = start(max_wait_seconds=5, cost=CostModel(ONE_SECOND_PER_ROW))
    submit(batcher, 1, 2, 3, 4)
    batcher.room_check(GREEDY, clock.now + 100)
    with pytest.raises(Overloaded):
        batcher.room_check(GREEDY, clock.now + 3)
    submit(batcher, 5)
    with pytest.raises(Overloaded, match=r"6\.0 seconds of work are queued"):
        submit(batcher, 6)
    with pytest.raises(Overloaded, match=r"6\.0 seconds of work are queued"):
        batcher.room_check(GREEDY, clock.now + 100)


def test_an_idle_engine_has_room_for_anything(start: Start, clock: Clock) -> None:
    batcher, _ = start(idle=True, cost=CostModel(ONE_SECOND_PER_ROW))
    batcher.room_check(BEAMS, clock.now)


def test_work_that_would_miss_its_deadline_is_refused(start: Start, clock: Clock) -> None:
    batcher, _ = start(max_wait_seconds=100, cost=CostModel(ONE_SECOND_PER_ROW))
    submit(batcher, 1, 2)
    # One second for the running photo, two for those queued, one for its own.
    with pytest.raises(Overloaded) as refusal:
        batcher.submit(photo(3), GREEDY, clock.now + 3.5)
    assert refusal.value.retry_after == pytest.approx(0.5)
    with pytest.raises(Overloaded):
        batcher.submit(photo(3), BEAMS, clock.now + 4.5)
    batcher.submit(photo(3), GREEDY, clock.now + 4.5)


def test_beams_count_as_rows(start: Start) -> None:
    batcher, _ = start(cost=CostModel(ONE_SECOND_PER_ROW), max_wait_seconds=100)
    submit(batcher, 1, 2, parameters=BEAMS)
    assert batcher.stats().predicted_wait_seconds == pytest.approx(1 + 2 * 3)


def test_each_started_batch_costs_its_overhead(start: Start) -> None:
    batcher, _ = start(cost=CostModel([(1, 3.0), (2, 4.0)]), max_batch=4, max_wait_seconds=100)
    submit(batcher, *range(1, 7))
    # The running one, then a batch of four and a batch of two: n + 2 seconds each.
    assert batcher.stats().predicted_wait_seconds == pytest.approx((1 + 2) + (4 + 2) + (2 + 2))


def test_cancelled_photos_make_room(start: Start) -> None:
    batcher, _ = start(max_wait_seconds=5, cost=CostModel(ONE_SECOND_PER_ROW))
    accepted = submit(batcher, 1, 2, 3, 4, 5)
    accepted[0].cancel()
    submit(batcher, 6)


def test_an_idle_engine_takes_what_it_thinks_too_slow(start: Start, clock: Clock) -> None:
    batcher, predictor = start(idle=True, cost=CostModel([(1, 1000.0)]))
    predictor.open()
    for _ in range(2):
        future = batcher.submit(photo(1), GREEDY, clock.now + 1)
        assert answers([future]) == ["1"]


def test_an_engine_is_idle_again_after_an_error(start: Start, clock: Clock) -> None:
    batcher, predictor = start(idle=True, cost=CostModel([(1, 1000.0)]))
    predictor.open()
    predictor.on_predict = fail
    assert isinstance(submit(batcher, 1)[0].exception(PATIENCE), MemoryError)
    predictor.on_predict = lambda _: None
    future = batcher.submit(photo(2), GREEDY, clock.now + 1)
    assert answers([future]) == ["2"]


def test_finished_batches_teach_the_prediction(start: Start, clock: Clock) -> None:
    batcher, predictor = start(idle=True, cost=CostModel(prior=[(1, 0.15), (8, 0.85)]))
    predictor.open()
    stats = batcher.stats()
    assert (stats.seconds_per_row, stats.seconds_per_batch) == pytest.approx((0.1, 0.05))
    predictor.on_predict = lambda numbers: clock.advance(0.4 * len(numbers) + 0.2)
    for number in range(100):
        answers(submit(batcher, number))
    assert batcher.stats().seconds_per_row + batcher.stats().seconds_per_batch > 0.4


# Errors


def test_an_error_fails_its_batch_only(start: Start) -> None:
    batcher, predictor = start(max_batch=2)
    error = ValueError("no caption for photo 3")

    def fail_photo_3(numbers: list[int]) -> None:
        if 3 in numbers:
            raise error

    predictor.on_predict = fail_photo_3
    futures = submit(batcher, 1, 2, 3, 4, 5)
    predictor.open()
    assert answers([futures[0], futures[1], futures[4]]) == ["1", "2", "5"]
    assert futures[2].exception(PATIENCE) is error
    assert futures[3].exception(PATIENCE) is error
    assert batcher.stats().rejects == {"failed": 2}
    assert batcher.stats().is_alive


def test_a_model_that_loses_an_answer_is_an_error(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    batcher, predictor = start()
    futures = submit(batcher, 1, 2)
    monkeypatch.setattr(predictor, "look", lambda *_: [Seen(())])
    predictor.open()
    for future in futures:
        with pytest.raises(RuntimeError, match="1 answers to 2 photos"):
            future.result(PATIENCE)


def test_a_caller_may_submit_again_from_a_callback(start: Start) -> None:
    batcher, predictor = start(idle=True)
    chained: list[Future[Prediction]] = []
    second_was_submitted = threading.Event()

    def submit_second(_: Future[Prediction]) -> None:
        chained.extend(submit(batcher, 2))
        second_was_submitted.set()

    [first] = submit(batcher, 1)
    first.add_done_callback(submit_second)
    predictor.open()
    assert second_was_submitted.wait(PATIENCE)
    assert answers(chained) == ["2"]


# Swap and drain


def test_photos_end_on_the_version_they_were_submitted_to(start: Start) -> None:
    batcher, old = start()
    new = FakePredictor("fake-2")
    before = submit(batcher, 1, 2)
    batcher.swap(new)
    after = submit(batcher, 3, 4)
    old.open()
    assert answers(before + after) == ["1", "2", "3", "4"]
    assert [future.result().model_version for future in before + after] == ["fake-1"] * 2 + ["fake-2"] * 2
    assert (old.batches, new.batches) == ([[0], [1, 2]], [[3, 4]])


def test_drain_refuses_new_photos_and_answers_all_accepted_ones(start: Start) -> None:
    batcher, predictor = start(max_batch=4)
    futures = submit(batcher, *range(1, 21))
    results: list[bool] = []
    draining = threading.Thread(target=lambda: results.append(batcher.drain(PATIENCE)))
    draining.start()
    with batcher._changed:
        assert batcher._changed.wait_for(lambda: batcher._is_draining, PATIENCE)
    with pytest.raises(ModelUnavailable, match="shutting down"):
        submit(batcher, 21)
    predictor.open()
    draining.join(PATIENCE)
    assert answers(futures) == [str(number) for number in range(1, 21)]
    assert results == [True]
    stats = batcher.stats()
    assert (stats.is_alive, stats.is_draining, stats.queue_depth) == (False, True, 0)
    assert stats.rejects == {"draining": 1}


def test_drain_in_vain_fails_what_is_still_queued(start: Start) -> None:
    batcher, predictor = start(idle=True)
    [running] = submit(batcher, 1)
    predictor.wait_entered()
    queued = submit(batcher, 2, 3)
    assert not batcher.drain(timeout=0)
    for future in queued:
        assert isinstance(future.exception(PATIENCE), ModelUnavailable)
    predictor.open()
    assert answers([running]) == ["1"]
    assert predictor.batches == [[1]]


def test_draining_an_idle_batcher_twice_is_harmless(start: Start) -> None:
    batcher, _ = start(idle=True)
    assert batcher.drain(PATIENCE)
    assert batcher.drain(PATIENCE)


def test_stats_show_what_happened(start: Start) -> None:
    batcher, predictor = start()
    futures = submit(batcher, 1, 2, 3)
    assert batcher.stats().queue_depth == 3
    predictor.open()
    answers(futures)
    stats = batcher.stats()
    assert (stats.batches, stats.photos, stats.last_batch_size, stats.queue_depth) == (2, 4, 3, 0)
    assert stats.is_alive
    assert not stats.is_draining


# --- Telling others ---


def test_who_listens_is_told_each_batch_that_went_well(start: Start) -> None:
    batcher, predictor = start(max_batch=4)
    told: list[tuple[int, float]] = []
    batcher.on_batch = lambda size, seconds: told.append((size, seconds))
    futures = submit(batcher, 1, 2, 3)
    predictor.open()
    answers(futures)
    batcher.drain(PATIENCE)  # photos are answered first
    assert [size for size, _ in told] == [1, 3]


def test_a_listener_that_fails_costs_no_captions(start: Start) -> None:
    batcher, predictor = start(max_batch=4)
    predictor.open()

    def fail(size: int, seconds: float) -> None:
        raise OSError("No space left on device")

    batcher.on_batch = fail
    for _ in range(2):
        answers(submit(batcher, 1, 2))
    assert batcher.stats().is_alive


def test_a_sibling_has_a_thread_only_while_there_are_photos(start: Start) -> None:
    batcher, _ = start()
    others, threads = FakePredictor(), list[threading.Thread]()
    others.on_predict = lambda _: threads.append(threading.current_thread())
    sibling = batcher.sibling(others)
    for number in (1, 2):  # the second photo finds no thread left, and starts another
        assert answers(submit(sibling, number)) == [str(number)]
        threads[-1].join(PATIENCE)
        assert not threads[-1].is_alive()
        assert sibling.stats().is_alive
        assert sibling.is_idle
    assert threads[0] is not threads[1]
    assert sibling.drain(PATIENCE)
    with pytest.raises(ModelUnavailable):
        submit(sibling, 3)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_nobody_waits_for_a_thread_that_died(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    batcher, predictor = start(max_batch=1)

    def die() -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(batcher, "_next_batch", die)
    [future] = submit(batcher, 1)
    predictor.open()
    with pytest.raises(ModelUnavailable):
        future.result(PATIENCE)
    batcher.drain(PATIENCE)
    assert not batcher.stats().is_alive
    with pytest.raises(ModelUnavailable):
        submit(batcher, 3)
