"""Staff give no rights that they do not have: by no form, page, link, key or group."""

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.test import Client

from captioner.models import ApiKey, Caption, Feedback
from tests.webui.pages import text

pytestmark = pytest.mark.django_db


def staff(client: Client, *codenames: str, name: str = "sam") -> User:
    """Signed in: somebody of the staff who may do this and no more."""
    member = User.objects.create_user(name, password="correct horse battery", is_staff=True)
    member.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    client.force_login(member)
    return member


def permission(codename: str) -> Permission:
    return Permission.objects.get(codename=codename)


def user_fields(user: User, **changes: object) -> dict:
    fields = {"username": user.username, "is_active": "on", "is_staff": "on"}
    return fields | {"date_joined_0": "2026-01-01", "date_joined_1": "00:00"} | changes


def test_nobody_makes_themselves_a_superuser(client: Client) -> None:
    sam = staff(client, "view_user", "change_user")
    client.post(f"/admin/auth/user/{sam.pk}/change/", user_fields(sam, is_superuser="on"))
    sam.refresh_from_db()
    assert not sam.is_superuser


def test_only_own_permissions_are_given_and_groups_of_no_more(client: Client, user: User) -> None:
    sam = staff(client, "view_user", "change_user", "review_feedback")
    strong, weak = Group.objects.create(name="strong"), Group.objects.create(name="weak")
    strong.permissions.add(permission("change_alias"))
    weak.permissions.add(permission("review_feedback"))
    path = f"/admin/auth/user/{user.pk}/change/"
    for given in (
        {"user_permissions": [permission("change_alias").pk]},
        {"groups": [strong.pk]},
    ):
        assert "Select a valid choice" in text(client.post(path, user_fields(user, **given)))
    given = {"user_permissions": [permission("review_feedback").pk], "groups": [weak.pk]}
    assert client.post(path, user_fields(user, **given)).status_code == 302
    assert User.objects.get(pk=user.pk).has_perm("captioner.review_feedback")
    assert not sam.has_perm("models_registry.change_alias")


@pytest.mark.parametrize("page", ["change/", "password/", "delete/"])
def test_who_may_do_more_is_left_alone(client: Client, reviewer: User, user: User, page: str) -> None:
    user.user_permissions.add(permission("change_alias"))
    staff(client, "view_user", "change_user", "delete_user")
    for other in (reviewer, user):
        path, before = f"/admin/auth/user/{other.pk}/{page}", other.password
        fields = {"password1": "staple battery", "password2": "staple battery", "usable_password": "true"}
        fields |= {"post": "yes"} if page == "delete/" else user_fields(other, username="mine")
        assert client.post(path, fields).status_code == 403
        other.refresh_from_db()
        assert (other.username != "mine", other.password) == (True, before)


def test_a_group_is_given_no_right_of_somebody_elses(client: Client) -> None:
    staff(client, "view_group", "add_group", "change_group")
    fields = {"name": "ours", "permissions": [permission("change_alias").pk]}
    assert "Select a valid choice" in text(client.post("/admin/auth/group/add/", fields))
    strong = Group.objects.create(name="strong")
    strong.permissions.add(permission("change_alias"))
    assert client.post(f"/admin/auth/group/{strong.pk}/change/", {"name": "weak"}).status_code == 403
    fields["permissions"] = [permission("change_group").pk]
    assert client.post("/admin/auth/group/add/", fields).status_code == 302


@pytest.mark.parametrize("way", ["superuser", "permission", "group"])
def test_no_key_acts_for_somebody_who_may_do_more(client: Client, user: User, way: str) -> None:
    sam = staff(client, "add_apikey", "view_apikey", "view_user")
    if way == "superuser":
        user.is_superuser = True
        user.save()
    elif way == "permission":
        user.user_permissions.add(permission("change_alias"))
    else:
        strong = Group.objects.create(name="strong")
        strong.permissions.add(permission("change_alias"))
        user.groups.add(strong)
    page = text(client.post("/admin/captioner/apikey/add/", {"user": user.pk, "name": "mine"}))
    assert "Select a valid choice" in page
    assert client.post("/admin/captioner/apikey/add/", {"user": sam.pk, "name": "own"}).status_code == 302
    assert list(ApiKey.objects.values_list("user", flat=True)) == [sam.pk]


def test_the_right_to_review_is_enough_to_review_with_the_photo(client: Client, caption: Caption) -> None:
    photo = f"/admin/captioner/photo/{caption.photo.pk}/file"
    staff(client, "review_feedback")
    assert client.get(photo).status_code == 403, "nobody said anything of it"
    feedback = Feedback.objects.create(caption=caption, ideal_caption="a better one")
    assert photo in text(client.get(f"/admin/captioner/feedback/{feedback.pk}/change/"))
    assert client.get(photo).status_code == 200
