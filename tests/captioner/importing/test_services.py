"""Models that are wanted: the row is the queue, and says how far it is."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from captioner.exceptions import ImportRefused, IncompatibleModel
from captioner.importing import services
from captioner.importing.hub import HubUnreachable
from captioner.importing.services import (
    demonstration_serves,
    import_execute,
    import_request,
    import_wanted,
    imports_sweep,
)
from captioner.models import ModelImport
from models_registry import bundled, promotions
from tests.captioner.importing.hub import Hub
from tests.models_registry.versions import version_publish

pytestmark = pytest.mark.django_db
Saves = Callable[..., Path]


@pytest.fixture(autouse=True)
def enqueued(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the imports that a message was sent for."""
    sent: list[int] = []
    monkeypatch.setattr(services, "_BEAT_SECONDS", 1000.0)  # another thread does not see the rows of a test
    monkeypatch.setattr(services, "_import_enqueue", lambda wanted: sent.append(wanted.pk))
    return sent


def ends(monkeypatch: pytest.MonkeyPatch, outcome: object) -> None:
    """Every import ends with this, an error or a version."""

    def checkpoint_import(source: str, **options: object) -> object:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    monkeypatch.setattr(services, "checkpoint_import", checkpoint_import)


def test_a_wanted_model_is_fetched_tried_and_serves(hub: Hub, checkpoint: Saves, user: User) -> None:
    hub.folders["owner/tiny"] = {"main": checkpoint("git")}
    wanted = import_request("owner/tiny", licence="MIT", by=user)
    import_execute(wanted.pk)
    wanted.refresh_from_db()
    assert (wanted.status, wanted.error, wanted.attempts) == ("done", "", 1)
    assert wanted.version == promotions.champion_get()
    assert wanted.version.facts.licence == "MIT"
    assert wanted.done == wanted.total > 10_000
    assert wanted.caption
    assert wanted.finished_at
    import_execute(wanted.pk)  # a message that came twice
    wanted.refresh_from_db()
    assert wanted.attempts == 1


def test_a_model_that_is_refused_says_why_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    ends(monkeypatch, IncompatibleModel("It is a poem."))
    wanted = import_request("owner/poem")
    import_execute(wanted.pk)
    wanted.refresh_from_db()
    assert (wanted.status, wanted.error, wanted.told) == ("failed", "It is a poem.", "failed")
    assert promotions.aliases_get() == {}


def test_a_hub_that_is_away_is_asked_again(monkeypatch: pytest.MonkeyPatch, enqueued: list[int]) -> None:
    ends(monkeypatch, HubUnreachable("cut off"))
    wanted = import_request("owner/tiny")
    for _ in range(20):
        import_execute(wanted.pk)
    wanted.refresh_from_db()
    assert (wanted.status, wanted.error) == ("queued", "cut off")
    assert imports_sweep() == 0  # it was tried just now
    age(wanted)
    assert imports_sweep() == 1
    assert enqueued == [wanted.pk]


def test_one_that_was_killed_is_begun_again_but_not_for_ever(
    monkeypatch: pytest.MonkeyPatch, enqueued: list[int]
) -> None:
    ends(monkeypatch, KeyboardInterrupt())  # as a kill, it leaves the row as it was
    wanted = import_request("owner/large")
    for _ in range(5):
        age(wanted)
        with pytest.raises(KeyboardInterrupt):
            import_execute(wanted.pk)
    import_execute(wanted.pk)
    assert ModelImport.objects.get().status == "running"  # somebody worked on it a moment ago
    age(wanted)
    assert imports_sweep() == 1
    import_execute(wanted.pk)
    wanted.refresh_from_db()
    assert wanted.status == "failed"
    assert "begun 5 times" in wanted.error


@pytest.mark.parametrize(
    "source", ["", "name", "a/b/c", "/etc/passwd", "../..", "own er/name", "owner/\0", "a/" + "b" * 300]
)
def test_what_is_no_hub_id_is_refused(source: str) -> None:
    with pytest.raises(ImportRefused, match="write it as owner/name"):
        import_request(source)


def test_the_same_is_imported_once_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    import_request("owner/tiny")
    import_request("owner/tiny", "v1")
    with pytest.raises(ImportRefused, match="being imported already"):
        import_request("owner/tiny")


def test_the_variable_asks_once_and_again_for_what_failed(settings, tmp_path: Path) -> None:
    assert import_wanted() is None
    settings.MODEL = "owner/tiny@v1"
    first = import_wanted()
    assert first
    assert (first.source, first.revision, first.promote) == ("owner/tiny", "v1", True)
    assert import_wanted() == first
    ModelImport.objects.update(status="failed")
    second = import_wanted()
    assert second
    assert second != first
    ModelImport.objects.update(status="done")
    assert import_wanted() is None


def test_a_variable_that_names_nothing_is_told(settings) -> None:
    settings.MODEL = "blip"
    with pytest.raises(ImportRefused, match="owner/name"):
        import_wanted()


def test_the_demonstration_serves_until_something_else_does(tmp_path: Path) -> None:
    assert not demonstration_serves()
    for name, is_demonstration in (
        (bundled.STARTER_NAME, True),
        (f"{bundled.STARTER_NAME}-learned", True),
        ("blip", False),
        ("blip-learned", False),
    ):
        promotions.version_promote(version_publish(tmp_path, name), reason="a test")
        assert demonstration_serves() == is_demonstration


def age(wanted: ModelImport) -> None:
    """Nobody has heard of it for five minutes."""
    before = timezone.now() - timedelta(minutes=5)
    ModelImport.objects.filter(pk=wanted.pk).update(created_at=before)
    ModelImport.objects.filter(pk=wanted.pk, heartbeat_at__isnull=False).update(heartbeat_at=before)
