from django.apps import AppConfig


class CaptionerConfig(AppConfig):
    name = "captioner"
    verbose_name = "Captions and feedback"

    def ready(self) -> None:
        from captioner import checks  # noqa: F401  registers the system checks
