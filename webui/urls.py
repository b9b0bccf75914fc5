"""Routes of the pages; the admin and the API have their own."""

from django.contrib.auth.views import LogoutView, PasswordChangeView
from django.urls import path, reverse_lazy

from captioner.http.sign_in import OwnPasswordForm
from webui import account, caption, history, home, jobs, review, sign_in, worksheet

urlpatterns = [
    path("", home.home, name="home"),
    path("captions/", history.captions, name="captions"),
    path("captions/discard", history.discard, name="captions-discard"),
    path("captions/take-back", history.take_back, name="captions-take-back"),
    path("captions/export", history.export, name="captions-export"),
    path("captions/<uuid:pk>", caption.caption, name="caption"),
    path("captions/<uuid:pk>/again", caption.again, name="caption-again"),
    path("captions/<uuid:pk>/next-words", caption.next_words, name="caption-next-words"),
    path("captions/<uuid:pk>/pick", caption.pick, name="caption-pick"),
    path("captions/<uuid:pk>/text", worksheet.save, name="caption-text"),
    path("worksheet", worksheet.worksheet, name="worksheet"),
    path("captions/<uuid:pk>/decorative", caption.decorative, name="caption-decorative"),
    path("captions/<uuid:pk>/delete", caption.delete, name="caption-delete"),
    path("jobs/", jobs.jobs, name="jobs"),
    path("jobs/<uuid:pk>", jobs.job, name="job"),
    path("jobs/<uuid:pk>/name", jobs.job_rename, name="job-rename"),
    path("jobs/<uuid:pk>/cancel", jobs.job_cancel, name="job-cancel"),
    path("jobs/<uuid:pk>/delete", jobs.job_delete, name="job-delete"),
    path("uploads", jobs.upload_begin, name="uploads"),
    path("uploads/<uuid:pk>", jobs.upload_done, name="upload"),
    path("uploads/<uuid:pk>/<int:place>", jobs.upload_photo, name="upload-photo"),
    path("uploads/<uuid:pk>/cancel", jobs.upload_cancel, name="upload-cancel"),
    path("review/", review.page, name="review"),
    path("review/<int:pk>", review.decide, name="review-decide"),
    path("review/undo", review.undo, name="review-undo"),
    path("review/many", review.bulk, name="review-many"),
    path("review/log", review.log, name="review-log"),
    path("review/photos/<int:pk>", review.photo, name="review-photo"),
    path("models/real", home.real_model, name="real-model"),
    path("account", account.account, name="account"),
    path("account/keys/<int:pk>/revoke", account.api_key_revoke, name="api-key-revoke"),
    path(
        "account/password",
        PasswordChangeView.as_view(form_class=OwnPasswordForm, success_url=reverse_lazy("account")),
        name="password",
    ),
    path(
        "welcome/<uidb64>/<token>",
        sign_in.WelcomeView.as_view(),
        name="welcome",
    ),
    path("login", sign_in.SignInView.as_view(), name="login"),
    path("logout", LogoutView.as_view(), name="logout"),
]
