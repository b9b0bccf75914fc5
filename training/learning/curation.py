"""Which of the approved feedback teaches, and which judges: groups of like photos, de-duplication, caps, split.

Plain functions over plain rows; neither Django nor torch. What is decided here bounds what one person can do.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from difflib import SequenceMatcher
from functools import partial
from typing import Literal

from captioner.captions.text import caption_words
from captioner.inference.likeness.copies import PhotoLooks, Vector
from training.progress import Tick, untold

HELD_OUT_SHARE = 0.2
ROWS_PER_GROUP = 4
FREE_ROWS = 200  # a set of so many, each approved by a reviewer, is not capped
AUTHOR_SHARE = 0.20  # a signed-in person, a key, or an end user that a key names
VISITOR_SHARE = 0.01  # an anonymous visitor: a new cookie costs nothing
VISITORS_SHARE = 0.10  # all of them together
FLOOD_SHARE = 0.5  # who sends more than this of all feedback, or of its kind, takes nobody's place
LIGHT_EDIT = 0.7  # of the words of two captions, in order, are the same

Split = Literal["train", "holdout"]
Kind = Literal["correction", "rating"]
KINDS: tuple[Kind, ...] = ("correction", "rating")


@dataclass(frozen=True)
class FeedbackRow:
    """One approved piece of feedback. `author` is a pseudonym; rows of `trusted` authors are not capped."""

    feedback: int
    photo: str  # SHA-256 of the upload
    author: str
    logged: str  # what the model had said
    model_version: str
    ideal: str = ""
    rating: int | None = None
    trusted: bool = False
    anonymous: bool = False  # known by a cookie alone
    group: str = ""
    split: Split = "train"

    @property
    def kind(self) -> Kind:
        """Kinds are capped apart: where ratings do not train, a share of both is no share of what does."""
        return "correction" if self.ideal else "rating"

    @property
    def sha256(self) -> str:
        """Of all that the row says. The author's pseudonym, which is published nowhere, keeps sentences from being
        guessed by their hashes."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    @property
    def is_light_edit(self) -> bool:
        """Whether the correction is what was served with a few words changed: who edits does not write what they see.

        A version that says the same would be judged by its own sentence.
        """
        words = (caption_words(self.logged), caption_words(self.ideal))
        return SequenceMatcher(None, *words, autojunk=False).ratio() >= LIGHT_EDIT


@dataclass(frozen=True)
class Snapshot:
    """The rows of one training run. `left_out` names those that were approved and did not get in, with the reason."""

    rows: tuple[FeedbackRow, ...]
    salt: str
    left_out: Mapping[int, str]  # number of the feedback -> why, as a code

    def of(self, split: Split) -> list[FeedbackRow]:
        return [row for row in self.rows if row.split == split]

    def to_jsonl(self) -> str:
        """The rows by number and hash, one a line in a stable order: what is published with the weights.

        What they say stays in the database, so that it can be deleted. The same feedback always gives the same text.
        """
        rows = ({"feedback": row.feedback, "sha256": row.sha256, "split": row.split} for row in self.rows)
        return "".join(json.dumps(row) + "\n" for row in rows)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.to_jsonl().encode()).hexdigest()

    @property
    def counts(self) -> dict[str, int]:
        train, holdout = self.of("train"), self.of("holdout")
        return {
            "train_corrections": sum(bool(row.ideal) for row in train),
            "train_ratings": sum(row.rating is not None for row in train),
            "holdout_corrections": sum(bool(row.ideal) for row in holdout),
            "holdout_photos": len({row.photo for row in holdout if row.ideal}),
            "authors": len({row.author for row in train}),
            **{f"left_out_{reason}": count for reason, count in Counter(self.left_out.values()).items()},
        }


def rows_curate(
    rows: Iterable[FeedbackRow],
    hashes: Mapping[str, str],
    *,
    salt: str,
    vectors: Mapping[str, Vector] | None = None,
    held_out: Collection[str] = (),
    tick: Tick = untold,
) -> Snapshot:
    """De-duplicate, group, split and cap approved feedback.

    `hashes` maps a photo's SHA-256 to its difference hash (16 hex digits), for *all* photos known, oldest first, and
    `vectors` to what the encoder saw of it, of unit length, where that is known; photos in `held_out` stay held out
    whatever the salt says. What is held out is kept from teaching by its copies, too: not all are in its group.
    """
    rows = list(rows)
    flooding = authors_flooding(rows)
    # Where the newest count, those of whoever floods count as the oldest: they take nobody's place.
    rows.sort(key=lambda row: (row.author not in flooding[row.kind], row.feedback))
    looks = PhotoLooks(hashes, vectors or {})
    groups = looks.groups(partial(tick, "Looking for copies"))
    splits = groups_split(groups, salt=salt, held_out=held_out)
    placed = [replace(row, group=groups[row.photo], split=splits[groups[row.photo]]) for row in rows]
    judging = {photo for photo, group in groups.items() if splits[group] == "holdout"}
    copies = looks.copies({row.photo for row in placed} - judging, of=judging)
    apart = [row for row in placed if row.photo not in copies]
    unique = _deduplicate(apart)
    by_photo = _cap_groups(unique)
    kept: list[FeedbackRow] = []
    for kind in KINDS:
        of_kind = [row for row in by_photo if row.kind == kind]
        for split in ("train", "holdout"):
            part = [row for row in of_kind if row.split == split]
            kept += authors_cap(part, free=math.ceil(FREE_ROWS * len(part) / max(1, len(of_kind))))
    # From the last limit to the first, so that the first one that a row did not pass is its reason.
    left_out = {
        row.feedback: reason
        for reason, before, after in (
            ("author_cap", by_photo, kept),
            ("photo_cap", unique, by_photo),
            ("duplicate", apart, unique),
            ("held_out_copy", placed, apart),
        )
        for row in set(before) - set(after)
    }
    return Snapshot(tuple(sorted(kept, key=lambda row: row.feedback)), salt, left_out)


