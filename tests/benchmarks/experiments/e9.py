"""E9: a night with 100,000 approved rows and 250,001 photos on SQLite, and the night after it.

Wanted: no query and no storage call for each row, at most 15 minutes to the first step on two cores, and in the second
night no photo encoded again. Photos and sentences are Flickr8k's, each photo many times under names of its own.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import resource
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROWS = 100_000
PHOTOS = 250_001
AUTHORS = 100
NEW = 100  # corrections of the day between the nights, at most


class FirstStep(Exception):
    """The descent began: what was to be seen was seen."""


def run(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    [rows] = options.sizes or [ROWS]
    folder = options.folder / "e9"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.environ |= {
        "CAPTIONER_DATA_DIR": str(folder),
        "DJANGO_SETTINGS_MODULE": "captioner.settings",
        "TRAINING_THREADS": "2",
    }
    for server in ("DATABASE_URL", "REDIS_URL", "S3_ENDPOINT_URL"):
        os.environ.pop(server, None)
    import django

    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    files = photos_store(options.data)
    feedback_make(files, 0, rows, photos=round(rows * PHOTOS / ROWS))
    base = base_publish(options.base)
    yield {"night": 1, "rows": rows, **night(base)}
    new = min(NEW, rows)
    feedback_make(files, round(rows * PHOTOS / ROWS), new)
    yield {"night": 2, "rows": rows + new, **night(base)}


def photos_store(data: Path) -> list[tuple[str, list[str]]]:
    """Put Flickr8k's photos into the service's store; name of the file and captions of each."""
    import io

    from django.core.files.base import ContentFile
    from django.core.files.storage import default_storage
    from PIL import Image

    from training.data.photo_sets import photos_read

    stored = []
    for photo in photos_read(data / "flickr8k/val.tar"):
        jpeg = io.BytesIO()
        Image.open(io.BytesIO(photo.data)).convert("RGB").save(jpeg, "JPEG", quality=88)
        name = default_storage.save(f"{photo.key}.jpg", ContentFile(jpeg.getvalue()))
        stored.append((name, list(photo.captions)))
    return stored


def feedback_make(files: list[tuple[str, list[str]]], first: int, count: int, photos: int = 0) -> None:
    """`count` approved corrections, of a photo each, by a hundred users; `photos` in all are logged."""
    from django.contrib.auth.models import User
    from django.utils import timezone

    from captioner.models import Caption, Feedback, Photo

    users = [User.objects.get_or_create(username=f"user {number}")[0] for number in range(AUTHORS)]
    generator = random.Random(first)
    logged = [
        Photo(
            sha256=hashlib.sha256(f"{number}".encode()).hexdigest(),
            file=files[number % len(files)][0],
            width=224,
            height=224,
            difference_hash=f"{generator.getrandbits(64):016x}",
        )
        for number in range(first, first + max(count, photos))
    ]
    Photo.objects.bulk_create(logged, batch_size=1000)
    captions = [
        Caption(
            photo=photo,
            user=users[number % AUTHORS],
            source=Caption.Source.API,
            text="a photo",
            model_name="starter",
            model_version="starter",
        )
        for number, photo in enumerate(logged[:count])
    ]
    Caption.objects.bulk_create(captions, batch_size=1000)
    Feedback.objects.bulk_create(
        [
            Feedback(
                caption=caption,
                ideal_caption=f"{generator.choice(files[(first + number) % len(files)][1])} {number}",
                status=Feedback.Status.APPROVED,
                reviewed_at=timezone.now(),
            )
            for number, caption in enumerate(captions)
        ],
        batch_size=1000,
    )


def base_publish(folder: Path) -> Any:
    from models_registry import promotions, versions

    version = versions.version_publish(folder, model_name="base", origin="experiment", licence="none")
    promotions.version_promote(version, reason="experiment")
    return version


def night(base: Any) -> dict[str, Any]:
    """Do what a run does until its first step; seconds, queries, photos read and encoded."""
    from django.core.files.storage import default_storage
    from django.db import connection

    from training.learning import pipeline
    from training.learning.model import FeatureCaptioner
    from training.learning.snapshot import snapshot_freeze
    from training.models import TrainingRun
    from training.services import run_folder

    seen: Counter[str] = Counter()

    def query(execute: Any, *arguments: Any) -> Any:
        seen["queries"] += 1
        return execute(*arguments)

    encode = FeatureCaptioner.encode_images

    def encoded(self: FeatureCaptioner, images: Any) -> Any:
        seen["encoded"] += len(images)
        return encode(self, images)

    calls = {name: getattr(default_storage, name) for name in ("open", "exists", "size", "listdir")}

    def storage_call(name: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            seen[f"storage_{name}"] += 1
            return calls[name](*arguments, **options)

        return call

    stages: list[str] = []

    def tick(stage: str, done: int, total: int) -> None:
        if stage not in stages:
            stages.append(stage)
        if stage == "Learning":
            raise FirstStep

    run = TrainingRun.objects.create(trigger=TrainingRun.Trigger.PERSON, status=TrainingRun.Status.CANCELLED)
    began = time.monotonic()
    FeatureCaptioner.encode_images = encoded  # type: ignore[method-assign]
    for name in calls:
        setattr(default_storage, name, storage_call(name))
    try:
        with connection.execute_wrapper(query):
            snapshot = snapshot_freeze(run_folder(run), tick)
            frozen = time.monotonic()
            pipeline.run_work(run, snapshot, base, base, tick)
    except FirstStep:
        pass
    finally:
        FeatureCaptioner.encode_images = encode  # type: ignore[method-assign]
        for name, call in calls.items():
            setattr(default_storage, name, call)
    return {
        "seconds_to_snapshot": round(frozen - began, 1),
        "seconds_to_first_step": round(time.monotonic() - began, 1),
        "stages": stages,
        **seen,
        "taught_or_judging": len(snapshot.rows),
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000,
    }
