"""The servers this service stands on: wait until they answer, and make the bucket in the S3 store."""

import time

from botocore.exceptions import BotoCoreError, ClientError
from django.conf import settings
from django.core.files.storage import default_storage
from django.db import OperationalError, connection

from captioner.exceptions import ServersUnavailable

_PAUSE = 1.0  # seconds between tries


def servers_wait(seconds: float) -> None:
    """Return once the database and the store answer. Raises `ServersUnavailable` naming what did not in time."""
    deadline = time.monotonic() + seconds
    while problem := _problem():
        if time.monotonic() > deadline:
            raise ServersUnavailable(f"Waited {seconds:.0f} seconds in vain: {problem}")
        time.sleep(_PAUSE)


def bucket_ensure() -> bool:
    """Make the bucket of the settings where it is missing; return whether it was.

    One that exists but may not be looked at by our key is left alone. Raises `ServersUnavailable` where it can be
    neither found nor made.
    """
    if not settings.S3_BUCKET:
        return False
    client = default_storage.connection.meta.client  # type: ignore[attr-defined]
    try:
        client.head_bucket(Bucket=settings.S3_BUCKET)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            return False
    except BotoCoreError as error:
        raise ServersUnavailable(f"The S3 store cannot be reached: {error}") from error
    else:
        return False
    region = client.meta.region_name
    location = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    try:
        client.create_bucket(Bucket=settings.S3_BUCKET, **location)
    except (BotoCoreError, ClientError) as error:
        raise ServersUnavailable(f"The bucket {settings.S3_BUCKET} cannot be made: {error}") from error
    return True


def _problem() -> str:
    """What does not answer yet; empty when all do."""
    try:
        connection.ensure_connection()
        bucket_ensure()
    except OperationalError as error:
        return f"The database cannot be reached: {error}"
    except ServersUnavailable as error:
        return str(error)
    return ""
