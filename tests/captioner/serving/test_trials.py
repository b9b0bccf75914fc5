"""The challenger is compared with the champion out of the log, and taken back when it surely is worse."""

import uuid
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from django.contrib.auth.models import User
from PIL import Image

from captioner.captions.captions import caption_create, caption_delete
from captioner.inference.types import DecodingParameters
from captioner.models import Caption, ChallengerTrial, Feedback, Owner
from captioner.serving import trials
from models_registry import promotions
from models_registry.models import Alias, ModelVersion, Promotion
from tests.conftest import FakeEngine, draw_jpeg, fake_prediction, metric
from tests.models_registry.versions import version_publish

pytestmark = pytest.mark.django_db

CANARY, SHADOW = ChallengerTrial.Kind.CANARY, ChallengerTrial.Kind.SHADOW


@pytest.fixture
def champion(tmp_path: Path) -> ModelVersion:
    version = version_publish(tmp_path, "champion")
    promotions.version_promote(version, reason="first")
    return version


@pytest.fixture
def challenger(tmp_path: Path, champion: ModelVersion) -> ModelVersion:
    version = version_publish(tmp_path, "challenger")
    promotions.version_promote(version, alias=Alias.Name.CHALLENGER, reason="try it")
    return version


@pytest.fixture
def log(user: User, fake_engine: FakeEngine):
    """Logs captions of a version that took so long, rated so."""
    template = caption_create(draw_jpeg(), owner=Owner(user=user), source=Caption.Source.WEB)

    def log(
        version: ModelVersion,
        count: int,
        ms: float = 100.0,
        rating: int | None = None,
        batch_size: int | None = 1,
        beams: int = 1,
    ) -> list[Caption]:
        made = []
        for number in range(count):
            caption = Caption(
                photo=template.photo,
                user=user,
                source=Caption.Source.WEB,
                text="a photo",
                model_name=version.model_name,
                model_version=version.pk,
                decoding={"num_beams": beams},
                inference_ms=ms,
                batch_size=batch_size,
            )
            caption.save()
            if rating is not None:
                Feedback.objects.create(caption=caption, rating=rating - number % 2)
            made.append(caption)
        return made

    return log


def taken_back() -> str | None:
    reason = trials.challenger_check()
    assert (promotions.challenger_get() is None) == (reason is not None)
    return reason


def test_there_is_nothing_to_compare_without_a_challenger(champion: ModelVersion) -> None:
    assert trials.challenger_compare() is None
    assert trials.challenger_check() is None


def test_both_are_compared_since_the_challenger_began(champion, challenger, log) -> None:
    log(champion, 4, ms=100, rating=8)
    captions = log(challenger, 2, ms=150, rating=6)
    trials.trial_record(captions[0].pk, CANARY, challenger.pk, RuntimeError("it cannot"))
    trials.trial_record(captions[0].pk, SHADOW, challenger.pk, fake_prediction(Image.new("RGB", (2, 2)), 1))
    comparison = trials.challenger_compare()
    first, second = comparison.records
    assert (first.captions, first.failures, first.batch_ms, first.mean_rating) == (4, 0, 100, 7.5)
    assert (second.captions, second.failures, second.timed, second.ratings) == (3, 1, 3, 2)
    assert second.batch_ms == 150


def test_a_good_challenger_stays(champion, challenger, log) -> None:
    log(champion, 50, ms=100, rating=8)
    log(challenger, 50, ms=110, rating=8)
    assert taken_back() is None


