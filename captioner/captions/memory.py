"""What was approved before: the same photo again gets the approved caption, photos like it speak for captions like it.

Remembered is nothing but approved feedback and the vector of its photo: what is deleted, rejected or rewritten is
forgotten in the same transaction. Each process lists which photos there are, without texts; what it finds there counts
only if the database still knows it.
"""

import hashlib
import threading
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db.models import Count, F, FilteredRelation, Q, QuerySet, Sum
from django.utils import timezone

from captioner.inference.types import Candidate, Prediction
from captioner.models import Feedback, Owner, Photo, PhotoVector

if TYPE_CHECKING:
    from captioner.inference.likeness.index import LikenessIndex, OwnerNumbers

_LOOK_SECONDS = 1.0  # between two looks for what was approved just now
_RECONCILE_SECONDS = 60.0  # between two looks at everything
_PROGRESS_SECONDS = 10.0  # the same, while an encoder has photos yet to see
# What commits late, or was approved by a machine whose clock is slow, is found all the same.
_OVERLAP = timedelta(seconds=60)
_LOADED_AT_ONCE = 2000


@dataclass(frozen=True)
class Recollection:
    """What the memory says of a photo: the approved caption of the same one, and the order of the model's captions."""

    beams: Sequence[Candidate]  # best first
    ranks: Sequence[int]  # the place of each of them by the model's own order
    same: Feedback | None = None


def photo_recall(prediction: Prediction, difference_hash: str, owner: Owner) -> Recollection:
    """What is remembered about the photo that was captioned, as far as `owner` may hear of it."""
    from captioner.inference.likeness import ranking  # and numpy, with the first photo

    beams = prediction.beams or prediction.candidates
    unchanged = Recollection(beams, range(len(beams)))
    index = memory.index(prediction.encoder)
    if index is None or not prediction.vector:
        return unchanged
    own = _owner_numbers(owner)
    scope = None if settings.MEMORY_SCOPE == "installation" else own
    numbers = index.search(prediction.vector, difference_hash, scope)
    if not numbers:
        return unchanged
    found = list(
        _with_vectors(Feedback.objects.remembered().filter(pk__in=numbers), prediction.encoder)
        .filter(photo_vector__isnull=False)
        .select_related("caption__photo")
        .annotate(vector=F("photo_vector__vector"))
    )
    likenesses = ranking.likenesses(prediction.vector, [bytes(row.vector) for row in found])
    same = [
        (likeness, row)
        for likeness, row in zip(likenesses, found, strict=True)
        if ranking.is_copy(likeness, (difference_hash, row.caption.photo.difference_hash))
    ]
    if same:
        closest = max(likeness for likeness, _ in same)
        # Of the photo that is closest what its owner said, else what was approved last.
        said = [row for likeness, row in same if likeness >= closest - ranking.SAME_MARGIN]
        said.sort(key=lambda row: (_is_own(row, own), row.reviewed_at, row.pk))
        return replace(unchanged, same=said[-1])
    neighbours = [
        ranking.Neighbour(row.ideal_caption, likeness)
        for likeness, row in zip(likenesses, found, strict=True)
    ]
    ranks = ranking.beams_rank(beams, neighbours)
    return Recollection([beams[rank] for rank in ranks], ranks)


def recalled_lock(same: Feedback) -> Feedback | None:
    """The remembered caption, if it still is one until the transaction ends that logs the answer."""
    return Feedback.objects.remembered().select_for_update(no_key=True).filter(pk=same.pk).first()


def vector_keep(photo: Photo, prediction: Prediction) -> None:
    """Keep what the encoder saw of this photo, for the day its correction is approved. In the caption's transaction."""
    if settings.MEMORY_SCOPE != "off" and prediction.vector:
        # The photo was lost, and is there again.
        PhotoVector.objects.filter(photo=photo, encoder=prediction.encoder, vector=b"").delete()
        vectors_keep([PhotoVector(photo=photo, encoder=prediction.encoder, vector=prediction.vector)])


def vectors_keep(vectors: Iterable[PhotoVector]) -> None:
    PhotoVector.objects.bulk_create(vectors, ignore_conflicts=True)


def remembered_without_vector(encoder: str) -> QuerySet[Feedback]:
    """Approved corrections of photos that this encoder has not seen yet."""
    missing: QuerySet[Feedback] = _with_vectors(Feedback.objects.remembered(), encoder).filter(
        photo_vector__isnull=True
    )
    return missing


