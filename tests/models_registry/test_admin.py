"""Promote, roll back, try and pin in the admin."""

from pathlib import Path

import pytest
from django.contrib.admin.utils import quote
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils import timezone

from models_registry import processes, promotions
from models_registry.models import Alias, ModelVersion, Promotion, Rollout
from models_registry.versions import version_fetch, version_pin, version_publish
from tests.models_registry.versions import versions_publish

pytestmark = pytest.mark.django_db

LIST = "/admin/models_registry/modelversion/"


@pytest.fixture
def client(client: Client, reviewer: User) -> Client:
    client.force_login(reviewer)
    return client


@pytest.fixture
def versions(tmp_path: Path) -> list[ModelVersion]:
    made = versions_publish(tmp_path, 2)
    promotions.version_promote(made[0], reason="first")
    return made


def act(client: Client, version: ModelVersion, action: str, reason: str = "because"):
    return client.post(f"{LIST}{version.pk}/act", {"action": action, "reason": reason}, follow=True)


def page(client: Client, path: str) -> str:
    response = client.get(path)
    assert response.status_code == 200
    return response.content.decode()


def test_a_version_is_promoted_with_a_reason_and_rolled_back(
    client: Client, reviewer: User, versions: list[ModelVersion]
) -> None:
    assert "Make it the champion" in page(client, f"{LIST}{versions[1].pk}/change/")
    assert "is the champion." in act(client, versions[1], "promote").content.decode()
    entry = Promotion.objects.first()
    assert (entry.version, entry.promoted_by, entry.reason) == (versions[1], reviewer, "because")
    assert f"Roll back to {versions[0]}" in page(client, f"{LIST}{versions[1].pk}/change/")
    act(client, versions[1], "rollback")
    assert promotions.champion_get() == versions[0]


def test_a_second_click_rolls_back_once(client: Client, versions: list[ModelVersion]) -> None:
    promotions.version_promote(versions[1], reason="better")
    promotions.version_promote(versions[0], reason="better still")
    act(client, versions[0], "rollback")
    assert "not the champion any more" in act(client, versions[0], "rollback").content.decode()
    assert promotions.champion_get() == versions[1]


def test_a_version_is_tried_and_taken_back(client: Client, versions: list[ModelVersion]) -> None:
    act(client, versions[1], "challenge")
    assert promotions.challenger_get() == versions[1]
    assert "Take the challenger back" in page(client, f"{LIST}{versions[1].pk}/change/")
    act(client, versions[1], "clear")
    assert promotions.challenger_get() is None


def test_a_version_is_pinned_and_unpinned(client: Client, versions: list[ModelVersion]) -> None:
    for action, pinned in (("pin", True), ("unpin", False)):
        act(client, versions[1], action, reason="")
        versions[1].refresh_from_db()
        assert versions[1].pinned is pinned


