import contextlib

from django.apps import AppConfig


class CaptionerConfig(AppConfig):
    name = "captioner"
    verbose_name = "Captions and feedback"

    def ready(self) -> None:
        from captioner import (
            celery,  # noqa: F401  whoever enqueues a task knows the broker
        )
        from captioner.ops import (
            checks,  # noqa: F401  registers the system checks
            telemetry,
        )
        from captioner.ops.storage import data_dir_ensure

        with contextlib.suppress(OSError):  # which the system checks tell
            data_dir_ensure()
        telemetry.start()
