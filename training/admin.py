"""Training runs in the admin: how far they are, what the gate measured, and the buttons that act on them."""

from typing import Any, cast

from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Max
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.shortcuts import redirect
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

from captioner.admin.bases import RecordAdmin, owner_name, photo_image
from captioner.models import Feedback, FeedbackUse
from models_registry.admin import ActingAdmin, ModelAdmin, may_promote
from training import blind, decisions, services
from training.exceptions import RunRefused
from training.judging.charts import line_chart
from training.judging.gate_report import counts_told, figures_table
from training.judging.votes import votes_asked
from training.models import BlindCaption, TrainingRun
from training.pages import blind as pages

_EXAMPLES = 12
_VERDICTS = (TrainingRun.Verdict.PASSED, TrainingRun.Verdict.REJECTED)
AUTHORS_SHOWN = 20
_DESPITE_HARM = "passed_despite_harm"  # the second click


@admin.register(TrainingRun)
class TrainingRunAdmin(ActingAdmin):
    refusal = RunRefused
    change_form_template = "admin/training/trainingrun/change_form.html"
    change_list_template = "admin/training/trainingrun/change_list.html"
    list_display = [
        "id",
        "status",
        "progress",
        "verdict_shown",
        "candidate",
        "promoted_to",
        "trigger",
        "created_at",
    ]
    list_filter = ["status", "verdict", "trigger"]
    list_select_related = ["candidate"]
    fieldsets = [
        (
            None,
            {
                "fields": (
                    "status",
                    "ended",
                    "verdict_shown",
                    "overruled",
                    "candidate",
                    "promoted_to",
                    "counts_shown",
                )
            },
        ),
        (
            "Details",
            {
                "classes": ["collapse"],
                "fields": (
                    ("trigger", "requested_by"),
                    ("created_at", "started_at", "finished_at"),
                    ("attempts", "heartbeat_at"),
                    ("base", "champion"),
                    "data_sha256",
                ),
            },
        ),
    ]
    readonly_fields = [
        "status",
        "progress",
        "verdict_shown",
        "trigger",
        "requested_by",
        "created_at",
        "started_at",
        "finished_at",
        "attempts",
        "heartbeat_at",
        "ended",
        "promoted_to",
        "base",
        "champion",
        "candidate",
        "data_sha256",
        "counts_shown",
        "overruled",
    ]

    def get_fieldsets(self, request: HttpRequest, obj: TrainingRun | None = None) -> Any:
        """Leaves out the rows that say nothing."""
        (title, facts), *others = super().get_fieldsets(request, obj)
        told_by = {
            "verdict_shown": "verdict",
            "ended": "error",
            "overruled": "overruled_to",
            "counts_shown": "counts",
        }
        names = map(str, facts["fields"])
        shown = [name for name in names if getattr(obj, told_by.get(name, name), None)]
        return [(title, {**facts, "fields": shown}), *others]

    def may_act(self, request: HttpRequest) -> bool:
        # Whoever may change runs gets the buttons; the record itself is nobody's to edit.
        return ModelAdmin.has_change_permission(self, request)

    def get_urls(self) -> list[URLPattern]:
        start, vote = (self.admin_site.admin_view(view) for view in (self.start_view, pages.vote))
        return [
            path("start", start, name="training_trainingrun_start"),
            path("<int:pk>/vote", vote, name="training_trainingrun_vote"),
            *super().get_urls(),
        ]

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        context = {
            "may_act": self.may_act(request),
            "new_feedback": services.feedback_new_count(),
            "title": "Training runs",
            "busy": TrainingRun.objects.filter(status__in=TrainingRun.UNFINISHED).exists(),
        }
        return super().changelist_view(request, context | (extra_context or {}))

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **options: Any
    ) -> HttpResponse:
        run: TrainingRun = options["obj"]
        losses = {
            name: [(point["step"], point[name]) for point in run.curve if name in point]
            for name in dict.fromkeys(name for point in run.curve for name in point)
            if name != "step" and any(point.get(name) for point in run.curve)
        }
        chart = line_chart(losses, title="Losses over steps", x_label="step", y_label="loss, nats")
        # The verdicts that this person may give instead of the one that counts.
        others = [each for each in _VERDICTS if run.candidate is not None and run.final_verdict != each]
        context |= {
            "may_act": self.may_act(request),
            "run": run,
            "progress": self.progress(run),
            "silent_seconds": int((timezone.now() - (run.heartbeat_at or run.created_at)).total_seconds()),
            "choices": [each for each in others if _may_decide(request, run, each)],
            "loss_chart": mark_safe(chart),  # noqa: S308  drawn by us, names escaped
            "figures": figures_table(run.report),
            "checks": run.report.get("checks", []),
            "examples": _examples(run),
            "votes_closed": blind.votes_closed(run),
            "votes": blind.votes_result(run) if run.votes_verdict else None,
            "votes_asked": votes_asked(blind.votes_look(run)),
        }
        return super().render_change_form(request, context, *args, **options)

    def start_view(self, request: HttpRequest) -> HttpResponse:
        """The button “Train now”."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if not self.may_act(request):
            raise PermissionDenied
        try:
            run = services.run_request(by=cast(User, request.user))
        except RunRefused as error:
            self.message_user(request, str(error), messages.WARNING)
            return redirect("admin:training_trainingrun_changelist")
        self.message_user(request, "Queued; the trainer takes it from here.", messages.SUCCESS)
        return redirect("admin:training_trainingrun_change", run.pk)

    def act(self, request: HttpRequest, obj: TrainingRun, action: str, reason: str) -> str:
        """Cancel, try again, or overrule the gate."""
        if action == "cancel":
            services.run_cancel(obj)
            return "It stops at its next step."
        if action == "retry":
            services.run_retry(obj)
            return "Queued again."
        verdict = TrainingRun.Verdict.PASSED if action == _DESPITE_HARM else action
        if verdict in _VERDICTS and not _may_decide(request, obj, verdict):
            raise PermissionDenied
        told = decisions.run_overrule(
            obj, verdict, reason=reason, by=cast(User, request.user), despite_harm=action == _DESPITE_HARM
        )
        return f"Your verdict counts: {verdict}. {told}"

    @admin.display(description="Progress")
    def progress(self, run: TrainingRun) -> str:
        if run.status not in TrainingRun.UNFINISHED:
            return "—"
        if run.status == TrainingRun.Status.QUEUED:
            return "Waits for the trainer"
        if not run.stage:
            return "Begins"
        return f"{run.stage}: {run.done} of {run.total}" if run.total else run.stage

    @admin.display(description="Verdict", ordering="verdict")
    def verdict_shown(self, run: TrainingRun) -> str:
        return f"{run.overruled_to} (reviewer)" if run.overruled_to else run.verdict or "—"

    @admin.display(description="Data")
    def counts_shown(self, run: TrainingRun) -> SafeString:
        told = [*counts_told(run.counts), *(f"{name}: {rows} left out" for name, rows in authors_capped(run))]
        return format_html_join(mark_safe("<br>"), "{}", ((each,) for each in told))

    @admin.display(description="What ended it")
    def ended(self, run: TrainingRun) -> str:
        return run.error

    @admin.display(description="Overruled")
    def overruled(self, run: TrainingRun) -> str | SafeString:
        if not run.overruled_to:
            return "—"
        shown = "{} by {} on {}: {}"
        day = run.overruled_at.date() if run.overruled_at else ""
        return format_html(shown, run.overruled_to, run.overruled_by or "someone", day, run.overruled_reason)


@admin.register(BlindCaption)
class BlindCaptionAdmin(RecordAdmin):
    """What reviewers wrote of held-out photos, and the page on which they write."""

    change_list_template = "admin/training/blindcaption/change_list.html"
    list_display = ["thumbnail", "text", "written_by", "written_at"]
    list_display_links = ["text"]
    list_select_related = ["photo", "written_by"]
    readonly_fields = ("large", "text", "written_by", "written_at")
    fields = readonly_fields

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(pages.write)
        return [path("write", view, name="training_blindcaption_write"), *super().get_urls()]

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        context = {"may_write": ModelAdmin.has_add_permission(self, request), **(extra_context or {})}
        return super().changelist_view(request, context)

    @admin.display(description="Photo")
    def thumbnail(self, written: BlindCaption) -> SafeString:
        return photo_image(written.photo, "thumbnail")

    @admin.display(description="Photo")
    def large(self, written: BlindCaption) -> SafeString:
        return photo_image(written.photo, "photo-large", alt=written.text)


def _may_decide(request: HttpRequest, run: TrainingRun, verdict: str) -> bool:
    """Whether this person may give that verdict: what serves changes by the registry's permission alone."""
    return may_promote(request) or not decisions.run_overrule_moves(run, verdict)


