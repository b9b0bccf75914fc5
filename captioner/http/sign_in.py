"""Signing in with a password, and how often that may fail: per account and per address, on every page that asks."""

from collections.abc import Callable
from typing import Any

from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from captioner.exceptions import TooManyAttempts
from captioner.http import rates
from captioner.http.client import client_address


class ThrottledBackend(ModelBackend):
    """Counts attempts before it looks at the password, so that a guess too many learns nothing from it."""

    def authenticate(
        self,
        request: HttpRequest | None,
        username: str | None = None,
        password: str | None = None,
        **kwargs: Any,
    ) -> User | None:
        """As in Django. Raises `TooManyAttempts`."""
        whose = [f"account {(username or '').casefold()}"]
        if request is not None:
            whose.append(f"address {rates.address_block(client_address(request))}")
        rate = rates.rate_of("sign_in")
        if rate is None:
            return super().authenticate(request, username, password, **kwargs)
        standings = [standing for who in whose if (standing := rates.rate_take(rate, who))]
        wait = rates.retry_after(standings)
        if wait is not None:
            raise TooManyAttempts(
                "Signing in failed too often for this account or from this address. "
                f"Try again in {rates.seconds_in_words(wait)}.",
                retry_after=wait,
            )
        user = super().authenticate(request, username, password, **kwargs)
        if user is not None:  # only failures count
            for who in whose:
                rates.rate_give_back(rate, who)
        return user


class SignInMiddleware:
    """Shows the page of an attempt too many."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        if not isinstance(exception, TooManyAttempts):
            return None
        response = render(request, "429.html", {"error": exception}, status=429)
        response["Retry-After"] = str(exception.retry_after)
        return response
