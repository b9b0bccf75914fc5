"""Pages of captions and jobs, newest first: `captioner.http.paging` as REST framework wants it."""

from typing import Any

from rest_framework.exceptions import ValidationError
from rest_framework.pagination import BasePagination
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.urls import replace_query_param

from captioner.api.serializers import WholeNumberField
from captioner.http.paging import Page, page_of


class NewestFirstPagination(BasePagination):
    """A cursor is `older~` or `newer~` and a cursor of `page_of`; new rows do not move it."""

    page_size = 20
    max_page_size = 100
    page_size_query_param = "page_size"
    cursor_query_param = "cursor"

    def paginate_queryset(self, queryset: Any, request: Request, view: Any = None) -> list[Any]:
        """Raises `ValidationError` for a bad page size, and for a cursor that this API did not hand out."""
        wish = request.query_params.get(self.page_size_query_param, self.page_size)
        try:
            size: int = WholeNumberField(1, self.max_page_size).run_validation(wish)
        except ValidationError as error:
            raise ValidationError({self.page_size_query_param: error.detail}) from None
        cursor = request.query_params.get(self.cursor_query_param, "")
        side, _, place = cursor.partition("~")
        try:
            if cursor and (side not in {"older", "newer"} or not place):
                raise ValueError("A cursor names a side and a place.")
            self._page: Page[Any] = page_of(queryset, size=size, **({side: place} if cursor else {}))
        except ValueError:
            message = "This cursor is invalid; follow the `next` and `previous` links as they are given."
            raise ValidationError({self.cursor_query_param: [message]}) from None
        self._url = request.build_absolute_uri()
        return self._page.rows

    def get_paginated_response(self, data: Any) -> Response:
        page = self._page
        links = {
            name: replace_query_param(self._url, self.cursor_query_param, f"{side}~{place}")
            if place
            else None
            for name, side, place in (("next", "older", page.older), ("previous", "newer", page.newer))
        }
        return Response({**links, "results": data})

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        link = {"type": ["string", "null"], "format": "uri"}
        properties = {"next": link, "previous": link, "results": schema}
        return {"type": "object", "required": list(properties), "properties": properties}

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        return [
            {
                "name": self.cursor_query_param,
                "required": False,
                "in": "query",
                "description": "The pagination cursor value.",
                "schema": {"type": "string"},
            }
        ]
