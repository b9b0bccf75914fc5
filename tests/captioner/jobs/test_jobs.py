"""Batch jobs: nothing is lost, nothing is doubled, and one bad photo stops no other."""

import contextlib
import io
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.files.storage import storages
from django.core.management import call_command
from django.db import DatabaseError
from django.test import Client
from django.utils import timezone
from kombu.exceptions import OperationalError

from captioner.captions.api_keys import api_key_create
from captioner.celery import app
from captioner.exceptions import DeadlineExceeded, InvalidArchive, ModelUnavailable, Overloaded
from captioner.jobs import services as jobs
from captioner.jobs import sweeps, worker
from captioner.jobs.archives import SentPhoto
from captioner.models import Caption, Job, JobPhoto, Owner
from captioner.serving.process import serving
from captioner.tasks import job_photos_caption_task
from tests.conftest import FakeEngine, draw_jpeg

pytestmark = pytest.mark.django_db(transaction=True)

Message = tuple[str, list[int]]


class Broker:
    """Keeps messages instead of sending them; `is_away` refuses them."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.is_away = False

    def send(self, task: str, arguments: Message, **options: object) -> None:
        assert task == job_photos_caption_task.name, "a worker would not know it"
        if self.is_away:
            raise OperationalError("Connection refused")
        self.messages.append(arguments)

    def work(self) -> None:
        """What a worker does with all messages that are there now."""
        messages, self.messages = self.messages, []
        for job_id, indexes in messages:
            worker.job_photos_caption(uuid.UUID(job_id), indexes)


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    broker = Broker()
    monkeypatch.setattr(app, "send_task", broker.send)
    monkeypatch.setattr(sweeps, "queue_is_empty", lambda: not broker.messages and not broker.is_away)
    return broker


@pytest.fixture(autouse=True)
def engine(fake_engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    monkeypatch.setattr(serving, "refresh", lambda **options: fake_engine)
    return fake_engine


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[timedelta]]:
    """How far the jobs' clock is ahead; change its only entry."""
    ahead, real = [timedelta(0)], timezone.now
    monkeypatch.setattr(timezone, "now", lambda: real() + ahead[0])
    return ahead


def photo(data: bytes, name: str = "photo.jpg") -> SentPhoto:
    return SentPhoto(name, len(data), lambda: data)


def photos(count: int) -> list[SentPhoto]:
    return [photo(draw_jpeg((10 + n, 10)), f"{n}.jpg") for n in range(count)]


def create(sent: list[SentPhoto], owner: Owner, **options) -> Job:
    return jobs.job_create(sent, owner=owner, **options)


def states(job: Job) -> list[str]:
    return [state for (state,) in job.photos.order_by("index").values_list("state")]


def uploads() -> list[str]:
    storage = storages["uploads"]
    try:
        folders, _ = storage.listdir("")
    except FileNotFoundError:
        return []
    return [f"{folder}/{name}" for folder in folders for name in storage.listdir(folder)[1]]


def finished(job: Job) -> bool:
    job.refresh_from_db()
    return job.status == Job.Status.FINISHED and job.finished_at is not None


# --- The usual way ---


def test_photos_are_captioned_in_chunks_and_logged_like_any_other(broker: Broker, user: User) -> None:
    job = create(photos(20), Owner(user=user))
    assert job.status == Job.Status.QUEUED
    assert [len(indexes) for _, indexes in broker.messages] == [16, 4]
    assert len(uploads()) == 20
    broker.work()
    assert finished(job)
    captions = Caption.objects.owned_by(Owner(user=user)).order_by("job_photo__index")
    assert [caption.text for caption in captions] == [f"a {10 + n} by 10 photo" for n in range(20)]
    assert {caption.source for caption in captions} == {"batch"}
    assert uploads() == [], "what was sent is not kept"


