"""Limits how often a password may be wrong, on every page that asks for one, and shuts nobody out of their own account.

Failures are counted per browser that signed in to this account before, and else per account and per address. What is
tried from elsewhere does not count against such a browser. An account that others guess at takes one attempt from each
address in a window, so that its owner gets in from a new browser, too.
"""

import hashlib
import uuid
from typing import Any

from django import forms
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.forms import PasswordChangeForm
from django.contrib.auth.models import User
from django.http import HttpRequest

from captioner.captions.api_keys import api_key_revoke
from captioner.exceptions import TooManyAttempts
from captioner.http import rates
from captioner.http.client import client_address
from captioner.models import ApiKey

KNOWN_COOKIE = "captioner_browser"
KNOWN_SALT = "captioner.known_browser"
KNOWN_MAX_AGE = 365 * 24 * 3600  # seconds


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
        account = (username or "").casefold()
        address = "" if request is None else rates.address_block(client_address(request))
        if request is not None and (browser := _known_browser(request, account)):
            counted = [("sign_in", f"browser {browser}")]
        else:
            counted = [
                ("sign_in", f"account {account}"),
                ("sign_in", f"account {account} from {address}"),
                ("sign_in_address", f"address {address}"),
            ]
        taken = [
            (rate, who, standing)
            for name, who in counted
            if (rate := rates.rate_of(name)) and (standing := rates.rate_take(rate, who))
        ]
        exceeded = [(who, standing) for _, who, standing in taken if standing.is_exceeded]
        is_first_from_here = any(
            who == f"account {account} from {address}" and standing.remaining == rate.quota - 1
            for rate, who, standing in taken
        )
        wait = rates.retry_after(
            standing for who, standing in exceeded if not (is_first_from_here and who == f"account {account}")
        )
        if wait is not None:
            raise _too_many(wait)
        user = super().authenticate(request, username, password, **kwargs)
        if user is not None:  # only failures count
            for rate, who, _ in taken:
                rates.rate_give_back(rate, who)
        return user


class OwnPasswordForm(PasswordChangeForm):
    """Django's, which anybody at an open session could guess with; ends other sessions, and API keys on request."""

    revoke_keys = forms.BooleanField(required=False, label="Revoke my API keys, too")

    def clean_old_password(self) -> str:
        """Raises `TooManyAttempts`."""
        rate, who = rates.rate_of("sign_in"), f"old password of {self.user.pk}"
        if rate is None:
            return super().clean_old_password()
        wait = rates.retry_after(filter(None, [rates.rate_take(rate, who)]))
        if wait is not None:
            raise _too_many(wait)
        old_password = super().clean_old_password()
        rates.rate_give_back(rate, who)
        return old_password

    def save(self, commit: bool = True) -> User:
        user = super().save(commit)
        if self.cleaned_data["revoke_keys"]:
            api_key_revoke(ApiKey.objects.filter(user=user))
        return user


def known_browser_make(user: User) -> str:
    """A new name for a browser in which this person signed in, for a signed cookie."""
    return f"{uuid.uuid4().hex} {_account_digest(user.get_username().casefold())}"


def _known_browser(request: HttpRequest, account: str) -> str | None:
    """The browser's name where this account signed in before."""
    cookie = request.get_signed_cookie(KNOWN_COOKIE, default=None, salt=KNOWN_SALT, max_age=KNOWN_MAX_AGE)
    browser, _, digest = (cookie or "").partition(" ")
    return browser if browser and digest == _account_digest(account) else None


def _account_digest(account: str) -> str:
    return hashlib.sha256(account.encode()).hexdigest()[:32]


def _too_many(wait: int) -> TooManyAttempts:
    return TooManyAttempts(
        "A password was wrong too often for this account or from this address. "
        f"Try again in {rates.seconds_in_words(wait)}.",
        retry_after=wait,
    )
