"""Accounts are made by administrators; a link lets whoever gets one choose the password."""

from typing import Any

from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import User
from django.contrib.auth.tokens import default_token_generator
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.encoding import force_bytes
from django.utils.html import format_html
from django.utils.http import urlsafe_base64_encode

admin.site.unregister(User)


@admin.register(User)
class InvitingUserAdmin(UserAdmin):  # type: ignore[type-arg]  # which it does not take when it runs
    """Django's, and a link for the person after adding somebody without a password, or on request."""

    actions = ["invite"]

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        if not change and not obj.has_usable_password():
            self._invite(request, obj)

    @admin.action(description="Make links to choose a new password", permissions=["change"])
    def invite(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        for user in queryset.filter(is_active=True):
            # Whoever may change users, but is no superuser, must not become one this way.
            if user.is_superuser and not request.user.is_superuser:
                self.message_user(request, f"Only a superuser may do this for {user}.", messages.ERROR)
            else:
                self._invite(request, user)

    def _invite(self, request: HttpRequest, user: User) -> None:
        token = default_token_generator.make_token(user)
        path = reverse("welcome", args=[urlsafe_base64_encode(force_bytes(user.pk)), token])
        told = "Send this link to {}; it works once, for three days: <code>{}</code>"
        self.message_user(
            request,
            format_html(told, user.get_username(), request.build_absolute_uri(path)),
            messages.WARNING,
        )
