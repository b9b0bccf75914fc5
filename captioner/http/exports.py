"""Captions as a file to be kept, for the API and the pages."""

from django.db.models import QuerySet
from django.http import StreamingHttpResponse

from captioner.captions.exports import EXPORT_FORMATS, captions_export
from captioner.models import Caption

_CHUNK = 200  # rows read from the database at a time


def export_response(
    captions: QuerySet[Caption] | list[Caption], wanted: str, *, bom: bool = False, name: str = "captions"
) -> StreamingHttpResponse:
    """`wanted` is a key of `EXPORT_FORMATS`; the file is called `name`. It is its owner's alone, and never cached."""
    rows = captions if isinstance(captions, list) else captions.iterator(chunk_size=_CHUNK)
    form = EXPORT_FORMATS[wanted]
    response = StreamingHttpResponse(captions_export(rows, wanted, bom=bom), content_type=form.media_type)
    response["Content-Disposition"] = f'attachment; filename="{name}.{form.suffix}"'
    response["Cache-Control"] = "private, no-cache"
    return response