def test_a_version_with_an_underscore_in_its_id_has_its_buttons_too(client: Client, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    version = version_publish(tmp_path, model_name="vit_gpt2", origin="a test", licence="MIT")
    assert version.pk.startswith("vit_gpt2-")
    assert "Make it the champion" in page(client, f"{LIST}{quote(version.pk)}/change/")
    answer = act(client, version, "promote")
    assert answer.redirect_chain == [(f"{LIST}{quote(version.pk)}/change/", 302)]
    assert "is the champion." in answer.content.decode()
    assert promotions.champion_get() == version


def test_old_versions_are_shown_before_their_files_are_removed(
    client: Client, versions: list[ModelVersion]
) -> None:
    assert f"{LIST}retain" in page(client, LIST)
    assert "Nothing would be removed" in page(client, f"{LIST}retain")
    shown = page(client, f"{LIST}retain?keep=0")
    assert versions[1].pk in shown
    assert versions[0].pk not in shown
    assert version_fetch(versions[1]).is_dir()
    assert f'<input type="hidden" name="version" value="{versions[1].pk}">' in shown
    answer = client.post(f"{LIST}retain", {"keep": "0", "version": versions[1].pk}, follow=True)
    assert f"Files removed: {versions[1]}." in answer.content.decode()
    assert ModelVersion.objects.exclude(retired_at=None).get() == versions[1]
    assert "greater than or equal to 0" in page(client, f"{LIST}retain?keep=-1")


def test_what_was_not_shown_is_not_removed(client: Client, versions: list[ModelVersion]) -> None:
    promotions.version_promote(versions[1], reason="better, and promoted after the page was shown")
    answer = client.post(f"{LIST}retain", {"keep": "0", "version": "another"}, follow=True)
    assert "Files removed: none." in answer.content.decode()
    promotions.champion_rollback(reason="worse")
    client.post(f"{LIST}retain", {"keep": "0"})
    assert not ModelVersion.objects.exclude(retired_at=None).exists()


def test_a_version_says_what_is_particular_about_it(client: Client, versions: list[ModelVersion]) -> None:
    version_pin(versions[0])
    ModelVersion.objects.filter(pk=versions[1].pk).update(manifest={"schema": 99})
    for path in (LIST, f"{LIST}{versions[0].pk}/change/"):
        assert "champion, pinned" in page(client, path)
    for path in (LIST, f"{LIST}{versions[1].pk}/change/"):
        assert "unreadable: Manifest schema 99 is unknown" in page(client, path)


def test_without_a_reason_nothing_changes(client: Client, versions: list[ModelVersion]) -> None:
    assert "Say why" in act(client, versions[1], "promote", reason=" ").content.decode()
    assert promotions.champion_get() == versions[0]


def test_what_cannot_be_done_is_told(client: Client, versions: list[ModelVersion]) -> None:
    assert "no earlier champion" in act(client, versions[0], "rollback").content.decode()
    assert act(client, versions[0], "nonsense").status_code == 404
    assert client.get(f"{LIST}{versions[0].pk}/act").status_code == 405


def test_who_may_only_look_changes_nothing(versions: list[ModelVersion]) -> None:
    viewer = User.objects.create_user("sam", is_staff=True)
    viewer.user_permissions.set(Permission.objects.filter(codename="view_modelversion"))
    client = Client()
    client.force_login(viewer)
    assert "Make it the champion" not in page(client, f"{LIST}{versions[1].pk}/change/")
    assert act(client, versions[1], "promote").status_code == 403
    assert f"{LIST}retain" not in page(client, LIST)
    assert client.post(f"{LIST}retain", {"keep": "0"}).status_code == 403
    assert not ModelVersion.objects.exclude(retired_at=None).exists()
    assert promotions.champion_get() == versions[0]


def test_trouble_is_shown_above_the_versions(client: Client, versions: list[ModelVersion]) -> None:
    promotions.version_promote(versions[1], alias=Alias.Name.CHALLENGER, reason="try it")
    promotions.challenger_clear(reason="It failed 3 of 3 photos.", cause=Promotion.Cause.BREACH)
    processes.process_report(
        state="ready",
        champion="v0",
        previous="",
        challenger="",
        alerts=["cannot be served"],
        started_at=timezone.now(),
    )
    shown = page(client, LIST)
    assert "It failed 3 of 3 photos." in shown
    assert "cannot be served" in shown
    assert "cannot be served" in page(client, "/admin/models_registry/servingprocess/")


def test_the_rollout_is_one_row_that_is_edited(client: Client) -> None:
    response = client.get("/admin/models_registry/rollout/", follow=True)
    assert "Canary share" in response.content.decode()
    fields = {
        "canary_share": "0.25",
        "shadow_share": "0",
        "max_error_rate": "0.1",
        "max_latency_ratio": "3",
        "max_rating_drop": "1",
        "min_captions": "5",
        "min_ratings": "9",
    }
    client.post("/admin/models_registry/rollout/1/change/", fields)
    assert Rollout.objects.get().canary_share == 0.25
    response = client.post("/admin/models_registry/rollout/1/change/", fields | {"canary_share": "2"})
    assert "less than or equal to 1" in response.content.decode()
    assert client.get("/admin/models_registry/rollout/add/").status_code == 403
