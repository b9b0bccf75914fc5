"""Who may use the API."""

from typing import TYPE_CHECKING

from django.conf import settings
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

if TYPE_CHECKING:  # REST framework's views import this module
    from rest_framework.views import APIView


class MayPromote(BasePermission):
    """Staff whom the admin allows to change what an alias points at."""

    message = "Only staff that may change aliases can see and change what serves."

    def has_permission(self, request: Request, view: "APIView") -> bool:
        return request.user.is_staff and request.user.has_perm("models_registry.change_alias")


class MayCaption(BasePermission):
    """Users and API keys always; anonymous visitors where `CAPTIONER_ALLOW_ANONYMOUS` says so."""

    def has_permission(self, request: Request, view: "APIView") -> bool:
        return request.user.is_authenticated or settings.ALLOW_ANONYMOUS