def test_a_key_makes_captions_of_its_own_and_its_users(broker: Broker, user: User) -> None:
    api_key, _ = api_key_create(user, "script")
    job = create(photos(1), Owner(api_key=api_key))
    broker.work()
    caption = Caption.objects.get()
    assert (caption.api_key, caption.user, caption.job_photo.job) == (api_key, user, job)


def test_wishes_are_those_of_every_photo(broker: Broker, visitor: Owner, engine: FakeEngine) -> None:
    create(photos(2), visitor, options={"num_captions": 2})
    broker.work()
    assert {(wish.num_captions, wish.num_beams) for wish in engine.submitted} == {(2, 2)}
    assert all(caption.alternatives for caption in Caption.objects.all())


def test_a_bad_photo_is_told_and_stops_no_other(broker: Broker, visitor: Owner) -> None:
    too_large = SentPhoto("huge.jpg", 2**30, lambda: pytest.fail("this need not be read"))
    job = create([photo(b"no photo", "notes.txt"), *photos(1), photo(b"", "empty.jpg"), too_large], visitor)
    broker.work()
    assert finished(job)
    assert states(job) == ["failed", "captioned", "failed", "failed"]
    told = job.photos.filter(state="failed").values_list("name", "reason").order_by("index")
    assert list(told) == [("notes.txt", "not_an_image"), ("empty.jpg", "empty"), ("huge.jpg", "too_large")]
    assert all(job.photos.filter(state="failed").values_list("error", flat=True))


def test_a_job_of_nothing_but_refused_photos_is_over_at_once(broker: Broker, visitor: Owner) -> None:
    job = create([SentPhoto("huge.jpg", 2**30, bytes)], visitor)
    assert finished(job)
    assert broker.messages == []


def test_an_archive_that_turns_out_damaged_leaves_nothing(broker: Broker, visitor: Owner) -> None:
    def damaged() -> bytes:
        raise InvalidArchive("1.jpg in the archive is damaged.", reason="damaged")

    with pytest.raises(InvalidArchive):
        create([*photos(3), SentPhoto("bad.jpg", 5, damaged)], visitor)
    assert (Job.objects.count(), uploads(), broker.messages) == (0, [], [])


# --- Messages that are doubled, late or lost ---


def test_a_message_that_comes_twice_doubles_nothing(broker: Broker, visitor: Owner) -> None:
    job = create(photos(5), visitor)
    broker.messages *= 3
    broker.work()
    assert finished(job)
    assert Caption.objects.count() == 5


def test_two_workers_at_the_same_photo_log_one_caption(
    broker: Broker,
    visitor: Owner,
    engine: FakeEngine,
    monkeypatch: pytest.MonkeyPatch,
    clock: list[timedelta],
) -> None:
    """The slow one has lost its lease to another, which is done, when it has its caption at last."""
    job = create(photos(1), visitor)
    [(job_id, indexes)] = broker.messages
    submit, overtaken = engine.submit, []

    def slow_submit(*arguments: object):
        if not overtaken:
            overtaken.append(True)
            clock[0] = timedelta(minutes=10)
            worker.job_photos_caption(uuid.UUID(job_id), indexes)
        return submit(*arguments)

    monkeypatch.setattr(engine, "submit", slow_submit)
    broker.work()
    assert overtaken
    assert Caption.objects.count() == 1
    assert finished(job)
    assert states(job) == ["captioned"]


def test_a_photo_another_worker_has_is_left_to_it(broker: Broker, visitor: Owner) -> None:
    job = create(photos(2), visitor)
    job.photos.filter(index=0).update(leased_until=timezone.now() + timedelta(seconds=60))
    broker.work()
    assert states(job) == ["pending", "captioned"]
    assert not finished(job)


def test_a_job_is_accepted_while_the_broker_is_away_and_found_afterwards(
    broker: Broker, visitor: Owner
) -> None:
    broker.is_away = True
    job = create(photos(20), visitor)
    assert job.status == Job.Status.QUEUED
    assert sweeps.jobs_sweep() == 0
    broker.is_away = False
    assert sweeps.jobs_sweep() == 20
    assert sweeps.jobs_sweep() == 0, "once is enough"
    broker.work()
    assert finished(job)


