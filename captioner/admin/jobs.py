"""Batch jobs, and which of their photos failed."""

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from captioner.admin.bases import owner_name
from captioner.models import Job, JobPhoto
from models_registry.admin import ReadOnlyAdmin

if TYPE_CHECKING:
    TabularInline = admin.TabularInline[JobPhoto, Job]
else:
    TabularInline = admin.TabularInline


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
