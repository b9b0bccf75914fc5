"""The administrators' side: keys, photos, captions, and the queue where feedback is approved or rejected."""

from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import Count, OuterRef, QuerySet, Subquery
from django.forms import ModelForm
from django.http import FileResponse, Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.shortcuts import get_object_or_404, redirect
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from captioner.admin.filters import CaptionVersionFilter, FeedbackVersionFilter, RatingFilter, StatusFilter
from captioner.admin.word_diff import word_diff
from captioner.captions.api_keys import api_key_create, api_key_revoke
from captioner.captions.captions import caption_delete
from captioner.captions.feedback import feedback_review
from captioner.captions.photos import photo_open
from captioner.models import ApiKey, Caption, ChallengerTrial, Feedback, Job, JobPhoto, Owned, Photo
from captioner.serving import trials
from models_registry.admin import ModelAdmin, ReadOnlyAdmin

if TYPE_CHECKING:
    TabularInline = admin.TabularInline[JobPhoto, Job]
else:
    TabularInline = admin.TabularInline

admin.site.site_header = "Captioner"
admin.site.site_title = "Captioner"
admin.site.enable_nav_sidebar = False  # lists need the width; every page leads to the index
admin.site.index_title = "Review and records"


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
    return f"{name}, with the key {owned.api_key}" if owned.api_key else name