def test_messages_that_a_restarted_broker_forgot_are_sent_again(
    broker: Broker, visitor: Owner, clock: list[timedelta]
) -> None:
    job = create(photos(3), visitor)
    broker.messages.clear()
    assert sweeps.jobs_sweep() == 0, "a moment ago is no reason"
    clock[0] = timedelta(seconds=20)
    assert sweeps.jobs_sweep() == 3
    broker.work()
    assert finished(job)


def test_what_waits_behind_other_work_is_not_sent_again(
    broker: Broker, visitor: Owner, clock: list[timedelta]
) -> None:
    create(photos(3), visitor)
    clock[0] = timedelta(minutes=30)
    assert sweeps.jobs_sweep() == 0
    assert len(broker.messages) == 1


def test_the_photos_of_a_dead_worker_are_tried_alone(
    broker: Broker, visitor: Owner, clock: list[timedelta], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = create(photos(3), visitor)
    with monkeypatch.context() as patch:
        patch.setattr(worker, "_caption", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            broker.work()
    assert sweeps.jobs_sweep() == 0, "it may be alive"
    clock[0] = timedelta(minutes=5)
    assert sweeps.jobs_sweep() == 3
    assert [indexes for _, indexes in broker.messages] == [[0], [1], [2]]
    broker.work()
    assert finished(job)


def test_a_photo_that_ends_its_worker_each_time_is_given_up_and_the_others_are_not(
    broker: Broker, visitor: Owner, clock: list[timedelta], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = create(photos(3), visitor)
    caption, deaths = worker._caption, []

    def deadly(job: Job, claimed: list[JobPhoto]) -> None:
        if any(photo.index == 1 for photo in claimed):
            deaths.append([photo.index for photo in claimed])
            raise KeyboardInterrupt
        caption(job, claimed)

    monkeypatch.setattr(worker, "_caption", deadly)
    for _ in range(10):
        while broker.messages:
            message = broker.messages.pop(0)
            with contextlib.suppress(KeyboardInterrupt):
                worker.job_photos_caption(uuid.UUID(message[0]), message[1])
        clock[0] += timedelta(minutes=5)
        sweeps.jobs_sweep()
    assert deaths == [[0, 1, 2], [1], [1]]
    assert states(job) == ["captioned", "failed", "captioned"]
    assert job.photos.get(index=1).reason == "gave_up"
    assert finished(job)
    assert uploads() == []


# --- What passes, and what does not ---


def pass_time(broker: Broker, clock: list[timedelta], times: int) -> None:
    for _ in range(times):
        broker.work()
        clock[0] += timedelta(minutes=1)
        sweeps.jobs_sweep()


def test_a_model_that_is_not_ready_costs_no_attempt(
    broker: Broker, visitor: Owner, engine: FakeEngine, clock: list[timedelta]
) -> None:
    job = create(photos(2), visitor)
    engine.error = ModelUnavailable("loading")
    pass_time(broker, clock, 10)
    assert states(job) == ["pending"] * 2
    engine.error = None
    pass_time(broker, clock, 1)
    assert finished(job)


def test_a_photo_that_never_gets_its_turn_is_given_up_after_three_times(
    broker: Broker, visitor: Owner, engine: FakeEngine, clock: list[timedelta]
) -> None:
    job = create(photos(1), visitor)
    engine.error = DeadlineExceeded("too late")
    pass_time(broker, clock, 6)
    assert finished(job)
    [failed] = job.photos.all()
    assert (failed.reason, failed.attempts) == ("gave_up", 3)
    assert "too late" in failed.error


def test_a_storage_that_is_away_sinks_nothing(
    broker: Broker, visitor: Owner, clock: list[timedelta], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = create(photos(2), visitor)
    with monkeypatch.context() as patch:

        def away(_: JobPhoto) -> bytes:
            raise ConnectionError("no route to host")

        patch.setattr(worker, "upload_read", away)
        for _ in range(10):
            with pytest.raises(ConnectionError):
                broker.work()
            clock[0] += timedelta(minutes=1)
            sweeps.jobs_sweep()
    assert {row.attempts for row in job.photos.all()} == {0}
    broker.work()
    assert finished(job)


def test_a_defect_of_the_model_is_tried_three_times_for_each_photo_alone(
    broker: Broker, visitor: Owner, engine: FakeEngine, clock: list[timedelta]
) -> None:
    job = create(photos(2), visitor)
    engine.error = RuntimeError("cannot multiply")
    tried = []
    for _ in range(5):
        while broker.messages:
            message = broker.messages.pop(0)
            tried.append(message[1])
            with contextlib.suppress(RuntimeError):
                worker.job_photos_caption(uuid.UUID(message[0]), message[1])
        clock[0] += timedelta(minutes=5)
        sweeps.jobs_sweep()
    # The last time each is only found to have been tried too often.
    assert tried == [[0, 1], *[[0], [1]] * 3]
    assert states(job) == ["failed", "failed"]
    assert finished(job)


def test_a_photo_whose_bytes_are_lost_fails_alone(broker: Broker, visitor: Owner) -> None:
    job = create(photos(2), visitor)
    storages["uploads"].delete(job.photos.get(index=0).input)
    broker.work()
    assert states(job) == ["failed", "captioned"]
    assert job.photos.get(index=0).reason == "lost"


def test_a_caption_that_cannot_be_logged_is_made_again(
    broker: Broker, visitor: Owner, clock: list[timedelta], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = create(photos(1), visitor)
    with monkeypatch.context() as patch:

        def fail(*_: object) -> None:
            raise DatabaseError("server closed the connection")

        patch.setattr(worker, "_captioned", fail)
        with pytest.raises(DatabaseError):
            broker.work()
    assert not Caption.objects.exists()
    pass_time(broker, clock, 2)
    assert finished(job)
    assert Caption.objects.count() == 1


# --- Ends ---


def test_a_cancelled_job_captions_no_more_and_keeps_what_it_has(broker: Broker, visitor: Owner) -> None:
    job = create(photos(20), visitor)
    first = broker.messages.pop(0)
    worker.job_photos_caption(uuid.UUID(first[0]), first[1])
    jobs.job_cancel(job)
    broker.work()
    assert states(job) == ["captioned"] * 16 + ["cancelled"] * 4
    assert Caption.objects.count() == 16
    assert uploads() == []
    job.refresh_from_db()
    assert job.status == Job.Status.CANCELLED


def test_a_photo_that_is_being_captioned_while_its_job_is_cancelled_is_not_logged(
    broker: Broker, visitor: Owner, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = create(photos(1), visitor)
    submit = engine.submit

    def cancelling(*arguments: object):
        jobs.job_cancel(job)
        return submit(*arguments)

    monkeypatch.setattr(engine, "submit", cancelling)
    broker.work()
    assert not Caption.objects.exists()
    assert states(job) == ["cancelled"]


def test_cancelling_what_is_finished_changes_nothing(broker: Broker, visitor: Owner) -> None:
    job = create(photos(1), visitor)
    broker.work()
    jobs.job_cancel(job)
    assert finished(job)


def test_a_job_that_is_gone_is_no_error(broker: Broker, user: User) -> None:
    create(photos(2), Owner(user=user))
    user.delete()
    broker.work()
    assert not Caption.objects.exists()


def test_what_is_left_of_jobs_that_are_gone_is_removed(
    broker: Broker, user: User, visitor: Owner, clock: list[timedelta]
) -> None:
    create(photos(2), Owner(user=user))
    kept = create(photos(1), visitor)
    Job.objects.create(visitor=visitor.visitor, photo_count=1)
    user.delete()
    assert sweeps.uploads_sweep() == 1
    assert uploads() == [f"{kept.pk}/000000"]
    assert Job.objects.count() == 2, "one may still be coming in"
    clock[0] = timedelta(hours=2)
    sweeps.uploads_sweep()
    assert list(Job.objects.all()) == [kept]


def test_a_job_whose_last_worker_died_before_it_said_so_is_finished_by_the_sweep(
    broker: Broker, visitor: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = create(photos(1), visitor)
    with monkeypatch.context() as patch:
        patch.setattr(worker, "job_finish_if_done", lambda _: None)
        patch.setattr(worker, "uploads_clear", lambda _: None)
        broker.work()
    assert not finished(job)
    sweeps.jobs_sweep()
    assert finished(job)
    assert uploads() == []


def test_a_job_that_ran_when_everything_was_backed_up_is_finished_after_a_restore(
    broker: Broker, user: User, tmp_path: Path
) -> None:
    """One photo was captioned between the dump of the database and the copy of the uploads: its sender is told."""
    job = create(photos(3), Owner(user=user))
    captioned_meanwhile = job.photos.get(index=1).input
    storages["uploads"].delete(captioned_meanwhile)
    call_command("objects", "export", tmp_path / "backup", stdout=io.StringIO())

    for name in uploads():
        storages["uploads"].delete(name)
    broker.messages.clear()
    job.photos.update(leased_until=timezone.now() + timedelta(minutes=1))  # by a worker that is no more
    output = io.StringIO()
    call_command("objects", "import", tmp_path / "backup", stdout=output)

    assert (
        f"Job {job.pk} of ada: 1 of 3 photos were captioned after the database was dumped"
        in output.getvalue()
    )
    sweeps.jobs_sweep()
    broker.work()
    assert states(job) == ["captioned", "failed", "captioned"]
    assert job.photos.get(index=1).reason == "lost"
    assert "Send it again" in job.photos.get(index=1).error
    assert finished(job)


def test_administrators_see_jobs_and_what_failed(
    broker: Broker, client: Client, reviewer: User, user: User
) -> None:
    job = create([*photos(2), photo(b"no photo", "notes.txt")], Owner(user=user))
    broker.work()
    client.force_login(reviewer)
    page = client.get("/admin/captioner/job/").content.decode()
    assert "of 3 photos" in page
    assert "ada" in page
    page = client.get(f"/admin/captioner/job/{job.pk}/change/").content.decode()
    assert "notes.txt" in page
    assert "0.jpg" not in page
    assert client.post(f"/admin/captioner/job/{job.pk}/delete/").status_code == 403


# --- How much of one caller waits ---


def test_so_many_jobs_of_a_caller_wait(broker: Broker, visitor: Owner, settings) -> None:
    settings.JOB_MAX_WAITING = 2
    cancelled, _ = create(photos(1), visitor, caller="a"), create(photos(1), visitor, caller="a")
    with pytest.raises(Overloaded) as caught:
        create(photos(1), visitor, caller="a")
    assert caught.value.retry_after > 0
    assert Job.objects.count() == 2
    assert len(uploads()) == 2, "nothing of what was refused is kept"
    create(photos(1), visitor, caller="b")
    jobs.job_cancel(cancelled)
    create(photos(1), visitor, caller="a")
    broker.work()
    create(photos(1), visitor, caller="a")
    assert Job.objects.exclude(caller="").count() == 1, "who it was is kept no longer than the job waits"


def test_so_many_bytes_of_a_caller_wait(broker: Broker, visitor: Owner, settings) -> None:
    settings.JOB_MAX_WAITING_MEGABYTES = settings.JOB_MAX_MEGABYTES = 1
    large = photo(draw_jpeg() + bytes(600_000))
    create([large], visitor, caller="a")
    with pytest.raises(Overloaded):
        create([large], visitor, caller="a")
    create(photos(1), visitor, caller="a")
    too_large = SentPhoto("huge.jpg", 2**30, lambda: pytest.fail("this need not be read"))
    create([too_large], visitor, caller="a")  # of which nothing is kept
