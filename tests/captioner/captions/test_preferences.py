"""Alternatives that people take are preferences; ratings order the review queue by what each person usually gives."""

from django.contrib.auth.models import User

from captioner.captions.captions import caption_create
from captioner.captions.feedback import feedback_submit
from captioner.models import Caption, Feedback, Owner, Preference
from tests.conftest import FakeEngine, draw_jpeg


def captioned(user: User, number: int) -> Caption:
    return caption_create(draw_jpeg((40 + number, 30)), owner=Owner(user=user), source=Caption.Source.WEB)


def test_taking_an_alternative_is_kept_as_a_preference(caption: Caption, user: User) -> None:
    caption.alternatives = [{"caption": "a teal field", "confidence": None}]
    caption.save()
    feedback_submit(caption, ideal_caption="A teal  field")
    pick = Preference.objects.get()
    assert (pick.kind, pick.preferred, pick.other, pick.voter) == ("pick", "a teal field", caption.text, user)
    assert pick.preferred_version == pick.other_version == caption.model_version
    feedback_submit(caption, ideal_caption="something of my own")
    assert not Preference.objects.exists(), "said anew, it is what was said last"


def test_what_is_preferred_to_a_remembered_caption_is_no_preference_among_the_models(
    caption: Caption, user: User
) -> None:
    """The person was shown what somebody had written, and never saw the model's own as the answer."""
    caption.alternatives = [{"caption": "a teal field", "confidence": None}]
    caption.origin = Caption.Origin.MEMORY
    caption.save()
    feedback_submit(caption, ideal_caption="a teal field")
    assert not Preference.objects.exists()


def test_a_low_rating_of_a_mild_person_comes_before_that_of_a_harsh_one(
    user: User, other_user: User, fake_engine: FakeEngine
) -> None:
    for number in range(12):
        feedback_submit(captioned(user, number), rating=9)
        feedback_submit(captioned(other_user, number), rating=3)
    mild, _ = feedback_submit(captioned(user, 20), rating=4)
    harsh, _ = feedback_submit(captioned(other_user, 20), rating=3)
    unrated, _ = feedback_submit(captioned(user, 21), ideal_caption="my own")
    assert mild.priority > harsh.priority
    assert unrated.priority == 0
    queue = list(Feedback.objects.pending())
    assert queue[0] == mild
    assert [*Feedback.objects.pending().after(queue[3])] == queue[4:]
