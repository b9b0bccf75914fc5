"""Captions to take along, written as a stream: CSV, JSON, COCO, and `<img>` to be pasted into a page."""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from html import escape
from typing import Any
from urllib.parse import quote

from captioner.captions.sheets import BOM, csv_lines
from captioner.models import Caption

ALT_MAX_LENGTH = 125  # characters: what screen readers of old read in one go, and a good measure still
_REDUNDANT = re.compile(
    r"^\W*(?:an?|the)?\s*(?:\w+\s+)?(?:photo(?:graph)?|picture|image|pic|snapshot)s?\s+(?:of|showing)\b",
    re.IGNORECASE,
)
_COLUMNS = (
    "file_name",
    "caption",
    "alt",
    "machine_caption",
    "source",
    "confidence",
    "model_version",
    "caption_id",
    "created_at",
)


def caption_row(caption: Caption) -> dict[str, Any]:
    """A caption as tables have it. `alt` is the text for pages: the caption, or none where the photo is decorative."""
    return {
        "file_name": caption.file_name,
        "caption": caption.final_text,
        "alt": caption.alt_text,
        "machine_caption": caption.text,
        "source": caption.final_source,
        "confidence": caption.confidence if caption.final_source == "model" else None,
        "model_version": caption.model_version,
        "caption_id": str(caption.pk),
        "created_at": caption.created_at.isoformat(),
    }


def alt_hints(text: str) -> list[str]:
    """What could be better about `text` as the alt text of a photo, in words; nothing where it is fine."""
    hints = []
    if len(text) > ALT_MAX_LENGTH:
        hints.append(f"Long for alt text: {len(text)} characters; {ALT_MAX_LENGTH} are usual at most.")
    if _REDUNDANT.match(text):
        hints.append("Leave out “photo of”: screen readers say that it is an image.")
    return hints


def img_tag(caption: Caption) -> str:
    """`<img>` with the photo's file name, as a path that is relative to the page, and its alt text."""
    return f'<img src="{escape(quote(_file_name(caption)))}" alt="{escape(caption.alt_text)}">'


def _file_name(caption: Caption) -> str:
    return caption.file_name or f"{caption.photo.sha256[:12]}.jpg"


def _csv(captions: Iterable[Caption]) -> Iterator[str]:
    return csv_lines(_COLUMNS, map(caption_row, captions))


def _json(captions: Iterable[Caption]) -> Iterator[str]:
    separator = "[\n"
    for caption in captions:
        more = {"alternatives": caption.alternatives, "decorative": caption.is_decorative}
        yield separator + json.dumps(caption_row(caption) | more, ensure_ascii=False)
        separator = ",\n"
    yield "\n]\n" if separator == ",\n" else "[]\n"


def _coco(captions: Iterable[Caption]) -> Iterator[str]:
    """As COCO's own `captions_val2014.json`: images, and annotations that name theirs. Ids count from 1."""
    annotations: list[str] = []
    yield '{"images": ['
    for number, caption in enumerate(captions, start=1):
        photo = caption.photo
        image = {"id": number, "file_name": _file_name(caption), "width": photo.width, "height": photo.height}
        yield (",\n" if annotations else "\n") + json.dumps(image, ensure_ascii=False)
        said = {"id": number, "image_id": number, "caption": caption.final_text}
        annotations.append(json.dumps(said, ensure_ascii=False))
    yield '],\n"annotations": [\n' + ",\n".join(annotations) + "]}\n"


def _html(captions: Iterable[Caption]) -> Iterator[str]:
    for caption in captions:
        yield f"{img_tag(caption)}\n"


@dataclass(frozen=True, slots=True)
class ExportFormat:
    name: str  # for people
    media_type: str
    suffix: str
    write: Callable[[Iterable[Caption]], Iterator[str]]


EXPORT_FORMATS = {
    "csv": ExportFormat("CSV", "text/csv; charset=utf-8", "csv", _csv),
    "json": ExportFormat("JSON", "application/json", "json", _json),
    "coco": ExportFormat("COCO", "application/json", "json", _coco),
    # Plain text: it is there to be pasted, and never a page of ours.
    "html": ExportFormat("HTML: <img alt>", "text/plain; charset=utf-8", "html.txt", _html),
}


def captions_export(captions: Iterable[Caption], wanted: str, *, bom: bool = False) -> Iterator[str]:
    """`captions` in the format `wanted`, a key of `EXPORT_FORMATS`; with a mark in front of CSV for Excel."""
    if bom and wanted == "csv":
        yield BOM
    yield from EXPORT_FORMATS[wanted].write(captions)
