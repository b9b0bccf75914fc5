"""The pages people use; the admin and the API have their own."""

from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path

from webui import views

urlpatterns = [
    path("", views.home, name="home"),
    path("captions/", views.captions, name="captions"),
    path("captions/<uuid:pk>", views.caption, name="caption"),
    path("captions/<uuid:pk>/delete", views.caption_delete, name="caption-delete"),
    path("login", LoginView.as_view(redirect_authenticated_user=True), name="login"),
    path("logout", LogoutView.as_view(), name="logout"),
]
