"""The account page: API keys, and the way to change the password."""

from typing import cast

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from captioner.captions import api_keys
from captioner.models import ApiKey
from webui.base import SeeOther
from webui.forms import ApiKeyForm


@login_required
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def account(request: HttpRequest) -> HttpResponse:
    """The person's API keys. A new one's secret is in the answer to the form, and nowhere else."""
    user = cast(User, request.user)
    form = ApiKeyForm(request.POST if request.method == "POST" else None)
    made, secret = None, ""
    if request.method == "POST" and form.is_valid():
        made, secret = api_keys.api_key_create(user, form.cleaned_data["name"])
        form = ApiKeyForm()
    context = {
        "form": form,
        "made": made,
        "secret": secret,
        "api_keys": user.api_keys.filter(revoked_at__isnull=True).order_by("-created_at", "-pk"),
        "api_url": request.build_absolute_uri(reverse("api:caption-list")),
    }
    return render(request, "webui/account.html", context, status=400 if form.errors else 201 if made else 200)


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def api_key_revoke(request: HttpRequest, pk: int) -> HttpResponse:
    """Ask first, then revoke."""
    own = ApiKey.objects.filter(user=cast(User, request.user), revoked_at__isnull=True, pk=pk)
    api_key = get_object_or_404(own)
    if request.method != "POST":
        return render(request, "webui/api_key_revoke.html", {"api_key": api_key})
    api_keys.api_key_revoke(own)
    messages.success(request, f"The key “{api_key.name}” was revoked.")
    return SeeOther(reverse("account"))
