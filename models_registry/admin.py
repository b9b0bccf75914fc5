"""What serves and what served when, and the buttons that change it; `promotions` and `versions` do the work."""

import json
from typing import TYPE_CHECKING, Any, cast

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.utils import quote
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.shortcuts import get_object_or_404, redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.html import format_html
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.safestring import SafeString

from models_registry import processes, promotions
from models_registry.exceptions import RegistryError
from models_registry.models import Alias, ModelVersion, Promotion, Rollout, ServingProcess
from models_registry.versions import version_pin, version_unpin, versions_retain

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


class ActingAdmin(ReadOnlyAdmin):
    """Records with buttons on their page; these post `action` and `reason` to `PK/act`."""

    refusal: type[Exception]  # what `act` raises where it may not be now; its text is shown

    def may_act(self, request: HttpRequest) -> bool:
        """Whether this person gets the buttons."""
        raise NotImplementedError

    def act(self, request: HttpRequest, obj: Any, action: str, reason: str) -> str:
        """Do what the button `action` says and return what came of it. Raises `refusal`, `Http404`."""
        raise NotImplementedError

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.act_view)
        name = f"{self.opts.app_label}_{self.opts.model_name}_act"
        return [path("<slug:pk>/act", view, name=name), *super().get_urls()]

    def act_view(self, request: HttpRequest, pk: str) -> HttpResponse:
        """Do what the pressed button says and show the record again."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if not self.may_act(request):
            raise PermissionDenied
        obj = get_object_or_404(self.model, pk=pk)
        try:
            told = self.act(request, obj, request.POST.get("action", ""), request.POST.get("reason", ""))
        except self.refusal as error:
            self.message_user(request, str(error), messages.ERROR)
        else:
            self.message_user(request, told, messages.SUCCESS)
        back = request.POST.get("next", "")  # a page of ours that has the same buttons
        if back and url_has_allowed_host_and_scheme(back, {request.get_host()}, request.is_secure()):
            return redirect(back)
        return redirect(f"admin:{self.opts.app_label}_{self.opts.model_name}_change", quote(pk))


class RetentionForm(forms.Form):
    keep = forms.IntegerField(
        min_value=0, max_value=10_000, label="Keep the newest", widget=forms.NumberInput({"size": 5})
    )


@admin.register(ModelVersion)
class ModelVersionAdmin(ActingAdmin):
    refusal = RegistryError
    list_display = ["id", "state", "created_at"]
    readonly_fields = ("id", "model_name", "state", "retired_at", "created_at", "manifest_pretty")
    fieldsets = [
        (None, {"fields": readonly_fields[:-1]}),
        ("Manifest", {"classes": ["collapse"], "fields": readonly_fields[-1:]}),
    ]
    search_fields = ["id", "model_name"]

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).prefetch_related("aliases")

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.retain_view)
        return [path("retain", view, name="models_registry_modelversion_retain"), *super().get_urls()]

    def may_act(self, request: HttpRequest) -> bool:
        return may_promote(request)

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        context = {
            "alerts": processes.alerts_current(),
            "may_promote": may_promote(request),
            **(extra_context or {}),
        }
        return super().changelist_view(request, context)

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **options: Any
    ) -> HttpResponse:
        version: ModelVersion = options["obj"]
        aliases = {alias.name for alias in version.aliases.all()}
        choices = []
        if Alias.Name.CHAMPION in aliases:
            if previous := promotions.champion_previous():
                choices.append(("rollback", f"Roll back to {previous}"))
        elif version.retired_at is None:
            choices.append(("promote", "Make it the champion"))
        if Alias.Name.CHALLENGER in aliases:
            choices.append(("clear", "Take the challenger back"))
        elif Alias.Name.CHAMPION not in aliases and version.retired_at is None:
            choices.append(("challenge", "Try it as the challenger"))
        if version.pinned:
            choices.append(("unpin", "Unpin"))
        elif version.retired_at is None:
            choices.append(("pin", "Pin"))
        context |= {"may_promote": self.may_act(request), "choices": choices}
        return super().render_change_form(request, context, *args, **options)

    def act(self, request: HttpRequest, obj: ModelVersion, action: str, reason: str) -> str:
        version, by = obj, cast(User, request.user)
        if action in {"pin", "unpin"}:
            (version_pin if action == "pin" else version_unpin)(version)
            return f"{version} is {action}ned."
        match action:
            case "promote":
                promotions.version_promote(version, reason=reason, by=by)
                return f"{version} is the champion."
            case "challenge":
                promotions.version_promote(version, alias=Alias.Name.CHALLENGER, reason=reason, by=by)
                return f"{version} is the challenger."
            case "rollback":
                return f"{promotions.champion_rollback(reason=reason, by=by, expected=version)} is the champion again."
            case "clear":
                promotions.challenger_clear(reason=reason, by=by, only=version)
                return f"{version} is no challenger any more."
        raise Http404("There is no such button.")

    def retain_view(self, request: HttpRequest) -> HttpResponse:
        """Show what retention would remove; a POST removes it."""
        if not may_promote(request):
            raise PermissionDenied
        form = RetentionForm(request.POST or request.GET or {"keep": 5})
        versions = []
        try:
            if form.is_valid():
                keep = form.cleaned_data["keep"]
                if request.method == "POST":
                    # Only what was shown, whatever has happened since.
                    removed = versions_retain(keep=keep, only=request.POST.getlist("version"), dry_run=False)
                    self.message_user(request, f"Files removed: {', '.join(map(str, removed)) or 'none'}.")
                    return redirect("admin:models_registry_modelversion_changelist")
                versions = versions_retain(keep=keep)
        except RegistryError as error:
            self.message_user(request, str(error), messages.ERROR)
        context = {
            **self.admin_site.each_context(request),
            "title": "Remove old versions",
            "opts": self.opts,
            "form": form,
            "versions": versions,
            "size": sum(version.readable_facts.size for version in versions if version.readable_facts),
        }
        return TemplateResponse(request, "admin/models_registry/modelversion/retain.html", context)

    @admin.display(description="State", empty_value="")
    def state(self, version: ModelVersion) -> str | None:
        return ", ".join(version.marks) or None

    @admin.display(description="")
    def manifest_pretty(self, version: ModelVersion) -> SafeString:
        return format_html("<pre>{}</pre>", json.dumps(version.manifest, indent=2, ensure_ascii=False))


def may_promote(request: HttpRequest) -> bool:
    """Whoever may change what an alias points at may change what serves."""
    return cast(User, request.user).has_perm("models_registry.change_alias")


@admin.register(Alias)
class AliasAdmin(ReadOnlyAdmin):
    list_display = ["name", "version", "since"]
    list_select_related = ["version"]


@admin.register(Promotion)
class PromotionAdmin(ReadOnlyAdmin):
    empty_value_display = ""
    list_display = ["created_at", "alias", "action", "version", "promoted_by", "reason"]
    list_filter = ["alias", "action", "cause", "created_at"]
    list_select_related = ["version", "promoted_by"]


@admin.register(Rollout)
class RolloutAdmin(ModelAdmin):
    """One row, which is changed only."""

    list_display = [
        "__str__",
        "max_error_rate",
        "max_latency_ratio",
        "max_rating_drop",
        "min_captions",
        "min_ratings",
    ]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        return redirect("admin:models_registry_rollout_change", promotions.rollout_update().pk)


@admin.register(ServingProcess)
class ServingProcessAdmin(ReadOnlyAdmin):
    list_display = [
        "name",
        "state",
        "champion",
        "previous",
        "challenger",
        "trouble",
        "memory_mb",
        "started_at",
        "seen_at",
    ]

    @admin.display(description="Alerts")
    def trouble(self, process: ServingProcess) -> str | None:
        return "; ".join(process.alerts) or None
