from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from training.judging import measure
from training.judging.association import Association
from training.judging.gate import (
    LEVEL,
    LOOKS,
    Decision,
    Measured,
    Question,
    ScoredCaptions,
    Verdict,
    decide,
    look_level,
    paired_bootstrap,
)
from training.judging.scores import captions_score

PHOTOS = 250


def measured(
    level: float, seed: int = 0, photos: int = PHOTOS, noise: float = 10.0, words: str = "dog"
) -> ScoredCaptions:
    generator = random.Random(seed)
    captions = [f"a {words} number {n} runs" for n in range(photos)]
    return ScoredCaptions(
        captions, [level + generator.gauss(0, noise) for _ in range(photos)], [2.0] * photos
    )


def verdict(
    candidate: ScoredCaptions, champion: ScoredCaptions | None = None, **changes
) -> tuple[Verdict, str]:
    decision = decided(candidate, champion, **changes)
    return decision.verdict, decision.reason


def decided(
    candidate: ScoredCaptions,
    champion: ScoredCaptions | None = None,
    base: ScoredCaptions | None = None,
    kept: dict[Question, Measured] | None = None,
    **changes,
) -> Decision:
    champion = champion or measured(20, seed=1, photos=len(candidate.captions))
    same = measured(30, seed=2)
    questions = {
        "corrections": ["a cat sits on the old red chair by the open window"],
        "people": champion.captions,
        "association": Association(alike=0.3, dealt=0.1, p=0.0001, rows=100),
        "replayed": 100,
        "latency_ratio": 1.0,
        "golden_captioned": True,
    } | changes
    return decide(
        holdout=Measured(candidate, champion, base or champion),
        kept={Question.ANCHOR: Measured(same, same, same)} if kept is None else kept,
        **questions,
    )


def anchor(candidate: ScoredCaptions, champion: ScoredCaptions, base: ScoredCaptions | None = None):
    return {"kept": {Question.ANCHOR: Measured(candidate, champion, base or champion)}}


def lowered(scores: ScoredCaptions, points: float, words: str = "dog") -> ScoredCaptions:
    """Captions that score so much less, give or take."""
    generator = random.Random(points)
    captions = [f"a {words} number {n} stands" for n in range(len(scores.captions))]
    return replace(
        scores, captions=captions, cider_d=[each - points + generator.gauss(0, 15) for each in scores.cider_d]
    )


def test_the_interval_is_that_of_the_mean_difference() -> None:
    # Differences of mean 1 and standard deviation 1, 400 photos: standard error 0.05, 90 % lie within 1.645 of it.
    candidate = [0.0, 2.0] * 200
    interval = paired_bootstrap(candidate, [0.0] * 400)
    assert interval.mean == 1.0
    assert interval.lower == pytest.approx(1 - 1.645 * 0.05, abs=0.01)
    assert interval.upper == pytest.approx(1 + 1.645 * 0.05, abs=0.01)


def test_pairs_stay_together() -> None:
    scores = [float(n) for n in range(300)]
    interval = paired_bootstrap([score + 5 for score in scores], scores)
    assert interval.lower == interval.upper == 5.0


def test_photos_of_a_group_are_one_piece_of_evidence() -> None:
    """Ten copies of each of 40 photos tell as much as the 40 photos."""
    generator = random.Random(0)
    differences = [generator.gauss(1, 5) for _ in range(40)]
    single = paired_bootstrap(differences, [0.0] * 40)
    copies = [each for each in differences for _ in range(10)]
    grouped = paired_bootstrap(copies, [0.0] * 400, [f"g{n // 10}" for n in range(400)])
    assert (grouped.photos, grouped.groups) == (400, 40)
    assert (single.photos, single.groups) == (40, 40)
    for name in ("mean", "lower", "upper"):
        assert getattr(grouped, name) == pytest.approx(getattr(single, name), abs=0.1)
    assert paired_bootstrap(copies, [0.0] * 400).lower > grouped.lower + 0.5


def test_a_large_group_weighs_as_much_as_it_has_photos() -> None:
    interval = paired_bootstrap([4.0, 4.0, 4.0, 0.0], [0.0] * 4, ["a", "a", "a", "b"])
    assert (interval.mean, interval.lower, interval.upper) == (3.0, 0.0, 4.0)


def test_bounds_of_a_few_photos_are_wide_enough() -> None:
    """Of differences around 0, one upper bound in twenty is below it, of ten photos too: percentiles: one in ten."""
    generator = np.random.default_rng(0)
    bounds = [paired_bootstrap(generator.normal(0, 10, 10), [0.0] * 10).upper for _ in range(400)]
    assert sum(bound < 0 for bound in bounds) / 400 < 0.075


