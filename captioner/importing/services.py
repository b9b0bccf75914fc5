"""Models that are wanted: asked for by somebody, or by `CAPTIONER_MODEL`; fetched and tried in the background.

The row is the queue: a message only says where to look, and a sweep finds what no message led to, or what was cut.
"""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

from celery import current_app
from django.conf import settings
from django.contrib.auth.models import AnonymousUser, User
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.db.models import F, Q
from django.utils import timezone
from kombu.exceptions import OperationalError as BrokerDown

from captioner.exceptions import CaptionerError, ImportRefused
from captioner.importing.checkpoints import Imported, checkpoint_import
from captioner.importing.hub import HubUnreachable, is_hub_id
from captioner.models import ModelImport
from models_registry.bundled import STARTER_NAME
from models_registry.exceptions import RegistryError
from models_registry.models import Alias

logger = logging.getLogger(__name__)

_TASK = "captioner.tasks.model_import_task"
_BEAT_SECONDS = 20.0
_STALE_AFTER = timedelta(seconds=3 * _BEAT_SECONDS)
_REVISION_MAX_LENGTH = 100  # what the column holds
_MOST_ATTEMPTS = 5  # that ended without a word: the process was killed, most likely for its memory
_TELL_SECONDS = 1.0  # between two notes of the progress
_LOG_SECONDS = 10.0  # between two lines of it in the log
_Status = ModelImport.Status


def import_request(
    source: str,
    revision: str = "",
    *,
    licence: str = "see the model card",
    promote: bool = True,
    by: User | None = None,
) -> ModelImport:
    """Have a model of the hub fetched, tried and published in the background.

    Raises `ImportRefused` as `import_check` does.
    """
    import_check(source, revision)
    try:
        with transaction.atomic():
            wanted = ModelImport.objects.create(
                source=source, revision=revision, licence=licence, promote=promote, requested_by=by
            )
    except IntegrityError:
        raise ImportRefused(f"{source} is being imported already.") from None
    transaction.on_commit(lambda: _import_enqueue(wanted))
    return wanted


def import_check(source: str, revision: str) -> None:
    """Raises `ImportRefused` for what is no hub id or revision, and while the same is being imported."""
    if not is_hub_id(source):
        raise ImportRefused(f"{source[:100]!r} is no id on the hub; write it as owner/name.")
    if not revision.isprintable() or len(revision) > _REVISION_MAX_LENGTH:
        raise ImportRefused("That is no commit, tag or branch.")
    if ModelImport.objects.filter(
        source=source, revision=revision, status__in=ModelImport.UNFINISHED
    ).exists():
        raise ImportRefused(f"{source} is being imported already.")


def import_wanted() -> ModelImport | None:
    """Ask for the model that `CAPTIONER_MODEL` names, unless that was done; a start tries again what failed.

    Returns the import that is not done yet. Raises `ImportRefused`.
    """
    if not settings.MODEL:
        return None
    source, _, revision = settings.MODEL.partition("@")
    last = ModelImport.objects.filter(source=source, revision=revision).first()
    if last is None or last.status == _Status.FAILED:
        try:
            return import_request(source, revision)
        except ImportRefused as error:
            raise ImportRefused(f"CAPTIONER_MODEL: {error}") from error
    return None if last.status == _Status.DONE else last


def imports_sweep() -> int:
    """Hand out again what nobody works on; returns how many."""
    stale = timezone.now() - _STALE_AFTER
    lost = ModelImport.objects.filter(status__in=ModelImport.UNFINISHED, created_at__lt=stale).filter(
        Q(heartbeat_at=None) | Q(heartbeat_at__lt=stale)
    )
    for wanted in lost:
        _import_enqueue(wanted)
    return len(lost)


