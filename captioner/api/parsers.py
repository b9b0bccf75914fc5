"""Request bodies: refused when too big, and read into one shape however the photo was sent."""

import io
from collections.abc import Mapping
from shutil import copyfileobj
from tempfile import SpooledTemporaryFile
from typing import Any

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.core.files.uploadedfile import SimpleUploadedFile, UploadedFile
from django.http import HttpRequest
from gunicorn.http.errors import NoMoreData, ParseException
from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser, JSONParser

_MAX_JSON_VALUES = 1000


def body_bound(request: HttpRequest, limit: int) -> None:
    """Raise `RequestDataTooBig` before a body above `limit` bytes is read, files included.

    In chunks at most `DATA_UPLOAD_MAX_MEMORY_SIZE` are taken.

    Django ignores a body without a length. One sent in chunks, whose end the server marks, is therefore read here
    and given one. Raises `ParseError` where its chunks are malformed or incomplete.
    """
    most_in_memory = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    is_chunked = not request.META.get("CONTENT_LENGTH") and "HTTP_TRANSFER_ENCODING" in request.META
    if is_chunked and request.META.get("wsgi.input_terminated"):
        limit = min(limit, most_in_memory)
        try:
            body: bytes = request.META["wsgi.input"].read(limit + 1)
        except ParseException as error:
            raise ParseError(f"The chunks of the request body are malformed: {error}.") from error
        except (NoMoreData, ConnectionError) as error:
            raise ParseError("The request body ended before its last chunk.") from error
        request.META["CONTENT_LENGTH"] = str(len(body))
        request._stream = io.BytesIO(body)
    if int(request.META.get("CONTENT_LENGTH") or 0) > limit:
        raise RequestDataTooBig


class JsonObjectParser(JSONParser):
    """Short JSON of few values whose top level is an object.

    24 MB of `{},` would take 600 MB as Python's objects, so what makes one is counted before any is made.
    """

    max_bytes = 64 * 1024

    def parse(
        self, stream: Any, media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        content = stream.read(self.max_bytes + 1)  # UTF-8 always (RFC 8259): others could hide the marks
        if len(content) > self.max_bytes:
            raise RequestDataTooBig
        if sum(content.count(mark) for mark in (b"{", b"[", b",")) > _MAX_JSON_VALUES:
            raise ParseError(f"The JSON has more than {_MAX_JSON_VALUES:,} values.")
        try:
            data = super().parse(
                io.BytesIO(content), media_type, {**(parser_context or {}), "encoding": "utf-8-sig"}
            )
        except RecursionError:
            raise ParseError("The JSON is nested too deeply.") from None
        if not isinstance(data, dict):
            raise ParseError('The JSON must be an object, such as {"name": "value"}.')
        return data


class JsonPhotoParser(JsonObjectParser):
    """May hold a photo in Base64, whose letters none of the counted ones is."""

    max_bytes = settings.DATA_UPLOAD_MAX_MEMORY_SIZE


class PhotoParser(BaseParser):
    """The body is the photo itself. Its bytes decide which format it is, not the media type."""

    media_type = "image/*"

    def parse(
        self, stream: Any, media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        return {"image": SimpleUploadedFile("image", stream.read())}


class OctetStreamParser(PhotoParser):
    media_type = "application/octet-stream"


def is_photo(content_type: str) -> bool:
    """Returns whether a body of this type is the photo itself."""
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type.startswith("image/") or media_type == OctetStreamParser.media_type


class ZipParser(BaseParser):
    """The body is an archive, which is kept in a temporary file once it is long."""

    media_type = "application/zip"

    def parse(
        self, stream: Any, media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        file = SpooledTemporaryFile(  # noqa: SIM115  closed with the request
            settings.FILE_UPLOAD_MAX_MEMORY_SIZE, dir=settings.FILE_UPLOAD_TEMP_DIR
        )
        copyfileobj(stream, file)
        size = file.tell()
        file.seek(0)
        return {"archive": UploadedFile(file, "archive.zip", self.media_type, size)}
