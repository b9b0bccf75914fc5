"""/api/v1/models: what serves, and everything that changes it."""

from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.test import Client

from models_registry import promotions
from models_registry.manifest import Lineage
from models_registry.models import Alias, ModelVersion, Promotion
from models_registry.versions import version_fetch
from tests.models_registry.versions import versions_publish

pytestmark = pytest.mark.django_db

MODELS = "/api/v1/models"


@pytest.fixture
def staff(client: Client, reviewer: User) -> Client:
    client.force_login(reviewer)
    return client


@pytest.fixture
def versions(tmp_path: Path) -> list[ModelVersion]:
    lineage = Lineage(base="base", metrics={"holdout": {"cider": 80.0}})
    made = versions_publish(tmp_path, 2, lineage)
    promotions.version_promote(made[0], reason="first")
    return made


def post(client: Client, path: str, **body: object):
    return client.post(f"{MODELS}/{path}", body, content_type="application/json")


def test_staff_sees_what_serves_and_all_versions(staff: Client, versions: list[ModelVersion]) -> None:
    answer = staff.get(MODELS).json()
    assert (answer["champion"], answer["challenger"], answer["previous"]) == (versions[0].pk, None, None)
    assert answer["alerts"] == []
    assert [version["id"] for version in answer["versions"]] == [versions[1].pk, versions[0].pk]
    first = answer["versions"][1]
    assert (first["serves_as"], first["licence"], first["size"]) == (["champion"], "MIT", 2)
    assert (first["trained_from"], first["metrics"]) == ("base", {"holdout": {"cider": 80.0}})


def test_a_promotion_is_logged_with_who_and_why(
    staff: Client, reviewer: User, versions: list[ModelVersion]
) -> None:
    answer = post(staff, f"{versions[1].pk}/promote", reason="better")
    assert (answer.status_code, answer.json()["serves_as"]) == (200, ["champion"])
    entry = Promotion.objects.first()
    assert (entry.version, entry.promoted_by, entry.reason) == (versions[1], reviewer, "better")


def test_a_version_may_be_tried_as_the_challenger(staff: Client, versions: list[ModelVersion]) -> None:
    answer = post(staff, f"{versions[1].pk}/promote", reason="try it", alias="challenger")
    assert answer.json()["serves_as"] == ["challenger"]
    assert promotions.champion_get() == versions[0]


def test_a_version_with_an_unreadable_manifest_is_listed_and_not_promoted(
    staff: Client, versions: list[ModelVersion]
) -> None:
    ModelVersion.objects.filter(pk=versions[1].pk).update(manifest={"schema": 99})
    listed = staff.get(MODELS).json()["versions"]
    assert listed[1]["error"] is None
    assert "schema 99 is unknown" in listed[0]["error"]
    assert (listed[0]["id"], listed[0]["licence"], listed[0]["metrics"]) == (versions[1].pk, None, None)
    answer = post(staff, f"{versions[1].pk}/promote", reason="better")
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:captioner:problem:not-promotable")
    assert promotions.champion_get() == versions[0]


def test_a_rollback_goes_to_the_champion_before(staff: Client, versions: list[ModelVersion]) -> None:
    post(staff, f"{versions[1].pk}/promote", reason="better")
    answer = post(staff, "rollback", reason="worse")
    assert (answer.status_code, answer.json()["id"]) == (200, versions[0].pk)


@pytest.mark.parametrize(
    ("path", "body", "status", "kind"),
    [
        ("rollback", {"reason": "worse"}, 409, "not-promotable"),
        ("rollback", {"reason": "worse", "expected": "another"}, 409, "not-promotable"),
        ("rollback", {}, 422, "invalid-fields"),
        ("nothing/promote", {"reason": "better"}, 404, "not-found"),
        ("{}/promote", {"reason": "x", "alias": "king"}, 422, "invalid-fields"),
        ("{}/promote", {"reason": "try it", "alias": "challenger"}, 409, "not-promotable"),
    ],
)
def test_what_cannot_be_done_is_a_problem(
    staff: Client, versions: list[ModelVersion], path: str, body: dict, status: int, kind: str
) -> None:
    answer = post(staff, path.format(versions[0].pk), **body)
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json")
    assert answer.json()["type"].endswith(kind)
    assert promotions.champion_get() == versions[0]
    assert not Alias.objects.filter(name=Alias.Name.CHALLENGER).exists()


