"""The review queue, where feedback is approved or rejected."""

from datetime import datetime
from typing import Any, cast

from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.shortcuts import get_object_or_404, redirect
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from captioner.admin.bases import RecordAdmin, owner_name, photo_image
from captioner.admin.filters import FeedbackVersionFilter, RatingFilter, StatusFilter
from captioner.captions.states import feedback_states
from captioner.models import Feedback
from captioner.review.decisions import feedback_decide, may_review
from captioner.review.word_diff import word_diff


@admin.register(Feedback)
class FeedbackAdmin(RecordAdmin):
    """The review queue: what is pending comes first, one decision leads to the next."""

    list_display = ["thumbnail", "comparison", "rating", "status", "reviewed_by", "updated_at"]
    list_display_links = ["comparison"]
    # The order of the queue's index, so that no list has to sort.
    ordering = ["status", "-priority", "-updated_at", "-id"]
    list_filter = [
        StatusFilter,
        RatingFilter,
        ("ideal_caption", admin.EmptyFieldListFilter),
        FeedbackVersionFilter,
        "updated_at",
    ]
    list_select_related = [
        "caption__photo",
        "caption__recalled",
        "caption__user",
        "caption__api_key",
        "reviewed_by",
    ]
    search_fields = ["ideal_caption", "caption__text"]
    search_help_text = "Searches the model's captions and people's own."
    actions = ["approve", "reject"]
    fields = (
        "large",
        "comparison",
        "disagreement",
        ("rating", "status", "rejection"),
        "proposed",
        ("reviewed_by", "reviewed_at"),
        ("owner", "model_version"),
        "became",
        "later",
        ("created_at", "updated_at"),
    )
    readonly_fields = (
        "large",
        "comparison",
        "disagreement",
        "rating",
        "status",
        "rejection",
        "proposed",
        "reviewed_by",
        "reviewed_at",
        "owner",
        "model_version",
        "became",
        "later",
        "created_at",
        "updated_at",
    )

    def has_change_permission(self, request: HttpRequest, obj: Feedback | None = None) -> bool:
        # Whoever may review gets the buttons; what people said stays as they said it.
        return obj is None and may_review(request.user)

    def has_view_permission(self, request: HttpRequest, obj: Feedback | None = None) -> bool:
        return super().has_view_permission(request, obj) or may_review(request.user)

    def has_module_permission(self, request: HttpRequest) -> bool:
        return super().has_module_permission(request) or may_review(request.user)

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

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **options: Any
    ) -> HttpResponse:
        context["may_review"] = self.has_change_permission(request)
        return super().render_change_form(request, context, *args, **options)

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
        queue = Feedback.objects.pending()
        following = queue.after(feedback).first() or queue.first()
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
        reviewer = cast(User, request.user)  # the admin lets nobody else in
        decided = feedback_decide(queryset, Feedback.Status(status), reviewer=reviewer)
        level = messages.SUCCESS if decided.changed else messages.WARNING
        self.message_user(request, f"{Feedback.Status(status).label}: {decided.changed}.", level)
        if decided.returned:
            told = f"{decided.returned} went back to review: somebody else wrote something else of the same photo."
            self.message_user(request, told, messages.WARNING)

    @admin.display(description="Photo")
    def thumbnail(self, feedback: Feedback) -> SafeString:
        return photo_image(feedback.caption.photo, "thumbnail")

    @admin.display(description="Photo")
    def large(self, feedback: Feedback) -> SafeString:
        return photo_image(feedback.caption.photo, "photo-large", alt=feedback.caption.text)

    @admin.display(description="Model's caption and ideal caption")
    def comparison(self, feedback: Feedback) -> SafeString:
        model, ideal = feedback.caption.text, feedback.ideal_caption
        # Where the answer was remembered, that is what was rated or corrected.
        answered = SafeString("")
        if feedback.caption.is_remembered:
            answered = format_html(
                '<span class="said-by-memory" dir="auto">From memory: {}</span>', feedback.caption.answer_text
            )
        if not ideal:
            return format_html('{}<span class="said-by-model" dir="auto">{}</span>', answered, model)
        tags = {"same": "span", "removed": "del", "added": "ins"}
        runs = ((tags[kind], words, tags[kind]) for kind, words in word_diff(model, ideal))
        return format_html(
            '{}<span class="said-by-model" dir="auto">{}</span><span class="said-by-person" dir="auto">{}</span>',
            answered,
            model,
            format_html_join(" ", "<{}>{}</{}>", runs),
        )

    @admin.display(description="Somebody else wrote")
    def disagreement(self, feedback: Feedback) -> str | SafeString:
        other = feedback.disagrees_with
        if other is None:
            return "—"
        return format_html(
            '<span class="said-by-person" dir="auto">{}</span> ({})', other.ideal_caption, other.status
        )

    @admin.display(description="What became of it")
    def became(self, feedback: Feedback) -> str:
        return "; ".join(state.told for state in feedback_states(feedback))

    @admin.display(description="Asked again", empty_value="Nobody has asked")
    def later(self, feedback: Feedback) -> str | None:
        version = feedback.now_says_version
        return f"{version} says: {feedback.now_says}" if version else None

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
