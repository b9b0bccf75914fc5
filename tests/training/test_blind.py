"""Blind votes and blind captions: nothing tells which is which, votes promote by the policy, texts go with photos."""

from __future__ import annotations

import re

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from captioner.captions.captions import caption_create, caption_delete
from captioner.models import Caption, Owner, Preference
from models_registry import promotions, versions
from models_registry.manifest import Lineage
from models_registry.models import Promotion
from tests.photos import draw_scene
from training import blind, decisions
from training.exceptions import RunRefused
from training.models import BlindCaption, Comparison, HeldOutPhoto, TrainingRun

PHOTOS = 14


@pytest.fixture
def photos(fake_engine, user: User) -> list[Caption]:
    """Captions of photos that are held out."""
    captions = [
        caption_create(draw_scene(number), owner=Owner(user=user), source=Caption.Source.WEB)
        for number in range(PHOTOS)
    ]
    HeldOutPhoto.objects.bulk_create(HeldOutPhoto(photo=caption.photo) for caption in captions)
    return captions


@pytest.fixture
def run(base, tiny_checkpoint, photos: list[Caption]) -> TrainingRun:
    """Finished, with too little evidence for the gate."""
    candidate = versions.version_publish(
        tiny_checkpoint,
        model_name="tiny-learned",
        origin="test",
        licence="none",
        lineage=Lineage(base=base.pk),
    )
    made = TrainingRun.objects.create(
        trigger="person",
        status="finished",
        base=base,
        champion=base,
        candidate=candidate,
        verdict="insufficient evidence",
        report={"reason": "Only 14 held-out photos."},
        finished_at=timezone.now(),
    )
    Comparison.objects.bulk_create(
        Comparison(run=made, photo=caption.photo, candidate=f"new {n}", champion=f"old {n}")
        for n, caption in enumerate(photos)
    )
    return made


@pytest.fixture
def staff(reviewer: User, client: Client) -> Client:
    client.force_login(reviewer)
    return client


def page_of(run: TrainingRun) -> str:
    return reverse("admin:training_trainingrun_vote", args=[run.pk])


def form_of(page: str) -> dict[str, str]:
    return dict(re.findall(r'name="(comparison|lot)" value="([^"]+)"', page))


def captions_of(page: str) -> list[str]:
    """What the two buttons say, in their order."""
    return re.findall(r'value="(?:first|second)".*?<span>([^<]+)</span>', page)


def vote(client: Client, run: TrainingRun, prefix: str):
    """Votes for the caption that begins with `prefix`, whichever button that is on."""
    page = client.get(page_of(run)).text
    choice = "first" if captions_of(page)[0].startswith(prefix) else "second"
    return client.post(page_of(run), {**form_of(page), "choice": choice}, follow=True)


def test_votes_are_kept_as_preferences_and_decide(base, run: TrainingRun, staff: Client, reviewer) -> None:
    for _ in range(11):
        vote(staff, run, "new")
    assert promotions.champion_get() == base
    page = vote(staff, run, "new")
    assert "That vote decided: 12 of 12 votes for the candidate: preferred" in page.text
    assert "People's blind votes: 12 of 12" in page.text or "People&#x27;s blind votes: 12 of 12" in page.text
    run.refresh_from_db()
    assert promotions.champion_get() == run.candidate
    assert (run.votes_verdict, run.final_verdict, run.promoted_to) == ("preferred", "passed", "champion")
    assert run.verdict == "insufficient evidence", "what the gate said stays"
    entry = Promotion.objects.first()
    assert (entry.cause, entry.training_run) == (Promotion.Cause.VOTES, run.pk)
    kept = Preference.objects.filter(training_run=run.pk)
    assert {(each.preferred_version, each.voter) for each in kept} == {(run.candidate_id, reviewer)}
    assert all(each.preferred.startswith("new ") and each.other.startswith("old ") for each in kept)
    assert "The votes have decided" in staff.get(page_of(run)).text


def test_votes_against_it_leave_what_serves(base, run: TrainingRun, staff: Client) -> None:
    for _ in range(9):
        vote(staff, run, "old")
    run.refresh_from_db()
    assert (run.votes_verdict, run.final_verdict) == ("not preferred", "insufficient evidence")
    assert promotions.champion_get() == base


def test_who_follows_a_rejected_candidate_shares_its_level(run: TrainingRun, staff: Client, photos) -> None:
    """A fresh test of 5 % every night would promote one day what is no better."""
    following = TrainingRun.objects.create(
        trigger="person",
        status="finished",
        base=run.base,
        champion=run.champion,
        candidate=run.candidate,
        verdict="insufficient evidence",
        finished_at=timezone.now(),
    )
    Comparison.objects.bulk_create(
        Comparison(run=following, photo=caption.photo, candidate=f"new {n}", champion=f"old {n}")
        for n, caption in enumerate(photos)
    )
    vote(staff, run, "new")
    for _ in range(9):
        vote(staff, run, "old")
    for _ in range(12):
        vote(staff, following, "new")
    for each in (run, following):
        each.refresh_from_db()
    assert (run.votes_look, run.votes_verdict) == (1, "not preferred")
    assert (following.votes_look, following.votes_verdict) == (2, ""), "twelve of twelve are not enough"
    page = staff.get(reverse("admin:training_trainingrun_change", args=[run.pk])).text
    assert "at most 5% of verdicts wrong" in page


