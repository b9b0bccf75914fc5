"""Who is calling: a user, an API key, or an anonymous visitor known by a signed cookie."""

import uuid
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.utils.crypto import salted_hmac
from django.utils.http import is_same_domain

from captioner.http.client import client_address
from captioner.http.rates import address_block
from captioner.models import Owner

COOKIE = "captioner_visitor"
COOKIE_MAX_AGE = 365 * 24 * 3600  # seconds


def owner_of(request: HttpRequest, end_user: str = "") -> Owner:
    """Returns the owner of what this request creates and may see; `end_user` is for whom a key asks.

    An anonymous request without a cookie becomes a new visitor, kept as `request.new_visitor`;
    `captioner.http.middleware.visitors` sends the cookie.
    """
    api_key = getattr(request, "auth", None)
    if api_key is not None:
        return Owner(api_key=api_key, end_user=end_user)
    if request.user.is_authenticated:
        return Owner(user=request.user)
    plain: Any = getattr(request, "_request", request)  # a REST framework request wraps Django's
    if (visitor := visitor_of(plain)) is not None:
        return Owner(visitor=visitor)
    if not hasattr(plain, "new_visitor"):
        plain.new_visitor = uuid.uuid4()
    return Owner(visitor=plain.new_visitor)


def other_sites_refuse(request: HttpRequest) -> None:
    """Raises `PermissionDenied` where a browser says that a page of another site makes it ask.

    Such a request comes without the visitor's cookie, and what it makes would be a new visitor's.
    """
    origin = request.headers.get("Origin")
    is_elsewhere = request.headers.get("Sec-Fetch-Site") == "cross-site"
    if origin is not None:
        host = urlsplit(origin).netloc
        trusted = [
            request.get_host(),
            *(urlsplit(each).netloc.lstrip("*") for each in settings.CSRF_TRUSTED_ORIGINS),
        ]
        is_elsewhere = not any(is_same_domain(host, each) for each in trusted)
    if is_elsewhere:
        message = "A page of another site may ask only with an API key, or as one of CSRF_TRUSTED_ORIGINS."
        raise PermissionDenied(message)


def caller_of(request: HttpRequest) -> str:
    """Returns whose share of what is bounded per caller this request takes: a user's, with all their keys, or that of
    an address, which stays unreadable, for visitors are as many as they like.
    """
    if request.user.is_authenticated:
        return f"user {request.user.pk}"
    return f"address {salted_hmac(__name__, address_block(client_address(request))).hexdigest()}"


def visitor_of(request: HttpRequest) -> uuid.UUID | None:
    """The visitor that this browser was, or is, when nobody is signed in."""
    cookie = request.get_signed_cookie(COOKIE, default=None, max_age=COOKIE_MAX_AGE)
    return None if cookie is None else uuid.UUID(cookie)
