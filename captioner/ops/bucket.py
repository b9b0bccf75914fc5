"""The bucket of an S3 store: made where it is missing, and a storage of photos that fails the way local files do."""

import contextlib
from collections.abc import Iterator

from boto3.exceptions import Boto3Error
from botocore.exceptions import BotoCoreError, ClientError
from django.conf import settings
from django.core.files.base import File
from django.core.files.storage import default_storage
from storages.backends.s3 import S3Storage

from captioner.exceptions import ServersUnavailable


def bucket_ensure() -> None:
    """Make the bucket of the settings where it is missing.

    One that exists but may not be looked at by our key is left alone. Raises `ServersUnavailable` where it can be
    neither found nor made.
    """
    if not settings.S3_BUCKET:
        return
    client = default_storage.connection.meta.client  # type: ignore[attr-defined]
    try:
        client.head_bucket(Bucket=settings.S3_BUCKET)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            return
    except BotoCoreError as error:
        raise ServersUnavailable(f"The S3 store cannot be reached: {error}") from error
    else:
        return
    region = client.meta.region_name
    location = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    try:
        client.create_bucket(Bucket=settings.S3_BUCKET, **location)
    except (BotoCoreError, ClientError) as error:
        raise ServersUnavailable(f"The bucket {settings.S3_BUCKET} cannot be made: {error}") from error


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