def import_execute(import_id: int) -> None:
    """Fetch, check, try, publish and promote a model that is wanted; what another process works on is left to it."""
    now = timezone.now()
    claimable = Q(status=_Status.QUEUED) | Q(heartbeat_at=None) | Q(heartbeat_at__lt=now - _STALE_AFTER)
    claimed = ModelImport.objects.filter(claimable, pk=import_id, status__in=ModelImport.UNFINISHED).update(
        status=_Status.RUNNING, attempts=F("attempts") + 1, heartbeat_at=now, error=""
    )
    if not claimed:
        return
    wanted = ModelImport.objects.select_related("requested_by").get(pk=import_id)
    if wanted.attempts > _MOST_ATTEMPTS:
        told = f"It was begun {_MOST_ATTEMPTS} times and never came to an end; is there memory enough?"
        _import_end(wanted, _Status.FAILED, error=told)
        return
    try:
        with _heart(wanted):
            imported = checkpoint_import(
                wanted.source,
                revision=wanted.revision or None,
                licence=wanted.licence,
                promote=wanted.promote,
                by=wanted.requested_by,
                progress=_Teller(wanted),
            )
    except HubUnreachable as error:
        # What is here stays; the next sweep goes on. It was no fault of the model's.
        _import_end(wanted, _Status.QUEUED, error=str(error), attempts=0)
    except (CaptionerError, RegistryError, OSError) as error:
        _import_end(wanted, _Status.FAILED, error=str(error))
    else:
        _import_end(wanted, _Status.DONE, imported=imported)


def may_import(user: User | AnonymousUser) -> bool:
    """Whoever may change what serves."""
    return user.has_perm("models_registry.change_alias")


def demonstration_serves() -> bool:
    """Whether what serves is the bundled starter, or what it learned since."""
    champion = Alias.objects.select_related("version").filter(name=Alias.Name.CHAMPION).first()
    return champion is not None and champion.version.model_name.removesuffix("-learned") == STARTER_NAME


class _Teller:
    """Notes how far an import is, in its row and in the log."""

    def __init__(self, wanted: ModelImport) -> None:
        self._wanted = wanted
        self._told_at = self._logged_at = -float("inf")
        self._stage = ""

    def __call__(self, stage: str, done: int, total: int) -> None:
        now, is_news = time.monotonic(), stage != self._stage
        self._stage = stage
        if is_news or now - self._logged_at > _LOG_SECONDS or (total and done == total):
            self._logged_at = now
            how_far = f": {done / 1e9:.2f} of {total / 1e9:.2f} GB" if total else ""
            logger.info("Importing %s: %s%s.", self._wanted, stage, how_far)
        if is_news or now - self._told_at > _TELL_SECONDS or (total and done == total):
            self._told_at = now
            how_much = {"done": done, "total": total} if total else {}
            ModelImport.objects.filter(pk=self._wanted.pk).update(
                stage=stage, heartbeat_at=timezone.now(), **how_much
            )


@contextmanager
def _heart(wanted: ModelImport) -> Iterator[None]:
    """Says now and then that somebody works on it, while a trial takes its minutes."""
    is_over = threading.Event()

    def beat() -> None:
        while not is_over.wait(_BEAT_SECONDS):
            with suppress(DatabaseError):  # the next beat may find it again
                ModelImport.objects.filter(pk=wanted.pk).update(heartbeat_at=timezone.now())
        connection.close()

    thread = threading.Thread(target=beat, name="import-heart", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def _import_end(
    wanted: ModelImport,
    status: str,
    *,
    error: str = "",
    imported: Imported | None = None,
    attempts: int | None = None,
) -> None:
    """An attempt is over, and perhaps the import."""
    wanted.status, wanted.error, wanted.stage, wanted.heartbeat_at = status, error, "", timezone.now()
    wanted.attempts = wanted.attempts if attempts is None else attempts
    if imported is not None:
        wanted.version, wanted.caption = imported.version, imported.caption
        logger.info("Imported %s as %s. It says of a drawing: %s", wanted, imported.version, imported.caption)
    if error:
        logger.warning("%s was not imported: %s", wanted, error)
    wanted.finished_at = None if status == _Status.QUEUED else timezone.now()
    wanted.save(
        update_fields=[
            *("status", "error", "stage", "heartbeat_at", "attempts", "version", "caption", "finished_at")
        ]
    )


def _import_enqueue(wanted: ModelImport) -> None:
    """Tell the trainer, which has the memory. A broker that is down does no harm: the sweep finds the row."""
    try:
        current_app.signature(_TASK, args=[wanted.pk]).apply_async(retry=False)
    except (BrokerDown, OSError) as error:
        logger.warning("%s waits for the next sweep: the broker cannot be reached (%s).", wanted, error)
