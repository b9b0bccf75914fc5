"""How much of what was learned is kept: the inner split of the training photos chooses between the base and it.

Weights between those of a base and of its fine-tuned copy are often better than either (WiSE-FT, Wortsman et al. 2022),
and a share of none is the answer where nothing was learned that holds for photos the descent did not see.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import torch
from torch import Tensor

from training.judging.measure import ReferenceSet, measure
from training.learning.model import FeatureCaptioner
from training.progress import Tick, untold

INNER_SHARE = 0.2
SHARES = (0.25, 0.5, 0.75, 1.0)


def groups_inner(groups: Iterable[str]) -> set[str]:
    """A fifth of the groups of photos that look alike, at least one, chosen by a hash of their names.

    The same groups are chosen whatever others there are meanwhile, but for some at the edge.
    """
    drawn = sorted(set(groups), key=lambda group: hashlib.sha256(f"inner:{group}".encode()).digest())
    return set(drawn[: max(1, round(INNER_SHARE * len(drawn)))])


@dataclass(frozen=True)
class Blend:
    """The share of the learned weights that is kept, 0 to 1, and what each share gained over the base.

    Gains are means over the groups of the inner split, CIDEr-D in points, each with its standard error; of one group
    there is none.
    """

    share: float
    gains: dict[float, tuple[float, float | None]]

    @property
    def at_best(self) -> str:
        """What the best share gained, and how surely."""
        learned = [gained for share, gained in self.gains.items() if share]
        gain, error = max(learned, key=lambda gained: gained[0])
        surely = (
            "; of photos that are alike there is no telling"
            if error is None
            else f", give or take {error:.1f}"
        )
        return f"{gain:+.1f} CIDEr-D{surely}"


def blend_find(
    captioner: FeatureCaptioner,
    base: FeatureCaptioner,
    inner: ReferenceSet,
    groups: Sequence[str],
    tick: Tick = untold,
) -> Blend:
    """Leave the best average of the base's and the learned weights in `captioner`, by what it says of the inner split.

    That is the base's own weights unless another average gains more than its standard error: on few photos the best
    of several is a matter of luck. Photos that look alike, those of one of the `groups`, are one piece of evidence.
    """
    learned = {name: value.clone() for name, value in captioner.parts.model.state_dict().items()}
    gains: dict[float, tuple[float, float | None]] = {0.0: (0.0, 0.0)}
    known = measure(base.predictor(), inner, tick).cider_d
    for share in SHARES:
        weights_blend(captioner, base, learned, share)
        scores = measure(captioner.predictor(), inner, tick).cider_d
        gained: dict[str, list[float]] = defaultdict(list)
        for group, ours, theirs in zip(groups, scores, known, strict=True):
            gained[group].append(ours - theirs)
        each = [fmean(group) for group in gained.values()]
        error = round(stdev(each) / len(each) ** 0.5, 2) if len(each) > 1 else None
        gains[share] = (round(fmean(each), 2), error)
    holding = [share for share, (gain, error) in gains.items() if error is not None and gain > error]
    best = max(holding, key=lambda share: gains[share][0], default=0.0)
    weights_blend(captioner, base, learned, best)
    return Blend(best, gains)


@torch.no_grad()
def weights_blend(
    captioner: FeatureCaptioner, base: FeatureCaptioner, learned: dict[str, Tensor], share: float
) -> None:
    """Give `captioner` the share of the learned weights, and of the base's the rest."""
    known = base.parts.model.state_dict()
    for name, value in captioner.parts.model.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.lerp(known[name], learned[name], share))
