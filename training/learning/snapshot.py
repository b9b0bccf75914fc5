"""From approved feedback in the database to the rows of one training run, and which photos are replayed."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import islice
from pathlib import Path

from django.contrib.auth.models import User
from django.core.files.storage import default_storage
from django.db.models import Q
from django.utils.crypto import salted_hmac

from captioner.captions.photos import photos_hash
from captioner.models import Feedback, Photo
from models_registry.files import file_write_atomically
from training.learning.curation import FeedbackRow, Snapshot, photos_group, rows_curate
from training.models import HeldOutPhoto

FROZEN_FILE = "snapshot.json"
REPLAY_MAX = 1000
REPLAY_PER_CORRECTION = 2
CONTENT_RATING = 7  # a caption rated this well, or not at all, may be what the base is reminded of


def snapshot_freeze(folder: Path) -> Snapshot:
    """What a run learns from in all its attempts: the first one leaves it in `folder`, the run's own.

    Rows are kept by number and hash, and what they say is read again: it is nowhere but in the database. The snapshot
    is taken again, and what was made of it removed, only where something in it was deleted, edited or rejected since;
    what is approved meanwhile is for the next run.
    """
    path = folder / FROZEN_FILE
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        said = {row.feedback: row for row in _rows_approved()}
        rows = [
            replace(said[each["feedback"]], group=each["group"], split=each["split"])
            for each in stored["rows"]
        ]
        if [row.sha256 for row in rows] == [each["sha256"] for each in stored["rows"]]:
            left_out = {int(number): reason for number, reason in stored["left_out"].items()}
            return Snapshot(tuple(rows), stored["salt"], left_out)
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        pass  # there is none, or not any more, or one that another release or a crash of the machine left
    snapshot = snapshot_take()
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    frozen = {
        "salt": snapshot.salt,
        "left_out": snapshot.left_out,
        "rows": [
            {"feedback": row.feedback, "sha256": row.sha256, "group": row.group, "split": row.split}
            for row in snapshot.rows
        ],
    }
    with file_write_atomically(path) as draft:
        draft.write_text(json.dumps(frozen), encoding="utf-8")
    return snapshot


def _rows_approved() -> list[FeedbackRow]:
    """All feedback that is approved now, as it was said, by pseudonyms: no names, and no visitor's cookie."""
    salt = _split_salt()
    allowed = User.objects.with_perm(
        "training.teach_unbounded", backend="django.contrib.auth.backends.ModelBackend"
    )
    trusted = {user.pk for users in (allowed, User.objects.filter(is_staff=True)) for user in users}
    approved = Feedback.objects.filter(status=Feedback.Status.APPROVED).order_by("pk")
    rows = []
    for feedback in approved.select_related("caption__photo").iterator(chunk_size=1000):
        caption = feedback.caption
        who = f"user {caption.user_id}" if caption.user_id else f"visitor {caption.visitor}"
        rows.append(
            FeedbackRow(
                feedback=feedback.pk,
                photo=caption.photo.sha256,
                author=salted_hmac("training.author", f"{salt} {who}").hexdigest()[:12],
                logged=caption.text,
                model_version=caption.model_version,
                ideal=" ".join(feedback.ideal_caption.split()),
                rating=feedback.rating,
                trusted=caption.user_id in trusted,
            )
        )
    return rows


def _split_salt() -> str:
    return salted_hmac("training.split", "salt").hexdigest()[:16]


def snapshot_take() -> Snapshot:
    """All feedback that is approved now, curated. Photos newly held out are remembered for ever."""
    photos_hash()
    rows, salt = _rows_approved(), _split_salt()
    photos = Photo.objects.filter(captions__feedback__status=Feedback.Status.APPROVED).distinct()
    known = photos.exclude(difference_hash="").order_by("pk").values_list("sha256", "difference_hash", "file")
    hashes = {sha256: digits for sha256, digits, file in known if default_storage.exists(file)}
    readable = [row for row in rows if row.photo in hashes]
    held_out = set(HeldOutPhoto.objects.values_list("photo__sha256", flat=True))
    snapshot = rows_curate(readable, hashes, salt=salt, held_out=held_out)
    photos = Photo.objects.filter(sha256__in={row.photo for row in snapshot.of("holdout")})
    HeldOutPhoto.objects.bulk_create([HeldOutPhoto(photo=photo) for photo in photos], ignore_conflicts=True)
    lost = {row.feedback: "photo_unreadable" for row in rows if row.photo not in hashes}
    return replace(snapshot, left_out={**snapshot.left_out, **lost})


def replay_photos(snapshot: Snapshot) -> list[Photo]:
    """Logged photos on which the base is reminded of its own captions: people were content with what they got.

    Newest first; none that looks like a held-out or a corrected one, and none that is gone from the store.
    """
    wanted = min(REPLAY_MAX, max(200, REPLAY_PER_CORRECTION * sum(bool(row.ideal) for row in snapshot.rows)))
    objections = Feedback.objects.filter(Q(rating__lt=CONTENT_RATING) | ~Q(ideal_caption=""))
    candidates = list(
        Photo.objects.exclude(difference_hash="")
        .exclude(pk__in=objections.values("caption__photo"))
        .order_by("-pk")[: 2 * wanted]
    )
    spoken_for = Photo.objects.filter(sha256__in={row.photo for row in snapshot.rows if row.ideal})
    groups = photos_group({photo.sha256: photo.difference_hash for photo in [*spoken_for, *candidates]})
    avoided = {groups[photo.sha256] for photo in spoken_for}
    shown = (photo for photo in candidates if groups[photo.sha256] not in avoided)
    # A store that was lost, or restored from an older copy, has not every photo of the log.
    return list(islice((photo for photo in shown if default_storage.exists(str(photo.file))), wanted))
