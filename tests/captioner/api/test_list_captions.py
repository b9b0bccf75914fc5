"""GET /api/v1/captions"""

from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client

from captioner.captions.captions import caption_create
from captioner.captions.feedback import feedback_review, feedback_submit
from captioner.models import Caption, Feedback, Owner, Photo
from tests.conftest import FakeEngine, draw_jpeg

URL = "/api/v1/captions"
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
def ada(client: Client, user: User) -> Client:
    client.force_login(user)
    return client


@pytest.fixture
def photo(db: None) -> Photo:
    return Photo.objects.create(sha256="0" * 64, file="00/0.jpg", width=4, height=3)


def log(user: User, photo: Photo, text: str = "a cat", at: datetime = NOON, version: str = "v1") -> Caption:
    caption = Caption.objects.create(user=user, photo=photo, source="api", text=text, model_version=version)
    Caption.objects.filter(pk=caption.pk).update(created_at=at)
    return caption


def texts(client: Client, **query: object) -> list[str]:
    response = client.get(URL, query)
    assert response.status_code == 200, response.json()
    return [caption["caption"] for caption in response.json()["results"]]


def walk(client: Client, url: str, link: str = "next") -> list[list[str]]:
    """The captions of every page from `url` on."""
    pages = []
    while url:
        body = client.get(url).json()
        pages.append([caption["caption"] for caption in body["results"]])
        url = body[link]
    return pages


def test_newest_first(ada: Client, user: User, photo: Photo) -> None:
    log(user, photo, "older", NOON - timedelta(seconds=1))
    log(user, photo, "newest", NOON + timedelta(seconds=1))
    log(user, photo, "newer", NOON)
    assert texts(ada) == ["newest", "newer", "older"]


def test_entries_are_whole_captions(ada: Client, user: User, fake_engine: FakeEngine) -> None:
    caption = caption_create(draw_jpeg(), owner=Owner(user=user), source=Caption.Source.WEB)
    feedback_submit(caption, rating=7)
    entry = ada.get(URL).json()["results"][0]
    assert entry == ada.get(f"{URL}/{caption.pk}").json()
    assert entry["feedback"]["rating"] == 7


def test_only_own_captions(ada: Client, user: User, other_user: User, photo: Photo) -> None:
    log(user, photo, "mine")
    log(other_user, photo, "theirs")
    assert texts(ada) == ["mine"]


def test_nobody_has_no_captions(client: Client, user: User, photo: Photo) -> None:
    log(user, photo)
    assert texts(client) == []


@pytest.mark.parametrize("count", [1, 30])
def test_number_of_queries_does_not_grow(
    ada: Client, user: User, photo: Photo, count: int, django_assert_num_queries
) -> None:
    for _ in range(count):
        feedback_submit(log(user, photo), rating=1)
    with django_assert_num_queries(4):  # session, user, captions with photo and feedback, what became of that
        assert len(ada.get(URL, {"page_size": 100}).json()["results"]) == count


# --- Pages --------------------------------------------------------------------------------------------------


def test_pages_cover_everything_once_in_both_directions(ada: Client, user: User, photo: Photo) -> None:
    for number in range(7):
        log(user, photo, str(number), NOON + timedelta(minutes=number))
    assert walk(ada, f"{URL}?page_size=3") == [["6", "5", "4"], ["3", "2", "1"], ["0"]]
    last = ada.get(ada.get(ada.get(f"{URL}?page_size=3").json()["next"]).json()["next"]).json()
    assert walk(ada, last["previous"], "previous") == [["3", "2", "1"], ["6", "5", "4"]]


def test_captions_of_one_moment_are_neither_lost_nor_repeated(ada: Client, user: User, photo: Photo) -> None:
    for number in range(10):
        log(user, photo, str(number))
    seen = [text for page in walk(ada, f"{URL}?page_size=3") for text in page]
    assert sorted(seen) == [str(number) for number in range(10)]


def test_new_captions_do_not_shift_the_next_page(ada: Client, user: User, photo: Photo) -> None:
    for number in range(4):
        log(user, photo, str(number), NOON + timedelta(minutes=number))
    following = ada.get(f"{URL}?page_size=2").json()["next"]
    log(user, photo, "late", NOON + timedelta(hours=1))
    assert walk(ada, following) == [["1", "0"]]


def test_page_size_can_be_chosen(ada: Client, user: User, photo: Photo) -> None:
    Caption.objects.bulk_create(
        Caption(user=user, photo=photo, source="api", text="a cat") for _ in range(101)
    )
    assert len(texts(ada)) == 20
    assert len(texts(ada, page_size=100)) == 100


@pytest.mark.parametrize(
    "cursor",
    ["x", "é", "cD1ub3doZXJl", "cj1h", "cD0wMDAxLTAxLTAxKzE0OjAw", "cD0wMDAxLTAxLTAxIDAwOjAwKzE0OjAw"],
)
def test_cursor_that_was_never_handed_out(ada: Client, user: User, photo: Photo, cursor: str) -> None:
    log(user, photo)
    response = ada.get(f"{URL}?cursor={cursor}")
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "cursor"


# --- Filters ------------------------------------------------------------------------------------------------


