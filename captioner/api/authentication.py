"""Programs sign in with `Authorization: Bearer <key>`; people with the session of the web pages."""

from django.contrib.auth.models import AbstractBaseUser
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed, Throttled
from rest_framework.request import Request

from captioner.captions.api_keys import api_key_find
from captioner.http import rates
from captioner.models import ApiKey


class ApiKeyAuthentication(BaseAuthentication):
    """`request.user` becomes the key's user, `request.auth` the key. Schemes other than Bearer pass."""

    def authenticate(self, request: Request) -> tuple[AbstractBaseUser, ApiKey] | None:
        scheme, _, secret = get_authorization_header(request).partition(b" ")
        if scheme.lower() != b"bearer":
            return None
        api_key = api_key_find(secret.strip().decode("latin-1"))
        if api_key is None:
            # Whoever tries keys is counted here, for throttles come after this.
            wait = rates.retry_after(rates.caller_take(request._request, user_id=None, api_key_id=None))
            if wait is not None:
                raise Throttled(wait)
            raise AuthenticationFailed("This API key is unknown or was revoked.")
        return api_key.user, api_key

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="Captioner"'
