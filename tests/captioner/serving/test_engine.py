"""Which version captions a photo, and what becomes of it when that one fails."""

import gc
import hashlib
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import pytest
from PIL import Image

from captioner.exceptions import ModelUnavailable, Overloaded
from captioner.inference.types import DecodingParameters, Prediction
from captioner.models import ChallengerTrial
from captioner.serving import engine as serving
from captioner.serving.engine import Engine, Ticket
from captioner.serving.loaded_version import LoadedVersion
from models_registry.models import Rollout
from tests.captioner.inference.fakes import PATIENCE, FakePredictor, photo

IMAGE = Image.new("RGB", (8, 8))
CANARY, SHADOW = ChallengerTrial.Kind.CANARY, ChallengerTrial.Kind.SHADOW


class Predictor(FakePredictor):
    """Looks at no photo, and is asked for no more than its version."""

    default_parameters = DecodingParameters()

    def preprocess(self, image: Image.Image):
        return photo(0)


class Reports(list):
    """What a challenger made; `wait` returns once there are so many."""

    def __call__(self, *report: object) -> None:
        self.append(report)

    def wait(self, count: int) -> None:
        deadline = time.monotonic() + PATIENCE
        while len(self) < count:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def version(name: str, **options: bool) -> LoadedVersion:
    return LoadedVersion(name, name, Predictor(name, **options))


@pytest.fixture
def reports() -> Reports:
    return Reports()


