"""The administrators' side: the review queue, its decisions, keys, and what is looked at only."""

import re
from datetime import timedelta

import pytest
from django.contrib.auth.models import Permission, User
from django.core.files.storage import default_storage
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from captioner.captions.api_keys import api_key_create, api_key_find
from captioner.captions.captions import caption_create
from captioner.captions.feedback import feedback_review, feedback_submit
from captioner.models import ApiKey, Caption, Feedback, Owner, Photo
from models_registry.models import Alias, ModelVersion, Promotion
from tests.conftest import FakeEngine, draw_jpeg

QUEUE = "/admin/captioner/feedback/"


@pytest.fixture
def client(client: Client, reviewer: User) -> Client:
    client.force_login(reviewer)
    return client


def get(client: Client, path: str) -> str:
    response = client.get(path)
    assert response.status_code == 200
    return response.content.decode()


def make_feedback(user: User, count: int) -> list[Feedback]:
    """`count` rows of pending feedback, the head of the queue first."""
    made = []
    for number in range(count):
        photo = draw_jpeg((40 + number, 30))
        caption = caption_create(photo, owner=Owner(user=user), source=Caption.Source.WEB)
        # Each is content with less than before.
        made.append(feedback_submit(caption, rating=max(1, 3 - number), ideal_caption=f"ideal {number}")[0])
    return made[::-1]


@pytest.fixture
def feedback(user: User, fake_engine: FakeEngine) -> list[Feedback]:
    return make_feedback(user, 3)


def staff(*permissions: str) -> Client:
    """A client signed in as staff with these permissions only."""
    user = User.objects.create_user("sam", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


def act(client: Client, action: str, rows: list[Feedback]) -> str:
    seen = re.search(r'name="seen" value="([^"]+)"', get(client, QUEUE))[1]
    return act_on_what_was_seen(client, action, rows, seen)


def act_on_what_was_seen(client: Client, action: str, rows: list[Feedback], seen: str) -> str:
    fields = {"action": action, "_selected_action": [row.pk for row in rows], "seen": seen}
    response = client.post(QUEUE, fields, follow=True)
    assert response.status_code == 200
    return response.content.decode()


def review_path(row: Feedback) -> str:
    return reverse("admin:captioner_feedback_review", args=[row.pk])


def decide(client: Client, row: Feedback, status: str, seen: str | None = None):
    return client.post(review_path(row), {"status": status, "seen": seen or row.updated_at.isoformat()})


# --- The queue ---


def test_the_queue_shows_what_pleased_people_least_first(client: Client, feedback: list[Feedback]) -> None:
    feedback_review(
        Feedback.objects.filter(pk=feedback[0].pk),
        Feedback.Status.REJECTED,
        reviewer=feedback[0].caption.user,
    )
    page = get(client, QUEUE)
    assert re.findall(r'name="_selected_action" value="(\d+)"', page) == [str(row.pk) for row in feedback[1:]]
    assert f"/admin/captioner/photo/{feedback[1].caption.photo_id}/file" in page
    assert "<ins>ideal 1</ins>" in page


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("status=all", 3),
        ("status=approved", 1),
        ("status=rejected", 0),
        ("rating=low", 1),
        ("rating=high", 0),
        ("rating=none", 1),
        ("rating=nonsense", 2),
        ("ideal_caption__isempty=1", 0),
        ("ideal_caption__isempty=0", 2),
        ("version=v1", 1),
        ("q=ideal+1", 1),
        ("q=40+by+30", 1),
    ],
)
def test_the_queue_is_filtered_and_searched(
    client: Client, feedback: list[Feedback], query: str, count: int
) -> None:
    first, second, third = feedback  # of ratings 1, 2 and 3
    feedback_review(
        Feedback.objects.filter(pk=first.pk), Feedback.Status.APPROVED, reviewer=first.caption.user
    )
    Feedback.objects.filter(pk=second.pk).update(rating=None)
    Caption.objects.filter(pk=third.caption_id).update(model_version="v1")
    ModelVersion.objects.create(id="v1", model_name="m", manifest={})
    assert get(client, f"{QUEUE}?{query}").count('name="_selected_action"') == count


