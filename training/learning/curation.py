"""Which of the approved feedback teaches, and which judges: groups of like photos, de-duplication, caps, split.

Plain functions over plain rows; neither Django nor torch. What is decided here bounds what one person can do.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

HASH_BITS = 64
NEAR_BITS = 4  # of difference hashes: a re-encoded, scaled or slightly cropped copy differs in fewer bits
HELD_OUT_SHARE = 0.2
ROWS_PER_GROUP = 4
AUTHOR_SHARE = 0.01
AUTHOR_ROWS = 5
FLOOD_SHARE = 0.5  # who sends more than this of all feedback, or of its kind, gets the share and no row more

Split = Literal["train", "holdout"]
Kind = Literal["correction", "rating"]
KINDS: tuple[Kind, ...] = ("correction", "rating")


@dataclass(frozen=True)
class FeedbackRow:
    """One approved piece of feedback. `author` is a pseudonym; rows of `trusted` authors are not capped per author."""

    feedback: int
    photo: str  # SHA-256 of the upload
    author: str
    logged: str  # what the model had said
    model_version: str
    ideal: str = ""
    rating: int | None = None
    trusted: bool = False
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
    held_out: Collection[str] = (),
    author_rows: int = AUTHOR_ROWS,
) -> Snapshot:
    """De-duplicate, group, split and cap approved feedback.

    `hashes` maps a photo's SHA-256 to its difference hash (16 hex digits), for *all* photos known, oldest first;
    photos in `held_out` stay held out whatever the salt says.
    """
    rows = list(rows)
    flooding = authors_flooding(rows)
    # Where the newest count, those of whoever floods count as the oldest: they take nobody's place.
    rows.sort(key=lambda row: (row.author not in flooding[row.kind], row.feedback))
    groups = photos_group(hashes)
    splits = groups_split(groups, salt=salt, held_out=held_out)
    placed = [replace(row, group=groups[row.photo], split=splits[groups[row.photo]]) for row in rows]
    unique = _deduplicate(placed)
    by_photo = _cap_groups(unique)
    kept = [
        row
        for split in ("train", "holdout")
        for kind in KINDS
        for row in authors_cap(
            [row for row in by_photo if row.split == split and row.kind == kind],
            author_rows=author_rows,
            flooding=flooding[kind],
        )
    ]
    # From the last limit to the first, so that the first one that a row did not pass is its reason.
    left_out = {
        row.feedback: reason
        for reason, before, after in (
            ("author_cap", by_photo, kept),
            ("photo_cap", unique, by_photo),
            ("duplicate", placed, unique),
        )
        for row in set(before) - set(after)
    }
    return Snapshot(tuple(sorted(kept, key=lambda row: row.feedback)), salt, left_out)


# --- Photos that show the same ---


def photos_group(hashes: Mapping[str, str]) -> dict[str, str]:
    """Photo -> name of its group: photos whose difference hashes are near, directly or by way of others.

    A group is named after its first photo. Hashes within `NEAR_BITS` of each other agree in at least one of
    `NEAR_BITS` + 1 bands, so only photos that share a band are compared.
    """
    first: dict[int, str] = {}
    for photo, digits in hashes.items():
        first.setdefault(int(digits, 16), photo)
    order = {value: rank for rank, value in enumerate(first)}
    parent = {value: value for value in first}

    def root(value: int) -> int:
        while parent[value] != value:
            parent[value] = parent[parent[value]]
            value = parent[value]
        return value

    width = -(-HASH_BITS // (NEAR_BITS + 1))
    buckets: dict[tuple[int, int], list[int]] = defaultdict(list)
    for value in first:
        for band in range(NEAR_BITS + 1):
            buckets[band, value >> (band * width) & ((1 << width) - 1)].append(value)
    for bucket in buckets.values():
        for index, one in enumerate(bucket):
            for other in bucket[index + 1 :]:
                if (one ^ other).bit_count() <= NEAR_BITS:
                    early, late = sorted((root(one), root(other)), key=order.__getitem__)
                    parent[late] = early
    return {photo: first[root(int(digits, 16))] for photo, digits in hashes.items()}


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


def authors_cap(
    rows: Sequence[FeedbackRow], *, author_rows: int = AUTHOR_ROWS, flooding: Collection[str] = ()
) -> list[FeedbackRow]:
    """At most `AUTHOR_SHARE` of what is kept from each author, or `author_rows` where that is more; the newest.

    `rows` are of one kind. The share is of what remains after capping, so that sending more does not raise one's own
    allowance. An author in `flooding` gets the share alone, which is nothing in sets under a hundred rows. Trusted
    authors are not capped.
    """
    by_author: dict[str, list[FeedbackRow]] = defaultdict(list)
    for row in rows:
        by_author["" if row.trusted else row.author].append(row)
    trusted, share = by_author.pop("", []), len(rows)
    while True:
        kept = [
            # The newest; a slice of [-0:] would be everything.
            own[max(0, len(own) - (share if author in flooding else max(author_rows, share))) :]
            for author, own in by_author.items()
        ]
        lower = min(share, int(AUTHOR_SHARE * (len(trusted) + sum(map(len, kept)))))
        if lower == share:
            return trusted + [row for own in kept for row in own]
        share = lower
