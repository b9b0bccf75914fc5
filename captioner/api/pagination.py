"""Pages of captions, newest first. A cursor keeps its place while new captions arrive."""

from datetime import UTC, datetime
from typing import Any

from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.pagination import Cursor, CursorPagination
from rest_framework.request import Request

from captioner.api.serializers import WholeNumberField


class CaptionPagination(CursorPagination):
    ordering = ("-created_at", "-id")
    page_size = 20
    page_size_query_param = "page_size"
    max_page_size = 100

    def get_page_size(self, request: Request) -> int:
        """Raises `ValidationError` where REST framework would quietly take the default."""
        wish = request.query_params.get(self.page_size_query_param, self.page_size)
        try:
            page_size: int = WholeNumberField(1, self.max_page_size).run_validation(wish)
        except ValidationError as error:
            raise ValidationError({self.page_size_query_param: error.detail}) from None
        return page_size

    def decode_cursor(self, request: Request) -> Cursor | None:
        """Raises `ValidationError` for a cursor that this API did not hand out."""
        try:
            cursor = super().decode_cursor(request)
            if cursor is not None and cursor.position is not None:
                datetime.fromisoformat(str(cursor.position)).astimezone(UTC)
        except (NotFound, ValueError, OverflowError):
            message = "This cursor is invalid; follow the `next` and `previous` links as they are given."
            raise ValidationError({"cursor": [message]}) from None
        return cursor

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        link = {"type": ["string", "null"], "format": "uri"}
        properties = {"next": link, "previous": link, "results": schema}
        return {"type": "object", "required": list(properties), "properties": properties}