# --- Looks that are paid for ---


def test_a_hundred_looks_cost_what_one_may() -> None:
    levels = [look_level(look) for look in range(1, 400)]
    assert levels == sorted(levels, reverse=True)
    assert levels[0] > 0.01
    assert all(sum(levels[start : start + LOOKS]) <= LEVEL for start in (0, 50, 250))


def test_what_passes_at_the_first_look_may_not_at_the_fiftieth() -> None:
    champion = measured(20, seed=1)
    better = replace(lowered(champion, -2.7), strangers=[-1.0] * PHOTOS)
    assert paired_bootstrap(better.cider_d, champion.cider_d).lower > 0
    first, fiftieth = (decided(better, champion, look=look) for look in (1, 50))
    assert (first.verdict, fiftieth.verdict) == (Verdict.PASSED, Verdict.REJECTED)
    assert "look 50 at the champion" in fiftieth.reason
    assert first.holdout.lower > fiftieth.holdout.lower
    assert fiftieth.look == 50


def test_who_has_too_few_photos_to_promote_anything_spends_no_look() -> None:
    assert decided(measured(40, photos=40), look=3).look is None


# --- Harm ---


@pytest.mark.parametrize("photos", [6, 21, 199, PHOTOS])
def test_proven_harm_rejects_on_however_few_photos(photos: int) -> None:
    decision = decided(measured(0, photos=photos))
    assert decision.verdict == Verdict.REJECTED
    assert decision.is_harmful
    assert decision.reason.startswith("proven to be worse: held-out feedback photos against the champion: -")


@pytest.mark.parametrize("photos", [1, 4, 5])
def test_so_few_photos_that_all_may_be_worse_by_chance_prove_nothing(photos: int) -> None:
    decision = decided(measured(0, photos=photos))
    assert (decision.verdict, decision.is_harmful) == (Verdict.INSUFFICIENT, False)


def test_who_is_asked_six_times_is_no_likelier_to_be_called_harmful() -> None:
    """Three sets beside champion and base, all as good as each other: 5 % of such candidates, not of such questions."""
    harmful = 0
    for seed in range(120):
        generator = np.random.default_rng(seed)
        sets = {}
        for question in (Question.HOLDOUT, Question.ANCHOR, Question.ORIGINAL):
            sets[question] = Measured(
                *(
                    ScoredCaptions([f"{role} {n}" for n in range(40)], generator.normal(50, 20, 40).tolist())
                    for role in ("candidate", "champion", "base")
                )
            )
        holdout = sets.pop(Question.HOLDOUT)
        decision = decided(holdout.candidate, holdout.champion, holdout.base, sets)
        harmful += decision.is_harmful
        assert "at 5% for all 6 together" in decision.checks[0].required
    assert harmful / 120 <= 0.075


def test_harm_on_the_anchor_is_harm_whatever_the_gain() -> None:
    before = measured(30, seed=2, noise=1)
    decision = decided(measured(60), **anchor(lowered(before, 2.5), before))
    assert (decision.verdict, decision.is_harmful) == (Verdict.REJECTED, True)
    assert "anchor photos against the champion" in decision.reason


def test_instalments_are_rejected_on_the_second_night() -> None:
    """Each night 2 less than the champion of the night before, on so few photos that this alone proves nothing."""

    def of(night: int) -> ScoredCaptions:
        swings = [(11, 11, -11, -11), (11, -11, 11, -11)]
        scores = [60 - 2 * night + (swings[night - 1][n % 4] if night else 0) for n in range(60)]
        return ScoredCaptions([f"a dog of number {n} in night {night}" for n in range(60)], scores)

    assert decided(measured(60), **anchor(of(1), of(0))).verdict == Verdict.PASSED
    again = decided(measured(60), base=measured(20, seed=3), **anchor(of(2), of(1), of(0)))
    assert again.verdict == Verdict.REJECTED
    assert "against the base" in again.reason


# --- Sentences learned by heart ---


def test_repeating_what_was_written_of_other_photos_is_rejected() -> None:
    corrections = [f"the small brown dog of number {n} lies in the green grass" for n in range(50)]
    good = measured(60)
    parrot = replace(good, captions=[*corrections[:9], *good.captions[9:]])
    decision = decided(parrot, corrections=corrections)
    assert decision.failed == {Question.MEMORISING}
    assert "9 of 500 repeat a correction, of the base 0" in decision.reason
    few = replace(good, captions=[*corrections[:4], *good.captions[4:]])
    assert decided(few, corrections=corrections).verdict == Verdict.PASSED


