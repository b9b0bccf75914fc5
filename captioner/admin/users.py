"""Accounts are made by administrators; a link lets whoever gets one choose the password.

Staff who may change users or groups, and are no superusers, give only rights that they have, and get into no account
that may do more than theirs.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import AnonymousUser, Group, Permission, User
from django.contrib.auth.tokens import default_token_generator
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.encoding import force_bytes
from django.utils.html import format_html
from django.utils.http import urlsafe_base64_encode

from captioner.captions.accounts import groups_within, permissions_of, users_within
from models_registry.admin import ModelAdmin

if TYPE_CHECKING:
    from django.db.models import ManyToManyField
    from django.forms import ModelMultipleChoiceField

admin.site.unregister([User, Group])


class WithinOwnRights(ModelAdmin):
    """For a model of those who have rights: what has more than the person at the admin is looked at and left alone."""

    within: Callable[[User | AnonymousUser], QuerySet[Any]]

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_change_permission(request, obj) and self._is_within(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_delete_permission(request, obj) and self._is_within(request, obj)

    def _is_within(self, request: HttpRequest, obj: Any) -> bool:
        return obj is None or self.within(request.user).filter(pk=obj.pk).exists()

    def formfield_for_manytomany(
        self, db_field: "ManyToManyField[Any, Any]", request: HttpRequest, **kwargs: Any
    ) -> "ModelMultipleChoiceField[Any] | None":
        offered = {Permission: permissions_of, Group: groups_within}[db_field.remote_field.model]
        kwargs["queryset"] = offered(request.user)
        return super().formfield_for_manytomany(db_field, request, **kwargs)


@admin.register(Group)
class RightsGroupAdmin(WithinOwnRights, GroupAdmin):  # type: ignore[misc]  # its stubs name fewer arguments
    """Django's, within one's own rights."""

    within = staticmethod(groups_within)


@admin.register(User)
class InvitingUserAdmin(WithinOwnRights, UserAdmin):  # type: ignore[type-arg]  # which it does not take when it runs
    """Django's, and a link for the person after adding somebody without a password, or on request."""

    within = staticmethod(users_within)
    actions = ["invite"]

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> tuple[str, ...]:
        own = tuple(super().get_readonly_fields(request, obj))
        return own if request.user.is_superuser else (*own, "is_superuser")

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        if not change and not obj.has_usable_password():
            self._invite(request, obj)

    @admin.action(description="Make links to choose a new password", permissions=["change"])
    def invite(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        for user in queryset.filter(is_active=True):
            if not self.has_change_permission(request, user):
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
