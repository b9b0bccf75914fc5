from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from django.core.management.base import BaseCommand

from training.starter import __main__ as starter


class Command(BaseCommand):
    help = starter.__doc__ or ""
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        starter.arguments_add(parser)

    def handle(self, **options: Any) -> None:
        starter.stage_run(Namespace(**options))