@pytest.fixture
def engine(settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    settings.CAPTION_MAX_BATCH = 2
    monkeypatch.setattr(serving, "_SHADOW_IDLE_SECONDS", 0.01)
    engine = Engine(version("champion"), max_wait_seconds=10)
    yield engine
    for each in engine.versions():
        each.predictor.open()
    assert engine.drain(PATIENCE)


@pytest.fixture
def challenge(engine: Engine, reports: Reports) -> Callable[..., LoadedVersion]:
    def start(canary: float = 1.0, shadow: float = 0.0, **options: bool) -> LoadedVersion:
        challenger = version("challenger", **options)
        engine.challenger_start(challenger, Rollout(canary_share=canary, shadow_share=shadow), reports)
        return challenger

    return start


def sha256(number: int) -> str:
    return hashlib.sha256(b"%d" % number).hexdigest()


def ask(engine: Engine, number: int = 0) -> Ticket:
    return engine.photo_submit(IMAGE, sha256(number), None, time.monotonic() + PATIENCE)


def fail(_: list[int]) -> None:
    raise RuntimeError("it cannot")


def test_without_a_challenger_the_champion_answers(engine: Engine) -> None:
    ticket = ask(engine)
    assert ticket.result(PATIENCE).model_version == ticket.version.model_version == "champion"


def test_the_challenger_answers_its_share_and_the_same_photos_each_time(
    engine: Engine, challenge: Callable[..., LoadedVersion]
) -> None:
    challenge(canary=0.3)
    rounds = [[ask(engine, n).result(PATIENCE).model_version for n in range(1000)] for _ in range(2)]
    assert rounds[0] == rounds[1]
    assert 260 < rounds[0].count("challenger") < 340
    engine.challenger.rollout = Rollout(canary_share=0.6)
    more = [ask(engine, n).result(PATIENCE).model_version for n in range(1000)]
    assert all(new == "challenger" for old, new in zip(rounds[0], more, strict=True) if old == "challenger")


def test_a_photo_that_the_challenger_fails_is_answered_by_the_champion_and_reported(
    engine: Engine, challenge: Callable[..., LoadedVersion], reports: Reports
) -> None:
    challenge().predictor.on_predict = fail
    ticket = ask(engine)
    assert ticket.result(PATIENCE).model_version == ticket.version.model_version == "champion"
    assert str(ticket.failure.error) == "it cannot"
    caption = uuid.uuid4()
    ticket.logged(caption)
    assert list(reports) == [(caption, CANARY, "challenger", ticket.failure.error)]


def test_so_is_one_that_the_challenger_cannot_even_look_at(
    engine: Engine, challenge: Callable[..., LoadedVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    challenger = challenge()
    monkeypatch.setattr(challenger.predictor, "preprocess", fail)
    ticket = ask(engine)
    assert ticket.result(PATIENCE).model_version == "champion"
    assert ticket.failure is not None


def test_and_one_that_it_takes_too_long_over(
    engine: Engine, challenge: Callable[..., LoadedVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "_PATIENCE_SECONDS", 0.1)
    challenger = challenge(gated=True)
    ticket = ask(engine)
    assert ticket.result(PATIENCE).model_version == "champion"
    assert ticket.failure is not None
    assert "far longer" in str(ticket.failure.error)
    challenger.predictor.open()


def test_while_it_may_still_answer_the_caller_is_told_to_wait(
    engine: Engine, challenge: Callable[..., LoadedVersion]
) -> None:
    challenger = challenge(gated=True)
    ticket = ask(engine)
    with pytest.raises(TimeoutError):
        ticket.result(0.01)
    challenger.predictor.open()
    assert ticket.result(PATIENCE).model_version == "challenger"
    assert ticket.failure is None


@pytest.mark.parametrize(
    "error", [Overloaded("busy", retry_after=1.0), ModelUnavailable("taken back")], ids=["busy", "gone"]
)
def test_a_challenger_without_room_has_done_nothing_wrong(
    engine: Engine,
    challenge: Callable[..., LoadedVersion],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    challenge()

    def refuse(*_: object) -> "Future[Prediction]":
        raise error

    monkeypatch.setattr(engine.challenger, "submit", refuse)
    ticket = ask(engine)
    assert ticket.result(PATIENCE).model_version == "champion"
    assert ticket.failure is None


def test_photos_queued_for_a_challenger_that_is_taken_back_are_answered(
    engine: Engine, challenge: Callable[..., LoadedVersion]
) -> None:
    challenger = challenge(gated=True)
    tickets = [ask(engine, n) for n in range(4)]
    challenger.predictor.wait_entered()
    engine.challenger_stop()
    challenger.predictor.open()
    assert {ticket.result(PATIENCE).model_version for ticket in tickets} <= {"champion", "challenger"}
    assert not any(ticket.failure for ticket in tickets)


def test_a_hanging_challenger_holds_up_nobody_elses_photo(
    engine: Engine, challenge: Callable[..., LoadedVersion]
) -> None:
    challenger = challenge(canary=0.5, gated=True)
    numbers = [n for n in range(50) if not engine.challenger.answers(sha256(n))]
    stuck = ask(engine, next(n for n in range(50) if engine.challenger.answers(sha256(n))))
    challenger.predictor.wait_entered()
    assert {ask(engine, n).result(PATIENCE).model_version for n in numbers} == {"champion"}
    challenger.predictor.open()
    stuck.result(PATIENCE)


def test_a_swap_ends_queued_photos_on_the_version_before_which_stays_warm(engine: Engine) -> None:
    old = engine.champion
    old.predictor._gated = True
    before = [ask(engine, n) for n in range(3)]
    engine.champion_swap(version("better"))
    after = ask(engine, 4)
    old.predictor.open()
    assert {ticket.result(PATIENCE).model_version for ticket in before} == {"champion"}
    assert after.result(PATIENCE).model_version == "better"
    assert engine.previous is old
    assert engine.loaded("champion") is old


def test_a_photo_is_never_captioned_by_a_version_it_was_not_preprocessed_for(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    better = version("better")

    def swap_meanwhile(image: Image.Image):
        engine.champion_swap(better)
        return photo(0)

    monkeypatch.setattr(engine.champion.predictor, "preprocess", swap_meanwhile)
    assert ask(engine).result(PATIENCE).model_version == "champion"
    assert ask(engine).result(PATIENCE).model_version == "better"


# --- In the shadow ---


def test_a_challenger_in_the_shadow_captions_along_and_answers_nobody(
    engine: Engine, challenge: Callable[..., LoadedVersion], reports: Reports
) -> None:
    challenge(canary=0.0, shadow=1.0)
    caption = uuid.uuid4()
    ticket = ask(engine)
    assert ticket.result(PATIENCE).model_version == "champion"
    ticket.logged(caption)
    reports.wait(1)
    [(seen, kind, name, outcome)] = reports
    assert (seen, kind, name, outcome.model_version) == (caption, SHADOW, "challenger", "challenger")


def test_it_waits_until_there_is_nothing_else_to_do(
    engine: Engine, challenge: Callable[..., LoadedVersion], reports: Reports
) -> None:
    challenger = challenge(canary=0.0, shadow=1.0)
    engine.champion.predictor._gated = True
    busy = ask(engine)
    engine.champion.predictor.wait_entered()
    engine.challenger.shadow_offer(uuid.uuid4(), IMAGE, sha256(0), DecodingParameters())
    time.sleep(0.2)
    assert challenger.predictor.batches == []
    engine.champion.predictor.open()
    busy.result(PATIENCE)
    reports.wait(1)


def test_how_it_failed_is_reported(
    engine: Engine, challenge: Callable[..., LoadedVersion], reports: Reports
) -> None:
    challenge(canary=0.0, shadow=1.0).predictor.on_predict = fail
    engine.challenger.shadow_offer(uuid.uuid4(), IMAGE, sha256(0), DecodingParameters())
    reports.wait(1)
    assert isinstance(reports[0][3], RuntimeError)


def test_it_sees_a_share_of_the_photos_and_keeps_few_of_them(
    engine: Engine, challenge: Callable[..., LoadedVersion], reports: Reports
) -> None:
    challenge(canary=0.0, shadow=0.0)
    engine.challenger.shadow_offer(uuid.uuid4(), IMAGE, sha256(0), DecodingParameters())
    assert not engine.challenger._samples
    engine.challenger.rollout = Rollout(shadow_share=1.0)
    engine.champion.predictor._gated = True
    busy = ask(engine)
    engine.champion.predictor.wait_entered()
    for number in range(100):
        engine.challenger.shadow_offer(uuid.uuid4(), IMAGE, sha256(number), DecodingParameters())
    assert len(engine.challenger._samples) <= serving._SHADOW_QUEUE
    engine.champion.predictor.open()
    busy.result(PATIENCE)


def test_its_threads_end_with_it(engine: Engine, challenge: Callable[..., LoadedVersion]) -> None:
    before = threading.active_count()
    challenge()
    engine.challenger_stop()
    deadline = time.monotonic() + PATIENCE
    while threading.active_count() > before:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_one_that_hangs_is_reported_photo_after_photo(
    engine: Engine, challenge: Callable[..., LoadedVersion], reports: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "_SHADOW_SECONDS", 0.1)
    monkeypatch.setattr(serving.Challenger, "patience", lambda *_: 0.1)
    challenger = challenge(canary=0.0, shadow=1.0, gated=True)
    for number in range(3):
        engine.challenger.shadow_offer(uuid.uuid4(), IMAGE, sha256(number), DecodingParameters())
    reports.wait(3)
    assert all(isinstance(outcome, TimeoutError) for *_, outcome in reports)
    challenger.predictor.open()


def test_a_challenger_that_is_tried_no_more_leaves_memory(
    engine: Engine, challenge: Callable[..., LoadedVersion]
) -> None:
    predictor = weakref.ref(challenge(canary=1.0, shadow=1.0).predictor)
    assert ask(engine).result(PATIENCE).model_version == "challenger"
    engine.challenger_stop()
    deadline = time.monotonic() + PATIENCE
    while predictor() is not None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
        engine.stopped_forget()
        gc.collect()
    assert engine._stopped == []
