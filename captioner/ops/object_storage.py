"""Photos in an S3 store that fails the way local files do."""

import contextlib
from collections.abc import Iterator

from boto3.exceptions import Boto3Error
from botocore.exceptions import BotoCoreError, ClientError
from django.core.files.base import File
from storages.backends.s3 import S3Storage


@contextlib.contextmanager
def _failing_like_files() -> Iterator[None]:
    try:
        yield
    except (Boto3Error, BotoCoreError, ClientError) as error:
        raise OSError(f"the S3 store failed: {error}") from error


class ObjectStorage(S3Storage):  # type: ignore[misc]  # django-storages has no types
    """An S3 bucket that raises `OSError` when it fails.

    A file is fetched whole when it is opened, so that reading it cannot fail half-way through an answer.
    """

    def _open(self, name: str, mode: str = "rb") -> "File[bytes]":
        with _failing_like_files():
            file: File[bytes] = super()._open(name, mode)
            file.open()
        return file

    def _save(self, name: str, content: "File[bytes]") -> str:
        with _failing_like_files():
            saved: str = super()._save(name, content)
        return saved

    def exists(self, name: str) -> bool:
        with _failing_like_files():
            found: bool = super().exists(name)
        return found

    def delete(self, name: str) -> None:
        with _failing_like_files():
            super().delete(name)
