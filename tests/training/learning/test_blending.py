"""How much of what was learned is kept, chosen on photos that were not learned from."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from tests.captioner.inference.checkpoints import SENTENCES, save_vit_gpt2
from training.judging.gate import ScoredCaptions
from training.judging.measure import ReferenceSet
from training.learning import blending
from training.learning.blending import blend_find, groups_inner, weights_blend
from training.learning.model import FeatureCaptioner
from training.progress import Tick


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    save_vit_gpt2(folder)
    return folder


def moved(folder: Path) -> tuple[FeatureCaptioner, FeatureCaptioner]:
    """A captioner all of whose weights are one above its base's, and the base."""
    captioner = FeatureCaptioner.load(folder)
    base = captioner.frozen_copy()
    with torch.no_grad():
        for parameter in captioner.parts.model.parameters():
            parameter += 1
    return captioner, base


def shift(captioner: FeatureCaptioner, base: FeatureCaptioner) -> float:
    pairs = zip(captioner.parts.model.parameters(), base.parts.model.parameters(), strict=True)
    [apart] = {round(float((ours - theirs).mean().detach()), 4) for ours, theirs in pairs}
    return apart


def test_averages_lie_between_the_base_and_what_was_learned(tiny: Path) -> None:
    captioner, base = moved(tiny)
    learned = {name: value.clone() for name, value in captioner.parts.model.state_dict().items()}
    for share in (0.25, 1.0, 0.0):
        weights_blend(captioner, base, learned, share)
        assert shift(captioner, base) == share


@pytest.mark.parametrize(
    ("gains", "share"),
    [
        ({0.25: 5.0, 0.5: 9.0, 0.75: 4.0, 1.0: -9.0}, 0.5),
        ({0.25: -1.0, 0.5: -5.0, 0.75: -9.0, 1.0: -30.0}, 0.0),
        ({0.25: 1.0, 0.5: 1.4, 0.75: 1.0, 1.0: 1.0}, 0.0),  # not by more than the standard error
    ],
)
def test_the_best_share_is_kept_and_none_where_none_is_surely_better(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, gains: dict[float, float], share: float
) -> None:
    captioner, base = moved(tiny)

    asked: list[object] = []

    def measured(predictor: object, photos: ReferenceSet, tick: Tick) -> ScoredCaptions:
        # The base comes first.
        asked.append(predictor)
        gain = 0.0 if len(asked) == 1 else gains[shift(captioner, base)]
        noise = 0.0 if len(asked) == 1 else 8.0  # a standard error of 3
        scores = [50.0 + gain + noise * (number % 2 - 0.5) for number in range(8)]
        return ScoredCaptions([""] * 8, scores, [0.0] * 8)

    monkeypatch.setattr(blending, "measure", measured)
    features = torch.zeros(8, 1, 1).numpy()
    blend = blend_find(captioner, base, ReferenceSet(features, [[SENTENCES[0]]] * 8), [*"abcdefgh"])
    assert (blend.share, shift(captioner, base)) == (share, share)
    assert set(blend.gains) == {0.0, *gains}


def test_a_fifth_of_the_groups_is_kept_aside_and_stays_so_when_others_come() -> None:
    few = groups_inner(f"group {n}" for n in range(100))
    many = groups_inner(f"group {n}" for n in range(110))
    assert len(few) == 20
    assert len(few & many) >= 16
    assert len(groups_inner(["only one", "only one"])) == 1


@pytest.mark.parametrize(("groups", "share"), [("abcdefgh", 0.25), ("aaaabbbb", 0.0), ("aaaaaaaa", 0.0)])
def test_photos_that_look_alike_are_one_piece_of_evidence(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, groups: str, share: float
) -> None:
    captioner, base = moved(tiny)
    scores = iter([[50.0] * 8, *[[56.0] * 4 + [49.0] * 4] * 4])  # the base's, and each share's
    monkeypatch.setattr(blending, "measure", lambda *_: ScoredCaptions([""] * 8, next(scores), [0.0] * 8))
    photos = ReferenceSet(torch.zeros(8, 1, 1).numpy(), [[SENTENCES[0]]] * 8)
    blend = blend_find(captioner, base, photos, groups)
    assert blend.share == share
    json.dumps(asdict(blend), allow_nan=False)  # as the run's report is kept