def test_the_queue_takes_as_many_queries_for_many_rows_as_for_few(
    client: Client, user: User, fake_engine: FakeEngine, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    make_feedback(user, 12)
    with django_assert_num_queries(5) as captured:  # session, user, versions to filter by, count, rows
        page = get(client, QUEUE)
    assert page.count('name="_selected_action"') == 12
    assert len([query for query in captured.captured_queries if "COUNT" in query["sql"]]) == 1


# --- Decisions ---


@pytest.mark.parametrize(("action", "status"), [("approve", "approved"), ("reject", "rejected")])
def test_bulk_actions_record_who_and_when_and_tell_how_many(
    client: Client, reviewer: User, feedback: list[Feedback], action: str, status: str
) -> None:
    before = timezone.now()
    assert f"{status.capitalize()}: 2." in act(client, action, feedback[:2])
    for row in Feedback.objects.filter(pk__in=[row.pk for row in feedback[:2]]):
        assert (row.status, row.reviewed_by) == (status, reviewer)
        assert before <= row.reviewed_at <= timezone.now()
    untouched = Feedback.objects.get(pk=feedback[2].pk)
    assert (untouched.status, untouched.reviewed_by, untouched.reviewed_at) == ("pending", None, None)


@pytest.mark.parametrize("status", ["approved", "rejected"])
def test_a_decision_records_who_and_when_and_leads_to_the_next_one(
    client: Client, reviewer: User, feedback: list[Feedback], status: str
) -> None:
    first, second, third = feedback
    page = get(client, reverse("admin:captioner_feedback_change", args=[second.pk]))
    assert page.count(f'formaction="{review_path(second)}"') == page.count('class="review-') == 2
    seen = re.search(r'name="seen" value="([^"]+)"', page)[1]
    response = decide(client, second, status, seen)
    assert response.url == reverse("admin:captioner_feedback_change", args=[third.pk])
    second.refresh_from_db()
    assert (second.status, second.reviewed_by) == (status, reviewer)
    assert timezone.now() - second.reviewed_at < timedelta(minutes=1)
    assert decide(client, third, status).url == reverse("admin:captioner_feedback_change", args=[first.pk])
    assert decide(client, first, status).url == QUEUE


def test_a_decision_on_what_changed_meanwhile_is_not_taken(client: Client, feedback: list[Feedback]) -> None:
    seen = feedback[0].updated_at.isoformat()
    feedback_submit(feedback[0].caption, ideal_caption="something else entirely")
    response = client.post(review_path(feedback[0]), {"status": "approved", "seen": seen}, follow=True)
    assert "This changed while you looked at it" in response.content.decode()
    assert Feedback.objects.get(pk=feedback[0].pk).status == Feedback.Status.PENDING


@pytest.mark.parametrize("seen", ["", "yesterday", "2024-13-45T99:00:00Z", "2024-01-01T00:00:00"])
def test_a_decision_that_says_not_what_was_seen_is_not_taken(
    client: Client, feedback: list[Feedback], seen: str
) -> None:
    client.post(review_path(feedback[0]), {"status": "approved", "seen": seen})
    assert Feedback.objects.get(pk=feedback[0].pk).status == Feedback.Status.PENDING


def test_bulk_actions_leave_out_what_changed_since_the_list_was_shown(
    client: Client, feedback: list[Feedback]
) -> None:
    seen = timezone.now().isoformat()
    feedback_submit(feedback[0].caption, ideal_caption="something else entirely")
    page = act_on_what_was_seen(client, "approve", feedback, seen)
    assert "Approved: 2." in page
    assert "1 changed while you looked at the list" in page
    assert list(Feedback.objects.pending()) == [feedback[0]]


@pytest.mark.parametrize("seen", ["", "yesterday", "2999-01-01T00:00:00"])
def test_bulk_actions_that_say_not_what_was_seen_decide_nothing(
    client: Client, feedback: list[Feedback], seen: str
) -> None:
    assert "3 changed" in act_on_what_was_seen(client, "approve", feedback, seen)
    assert Feedback.objects.pending().count() == 3


def test_decisions_are_in_the_history(client: Client, feedback: list[Feedback]) -> None:
    first, second, _ = feedback
    act(client, "approve", [first])
    decide(client, second, "rejected")
    for row, told in ((first, "Approved."), (second, "Rejected.")):
        page = get(client, reverse("admin:captioner_feedback_history", args=[row.pk]))
        assert told in page
        assert "rita" in page


def test_a_decision_is_approve_or_reject_and_a_post(client: Client, feedback: list[Feedback]) -> None:
    assert decide(client, feedback[0], "pending").status_code == 404
    assert client.get(review_path(feedback[0])).status_code == 405


def test_what_people_said_cannot_be_edited(client: Client, feedback: list[Feedback]) -> None:
    path = reverse("admin:captioner_feedback_change", args=[feedback[0].pk])
    assert client.post(path, {"rating": 10, "ideal_caption": "mine"}).status_code == 403
    assert client.get(f"{QUEUE}add/").status_code == 403
    assert Feedback.objects.get(pk=feedback[0].pk).ideal_caption == "ideal 2"


def test_who_may_only_view_cannot_decide(feedback: list[Feedback]) -> None:
    viewer = staff("view_feedback")
    assert "Approve the selected feedback" not in get(viewer, QUEUE)
    assert "review-approve" not in get(viewer, f"{QUEUE}{feedback[0].pk}/change/")
    assert decide(viewer, feedback[0], "approved").status_code == 403
    act(viewer, "approve", feedback)
    assert not Feedback.objects.exclude(status=Feedback.Status.PENDING).exists()


def test_who_may_change_feedback_reviews_it(feedback: list[Feedback]) -> None:
    reviewer = staff("change_feedback", "view_feedback")
    assert decide(reviewer, feedback[0], "approved").status_code == 302
    assert Feedback.objects.get(pk=feedback[0].pk).reviewed_by.username == "sam"


def test_other_people_are_led_to_sign_in(user: User, feedback: list[Feedback]) -> None:
    client = Client()
    client.force_login(user)
    photo = f"/admin/captioner/photo/{feedback[0].caption.photo_id}/file"
    for path in (QUEUE, review_path(feedback[0]), photo):
        response = client.post(path) if path.endswith("review") else client.get(path)
        assert response.url.startswith("/admin/login/")


def test_captions_compared_are_escaped(client: Client, feedback: list[Feedback]) -> None:
    Feedback.objects.update(ideal_caption="<b>bold</b>")
    Caption.objects.update(text="<i>italic</i>")
    for path in (QUEUE, reverse("admin:captioner_feedback_change", args=[feedback[0].pk])):
        page = get(client, path)
        assert "<b>bold" not in page
        assert "<i>italic" not in page


# --- Photos and captions ---


def test_photos_are_listed_with_thumbnails_size_and_number_of_captions(
    client: Client, user: User, feedback: list[Feedback], django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    caption_create(draw_jpeg((40, 30)), owner=Owner(user=user), source=Caption.Source.WEB)
    with django_assert_num_queries(4):  # session, user, count, rows
        page = get(client, "/admin/captioner/photo/")
    assert page.count('class="thumbnail"') == 3
    assert "40 by 30" in page
    assert sorted(re.findall(r'field-captions_made">(\d+)<', page)) == ["1", "1", "2"]
    assert "40 by 30" in get(client, f"/admin/captioner/photo/{feedback[2].caption.photo_id}/change/")


def test_a_photo_is_served_to_staff_that_may_view_photos_only(client: Client, caption: Caption) -> None:
    path = reverse("admin:captioner_photo_file", args=[caption.photo_id])
    response = client.get(path)
    assert response["Content-Type"] == "image/jpeg"
    assert b"".join(response.streaming_content).startswith(b"\xff\xd8")
    assert "private" in response["Cache-Control"]
    assert staff("view_caption").get(path).status_code == 403


def test_a_photo_whose_file_is_missing_is_not_found(client: Client, caption: Caption) -> None:
    default_storage.delete(caption.photo.file.name)
    assert client.get(reverse("admin:captioner_photo_file", args=[caption.photo_id])).status_code == 404


def test_captions_are_listed_with_owner_and_version(
    client: Client,
    user: User,
    visitor: Owner,
    django_assert_num_queries: DjangoAssertNumQueries,
    caption: Caption,
) -> None:
    key, _ = api_key_create(user, "a script")
    for owner in (visitor, Owner(api_key=key)):
        caption_create(draw_jpeg(), owner=owner, source=Caption.Source.API)
    with django_assert_num_queries(5):  # session, user, versions to filter by, count, rows
        page = get(client, "/admin/captioner/caption/")
    assert page.count('class="thumbnail"') == 3
    nobody = f"visitor {str(visitor.visitor)[:8]}"
    for owner_shown in ("ada", f"ada, with the key a script ({key.prefix}…)", nobody):
        assert f'<td class="field-owner">{owner_shown}</td>' in page
    assert get(client, "/admin/captioner/caption/?source__exact=api").count('class="thumbnail"') == 2
    assert get(client, "/admin/captioner/caption/?q=nothing").count('class="thumbnail"') == 0


def test_a_caption_is_looked_at_and_not_changed(client: Client, caption: Caption) -> None:
    path = f"/admin/captioner/caption/{caption.pk}/change/"
    assert "a (90%), photo (40%)" in get(client, path)
    assert client.post(path, {"text": "other"}).status_code == 403


def test_deleting_captions_deletes_the_photos_nobody_shows_any_more(
    client: Client, user: User, caption: Caption
) -> None:
    other = caption_create(draw_jpeg((9, 9)), owner=Owner(user=user), source=Caption.Source.WEB)
    client.post(f"/admin/captioner/caption/{caption.pk}/delete/", {"post": "yes"})
    assert list(Photo.objects.all()) == [other.photo]
    fields = {"action": "delete_selected", "_selected_action": [other.pk], "post": "yes"}
    client.post("/admin/captioner/caption/", fields)
    assert not Caption.objects.exists()
    assert not Photo.objects.exists()


def test_a_user_is_deleted_with_everything_that_was_theirs(
    client: Client, user: User, feedback: list[Feedback]
) -> None:
    api_key_create(user, "a script")
    client.post(f"/admin/auth/user/{user.pk}/delete/", {"post": "yes"})
    assert not User.objects.filter(pk=user.pk).exists()
    for model in (Caption, Feedback, ApiKey):
        assert not model.objects.exists()


# --- Keys ---


def test_a_new_key_is_shown_once_and_works(client: Client, user: User) -> None:
    response = client.post("/admin/captioner/apikey/add/", {"user": user.pk, "name": "a script"}, follow=True)
    secret = re.search(r"<code>([\w-]+)</code>", response.content.decode())[1]
    key = ApiKey.objects.get()
    assert api_key_find(secret) == key
    assert (key.user, key.name) == (user, "a script")
    for path in ("/admin/captioner/apikey/", f"/admin/captioner/apikey/{key.pk}/change/"):
        page = get(client, path)
        assert secret not in page
        assert key.digest not in page


def test_revoked_keys_work_no_more(client: Client, user: User) -> None:
    (key, secret), (other, other_secret) = (api_key_create(user, name) for name in ("a", "b"))
    fields = {"action": "revoke", "_selected_action": [key.pk]}
    assert "Revoked: 1." in client.post("/admin/captioner/apikey/", fields, follow=True).content.decode()
    assert "Revoked: 0." in client.post("/admin/captioner/apikey/", fields, follow=True).content.decode()
    assert api_key_find(secret) is None
    assert api_key_find(other_secret) == other


def test_a_key_cannot_be_changed(client: Client, user: User) -> None:
    key, _ = api_key_create(user, "a script")
    path = f"/admin/captioner/apikey/{key.pk}/change/"
    assert client.post(path, {"name": "other", "user": user.pk}).status_code == 403


# --- The registry ---


def test_versions_aliases_and_promotions_are_looked_at_only(client: Client, reviewer: User) -> None:
    version = ModelVersion.objects.create(id="v1", model_name="starter", manifest={"licence": "Apache-2.0"})
    Alias.objects.create(name=Alias.Name.CHAMPION, version=version)
    promotion = Promotion.objects.create(
        alias="champion", version=version, promoted_by=reviewer, reason="first"
    )
    paths = {"modelversion": "v1", "alias": "champion", "promotion": promotion.pk}
    for name, pk in paths.items():
        path = f"/admin/models_registry/{name}/"
        assert "v1" in get(client, path)
        get(client, f"{path}{pk}/change/")
        assert client.post(f"{path}{pk}/change/", {}).status_code == 403
        assert client.get(f"{path}add/").status_code == 403
        assert client.get(f"{path}{pk}/delete/").status_code == 403
    assert "champion" in get(client, "/admin/models_registry/modelversion/")
    page = get(client, "/admin/models_registry/modelversion/v1/change/")
    assert "&quot;licence&quot;: &quot;Apache-2.0&quot;" in page


def test_the_admin_is_called_captioner_and_has_its_own_colours(client: Client) -> None:
    page = get(client, "/admin/")
    assert "Captioner</a>" in page
    assert "captioner-admin.css" in page