def patch(client: Client, path: str, **body: object):
    return client.patch(f"{MODELS}/{path}", body, content_type="application/json")


def test_a_version_is_pinned_and_unpinned(staff: Client, versions: list[ModelVersion]) -> None:
    for action, pinned in (("pin", True), ("unpin", False)):
        answer = post(staff, f"{versions[1].pk}/{action}")
        assert (answer.status_code, answer.json()["pinned"]) == (200, pinned)
        assert ModelVersion.objects.get(pk=versions[1].pk).pinned is pinned
        assert post(staff, f"nothing/{action}").status_code == 404


def test_the_challenger_is_taken_back_with_a_reason(
    staff: Client, reviewer: User, versions: list[ModelVersion]
) -> None:
    post(staff, f"{versions[1].pk}/promote", reason="try it", alias="challenger")
    assert staff.delete(f"{MODELS}/challenger").status_code == 422
    assert promotions.challenger_get() == versions[1]
    assert staff.delete(f"{MODELS}/challenger?reason=slow").status_code == 204
    entry = Promotion.objects.first()
    assert (entry.action, entry.reason, entry.promoted_by) == ("clear", "slow", reviewer)
    assert staff.delete(f"{MODELS}/challenger?reason=slow").status_code == 404


def test_how_a_challenger_is_tried_is_changed_in_part(staff: Client) -> None:
    assert patch(staff, "rollout", canary_share=0.25).json()["canary_share"] == 0.25
    answer = patch(staff, "rollout", shadow_share=0, max_error_rate=0.9).json()
    assert (answer["canary_share"], answer["shadow_share"], answer["max_error_rate"]) == (0.25, 0.0, 0.02)


@pytest.mark.parametrize("share", [-0.1, 1.1, "nan", "much", None])
def test_a_share_is_a_share(staff: Client, share: object) -> None:
    answer = patch(staff, "rollout", canary_share=share)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "canary_share")
    assert promotions.rollout_get().canary_share == 0.0


def test_retention_tells_first_and_removes_when_asked_to(staff: Client, versions: list[ModelVersion]) -> None:
    answer = post(staff, "retain", keep=0).json()
    assert (answer["dry_run"], [version["id"] for version in answer["versions"]]) == (True, [versions[1].pk])
    assert version_fetch(versions[1]).is_dir()
    answer = post(staff, "retain", keep=0, dry_run=False).json()
    assert [version["id"] for version in answer["versions"]] == [versions[1].pk]
    assert answer["versions"][0]["retired_at"]
    assert post(staff, "retain", keep=-1).status_code == 422


@pytest.mark.parametrize("signed_in", [False, True])
def test_other_people_tidy_and_try_nothing(
    client: Client, user: User, versions: list[ModelVersion], signed_in: bool
) -> None:
    if signed_in:
        client.force_login(user)
    answers = [
        post(client, f"{versions[1].pk}/pin"),
        post(client, f"{versions[1].pk}/unpin"),
        client.delete(f"{MODELS}/challenger?reason=mine"),
        patch(client, "rollout", canary_share=1),
        post(client, "retain", keep=0, dry_run=False),
    ]
    assert {answer.status_code for answer in answers} <= {401, 403}
    assert not ModelVersion.objects.exclude(retired_at=None).exists()


def test_other_people_see_and_change_nothing(
    client: Client, user: User, versions: list[ModelVersion]
) -> None:
    for signed_in in (False, True):
        if signed_in:
            client.force_login(user)
        assert client.get(MODELS).status_code in {401, 403}
        assert post(client, f"{versions[1].pk}/promote", reason="mine").status_code in {401, 403}
        assert post(client, "rollback", reason="mine").status_code in {401, 403}
    assert promotions.champion_get() == versions[0]


def test_staff_without_the_permission_changes_nothing(client: Client, versions: list[ModelVersion]) -> None:
    client.force_login(User.objects.create_user("sam", is_staff=True))
    assert post(client, f"{versions[1].pk}/promote", reason="mine").status_code == 403
