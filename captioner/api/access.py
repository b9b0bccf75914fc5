"""Who may use the API and how often: signing in, permissions, rates."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed, Throttled, ValidationError
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from captioner.captions.api_keys import api_key_find
from captioner.http import rates
from captioner.models import ApiKey

if TYPE_CHECKING:  # REST framework's views look this module up in the settings
    from rest_framework.views import APIView


class ApiKeyAuthentication(BaseAuthentication):
    """Programs sign in with `Authorization: Bearer <key>`, people with the session of the web pages.

    `request.user` becomes the key's user, `request.auth` the key. Schemes other than Bearer pass.
    """

    def authenticate(self, request: Request) -> tuple[AbstractBaseUser, ApiKey] | None:
        scheme, _, secret = get_authorization_header(request).partition(b" ")
        if scheme.lower() != b"bearer":
            return None
        api_key = api_key_find(secret.strip().decode("latin-1"))
        if api_key is None:
            # Guesses of keys are counted here, for REST framework asks the throttle only afterwards.
            wait = rates.retry_after(rates.caller_take(request._request, user_id=None, api_key_id=None))
            if wait is not None:
                raise Throttled(wait)
            raise AuthenticationFailed("This API key is unknown or was revoked.")
        return api_key.user, api_key

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="Captioner"'


def end_user_of(request: Request, named: Mapping[str, Any]) -> str:
    """Returns for whom the request asks, by its validated field `user`. Raises `ValidationError` where no key asks."""
    end_user: str = named.get("user", "")
    if end_user and request.auth is None:
        raise ValidationError({"user": ["Only a program with an API key can ask for somebody else."]})
    return end_user


class MayCaption(BasePermission):
    """Users and API keys always; anonymous visitors where `CAPTIONER_ALLOW_ANONYMOUS` says so."""

    def has_permission(self, request: Request, view: "APIView") -> bool:
        return request.user.is_authenticated or settings.ALLOW_ANONYMOUS


class MayPromote(BasePermission):
    """Staff whom the admin allows to change what an alias points at."""

    message = "Only staff that may change aliases can see and change what serves."

    def has_permission(self, request: Request, view: "APIView") -> bool:
        return request.user.is_staff and request.user.has_perm("models_registry.change_alias")


class CallerThrottle(BaseThrottle):
    """By key and by user for those who signed in, by address for those who did not."""

    def allow_request(self, request: Request, view: "APIView") -> bool:
        key = request.auth.pk if request.auth else None
        self._wait = rates.retry_after(rates.caller_take(request._request, request.user.pk, key))
        return self._wait is None

    def wait(self) -> float | None:
        return self._wait
