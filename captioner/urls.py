"""All routes of the project."""

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

from webui.sign_in import admin_sign_in

urlpatterns = [
    path("admin/password_change/", RedirectView.as_view(pattern_name="password")),  # which counts wrong ones
    path("admin/login/", admin_sign_in),
    path("admin/", admin.site.urls),
    path("api/", include("captioner.api.urls")),
    path("", include("webui.urls")),
    path("", include("training.urls")),
]

handler400 = "captioner.http.problems.bad_request"
handler500 = "captioner.http.problems.server_error"
