"""From approved feedback in the database to the rows of one training run, and which photos are replayed."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
from django.contrib.auth.models import User
from django.db.models import Count
from django.utils.crypto import salted_hmac

from captioner.captions.feedback import BEST_RATING
from captioner.captions.photos import photos_hash
from captioner.captions.text import caption_key
from captioner.inference.likeness.copies import Vector
from captioner.models import Feedback, Photo, PhotoVector
from models_registry.files import file_write_atomically
from training.learning.curation import FeedbackRow, Snapshot, rows_curate
from training.models import HeldOutPhoto
from training.progress import Tick, untold
from training.services import CHUNK

FROZEN_FILE = "snapshot.json"


def snapshot_freeze(folder: Path, tick: Tick = untold) -> Snapshot:
    """What a run learns from in all its attempts: the first one leaves it in `folder`, the run's own.

    Rows are kept by number and hash, and what they say is read again: it is nowhere but in the database. The snapshot
    is taken again, and what was made of it removed, only where something in it was deleted, edited or rejected since;
    what is approved meanwhile is for the next run.
    """
    path = folder / FROZEN_FILE
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        said = {row.feedback: row for row in _rows_approved(tick)}
        rows = [
            replace(said[each["feedback"]], group=each["group"], split=each["split"])
            for each in stored["rows"]
        ]
        if [row.sha256 for row in rows] == [each["sha256"] for each in stored["rows"]]:
            left_out = {int(number): reason for number, reason in stored["left_out"].items()}
            return Snapshot(tuple(rows), stored["salt"], left_out)
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        pass  # there is none, or not any more, or one that another release or a crash of the machine left
    snapshot = snapshot_take(tick)
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


def _rows_approved(tick: Tick = untold) -> list[FeedbackRow]:
    """All feedback that is approved now, as it was said, by pseudonyms: no names, and no visitor's cookie."""
    salt = _split_salt()
    allowed = User.objects.with_perm(
        "training.teach_unbounded", backend="django.contrib.auth.backends.ModelBackend"
    )
    trusted = {user.pk for users in (allowed, User.objects.filter(is_staff=True)) for user in users}
    approved = Feedback.objects.filter(status=Feedback.Status.APPROVED).order_by("pk")
    total = approved.count()
    rows: list[FeedbackRow] = []
    for feedback in approved.select_related("caption__photo").iterator(chunk_size=1000):
        if len(rows) % 1000 == 0:
            tick("Collecting feedback", len(rows), total)
        caption = feedback.caption
        who = f"user {caption.user_id}" if caption.user_id else f"visitor {caption.visitor}"
        if caption.api_key_id:
            who = f"key {caption.api_key_id} for {caption.end_user}"
        ideal, rating = " ".join(feedback.ideal_caption.split()), feedback.rating
        if caption_key(ideal) == caption_key(caption.text):
            ideal, rating = (
                "",
                rating or BEST_RATING,
            )  # it was stored before such a one was taken for a rating
        rows.append(
            FeedbackRow(
                feedback=feedback.pk,
                photo=caption.photo.sha256,
                author=salted_hmac("training.author", f"{salt} {who}").hexdigest()[:12],
                logged=caption.text,
                model_version=caption.model_version,
                ideal=ideal,
                rating=rating,
                # A key that names its end users does not vouch for them.
                trusted=caption.user_id in trusted and not caption.end_user,
                anonymous=caption.user_id is None,
            )
        )
    return rows


def _split_salt() -> str:
    return salted_hmac("training.split", "salt").hexdigest()[:16]


def _vectors() -> dict[str, Vector]:
    """What the encoder saw of each photo that the memory has looked at; of several encoders, the one that saw most."""
    seen = PhotoVector.objects.exclude(vector=b"").order_by()
    most = seen.values("encoder").annotate(photos=Count("pk")).order_by("-photos").first()
    if most is None:
        return {}
    rows = seen.filter(encoder=most["encoder"]).values_list("photo__sha256", "vector")
    return {sha256: np.frombuffer(vector, "<f2") for sha256, vector in rows.iterator()}


def snapshot_take(tick: Tick = untold) -> Snapshot:
    """All feedback that is approved now, curated. Photos newly held out are remembered for ever."""
    photos_hash()
    rows, salt = _rows_approved(tick), _split_salt()
    photos = Photo.objects.filter(captions__feedback__status=Feedback.Status.APPROVED).distinct()
    known = photos.exclude(difference_hash="").order_by("pk").values_list("sha256", "difference_hash")
    hashes = dict(known.iterator(chunk_size=1000))
    readable = [row for row in rows if row.photo in hashes]
    held_out = set(HeldOutPhoto.objects.values_list("photo__sha256", flat=True))
    snapshot = rows_curate(readable, hashes, salt=salt, vectors=_vectors(), held_out=held_out, tick=tick)
    new = sorted({row.photo for row in snapshot.of("holdout")} - held_out)
    for start in range(0, len(new), CHUNK):
        photos = Photo.objects.filter(sha256__in=new[start : start + CHUNK])
        HeldOutPhoto.objects.bulk_create(
            [HeldOutPhoto(photo=photo) for photo in photos], ignore_conflicts=True
        )
    lost = {row.feedback: "photo_unreadable" for row in rows if row.photo not in hashes}
    return replace(snapshot, left_out={**snapshot.left_out, **lost})
