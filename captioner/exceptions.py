"""What can go wrong in the captioning domain. No Django and no torch: every layer may raise and catch these.

`captioner.http.problems` turns them into HTTP answers, for pages and the API; nothing else does.
"""


class CaptionerError(Exception):
    """Base of every error this project raises on purpose; `str(error)` is fit to be shown to a person."""


class InvalidImage(CaptionerError):
    """The uploaded bytes are no photo we can caption.

    `reason` is a stable code: `empty`, `too_large` (bytes), `not_an_image` (unknown or unsupported format),
    `too_many_pixels`, `truncated` or `corrupt`.
    """

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class InvalidArchive(CaptionerError):
    """The photos sent for a job cannot be taken.

    `reason` is a stable code: `empty`, `too_many` (photos), `too_large` (bytes in all), `not_an_archive`,
    `unsafe_name`, `encrypted`, `unsupported` (compression) or `damaged`.
    """

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class InvalidFeedback(CaptionerError):
    """The feedback says nothing, or says something outside the allowed range; `field` names the culprit."""

    def __init__(self, message: str, *, field: str) -> None:
        super().__init__(message)
        self.field = field


class Overloaded(CaptionerError):
    """The request cannot be finished in time, so it is refused before it costs anything.

    `retry_after`: seconds after which the queue is expected to have room.
    """

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TooManyAttempts(CaptionerError):
    """Signing in failed too often; `retry_after`: seconds until it may be tried again."""

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class DeadlineExceeded(CaptionerError):
    """The request was accepted but its deadline passed before the model got to it."""


class ModelUnavailable(CaptionerError):
    """No model is ready in this process (still loading, failed to load, or draining)."""


class StorageUnavailable(CaptionerError):
    """The store of photos cannot be reached, or has no room; nothing was logged, so trying again is safe."""


class IncompatibleModel(CaptionerError):
    """The folder holds no encoder-decoder captioner that this service can load safely."""


class ImportRefused(CaptionerError):
    """This model cannot be asked for: it is no id of the hub, or is on its way already."""


class ClientGone(CaptionerError):
    """The client closed its connection while its photo was waiting; the work was dropped."""


class PhotoDone(CaptionerError):
    """Another worker has captioned this photo of a job, or the job was cancelled; this caption is not logged."""


class InvalidIdempotencyKey(CaptionerError):
    """The `Idempotency-Key` is empty, too long, or holds other characters than printable ASCII."""


class IdempotencyKeyInUse(CaptionerError):
    """The first request with this `Idempotency-Key` is still under way; `retry_after` is in seconds."""

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class IdempotencyKeyReused(CaptionerError):
    """Something else was sent with this `Idempotency-Key` before."""


class ServersUnavailable(CaptionerError):
    """The database or the S3 store did not answer, or has no bucket for us."""


class BackupCorrupt(CaptionerError):
    """A backup is unfinished, or a file of it is missing or damaged."""
