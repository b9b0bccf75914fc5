"""What the admin pages of several models, and of training, have in common."""

import unicodedata
from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from captioner.models import Owned, Photo
from models_registry.admin import ModelAdmin, ReadOnlyAdmin


class RecordAdmin(ReadOnlyAdmin):
    """Records that may be looked at and erased, but not be made or changed by hand."""

    actions: Any = ()

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        return super().get_search_results(request, queryset, unicodedata.normalize("NFC", search_term))

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return ModelAdmin.has_delete_permission(self, request, obj)


def photo_image(photo: Photo, css_class: str, alt: str = "") -> SafeString:
    return format_html(
        '<img class="{}" src="{}" alt="{}" width="{}" height="{}" loading="lazy">',
        css_class,
        reverse("admin:captioner_photo_file", args=[photo.pk]),
        alt,
        photo.width,
        photo.height,
    )


def owner_name(owned: Owned) -> str:
    if owned.user is None:
        return f"visitor {str(owned.visitor)[:8]}"
    name = owned.user.get_username()
    if owned.api_key:
        name = f"{name}, with the key {owned.api_key}"
    return f"{name}, for {owned.end_user}" if owned.end_user else name
