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

        telemetry.start()
