"""The log of captions."""

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html_join
from django.utils.safestring import SafeString

from captioner.admin.bases import RecordAdmin, owner_name, photo_image
from captioner.admin.filters import CaptionVersionFilter
from captioner.captions.captions import caption_delete
from captioner.models import Caption


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
        for caption in queryset:
            caption_delete(caption)

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