def test_one_that_fails_is_taken_back_logged_counted_and_alerted(client, champion, challenger, log) -> None:
    counted = metric(client, "captioner_challengers_taken_back_total")
    for caption in log(champion, 3):
        trials.trial_record(caption.pk, CANARY, challenger.pk, RuntimeError("it cannot"))
    assert taken_back() == "It failed 3 of 3 photos; at most 2.0% may fail."
    assert metric(client, "captioner_challengers_taken_back_total") == counted + 1
    entry = Promotion.objects.first()
    assert (entry.action, entry.cause, entry.version, entry.reason) == (
        Promotion.Action.CLEAR,
        Promotion.Cause.BREACH,
        challenger,
        "It failed 3 of 3 photos; at most 2.0% may fail.",
    )
    assert entry.report["challenger"]["failures"] == 3
    from models_registry.processes import alerts_current

    assert "taken back by itself" in alerts_current()[0]
    promotions.version_promote(challenger, alias=Alias.Name.CHALLENGER, reason="mended")
    assert alerts_current() == []
    assert taken_back() is None, "what it did before does not count"


def test_a_few_failures_among_many_captions_prove_nothing(champion, challenger, log) -> None:
    for caption in log(challenger, 100)[:3]:
        trials.trial_record(caption.pk, CANARY, challenger.pk, RuntimeError("it cannot"))
    assert taken_back() is None


def test_one_that_is_slow_is_taken_back_once_that_is_known(champion, challenger, log) -> None:
    log(champion, 10, ms=100)
    log(challenger, 9, ms=500)
    assert taken_back() is None
    log(challenger, 1, ms=500)
    assert "takes 500 ms over batches that take the champion 100" in taken_back()


def log_batches(
    log, version: ModelVersion, sizes: dict[int, int], slower: float = 1.0, beams: int = 1
) -> None:
    """So many batches of each size, which take what they take with equal weights, or so many times as long."""
    for size, count in sizes.items():
        log(version, size * count, ms=slower * beams * (40 + 20 * size), batch_size=size, beams=beams)


@pytest.mark.parametrize(
    ("champion_sizes", "challenger_sizes"),
    [
        ({8: 12, 1: 12}, {1: 30}),
        ({8: 12}, {1: 12}),
        ({1: 12}, {8: 12}),
        ({1: 30}, {1: 12, 8: 30}),
        ({1: 30, 8: 3}, {8: 12}),
        ({2: 15, 4: 15}, {1: 12, 8: 12}),
    ],
)
def test_one_of_equal_speed_stays_whatever_batches_it_gets(
    champion, challenger, log, champion_sizes: dict[int, int], challenger_sizes: dict[int, int]
) -> None:
    log_batches(log, champion, champion_sizes)
    log_batches(log, challenger, challenger_sizes)
    assert taken_back() is None


@pytest.mark.parametrize(
    ("champion_sizes", "challenger_sizes"),
    [
        ({8: 30, 1: 12}, {1: 12}),
        ({8: 12, 1: 12}, {8: 6, 1: 6}),
        ({1: 30, 8: 12}, {8: 12}),
        ({4: 12}, {2: 12}),
    ],
)
def test_a_slow_one_is_taken_back_whatever_batches_it_gets(
    champion, challenger, log, champion_sizes: dict[int, int], challenger_sizes: dict[int, int]
) -> None:
    log_batches(log, champion, champion_sizes)
    log_batches(log, challenger, challenger_sizes, slower=5.0)
    assert "It takes" in taken_back()


def test_a_batch_counts_once_however_many_photos_it_holds(champion, challenger, log) -> None:
    log_batches(log, champion, {8: 10})
    log_batches(log, challenger, {8: 9}, slower=5.0)
    comparison = trials.challenger_compare()
    assert [record.timed for record in comparison.records] == [9, 9]
    assert taken_back() is None
    log_batches(log, challenger, {8: 1}, slower=5.0)
    assert "It takes 1000 ms over batches that take the champion 200" in taken_back()


def test_searching_with_beams_is_compared_with_searching_with_beams(champion, challenger, log) -> None:
    log_batches(log, champion, {1: 30})
    log_batches(log, challenger, {1: 30}, beams=5)
    assert trials.challenger_compare().challenger.timed == 0
    assert taken_back() is None
    log_batches(log, champion, {1: 30}, beams=5)
    assert trials.challenger_compare().challenger.timed == 30
    assert taken_back() is None


