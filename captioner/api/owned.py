"""The base of the views of captions and jobs, of which everybody sees only their own, newest first."""

from collections.abc import Iterable
from typing import Any, TypeVar

from django.conf import settings
from rest_framework import mixins
from rest_framework.exceptions import NotFound
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.permissions import SAFE_METHODS
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.viewsets import GenericViewSet

from captioner.api.pagination import NewestFirstPagination
from captioner.api.parsers import body_bound
from captioner.http.owner import other_sites_refuse
from captioner.models import Caption, Job

CaptionOrJob = TypeVar("CaptionOrJob", Caption, Job)


class OneRepresentation(DefaultContentNegotiation):
    """Everything here has exactly one representation: whatever `Accept` says, it is that one, never a 406."""

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: Any = None
    ) -> tuple[BaseRenderer, str]:
        renderer = next(iter(renderers))
        return renderer, renderer.media_type


class OwnedViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, GenericViewSet[CaptionOrJob]):
    """Subclasses give `get_queryset` with the caller's own rows, and may take larger bodies."""

    not_found_message: str

    pagination_class = NewestFirstPagination
    lookup_value_converter = "uuid"
    content_negotiation_class = OneRepresentation

    def body_limit(self) -> int:
        """The largest request body in bytes."""
        return settings.DATA_UPLOAD_MAX_MEMORY_SIZE

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        body_bound(request._request, self.body_limit())
        super().initial(request, *args, **kwargs)
        if request.method not in SAFE_METHODS and request.auth is None:
            other_sites_refuse(request._request)

    def get_object(self) -> CaptionOrJob:
        row = self.get_queryset().filter(pk=self.kwargs["pk"]).first()
        if row is None:
            raise NotFound(self.not_found_message)
        return row