def _examples(run: TrainingRun) -> list[dict[str, Any]]:
    """Returns captions before and after, and what a person wrote, of held-out photos that still exist."""
    shown = list(run.comparisons.select_related("photo")[:_EXAMPLES])
    said = Feedback.objects.filter(
        caption__photo__in=[each.photo for each in shown], status=Feedback.Status.APPROVED
    ).exclude(ideal_caption="")
    people = dict(said.values_list("caption__photo", "ideal_caption"))
    return [
        {
            "before": each.champion,
            "after": each.candidate,
            "person": people.get(each.photo_id, ""),
            "image": photo_image(each.photo, "thumbnail", alt=each.candidate),
        }
        for each in shown
    ]


def authors_capped(run: TrainingRun) -> list[tuple[str, int]]:
    """Returns the authors of whom most rows were left out by the limit per author, and how many; what is deleted since
    is counted no more."""
    if run.candidate is None:  # what has no version is the last run's that learned nothing, whichever that is
        return []
    kept_out = FeedbackUse.objects.filter(
        version=run.candidate, role=FeedbackUse.Role.LEFT_OUT, reason="author_cap"
    )
    author = (f"feedback__caption__{field}" for field in ("user", "api_key", "end_user", "visitor"))
    counted = kept_out.order_by().values(*author).annotate(rows=Count("pk"), newest=Max("feedback"))
    most = list(counted.order_by("-rows")[:AUTHORS_SHOWN])
    said = Feedback.objects.select_related("caption__user", "caption__api_key")
    by_pk = said.in_bulk([each["newest"] for each in most])
    return [(owner_name(by_pk[each["newest"]].caption), each["rows"]) for each in most]