def test_the_page_tells_not_which_is_which_nor_how_it_stands(run: TrainingRun, staff: Client) -> None:
    orders = set()
    for _ in range(20):
        page = staff.get(page_of(run)).text
        assert run.candidate_id not in page
        orders.add(captions_of(page)[0].split()[0])
    assert orders == {"new", "old"}, "the order is drawn anew each time"
    vote(staff, run, "new")
    assert "1 vote so far" in staff.get(page_of(run)).text
    assert "1 of 1" not in staff.get(page_of(run)).text


def test_nobody_votes_twice_on_a_photo(run: TrainingRun, reviewer: User) -> None:
    comparison = run.comparisons.first()
    blind.vote_cast(comparison, prefers_candidate=True, by=reviewer)
    with pytest.raises(RunRefused, match="already"):
        blind.vote_cast(comparison, prefers_candidate=True, by=reviewer)
    seen = {blind.comparison_next(run) for _ in range(40)}
    assert comparison not in seen


def test_what_can_be_gained_no_more_is_not_voted_on(base, run: TrainingRun, reviewer: User) -> None:
    assert blind.votes_closed(run) == ""
    run.comparisons.update(candidate="the same", champion="the same")
    assert "say the same" in blind.votes_closed(run)
    decisions.run_overrule(run, "rejected", reason="It invents giraffes", by=reviewer)
    run.refresh_from_db()
    assert "votes would not change it" in blind.votes_closed(run)


@pytest.mark.parametrize(
    ("fields", "status"),
    [({}, 404), ({"choice": "third"}, 404), ({"comparison": "x"}, 404), ({"comparison": "9" * 30}, 404)],
)
def test_a_form_that_says_something_else_is_refused(
    run: TrainingRun, staff: Client, fields: dict, status: int
) -> None:
    form = form_of(staff.get(page_of(run)).text)
    assert staff.post(page_of(run), form | fields).status_code == status


def test_who_may_not_act_on_runs_does_not_vote(run: TrainingRun, client: Client) -> None:
    client.force_login(User.objects.create_user("lou", is_staff=True))
    assert client.get(page_of(run)).status_code == 403
    assert client.get(reverse("admin:training_blindcaption_write")).status_code == 403


def test_a_reviewer_writes_of_a_held_out_photo_alone(photos, staff: Client, reviewer: User) -> None:
    address = reverse("admin:training_blindcaption_write")
    page = staff.get(address).text
    assert "photo-large" in page
    assert not [caption for caption in photos if caption.text in page], "no caption of it is shown"
    photo = re.search(r'name="photo" value="(\d+)"', page)[1]
    assert staff.post(address, {"photo": photo, "text": "  "}).status_code == 400
    staff.post(address, {"photo": photo, "text": "two dogs  in the snow"})
    written = BlindCaption.objects.get()
    assert (written.photo_id, written.text, written.written_by) == (
        int(photo),
        "two dogs in the snow",
        reviewer,
    )
    assert int(photo) not in {blind.held_out_next(reviewer).pk for _ in range(20)}
    assert "two dogs in the snow" in staff.get(reverse("admin:training_blindcaption_changelist")).text


def test_who_captioned_a_photo_is_not_asked_to_write_of_it_blind(photos, user: User) -> None:
    assert blind.held_out_next(user) is None


def test_who_voted_on_a_photo_has_read_of_it(run: TrainingRun, photos, reviewer: User) -> None:
    comparison = run.comparisons.get(photo=photos[0].photo)
    blind.vote_cast(comparison, prefers_candidate=True, by=reviewer)
    assert photos[0].photo_id not in {blind.held_out_next(reviewer).pk for _ in range(40)}
    with pytest.raises(RunRefused, match="have read captions"):
        blind.blind_caption_write(HeldOutPhoto.objects.get(pk=photos[0].photo_id), "a dog", by=reviewer)


def test_a_second_vote_on_a_photo_is_no_evidence(run: TrainingRun, reviewer: User, user: User) -> None:
    comparison = run.comparisons.first()
    blind.vote_cast(comparison, prefers_candidate=True, by=reviewer)
    assert blind.vote_cast(comparison, prefers_candidate=True, by=user).votes == 1


def test_what_was_said_of_a_photo_goes_with_it(run: TrainingRun, photos, reviewer: User) -> None:
    blind.blind_caption_write(HeldOutPhoto.objects.get(pk=photos[0].photo_id), "a dog", by=reviewer)
    blind.vote_cast(run.comparisons.get(photo=photos[0].photo), prefers_candidate=True, by=reviewer)
    caption_delete(photos[0])
    assert not Preference.objects.exists()
    assert not BlindCaption.objects.exists()
    assert run.comparisons.count() == PHOTOS - 1
