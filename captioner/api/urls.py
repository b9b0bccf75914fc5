"""Routes of the API, without trailing slashes."""

from django.urls import include, path, re_path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView
from rest_framework.routers import SimpleRouter

from captioner.api.captions import CaptionViewSet
from captioner.api.exception_handler import no_such_url
from captioner.api.jobs import JobViewSet
from captioner.api.versions import VersionViewSet

app_name = "api"

router = SimpleRouter(trailing_slash=False, use_regex_path=False)
router.register("captions", CaptionViewSet, basename="caption")
router.register("jobs", JobViewSet, basename="job")
router.register("models", VersionViewSet, basename="model")

urlpatterns = [
    path("v1/", include(router.urls)),
    path("schema", SpectacularAPIView.as_view(), name="schema"),
    path("docs", SpectacularSwaggerSplitView.as_view(url_name="api:schema"), name="docs"),
    re_path("", no_such_url),
]
