"""Photos, and how staff get at their files."""

from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import Count, OuterRef, QuerySet, Subquery
from django.http import FileResponse, Http404, HttpRequest
from django.shortcuts import get_object_or_404
from django.urls import URLPattern, path
from django.utils.safestring import SafeString

from captioner.admin.bases import photo_image
from captioner.captions.photos import photo_open
from captioner.models import Caption, Feedback, Photo
from captioner.review.decisions import may_review
from models_registry.admin import ReadOnlyAdmin


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
        """The stored photo, for staff that may look at photos, or review what was said of this one."""
        said = Feedback.objects.filter(caption__photo=pk)
        if not (self.has_view_permission(request) or (may_review(request.user) and said.exists())):
            raise PermissionDenied
        photo = get_object_or_404(Photo, pk=pk)
        try:
            response = FileResponse(photo_open(photo), content_type="image/jpeg")
        except FileNotFoundError:
            raise Http404(f"The file of {photo} is missing in the photo storage.") from None
        response["Cache-Control"] = "private, no-cache"  # what was deleted must not linger
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
