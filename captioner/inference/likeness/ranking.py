"""What remembered photos say about a new one: that it is one of them, or which of its captions fits what was said.

Plain numbers and texts; neither torch nor a database.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from captioner.inference.types import Candidate

# A copy (re-encoded, scaled, cut by 5 % on each side) has a cosine of at least COPY and differs in at most COPY_BITS of
# its hash's 64 bits; one that was ruined (half the size, worst quality) at least RUINED, and then hardly in its hash.
COPY, COPY_BITS = 0.76, 24
RUINED, RUINED_BITS = 0.45, 10
# The hash of a plain ground says nothing: with so few or so many ones the vectors must agree by themselves.
FLAT_ONES, FLAT_COPY = 8, 0.92
SAME_MARGIN = 0.02  # copies of one photo are about equally close
# From this cosine on photos speak for each other; the nearest of 6,089 other photos is at 0.37 in the middle.
ALIKE = 0.4
MOST_NEIGHBOURS = 10
WEIGHT = 2.0  # of consensus beside the mean log-probability of a caption's tokens
_WORD = re.compile(r"[぀-ヿ㐀-鿿豈-﫿฀-๿]|\w+")


@dataclass(frozen=True, slots=True)
class Neighbour:
    """What was said of a remembered photo, and how much it looks like the one that is captioned (a cosine)."""

    caption: str
    likeness: float


def likenesses(vector: bytes, others: Sequence[bytes]) -> list[float]:
    """The cosine of a vector with each of the others (float16 bytes, unit length); -1 where widths differ."""
    one = np.frombuffer(vector, "<f2").astype(np.float32)
    found = []
    for other in others:
        row: NDArray[np.float32] = np.frombuffer(other, "<f2").astype(np.float32)
        found.append(float(one @ row) if len(row) == len(one) else -1.0)
    return found


def is_copy(likeness: float, hashes: tuple[str, str]) -> bool:
    """Whether two photos with this cosine and these difference hashes (16 hex digits) show the same photo."""
    pair = np.array([int(digits or "0", 16) for digits in hashes], np.uint64)
    bits = np.bitwise_count(pair[:1] ^ pair[1:])
    return bool(are_copies(np.array([likeness]), bits, np.array([are_flat(pair).any()]))[0])


def are_copies(
    likeness: NDArray[np.floating[Any]], bits: NDArray[np.uint8], flat: NDArray[np.bool]
) -> NDArray[np.bool]:
    """The same of many pairs: cosines, differing bits of the hashes, and whether one of these is of a plain ground."""
    agree = (likeness >= COPY) & (bits <= COPY_BITS) | (likeness >= RUINED) & (bits <= RUINED_BITS)
    return np.where(flat, likeness >= FLAT_COPY, agree)


def are_flat(hashes: NDArray[np.uint64]) -> NDArray[np.bool]:
    """Which hashes are those of a plain ground."""
    ones = np.bitwise_count(hashes)
    return (ones < FLAT_ONES) | (ones > 64 - FLAT_ONES)


def beams_rank(
    beams: Sequence[Candidate], neighbours: Sequence[Neighbour], weight: float = WEIGHT
) -> list[int]:
    """The places of `beams`, best first, once the neighbours were heard.

    Score of a beam: mean log-probability of its tokens, or that of a beam before it where that is lower, so that the
    model's own order stays as long as nobody is heard; plus `weight` * what it has in common with the neighbours'
    captions, each counting as much as its photo is alike (consensus of neighbours, Devlin et al. 2015,
    arXiv:1505.04467).
    """
    heard = sorted(neighbours, key=lambda each: -each.likeness)[:MOST_NEIGHBOURS]
    shares = [max(0.0, each.likeness - ALIKE) / (1 - ALIKE) for each in heard]
    if not any(shares) or len(beams) < 2:
        return list(range(len(beams)))
    said = [words_of(each.caption) for each in heard]
    # Few and faint neighbours move little: what they say is averaged with as many that say nothing.
    voices = sum(shares) + 1.0

    own = accumulate(
        (math.fsum(each) / max(1, len(each)) for each in (beam.token_log_probabilities for beam in beams)),
        min,
    )
    scores = []
    for mean, beam in zip(own, beams, strict=True):
        words = words_of(beam.caption)
        common = sum(share * agreement(words, other) for share, other in zip(shares, said, strict=True))
        scores.append(mean + weight * common / voices)
    return sorted(range(len(beams)), key=lambda place: (-scores[place], place))


def words_of(caption: str) -> Counter[str]:
    """Words and pairs of neighbouring words; characters where a script does not write words apart."""
    words = _WORD.findall(caption.casefold())
    return Counter(words) + Counter(f"{one} {other}" for one, other in pairwise(words))


def agreement(one: Counter[str], other: Counter[str]) -> float:
    """How much two captions have in common, 0 to 1: F1 of their words and pairs of words."""
    common = (one & other).total()
    return 2 * common / max(1, one.total() + other.total())