def test_search_ignores_case(ada: Client, user: User, photo: Photo) -> None:
    log(user, photo, "A brown DOG runs")
    log(user, photo, "a cat sleeps")
    assert texts(ada, search="dog") == ["A brown DOG runs"]


def test_search_finds_what_the_person_wrote_and_no_longer_what_the_model_did(
    ada: Client, user: User, photo: Photo
) -> None:
    for text in ("a cat", "a dog"):
        made = log(user, photo, text)
    feedback_submit(made, ideal_caption="a wet Poodle")
    assert texts(ada, search="poodle") == ["a wet Poodle"]
    assert texts(ada, search="dog") == []


def test_search_finds_words_and_not_parts_of_them(ada: Client, user: User, photo: Photo) -> None:
    log(user, photo, "a woman in a kitchen")
    log(user, photo, "a young man's hat, on a dog")
    for found in ("man", "hat", "DOG young", "man's hat"):
        assert texts(ada, search=found) == ["a young man's hat, on a dog"]
    assert texts(ada, search="wom") == texts(ada, search="man kitchen") == texts(ada, search="?!") == []


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        (
            "\u0421\u043e\u0431\u0430\u043a\u0430 \u0411\u0415\u0416\u0418\u0422",
            "\u0441\u043e\u0431\u0430\u043a\u0430",
        ),
        ("Ein M\u00e4dchen", "M\u00c4DCHEN"),
        ("Ein M\u00e4dchen", "ma\u0308dchen"),
        ("mit A\u0308rmeln", "\u00e4rmeln"),
        ("\u4e00\u53ea\u68d5\u8272\u7684\u72d7\u5728\u8349\u5730\u4e0a", "\u68d5\u8272\u7684\u72d7"),
        ("\u0643\u0644\u0628 \u064a\u062c\u0631\u064a", "\u064a\u062c\u0631\u064a"),
    ],
)
def test_search_takes_any_letter_case_and_unicode_form(
    ada: Client, user: User, photo: Photo, written: str, wanted: str
) -> None:
    log(user, photo, written)
    assert texts(ada, search=wanted) == [written]


def test_search_treats_wildcards_as_text(ada: Client, user: User, photo: Photo) -> None:
    log(user, photo, "a cat sleeps")
    assert texts(ada, search="%") == texts(ada, search="a_cat") == []


def test_by_model_version(ada: Client, user: User, photo: Photo) -> None:
    log(user, photo, "one", version="v1")
    log(user, photo, "two", version="v2")
    assert texts(ada, model_version="v2") == ["two"]


def test_by_feedback_status(ada: Client, user: User, reviewer: User, photo: Photo) -> None:
    log(user, photo, "unrated")
    feedback_submit(log(user, photo, "rated"), rating=3)
    feedback_submit(log(user, photo, "reviewed"), rating=3)
    reviewed = Feedback.objects.filter(caption__text="reviewed")
    feedback_review(reviewed, Feedback.Status.APPROVED, reviewer=reviewer)
    assert texts(ada, feedback_status="none") == ["unrated"]
    assert texts(ada, feedback_status="pending") == ["rated"]
    assert texts(ada, feedback_status="approved") == ["reviewed"]
    assert texts(ada, feedback_status="rejected") == []


def test_by_time(ada: Client, user: User, photo: Photo) -> None:
    for hour in (10, 11, 12):
        log(user, photo, str(hour), NOON.replace(hour=hour))
    assert texts(ada, created_after="2026-01-31T11:00:00Z") == ["12", "11"]
    assert texts(ada, created_before="2026-01-31T11:00:00Z") == ["10"]
    assert texts(ada, created_after="2026-01-31T12:00:00+01:00", created_before="2026-01-31T12:00:00Z") == [
        "11"
    ]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("page_size", "101"),
        ("page_size", "0"),
        ("page_size", "all"),
        ("feedback_status", "great"),
        ("created_after", "yesterday"),
        ("created_before", "0001-01-01T00:00:00+14:00"),
        ("created_after", "9999-12-31T23:59:59-14:00"),
        ("search", "nul\0"),
        ("model_version", "\0"),
    ],
)
def test_bad_filter_is_named(ada: Client, field: str, value: str) -> None:
    response = ada.get(URL, {field: value})
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == field


@pytest.mark.parametrize("zone", ["+01:00", " 01:00", "%2B01:00", " 0100", "Z", ".5 01:00"])
def test_a_zone_east_of_greenwich_needs_no_escaping(ada: Client, user: User, photo: Photo, zone: str) -> None:
    log(user, photo, "a cat", NOON)
    response = ada.get(f"{URL}?created_after=2026-01-31T12:00:00{zone}")
    assert response.status_code == 200, response.json()
    assert len(response.json()["results"]) == 1


@pytest.mark.parametrize("search", ["собака", "MÄDCHEN", "ma\u0308dchen", "caf\u00c9"])
def test_search_knows_the_cases_of_all_letters(ada: Client, user: User, photo: Photo, search: str) -> None:
    log(user, photo, "Собака und ein Mädchen im Café")
    assert texts(ada, search=search) == ["Собака und ein Mädchen im Café"]