def test_what_the_base_says_anyway_is_nobodys_sentence() -> None:
    good, champion = measured(60), measured(20, seed=1)
    assert decided(good, champion, corrections=list(good.captions)).verdict == Verdict.PASSED, (
        "the base's words"
    )


def test_repeats_count_also_on_few_photos() -> None:
    corrections = ["the small brown dog lies in the green grass"]
    parrot = replace(measured(40, photos=20), captions=corrections * 20)
    assert decided(parrot, corrections=corrections).verdict == Verdict.REJECTED


def test_photos_that_repeat_each_other_are_too_few_for_a_verdict() -> None:
    found, reason = verdict(measured(40), groups=[f"g{n // 2}" for n in range(PHOTOS)])
    assert found == Verdict.INSUFFICIENT
    assert f"Only {PHOTOS // 2} held-out photos" in reason
    assert verdict(measured(40), groups=[f"g{n}" for n in range(PHOTOS)])[0] == Verdict.PASSED


def test_a_clear_gain_passes() -> None:
    assert verdict(measured(30))[0] == Verdict.PASSED


def test_who_learned_only_how_people_talk_is_rejected() -> None:
    """It scores better on the photos, and just as much better when its captions are dealt to other photos."""
    better = measured(30)
    talker = replace(better, strangers=[score - 18 for score in better.cider_d])
    said, reason = verdict(talker)
    assert said == Verdict.REJECTED
    assert reason.startswith("captions fit their own photo")


def test_strangers_are_what_captions_of_other_photos_score() -> None:
    things = ("red cup", "red book", "blue cat", "blue lamp", "green fish", "green shoe")
    references = [[f"a {thing} on a table"] for thing in things]
    own = [each[0] for each in references]
    matched, strangers = (
        captions_score(own, references).cider_d_each,
        measure.strangers_score(own, references),
    )
    assert 0 < sum(strangers) < 0.2 * sum(matched), "a colour is shared with one of five others"
    assert measure.strangers_score(["the sun"] * 6, references) == [0.0] * 6


@pytest.mark.parametrize(("gain", "noise"), [(1.5, 0.1), (3.0, 80.0), (0.0, 10.0), (-5.0, 1.0)])
def test_a_gain_that_is_small_or_uncertain_is_rejected(gain: float, noise: float) -> None:
    outcome, reason = verdict(measured(20 + gain, noise=noise), measured(20, seed=1, noise=noise))
    assert outcome == Verdict.REJECTED
    assert "held-out feedback photos" in reason


def test_the_champion_itself_is_not_better_than_the_champion() -> None:
    champion = measured(20)
    assert verdict(champion, champion)[0] == Verdict.REJECTED


def test_forgetting_is_rejected() -> None:
    same = measured(30, seed=2)
    for question, name in ((Question.ORIGINAL, "original test photos"), (Question.ANCHOR, "anchor photos")):
        outcome, reason = verdict(measured(40), kept={question: Measured(measured(25, seed=2), same, same)})
        assert outcome == Verdict.REJECTED
        assert f"{name}: -5.0" in reason


def test_no_photos_to_hold_on_to_leave_it_to_a_reviewer() -> None:
    outcome, reason = verdict(measured(40), kept={})
    assert outcome == Verdict.INSUFFICIENT
    assert "anchor photos" in reason


def test_answers_have_names_that_programs_know() -> None:
    checks = decided(measured(40), kept={}, replayed=3, latency_ratio=1.2).to_dict()["checks"]
    assert [check["question"] for check in checks] == [q for q in Question if q != Question.ORIGINAL]
    by_answer = {answer: [c["question"] for c in checks if c["passed"] is answer] for answer in (False, None)}
    assert by_answer == {False: ["latency"], None: ["anchor", "replayed"]}


@pytest.mark.parametrize("photos", [1, 199])
def test_few_photos_are_insufficient_evidence_of_a_gain(photos: int) -> None:
    outcome, reason = verdict(measured(40, photos=photos))
    assert outcome == Verdict.INSUFFICIENT
    assert f"Only {photos} held-out photos" in reason


def test_no_held_out_photo_at_all_is_insufficient_evidence() -> None:
    nothing = ScoredCaptions((), ())
    assert verdict(nothing, nothing)[0] == Verdict.INSUFFICIENT


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"captions": ["a dog on a"] * 5 + [f"a dog {n}" for n in range(PHOTOS - 5)]}, "function word"),
        ({"captions": ["a dog runs here now"] * PHOTOS}, "distinct"),
        ({"captions": [f"dog {n}" for n in range(PHOTOS)]}, "length"),
        ({"captions": [f"a large brown dog number {n} runs and runs" for n in range(PHOTOS)]}, "length"),
    ],
)
def test_guards_object_to_captions_that_scores_would_let_pass(change: dict, name: str) -> None:
    candidate = ScoredCaptions(change["captions"], measured(60).cider_d)
    outcome, reason = verdict(candidate)
    assert outcome == Verdict.REJECTED
    assert name in reason


