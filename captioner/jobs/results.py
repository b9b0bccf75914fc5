"""What became of a job's photos, as a stream in the format that was asked for."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from captioner.captions.captions import FORGOTTEN_NAME
from captioner.captions.sheets import csv_lines
from captioner.models import Job, JobPhoto

_CHUNK = 200  # rows read from the database at a time
_COLUMNS = (
    "index",
    "name",
    "status",
    "caption",
    "confidence",
    "model_version",
    "caption_id",
    "reason",
    "error",
    "machine_caption",
    "source",
)
_LAST_NUMBER = re.compile(r"(\d{1,18})\D*$")


@dataclass(frozen=True, slots=True)
class ResultsFormat:
    media_type: str
    suffix: str
    write: Callable[[Job], Iterator[str]]


def _done(job: Job) -> Iterator[JobPhoto]:
    """Those that are captioned or failed so far, in the order they were sent."""
    states = [JobPhoto.State.CAPTIONED, JobPhoto.State.FAILED]
    photos = (
        job.photos.filter(state__in=states)
        .select_related("caption__feedback", "caption__recalled")
        .order_by("index")
    )
    for photo in photos.iterator(chunk_size=_CHUNK):
        if photo.caption is not None and photo.caption.deleted_at is not None:
            photo.caption, photo.name = None, FORGOTTEN_NAME  # its owner does not see it any more
        yield photo


def _row(photo: JobPhoto) -> dict[str, Any]:
    caption = photo.caption
    is_deleted = photo.state == JobPhoto.State.CAPTIONED and caption is None
    return {
        "index": photo.index,
        "name": photo.name,
        "status": "deleted" if is_deleted else photo.state,
        "caption": caption.final_text if caption else None,
        "confidence": caption.confidence if caption and caption.final_source == "model" else None,
        "model_version": caption.model_version if caption else None,
        "caption_id": str(caption.pk) if caption else None,
        "reason": photo.reason or None,
        "error": photo.error or None,
        "machine_caption": caption.text if caption else None,
        "source": caption.final_source if caption else None,
    }


def _jsonl(job: Job) -> Iterator[str]:
    for photo in _done(job):
        more = (
            {
                "alternatives": photo.caption.alternatives,
                "words": photo.caption.words if photo.caption.final_source == "model" else [],
            }
            if photo.caption
            else {}
        )
        yield json.dumps(_row(photo) | more, ensure_ascii=False) + "\n"


def _csv(job: Job) -> Iterator[str]:
    return csv_lines(_COLUMNS, map(_row, _done(job)))


def _coco(job: Job) -> Iterator[str]:
    """The results format of the COCO caption evaluation: `[{"image_id": int, "caption": str}, ...]`.

    Ids are the last numbers in the photos' names, as in COCO's own, where all have different ones; else places.
    """
    names = list(job.photos.order_by("index").values_list("name", flat=True))
    numbers = [int(match.group(1)) for name in names if (match := _LAST_NUMBER.search(name))]
    ids = numbers if len(numbers) == len(names) == len(set(numbers)) else range(len(names))
    separator = "[\n"
    for photo in _done(job):
        if photo.caption is not None:
            entry = {"image_id": ids[photo.index], "caption": photo.caption.final_text}
            yield separator + json.dumps(entry, ensure_ascii=False)
            separator = ",\n"
    yield "\n]\n" if separator == ",\n" else "[]\n"


FORMATS = {
    "jsonl": ResultsFormat("application/jsonl", "jsonl", _jsonl),
    "csv": ResultsFormat("text/csv; charset=utf-8", "csv", _csv),
    "coco": ResultsFormat("application/json", "json", _coco),
}
