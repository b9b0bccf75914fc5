"""Models that were asked for, and a form that asks for one."""

from typing import TYPE_CHECKING, Any, cast

from django import forms
from django.contrib import admin
from django.contrib.auth.models import User
from django.http import HttpRequest

from captioner.exceptions import ImportRefused
from captioner.importing.services import import_check, import_request, may_import
from captioner.models import ModelImport
from models_registry.admin import ReadOnlyAdmin

if TYPE_CHECKING:
    ModelForm = forms.ModelForm[ModelImport]
else:
    ModelForm = forms.ModelForm


class ModelImportForm(ModelForm):
    def clean(self) -> None:
        super().clean()
        try:
            import_check(self.cleaned_data.get("source", ""), self.cleaned_data.get("revision", ""))
        except ImportRefused as error:
            self.add_error("source", str(error))


@admin.register(ModelImport)
class ModelImportAdmin(ReadOnlyAdmin):
    form = ModelImportForm
    list_display = ["__str__", "told", "version", "requested_by", "created_at", "finished_at"]
    list_filter = ["status", "created_at"]
    list_select_related = ["version", "requested_by"]

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        asked = ("source", "revision", "licence", "promote")
        if obj is None:
            return asked
        return (*asked, "told", "error", "version", "caption", "requested_by", "created_at", "finished_at")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return may_import(request.user)

    def save_model(self, request: HttpRequest, obj: ModelImport, form: ModelForm, change: bool) -> None:
        obj.pk = import_request(
            obj.source,
            obj.revision,
            licence=obj.licence,
            promote=obj.promote,
            by=cast(User, request.user),
        ).pk