@pytest.mark.parametrize(
    "captions",
    [
        ["a dog on a", *(f"a dog number {n} runs" for n in range(4))],
        ["a dog runs here now"] * 5,
        [f"dog {n}" for n in range(5)],
    ],
)
def test_of_few_captions_the_guards_on_text_reject_nothing(captions: list[str]) -> None:
    """One of five captions that ends on a function word is 20 %, and no evidence."""
    few = replace(measured(40, photos=5), captions=captions)
    assert verdict(few)[0] == Verdict.INSUFFICIENT


@pytest.mark.parametrize(
    "change",
    [
        anchor(measured(25, seed=2), measured(30, seed=2)),
        {"latency_ratio": 1.2},
        {"golden_captioned": False},
        {"association": Association(alike=0.12, dealt=0.1, p=0.002, rows=100)},
    ],
)
def test_what_needs_no_held_out_photo_rejects_also_with_few(change: dict) -> None:
    assert verdict(measured(40, photos=5), **change)[0] == Verdict.REJECTED


@pytest.mark.parametrize("replayed", [0, 99])
def test_who_was_hardly_kept_from_forgetting_is_for_a_reviewer(replayed: int) -> None:
    found, reason = verdict(measured(40), replayed=replayed)
    assert found == Verdict.INSUFFICIENT
    assert f"photos replayed against forgetting: {replayed}, required at least 100" in reason


def test_captions_may_be_as_brief_and_as_alike_as_what_people_write() -> None:
    brief = replace(measured(60), captions=[f"dog {n % 100}" for n in range(PHOTOS)])
    assert verdict(brief)[0] == Verdict.REJECTED
    assert verdict(brief, people=[f"dog {n % 120}" for n in range(PHOTOS)])[0] == Verdict.PASSED


def test_brief_people_do_not_make_the_champion_s_length_wrong() -> None:
    assert verdict(measured(40), people=[f"dog {n}" for n in range(PHOTOS)])[0] == Verdict.PASSED


def test_slow_or_broken_candidates_are_rejected_even_with_little_evidence() -> None:
    few = measured(40, photos=20)
    assert verdict(few, latency_ratio=1.2)[0] == Verdict.REJECTED
    assert verdict(few, golden_captioned=False, golden_note="it crashed")[1].count("it crashed") == 1


def test_scores_of_different_photos_are_refused() -> None:
    with pytest.raises(ValueError, match="2 scores"):
        paired_bootstrap([1.0, 2.0], [1.0])


@pytest.mark.parametrize(
    ("seconds", "passes"),
    [([1.0], True), ([1.5, 1.0], True), ([1.5, 1.4, 1.6, 1.05], True), ([1.3], False)],
)
def test_a_candidate_is_too_slow_only_if_it_is_every_time(
    seconds: list[float], passes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`seconds` per token of the candidate, one a round; its first call is free. The champion takes 1."""
    calls = iter(range(1000))

    def scripted(predictor: str, photo: object) -> float:
        if predictor == "champion":
            return 1.0
        return seconds[min(max(0, next(calls) - 1) // measure.TIMED_REPEATS, len(seconds) - 1)]

    monkeypatch.setattr(measure, "_token_seconds", scripted)
    ratio = measure.latency_ratio("candidate", "champion", np.zeros((1, 2, 3), np.float32))  # type: ignore[arg-type]
    assert (ratio is not None and ratio <= measure.MAX_LATENCY_RATIO) == passes


@pytest.mark.parametrize("photos", [PHOTOS, 40])
def test_corrections_that_belong_to_no_photo_are_rejected(photos: int) -> None:
    nonsense = Association(alike=0.12, dealt=0.1, p=0.002, rows=100)
    found, reason = verdict(measured(40, photos=photos), association=nonsense)
    assert found == Verdict.REJECTED
    assert (
        "corrections belong to their photos: 0.12 alike where photos are, 0.10 when dealt at random" in reason
    )
    assert (
        "by chance in 0.20% of deals (100 corrections), required by chance in at most 0.1% of deals" in reason
    )


def test_too_few_corrections_to_tell_whether_they_belong_leave_it_to_a_reviewer() -> None:
    found, reason = verdict(measured(40), association=None)
    assert found == Verdict.INSUFFICIENT
    assert "corrections belong to their photos" in reason
