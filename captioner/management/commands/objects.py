"""Copy what is stored out of the store, or back into it: half of a backup; `deploy/backup` does the whole."""

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from tqdm import tqdm

from captioner.exceptions import BackupCorrupt
from captioner.jobs import sweeps
from captioner.ops import backup


class Command(BaseCommand):
    help = (
        "Copy all photos, weights and photos of unfinished jobs to a folder (export), or from there into the store "
        "(import), once the database is restored."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("direction", choices=("export", "import"))
        parser.add_argument("folder", type=Path)

    def handle(self, *args: Any, **options: Any) -> None:
        copy = backup.objects_export if options["direction"] == "export" else backup.objects_import
        try:
            count = sum(1 for _ in tqdm(copy(options["folder"]), unit=" objects", disable=None))
        except (BackupCorrupt, OSError) as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"{count} objects are in place.")
        if options["direction"] == "export":
            return
        for job, count in sweeps.jobs_resume():
            whose = job.user or "a visitor"
            self.stdout.write(
                self.style.WARNING(
                    f"Job {job.pk} of {whose}: {count} of {job.photo_count} photos were captioned after the database "
                    "was dumped; they have to be sent again."
                )
            )