def groups_split(groups: Mapping[str, str], *, salt: str, held_out: Collection[str] = ()) -> dict[str, Split]:
    """Group -> split. A salted hash holds out `HELD_OUT_SHARE` of the groups, and all that any photo of was before."""
    splits: dict[str, Split] = dict.fromkeys(groups.values(), "train")
    for group in splits:
        drawn = int.from_bytes(hashlib.sha256(f"{salt}:{group}".encode()).digest()[:8], "big") / 2**64
        if drawn < HELD_OUT_SHARE:
            splits[group] = "holdout"
    return splits | {groups[photo]: "holdout" for photo in held_out if photo in groups}


# --- How much one person, and one photo, may say ---


def _deduplicate(rows: Sequence[FeedbackRow]) -> list[FeedbackRow]:
    """The newest correction per (group, author) and (group, words), and rating per (group, author, caption)."""
    seen: set[tuple[str, ...]] = set()
    kept = []
    for row in reversed(rows):
        if row.ideal:
            keys: set[tuple[str, ...]] = {
                ("author", row.group, row.author),
                ("words", row.group, " ".join(row.ideal.lower().split())),
            }
        else:
            keys = {("rating", row.group, row.author, row.logged)}
        if not keys & seen:
            kept.append(row)
        seen |= keys
    return kept[::-1]


def _cap_groups(rows: Sequence[FeedbackRow]) -> list[FeedbackRow]:
    """At most `ROWS_PER_GROUP` corrections and as many ratings of photos that show the same; the newest."""
    taken: dict[tuple[str, Kind], int] = defaultdict(int)
    kept = []
    for row in reversed(rows):
        key = (row.group, row.kind)
        taken[key] += 1
        if taken[key] <= ROWS_PER_GROUP:
            kept.append(row)
    return kept[::-1]


def authors_flooding(rows: Sequence[FeedbackRow]) -> dict[Kind, set[str]]:
    """Per kind, whoever is not trusted and sent more than `FLOOD_SHARE` of all rows, or of those of this kind."""
    of_all = _most(rows)
    return {kind: of_all | _most([row for row in rows if row.kind == kind]) for kind in KINDS}


def _most(rows: Sequence[FeedbackRow]) -> set[str]:
    sent = Counter(row.author for row in rows if not row.trusted)
    return {author for author, count in sent.items() if count > FLOOD_SHARE * len(rows)}


def authors_cap(rows: Sequence[FeedbackRow], *, free: int = FREE_ROWS) -> list[FeedbackRow]:
    """What the authors' shares leave of `rows`, which are of one kind and split: of each the newest.

    `AUTHOR_SHARE` for who is signed in, or twice an equal share where they are too few for that; `VISITOR_SHARE` for
    each anonymous visitor and `VISITORS_SHARE` for all. Shares are of what remains, so that sending more does not raise
    one's own allowance. A set of `free` rows is not capped, and in a larger one nobody has to do with less than an
    equal part of as many. Trusted authors are not capped.
    """
    if len(rows) <= free:
        return list(rows)
    trusted = [row for row in rows if row.trusted]
    named, visitors = (
        _newest_first([row for row in rows if not row.trusted and row.anonymous == anonymous])
        for anonymous in (False, True)
    )
    authors = len({row.author for row in rows})
    team = len({row.author for _, row in named})
    share = AUTHOR_SHARE if team * AUTHOR_SHARE >= 1 else 2 / max(1, team)
    least = math.ceil(free / authors)
    total = len(rows)
    while True:
        theirs = [row for rank, row in named if rank < max(int(share * total), least)]
        own = len(trusted) + len(theirs)
        together = max(int(VISITORS_SHARE * total), free - own)
        others = [row for rank, row in visitors if rank < max(int(VISITOR_SHARE * total), least)]
        kept = trusted + theirs + others[:together]
        if len(kept) == total:
            return kept
        total = len(kept)


def _newest_first(rows: Sequence[FeedbackRow]) -> list[tuple[int, FeedbackRow]]:
    """Each row with its rank among those of its author, newest first; everybody's newest before anybody's second."""
    given: Counter[str] = Counter()
    ranked = []
    for row in reversed(rows):
        ranked.append((given[row.author], row))
        given[row.author] += 1
    return sorted(ranked, key=lambda each: each[0])