def test_what_was_logged_without_its_batch_says_nothing_of_speed(champion, challenger, log) -> None:
    log(champion, 30, ms=100, batch_size=None)
    log(challenger, 30, ms=900, batch_size=None)
    assert trials.challenger_compare().champion.batch_ms is None
    assert taken_back() is None


def test_what_is_captioned_along_is_compared_with_what_was_answered(champion, challenger, log) -> None:
    for caption in log(champion, 12, ms=20):
        prediction = replace(fake_prediction(Image.new("RGB", (2, 2)), 1), inference_seconds=0.3)
        trials.trial_record(caption.pk, SHADOW, challenger.pk, prediction)
    assert "It takes 300 ms over batches that take the champion 20" in taken_back()


def test_one_that_is_rated_worse_is_taken_back_once_that_is_sure(champion, challenger, log) -> None:
    log(champion, 40, rating=8)
    log(challenger, 19, rating=5)
    assert taken_back() is None
    log(challenger, 1, rating=5)
    assert "rated 4.5 where the champion is rated 7.5" in taken_back()


def test_opinions_that_differ_widely_prove_nothing(champion, challenger, log) -> None:
    for version, good in ((champion, 12), (challenger, 8)):
        log(version, good, rating=10)
        log(version, 20 - good, rating=3)
    assert taken_back() is None


def test_ratings_that_were_rejected_do_not_count(champion, challenger, log) -> None:
    log(champion, 40, rating=8)
    log(challenger, 40, rating=3)
    Feedback.objects.filter(caption__model_version=challenger.pk).update(status=Feedback.Status.REJECTED)
    assert taken_back() is None


def test_a_successor_is_not_taken_back_for_it(champion, challenger, log, tmp_path, monkeypatch) -> None:
    for caption in log(champion, 3):
        trials.trial_record(caption.pk, CANARY, challenger.pk, RuntimeError("it cannot"))
    comparison = trials.challenger_compare()
    successor = version_publish(tmp_path, "successor")
    promotions.version_promote(successor, alias=Alias.Name.CHALLENGER, reason="better")
    monkeypatch.setattr(trials, "challenger_compare", lambda: comparison)
    trials.challenger_check()
    assert promotions.challenger_get() == successor


@pytest.mark.django_db(transaction=True)
def test_a_photo_that_was_deleted_meanwhile_leaves_no_trial(challenger) -> None:
    image = Image.new("RGB", (2, 2))
    trials.trial_record(uuid.uuid4(), SHADOW, challenger.pk, fake_prediction(image, 1))
    trials.trial_record(uuid.uuid4(), SHADOW, challenger.pk, RuntimeError("it cannot"))


def test_a_failed_photo_is_answered_and_the_failure_logged(
    user: User, fake_engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("it cannot")

    challenger = SimpleNamespace(
        version=SimpleNamespace(model_version="fake-2", default_parameters=DecodingParameters()),
        answers=lambda sha256: True,
        patience=lambda parameters: 10.0,
        submit=fail,
        report=trials.trial_record,
    )
    monkeypatch.setattr(fake_engine, "challenger", challenger)
    caption = caption_create(draw_jpeg(), owner=Owner(user=user), source=Caption.Source.API)
    trial = ChallengerTrial.objects.get()
    assert (caption.model_version, trial.caption, trial.model_version) == ("fake-1", caption, "fake-2")
    assert (trial.kind, trial.error) == ("canary", "RuntimeError: it cannot")
    caption_delete(caption)
    assert not ChallengerTrial.objects.exists()


def test_the_alert_that_it_was_taken_back_ends_with_what_is_done_next(
    champion, challenger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from models_registry import processes

    promotions.challenger_clear(reason="It failed.", report={"failures": 3}, cause=Promotion.Cause.BREACH)
    assert len(processes.alerts_current()) == 1
    with monkeypatch.context() as patch:
        patch.setattr(processes, "_NEWS_FOR", timedelta(0))
        assert processes.alerts_current() == []
    promotions.version_promote(version_publish(tmp_path, "next"), reason="better")
    assert processes.alerts_current() == []
