"""Signing in, on one page for the site and the admin; what this browser captioned before comes along."""

from typing import Any, cast

from django.contrib import messages
from django.contrib.auth.models import User
from django.contrib.auth.views import LoginView, PasswordResetConfirmView, redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse, reverse_lazy

from captioner.captions.accounts import visitor_adopt
from captioner.http.owner import visitor_of


class SignInView(LoginView):
    redirect_authenticated_user = True

    def form_valid(self, form: Any) -> HttpResponse:
        response = super().form_valid(form)
        _work_keep(self.request)
        return response


class WelcomeView(PasswordResetConfirmView):
    """Where somebody who was invited chooses a password, and is signed in."""

    success_url = reverse_lazy("home")
    post_reset_login = True

    def form_valid(self, form: Any) -> HttpResponse:
        response = super().form_valid(form)
        _work_keep(self.request)
        return response


def admin_sign_in(request: HttpRequest) -> HttpResponseBase:
    """Where the admin sends whoever it does not let in: to the one page, which also answers what is sent here."""
    if request.method == "POST":
        return SignInView.as_view()(request)
    wanted = request.GET.get("next", reverse("admin:index"))
    if not request.user.is_authenticated:
        return redirect_to_login(wanted)
    if not request.user.is_staff:
        raise PermissionDenied  # signing in once more would lead here again
    return redirect("admin:index")


def _work_keep(request: HttpRequest) -> None:
    visitor = visitor_of(request)
    adopted = visitor_adopt(visitor, cast(User, request.user)) if visitor else 0
    if adopted:
        noun = "The caption" if adopted == 1 else f"The {adopted} captions"
        told = f"{noun} made on this browser before {'is' if adopted == 1 else 'are'} in your history now."
        messages.success(request, told)
