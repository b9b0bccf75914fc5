"""API keys: made with a secret that is shown once, and revoked."""

from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.forms import ModelForm
from django.http import HttpRequest
from django.utils.html import format_html

from captioner.captions.accounts import users_within
from captioner.captions.api_keys import api_key_create, api_key_revoke
from captioner.models import ApiKey
from models_registry.admin import ModelAdmin

if TYPE_CHECKING:
    from django.db.models import ForeignKey
    from django.forms import ModelChoiceField


@admin.register(ApiKey)
class ApiKeyAdmin(ModelAdmin):
    list_display = ["name", "prefix", "user", "created_at", "revoked_at"]
    list_filter = [("revoked_at", admin.EmptyFieldListFilter)]
    list_select_related = ["user"]
    show_full_result_count = False
    search_fields = ["name", "prefix", "user__username"]
    autocomplete_fields = ["user"]
    actions = ["revoke"]

    def get_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> tuple[str, ...]:
        return ("user", "name") if obj is None else ("user", "name", "prefix", "created_at", "revoked_at")

    def has_change_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        # Of a key that was handed out, only the revocation changes, and that is an action of the list.
        return obj is None and super().has_change_permission(request)

    def formfield_for_foreignkey(
        self, db_field: "ForeignKey[Any, Any]", request: HttpRequest, **kwargs: Any
    ) -> "ModelChoiceField[Any] | None":
        # A key does what its user may do, whoever holds it.
        return super().formfield_for_foreignkey(
            db_field, request, **kwargs | {"queryset": users_within(request.user)}
        )

    def save_model(self, request: HttpRequest, obj: ApiKey, form: "ModelForm[ApiKey]", change: bool) -> None:
        api_key, secret = api_key_create(obj.user, obj.name)
        obj.pk, obj.prefix = api_key.pk, api_key.prefix
        told = "Copy the key now, it is not shown again: <code>{}</code>"
        self.message_user(request, format_html(told, secret), messages.WARNING)

    @admin.action(description="Revoke the selected keys", permissions=["change"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        self.message_user(request, f"Revoked: {api_key_revoke(queryset)}.", messages.SUCCESS)