class Memory:
    """This process's list of remembered photos, for each encoder that is in its memory. Any thread may ask."""

    def __init__(self) -> None:
        self._lists: dict[str, _List] = {}
        self._looking = threading.Lock()

    def index(self, encoder: str) -> "LikenessIndex | None":
        """The remembered photos that an encoder has seen, None where none was loaded or the memory is off."""
        listed = self._lists.get(encoder)
        return listed.index if listed and settings.MEMORY_SCOPE != "off" else None

    def look(self, encoders: Iterable[str]) -> int:
        """Bring the lists of these encoders up to date, if that is due, and let go of others.

        Returns how many approved corrections the first of them, the champion's, has yet to look at the photo of, as far
        as that was asked: it is the one that workers look with. Raises `DatabaseError`.
        """
        if settings.MEMORY_SCOPE == "off":
            return 0
        with self._looking:
            wanted = {encoder: self._lists.get(encoder) or _List(encoder) for encoder in encoders if encoder}
            missing: list[int] = []
            for encoder, listed in wanted.items():
                missing.append(listed.look(is_first=not missing))
                self._lists[encoder] = listed
            self._lists = wanted
            return missing[0] if missing else 0

    @property
    def alerts(self) -> list[str]:
        """How far workers are with photos that an encoder has yet to see, for anybody to read."""
        return [
            f"{listed.unseen} of {listed.unseen + len(listed.index)} remembered photos are yet to be looked at with "
            "the encoder that serves; workers are at it."
            for listed in list(self._lists.values())[:1]
            if listed.unseen
        ]

    def clear(self) -> None:
        """Know of nothing, as a process that has just started."""
        with self._looking:
            self._lists = {}


memory = Memory()


class _List:
    """The remembered photos that one encoder has seen."""

    def __init__(self, encoder: str) -> None:
        from captioner.inference.likeness.index import LikenessIndex

        self.index = LikenessIndex()
        self.unseen = 0  # remembered photos without a vector, at the last look at everything
        self._encoder = encoder
        self._since: datetime | None = None  # what was approved before is in the list
        self._looked_at = self._reconciled_at = -float("inf")

    def look(self, *, is_first: bool) -> int:
        """Take what is new; returns how many corrections lack a vector, which workers see to if it `is_first`."""
        now = time.monotonic()
        if now - self._looked_at < _LOOK_SECONDS:
            return 0
        self._looked_at, began = now, timezone.now()
        remembered = Feedback.objects.remembered()
        every = _PROGRESS_SECONDS if self.unseen and is_first else _RECONCILE_SECONDS
        if self._since is None or now - self._reconciled_at > every:
            self._reconciled_at = now
            missing = self.unseen = remembered_without_vector(self._encoder).count()
            # Without those of photos that cannot be read, whose vector is empty.
            seen, listed = _with_vectors(remembered, self._encoder), self.index.numbers
            seen = seen.filter(photo_vector__vector__gt=b"").order_by()
            found = seen.aggregate(rows=Count("pk"), sum=Sum("pk"))
            # Numbers alone would not tell that one went and another came.
            if (found["rows"], found["sum"] or 0) != (len(listed), sum(listed)):
                standing = frozenset(seen.values_list("pk", flat=True).iterator())
                self.index.remove(listed - standing)
                self._take(remembered, set(standing - listed))
        else:
            lately = remembered.filter(reviewed_at__gte=self._since - _OVERLAP)
            new = set(lately.values_list("pk", flat=True)) - self.index.numbers
            missing = len(new) - self._take(remembered, new)
        self._since = began
        return missing

    def _take(self, remembered: QuerySet[Feedback], pks: set[int]) -> int:
        """Take these, a few at a time; returns how many have a vector."""
        from captioner.inference.likeness.index import Remembered

        taken, rest = 0, iter(sorted(pks))
        while part := list(islice(rest, _LOADED_AT_ONCE)):
            rows = _with_vectors(remembered.filter(pk__in=part), self._encoder)
            found = [
                Remembered(pk, bytes(vector), digits, _numbers(*owner))
                for pk, vector, digits, *owner in rows.filter(photo_vector__isnull=False).values_list(
                    "pk",
                    "photo_vector__vector",
                    "caption__photo__difference_hash",
                    "caption__user",
                    "caption__api_key",
                    "caption__end_user",
                    "caption__visitor",
                )
            ]
            self.index.add([each for each in found if each.vector])
            taken += len(found)
        return taken


def _with_vectors(feedback: QuerySet[Feedback], encoder: str) -> Any:  # types know no filtered relations
    """The rows with `photo_vector`, which the photo may have of this encoder."""
    vectors = "caption__photo__vectors"
    return feedback.alias(
        photo_vector=FilteredRelation(vectors, condition=Q(**{f"{vectors}__encoder": encoder}))
    )


def _owner_numbers(owner: Owner) -> "OwnerNumbers":
    user, api_key = (each.pk if each else None for each in (owner.user, owner.api_key))
    return _numbers(user, api_key, owner.end_user, owner.visitor)


def _numbers(
    user: int | None, api_key: int | None, end_user: str, visitor: uuid.UUID | None
) -> "OwnerNumbers":
    """As the index compares owners: what a key made is its user's; end users of a key are strangers."""
    key = api_key or 0
    if end_user:
        key = int.from_bytes(hashlib.sha256(f"{key} {end_user}".encode()).digest()[:8], "big") >> 1
    return user or 0, key, visitor.int >> 65 if visitor else 0


def _is_own(row: Feedback, owner: "OwnerNumbers") -> bool:
    caption = row.caption
    made_by = _numbers(caption.user_id, caption.api_key_id, caption.end_user, caption.visitor)
    return any(part and part == other for part, other in zip(owner, made_by, strict=True))
