"""Limits how often signing in may fail, per account and per address, on every page that asks for a password."""

from typing import Any

from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import User
from django.http import HttpRequest

from captioner.exceptions import TooManyAttempts
from captioner.http import rates
from captioner.http.client import client_address


class ThrottledBackend(ModelBackend):
    """Counts an attempt before it checks the password, so that a refused guess learns nothing."""

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
