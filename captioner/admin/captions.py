"""The log of captions."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html_join
from django.utils.safestring import SafeString

from captioner.admin.bases import RecordAdmin, owner_name, photo_image
from captioner.admin.filters import CaptionVersionFilter
from captioner.captions.captions import caption_delete, captions_delete
from captioner.models import Caption, Feedback

_DELETED_LISTED = 100


@admin.register(Caption)
class CaptionAdmin(RecordAdmin):
    list_display = ["thumbnail", "text", "owner", "model_version", "origin", "source", "created_at"]
    list_display_links = ["text"]
    list_filter = ["source", "origin", CaptionVersionFilter, "created_at"]
    list_select_related = ["photo", "user", "api_key", "recalled"]
    search_fields = ["text"]
    search_help_text = "Searches the captions that the model wrote."
    readonly_fields = (
        "large",
        "answer",
        "text",
        "words_shown",
        "alternatives_shown",
        "owner",
        "source",
        "origin",
        "beam_rank",
        "model_name",
        "model_version",
        "decoding",
        "timings_ms",
        "batch_size",
        "created_at",
    )
    fields = readonly_fields

    def delete_model(self, request: HttpRequest, obj: Caption) -> None:
        caption_delete(obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Caption]) -> None:
        captions_delete(queryset)

    def get_deleted_objects(
        self, objs: Any, request: HttpRequest
    ) -> tuple[list[str], dict[str, int], set[str], list[str]]:
        """As in Django, where they can be read; of more than that counts only."""
        count = len(objs)
        if count <= _DELETED_LISTED:
            return super().get_deleted_objects(objs, request)
        feedback = Feedback.objects.filter(caption__in=objs).count()
        may_not = (
            {"feedback"} if feedback and not request.user.has_perm("captioner.delete_feedback") else set()
        )
        return [f"{count} captions"], {"captions": count, "feedback": feedback}, may_not, []

    @admin.display(description="Photo")
    def thumbnail(self, caption: Caption) -> SafeString:
        return photo_image(caption.photo, "thumbnail")

    @admin.display(description="Photo")
    def large(self, caption: Caption) -> SafeString:
        return photo_image(caption.photo, "photo-large", alt=caption.text)

    @admin.display(description="Answer")
    def answer(self, caption: Caption) -> str:
        if caption.is_remembered:
            return f"{caption.answer_text} (from memory of feedback {caption.recalled_id})"
        is_forgotten = caption.origin == Caption.Origin.MEMORY
        return f"{caption.text} (what was remembered is gone)" if is_forgotten else caption.text

    @admin.display(description="Owner")
    def owner(self, caption: Caption) -> str:
        return owner_name(caption)

    @admin.display(description="Words")
    def words_shown(self, caption: Caption) -> str:
        return ", ".join(f"{word['text']} ({word['probability']:.0%})" for word in caption.words)

    @admin.display(description="Alternatives")
    def alternatives_shown(self, caption: Caption) -> SafeString:
        return format_html_join("", "<div>{}</div>", ([other["caption"]] for other in caption.alternatives))
