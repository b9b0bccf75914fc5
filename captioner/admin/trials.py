"""What a challenger made of people's photos."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.utils.safestring import SafeString

from captioner.admin.bases import photo_image
from captioner.models import ChallengerTrial
from captioner.serving import trials
from models_registry.admin import ReadOnlyAdmin


@admin.register(ChallengerTrial)
class ChallengerTrialAdmin(ReadOnlyAdmin):
    """What a challenger made of people's photos without answering, and above it how it compares so far."""

    list_display = ["thumbnail", "champion_said", "challenger_said", "model_version", "kind", "created_at"]
    list_display_links = ["challenger_said"]
    list_filter = ["kind", ("error", admin.EmptyFieldListFilter), "created_at"]
    list_select_related = ["caption__photo"]
    readonly_fields = (
        "thumbnail",
        "champion_said",
        "challenger_said",
        "model_version",
        "kind",
        "inference_ms",
        "batch_size",
    )
    fields = readonly_fields

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        context = {"comparison": trials.challenger_compare(), **(extra_context or {})}
        return super().changelist_view(request, context)

    @admin.display(description="Photo")
    def thumbnail(self, trial: ChallengerTrial) -> SafeString:
        return photo_image(trial.caption.photo, "thumbnail")

    @admin.display(description="The champion said")
    def champion_said(self, trial: ChallengerTrial) -> str:
        return trial.caption.text

    @admin.display(description="The challenger said")
    def challenger_said(self, trial: ChallengerTrial) -> str:
        return trial.text or trial.error
