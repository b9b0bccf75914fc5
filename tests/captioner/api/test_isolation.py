"""Every route of a caption, asked by everybody whose caption it is not."""

import uuid

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from captioner.api.urls import router
from captioner.captions.api_keys import api_key_create
from captioner.captions.captions import caption_create
from captioner.models import Caption, Feedback, Owner
from tests.conftest import FakeEngine, draw_jpeg

URL = "/api/v1/captions"
# From the routes themselves, so that a new one is covered from its first day.
ROUTES = [
    (method, f"api:{pattern.name}")
    for pattern in router.urls
    if "pk" in pattern.pattern.converters and pattern.name.startswith("caption-")
    for method in pattern.callback.actions
]


class Someone:
    """A client of its own, signed in as `user`, with `secret`, or as a visitor."""

    def __init__(self, user: User | None = None, secret: str | None = None) -> None:
        self.client = Client(headers={"Authorization": f"Bearer {secret}"} if secret else None)
        if user is not None:
            self.client.force_login(user)
        self.own_id = ""

    def caption(self) -> None:
        self.own_id = self.client.generic("POST", URL, draw_jpeg(), content_type="image/jpeg").json()["id"]

    def ask(self, method: str, route: str, pk: str):
        sent = {"post": {"rating": 1}, "patch": {"decorative": True}}
        body = {"data": sent[method], "content_type": "application/json"} if method in sent else {}
        return getattr(self.client, method)(reverse(route, args=[pk]), **body)

    def ids(self) -> list[str]:
        return [caption["id"] for caption in self.client.get(URL).json()["results"]]


@pytest.fixture
def people(user: User, other_user: User, fake_engine: FakeEngine) -> dict[str, Someone]:
    """Everybody with one caption of their own, except the newcomer."""
    people = {
        "user": Someone(user),
        "other user": Someone(other_user),
        "key": Someone(secret=api_key_create(user, "one")[1]),
        "other key of the same user": Someone(secret=api_key_create(user, "two")[1]),
        "key of the other user": Someone(secret=api_key_create(other_user, "one")[1]),
        "visitor": Someone(),
        "other visitor": Someone(),
    }
    for someone in people.values():
        someone.caption()
    return people | {"newcomer": Someone()}


STRANGERS = [
    ("user", "other user"),
    ("user", "key of the other user"),
    ("user", "key"),
    ("user", "visitor"),
    ("user", "newcomer"),
    ("key", "other key of the same user"),
    ("key", "key of the other user"),
    ("key", "other user"),
    ("key", "visitor"),
    ("visitor", "user"),
    ("visitor", "key"),
    ("visitor", "other visitor"),
    ("visitor", "newcomer"),
]


def test_all_routes_are_known() -> None:
    assert {method for method, _ in ROUTES} == {"get", "delete", "post", "patch"}
    assert len(ROUTES) == 7
    # Those of jobs are asked in test_jobs, those of models, which are for staff, in test_models.
    assert {pattern.name.split("-")[0] for pattern in router.urls} == {"caption", "job", "model"}


@pytest.mark.parametrize(("owner", "stranger"), STRANGERS)
@pytest.mark.parametrize(("method", "route"), ROUTES)
def test_somebody_elses_caption_does_not_exist(
    people: dict[str, Someone], owner: str, stranger: str, method: str, route: str
) -> None:
    pk = people[owner].own_id
    response = people[stranger].ask(method, route, pk)
    assert response.status_code == 404
    assert response.content == people[stranger].ask(method, route, str(uuid.uuid4())).content
    assert Caption.objects.filter(pk=pk).exists()
    assert not Feedback.objects.exists()
    assert not Caption.objects.filter(is_decorative=True).exists()


def test_lists_hold_only_ones_own(people: dict[str, Someone]) -> None:
    own = {name: someone.own_id for name, someone in people.items()}
    visible = {name: set(someone.ids()) for name, someone in people.items()}
    assert visible == {
        "user": {own["user"], own["key"], own["other key of the same user"]},
        "other user": {own["other user"], own["key of the other user"]},
        "key": {own["key"]},
        "other key of the same user": {own["other key of the same user"]},
        "key of the other user": {own["key of the other user"]},
        "visitor": {own["visitor"]},
        "other visitor": {own["other visitor"]},
        "newcomer": set(),
    }


def test_signing_in_does_not_show_the_visitors_captions(
    client: Client, user: User, fake_engine: FakeEngine, photo_bytes: bytes
) -> None:
    made = client.generic("POST", URL, photo_bytes, content_type="image/jpeg").json()
    client.force_login(user)
    assert client.get(made["links"]["self"]).status_code == 404


@pytest.mark.django_db
def test_forged_visitor_cookie_is_nobody(client: Client, visitor: Owner, fake_engine: FakeEngine) -> None:
    caption = caption_create(draw_jpeg(), owner=visitor, source=Caption.Source.WEB)
    client.cookies["captioner_visitor"] = str(visitor.visitor)
    assert client.get(f"{URL}/{caption.pk}").status_code == 404
