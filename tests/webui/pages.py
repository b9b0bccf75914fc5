"""Helpers of the page tests."""

import uuid
from collections.abc import Iterator

from django.core.files.uploadedfile import SimpleUploadedFile
from django.http import HttpResponse
from django.test import Client

from captioner.captions.captions import caption_create
from captioner.models import Caption, Owner
from tests.conftest import draw_jpeg


def jpeg(name: str = "photo.jpg", **drawing) -> SimpleUploadedFile:
    return SimpleUploadedFile(name, draw_jpeg(**drawing), content_type="image/jpeg")


def upload(client: Client, *photos: SimpleUploadedFile, **options) -> HttpResponse:
    return client.post("/", {"image": list(photos)}, **options)


def text(response: HttpResponse) -> str:
    return response.content.decode()


def make_captions(owner: Owner, count: int) -> list[Caption]:
    """`count` captions of one photo, oldest first."""
    first = caption_create(draw_jpeg(), owner=owner, source=Caption.Source.WEB)

    def copies() -> Iterator[Caption]:
        for number in range(1, count):
            copy = Caption.objects.get(pk=first.pk)
            copy.pk, copy.text = uuid.uuid4(), f"caption number {number}"
            copy.save(force_insert=True)
            yield copy

    return [first, *copies()]
