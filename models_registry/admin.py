"""What serves and what served when, to be looked at; the registry's services change it."""

import json
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from models_registry.models import Alias, ModelVersion, Promotion

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Any]
else:
    ModelAdmin = admin.ModelAdmin


class ReadOnlyAdmin(ModelAdmin):
    """Records that are looked at, and never made, changed or removed by hand."""

    actions: Any = None
    list_per_page = 50
    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(ModelVersion)
class ModelVersionAdmin(ReadOnlyAdmin):
    list_display = ["id", "model_name", "serves_as", "created_at"]
    readonly_fields = ("id", "model_name", "serves_as", "created_at", "manifest_pretty")
    fields = readonly_fields
    search_fields = ["id", "model_name"]

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).prefetch_related("aliases")

    @admin.display(description="Serves as")
    def serves_as(self, version: ModelVersion) -> str | None:
        return ", ".join(alias.name for alias in version.aliases.all()) or None

    @admin.display(description="Manifest")
    def manifest_pretty(self, version: ModelVersion) -> SafeString:
        return format_html("<pre>{}</pre>", json.dumps(version.manifest, indent=2, ensure_ascii=False))


@admin.register(Alias)
class AliasAdmin(ReadOnlyAdmin):
    list_display = ["name", "version", "updated_at"]
    list_select_related = ["version"]


@admin.register(Promotion)
class PromotionAdmin(ReadOnlyAdmin):
    list_display = ["created_at", "alias", "version", "promoted_by", "reason"]
    list_filter = ["alias", "created_at"]
    list_select_related = ["version", "promoted_by"]