class RecordAdmin(ReadOnlyAdmin):
    """Records that may be looked at and erased, but not be made or changed by hand."""

    actions: Any = ()

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return ModelAdmin.has_delete_permission(self, request, obj)


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

    def save_model(self, request: HttpRequest, obj: ApiKey, form: "ModelForm[ApiKey]", change: bool) -> None:
        api_key, secret = api_key_create(obj.user, obj.name)
        obj.pk, obj.prefix = api_key.pk, api_key.prefix
        told = "Copy the key now, it is not shown again: <code>{}</code>"
        self.message_user(request, format_html(told, secret), messages.WARNING)

    @admin.action(description="Revoke the selected keys", permissions=["change"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        self.message_user(request, f"Revoked: {api_key_revoke(queryset)}.", messages.SUCCESS)


@admin.register(Photo)
class PhotoAdmin(ReadOnlyAdmin):
    list_display = ["thumbnail", "size", "captions_made", "created_at"]
    list_filter = ["created_at"]
    readonly_fields = ("large", "size", "sha256", "captions_made", "created_at")
    fields = readonly_fields
    ordering = ["-created_at", "-pk"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Photo]:
        # A subquery counts for the photos of one page only, where a join would count for all of them first.
        captions = Caption.objects.filter(photo=OuterRef("pk")).order_by().values("photo")
        count = captions.annotate(count=Count("pk")).values("count")
        photos: QuerySet[Photo] = super().get_queryset(request).annotate(caption_count=Subquery(count))
        return photos

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.file_view)
        return [path("<int:pk>/file", view, name="captioner_photo_file"), *super().get_urls()]

    def file_view(self, request: HttpRequest, pk: int) -> FileResponse:
        """The stored photo, for staff that may look at photos."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        photo = get_object_or_404(Photo, pk=pk)
        try:
            response = FileResponse(photo_open(photo), content_type="image/jpeg")
        except FileNotFoundError:
            raise Http404(f"The file of {photo} is missing in the photo storage.") from None
        response["Cache-Control"] = "private, max-age=3600"  # what a photo's number shows never changes
        return response

    @admin.display(description="Photo")
    def thumbnail(self, photo: Photo) -> SafeString:
        return photo_image(photo, "thumbnail", alt=str(photo))

    @admin.display(description="Photo")
    def large(self, photo: Photo) -> SafeString:
        return photo_image(photo, "photo-large", alt=str(photo))

    @admin.display(description="Size")
    def size(self, photo: Photo) -> str:
        return f"{photo.width} by {photo.height}"

    @admin.display(description="Captions", ordering="caption_count")
    def captions_made(self, photo: Any) -> int:
        return photo.caption_count or 0


@admin.register(Caption)
class CaptionAdmin(RecordAdmin):
    list_display = ["thumbnail", "text", "owner", "model_version", "source", "created_at"]
    list_display_links = ["text"]
    list_filter = ["source", CaptionVersionFilter, "created_at"]
    list_select_related = ["photo", "user", "api_key"]
    search_fields = ["text"]
    search_help_text = "Searches the captions that the model wrote."
    readonly_fields = (
        "large",
        "text",
        "words_shown",
        "alternatives_shown",
        "owner",
        "source",
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

    @admin.display(description="Owner")
    def owner(self, caption: Caption) -> str:
        return owner_name(caption)

    @admin.display(description="Words")
    def words_shown(self, caption: Caption) -> str:
        return ", ".join(f"{word['text']} ({word['probability']:.0%})" for word in caption.words)

    @admin.display(description="Alternatives")
    def alternatives_shown(self, caption: Caption) -> SafeString:
        return format_html_join("", "<div>{}</div>", ([other["caption"]] for other in caption.alternatives))


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
        return str(trial)


class JobPhotoInline(TabularInline):
    """What became of each photo that failed: those are what somebody asks about."""

    model = JobPhoto
    verbose_name_plural = "Photos that failed"
    fields = readonly_fields = ("index", "name", "reason", "error", "attempts")
    can_delete = False
    max_num = 0

    def get_queryset(self, request: HttpRequest) -> QuerySet[JobPhoto]:
        return super().get_queryset(request).filter(state=JobPhoto.State.FAILED)


@admin.register(Job)
class JobAdmin(ReadOnlyAdmin):
    list_display = ["__str__", "owner_shown", "status", "captioned", "failed", "created_at", "finished_at"]
    list_filter = ["status", "created_at"]
    list_select_related = ["user", "api_key"]
    readonly_fields = ("owner_shown", "status", "photo_count", "options", "created_at", "finished_at")
    fields = readonly_fields
    inlines = [JobPhotoInline]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Job]:
        return Job.objects.with_progress().select_related("user", "api_key")

    @admin.display(description="Owner")
    def owner_shown(self, job: Job) -> str:
        return owner_name(job)

    @admin.display(description="Captioned")
    def captioned(self, job: Any) -> int:
        return int(job.captioned)

    @admin.display(description="Failed")
    def failed(self, job: Any) -> int:
        return int(job.failed)


@admin.register(Feedback)
class FeedbackAdmin(RecordAdmin):
    """The review queue: what is pending comes first, one decision leads to the next."""

    list_display = ["thumbnail", "comparison", "rating", "status", "reviewed_by", "updated_at"]
    list_display_links = ["comparison"]
    # The order of the queue's index, so that no list has to sort.
    ordering = ["status", "-updated_at", "-id"]
    list_filter = [
        StatusFilter,
        RatingFilter,
        ("ideal_caption", admin.EmptyFieldListFilter),
        FeedbackVersionFilter,
        "updated_at",
    ]
    list_select_related = ["caption__photo", "caption__user", "caption__api_key", "reviewed_by"]
    search_fields = ["ideal_caption", "caption__text"]
    search_help_text = "Searches the model's captions and people's own."
    actions = ["approve", "reject"]
    fields = (
        "large",
        "comparison",
        ("rating", "status"),
        ("reviewed_by", "reviewed_at"),
        ("owner", "model_version"),
        ("created_at", "updated_at"),
    )
    readonly_fields = (
        "large",
        "comparison",
        "rating",
        "status",
        "reviewed_by",
        "reviewed_at",
        "owner",
        "model_version",
        "created_at",
        "updated_at",
    )

    def has_change_permission(self, request: HttpRequest, obj: Feedback | None = None) -> bool:
        # Whoever may change feedback may review it; what people said stays as they said it.
        return obj is None and ModelAdmin.has_change_permission(self, request)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Feedback]:
        return super().get_queryset(request).select_related(*self.list_select_related)

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.review_view)
        return [path("<int:pk>/review", view, name="captioner_feedback_review"), *super().get_urls()]

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        seen = timezone.now()  # before the rows are read: what is newer was not seen
        return super().changelist_view(request, {"seen": seen, **(extra_context or {})})

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        context = {"may_review": self.has_change_permission(request), **(extra_context or {})}
        return super().change_view(request, object_id, form_url, context)

    def review_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Decide on one piece of feedback and go on to the next; what changed meanwhile is shown again."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if not self.has_change_permission(request):
            raise PermissionDenied
        feedback = get_object_or_404(Feedback, pk=pk)
        status, seen = request.POST.get("status", ""), request.POST.get("seen", "")
        if status not in {Feedback.Status.APPROVED, Feedback.Status.REJECTED}:
            raise Http404("Feedback is approved or rejected.")
        if feedback.updated_at != _moment(seen):
            told = "This changed while you looked at it; please look again."
            self.message_user(request, told, messages.WARNING)
            return redirect("admin:captioner_feedback_change", pk)
        self._review(request, Feedback.objects.filter(pk=pk, updated_at=feedback.updated_at), status)
        following = Feedback.objects.pending().after(feedback).first() or Feedback.objects.pending().first()
        if following is None:
            return redirect("admin:captioner_feedback_changelist")
        return redirect("admin:captioner_feedback_change", following.pk)

    @admin.action(description="Approve the selected feedback", permissions=["change"])
    def approve(self, request: HttpRequest, queryset: QuerySet[Feedback]) -> None:
        self._review_seen(request, queryset, Feedback.Status.APPROVED)

    @admin.action(description="Reject the selected feedback", permissions=["change"])
    def reject(self, request: HttpRequest, queryset: QuerySet[Feedback]) -> None:
        self._review_seen(request, queryset, Feedback.Status.REJECTED)

    def _review_seen(self, request: HttpRequest, queryset: QuerySet[Feedback], status: str) -> None:
        """Decide on what did not change since the list was shown."""
        seen = _moment(request.POST.get("seen", ""))
        same = queryset.filter(updated_at__lt=seen) if seen is not None else queryset.none()
        changed = queryset.count() - same.count()
        self._review(request, same, status)
        if changed:
            told = f"{changed} changed while you looked at the list; please look again."
            self.message_user(request, told, messages.WARNING)

    def _review(self, request: HttpRequest, queryset: QuerySet[Feedback], status: str) -> None:
        label, reviewer = (
            Feedback.Status(status).label,
            cast(User, request.user),
        )  # the admin lets nobody else in
        with transaction.atomic():
            decided = list(queryset.select_for_update(of=("self",)).exclude(status=status))
            count = feedback_review(
                queryset.filter(pk__in=[row.pk for row in decided]),
                Feedback.Status(status),
                reviewer=reviewer,
            )
            LogEntry.objects.log_actions(reviewer.pk, decided, CHANGE, f"{label}.")
        level = messages.SUCCESS if count else messages.WARNING
        self.message_user(request, f"{label}: {count}.", level)

    @admin.display(description="Photo")
    def thumbnail(self, feedback: Feedback) -> SafeString:
        return photo_image(feedback.caption.photo, "thumbnail")

    @admin.display(description="Photo")
    def large(self, feedback: Feedback) -> SafeString:
        return photo_image(feedback.caption.photo, "photo-large", alt=feedback.caption.text)

    @admin.display(description="Model's caption and ideal caption")
    def comparison(self, feedback: Feedback) -> SafeString:
        model, ideal = feedback.caption.text, feedback.ideal_caption
        if not ideal:
            return format_html('<span class="said-by-model">{}</span>', model)
        tags = {"same": "span", "removed": "del", "added": "ins"}
        runs = ((tags[kind], words, tags[kind]) for kind, words in word_diff(model, ideal))
        return format_html(
            '<span class="said-by-model">{}</span><span class="said-by-person">{}</span>',
            model,
            format_html_join(" ", "<{}>{}</{}>", runs),
        )

    @admin.display(description="Said by")
    def owner(self, feedback: Feedback) -> str:
        return owner_name(feedback.caption)

    @admin.display(description="Model version")
    def model_version(self, feedback: Feedback) -> str:
        return feedback.caption.model_version


def _moment(text: str) -> datetime | None:
    """A moment as a page wrote it; None where it is none, or says not in which time zone."""
    try:
        moment = parse_datetime(text)
    except ValueError:
        return None
    return moment if moment is not None and timezone.is_aware(moment) else None
