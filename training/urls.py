"""Routes of the pages about learning."""

from django.urls import path

from training.pages import blind, versions

urlpatterns = [
    path("models/", versions.versions, name="models"),
    path("review/blind", blind.write, name="blind-captions"),
    path("review/votes", blind.votes, name="blind-votes"),
    path("review/votes/<int:pk>", blind.vote, name="blind-vote"),
    path("review/held-out/<int:pk>", blind.photo, name="held-out-photo"),
]
