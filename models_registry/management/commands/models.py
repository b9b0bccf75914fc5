"""Versions of the weights: look at them, promote, roll back, try beside the champion, export, tidy up."""

import json
from argparse import ArgumentParser, ArgumentTypeError
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from models_registry import processes, promotions
from models_registry.card import card_text
from models_registry.exceptions import RegistryError
from models_registry.models import Alias, ModelVersion, Promotion
from models_registry.versions import (
    version_export,
    version_get,
    version_pin,
    version_publish,
    version_unpin,
    versions_retain,
)

_MOST = 1_000_000  # things that anybody counts here


def _count(text: str) -> int:
    """For argparse: a number of things."""
    if not text.isdecimal() or int(text) > _MOST:
        raise ArgumentTypeError(f"give a whole number from 0 to {_MOST}, not {text!r}")
    return int(text)


class Command(BaseCommand):
    help = "Versions of the weights: what there is, what serves, what served when; promote, roll back, export, tidy."

    def add_arguments(self, parser: ArgumentParser) -> None:
        commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

        commands.add_parser("list", help="all versions, what they serve as, and what troubles the processes")
        self._with_version(commands, "show", "the model card of a version and when it served").add_argument(
            "--json", action="store_true", help="the manifest as JSON instead"
        )
        commands.add_parser("log", help="what served when, and why").add_argument(
            "--limit", type=_count, default=20, help="newest entries; default: %(default)s"
        )

        publish = commands.add_parser(
            "publish", help="publish a folder as it is; `import_model` tries a checkpoint first"
        )
        publish.add_argument("folder", type=Path)
        publish.add_argument("--name", required=True, help="model name")
        publish.add_argument("--licence", required=True, help="what the weights may be used for")
        publish.add_argument("--origin", help="where they come from; default: the folder's name")

        promote = self._with_version(commands, "promote", "serve a version, or try it beside the champion")
        promote.add_argument("--alias", choices=Alias.Name.values, default=Alias.Name.CHAMPION.value)
        self._with_reason(promote)
        rollback = commands.add_parser("rollback", help="serve the champion before this one again")
        rollback.add_argument("--from", dest="expected", metavar="VERSION", help="only while this one serves")
        self._with_reason(rollback)
        self._with_reason(commands.add_parser("clear", help="take the challenger back"))
        canary = commands.add_parser("canary", help="show or change how a challenger is tried")
        canary.add_argument("--share", type=float, help="of photos that it answers, 0 to 1")
        canary.add_argument("--shadow", type=float, help="of photos that it captions unseen, 0 to 1")

        self._with_version(commands, "pin", "keep a version whatever retention says")
        self._with_version(commands, "unpin", "leave a version to retention")
        retain = commands.add_parser("retain", help="remove the files of versions nobody needs any more")
        retain.add_argument(
            "--keep", type=_count, default=5, help="newest versions to keep; default: %(default)s"
        )
        retain.add_argument(
            "--yes", action="store_true", help="do it; otherwise it is only said what would be done"
        )
        export = self._with_version(commands, "export", "copy a version to a folder that transformers loads")
        export.add_argument("folder", type=Path, help="new or empty")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            getattr(self, f"_{options['command']}")(options)
        except (RegistryError, OSError) as error:
            raise CommandError(str(error)) from error
        except DatabaseError as error:
            raise CommandError(f"{error}. Has `manage.py setup` been run?") from error

    @staticmethod
    def _with_version(commands: Any, name: str, text: str) -> ArgumentParser:
        parser: ArgumentParser = commands.add_parser(name, help=text)
        parser.add_argument("version", help="id of a version, or the name of an alias")
        return parser

    @staticmethod
    def _with_reason(parser: ArgumentParser) -> None:
        parser.add_argument("--reason", required=True, help="why; it is kept in the log")

    def _list(self, options: dict[str, Any]) -> None:
        for version in ModelVersion.objects.prefetch_related("aliases"):
            self.stdout.write(
                f"{version.created_at:%Y-%m-%d %H:%M}  {version.pk:<40} {', '.join(version.marks)}".rstrip()
            )
        for process in processes.processes_alive():
            self.stdout.write(f"{process.name}: {process.state}, serves {process.champion or 'nothing'}")
        for alert in processes.alerts_current():
            self.stderr.write(self.style.WARNING(alert))

    def _show(self, options: dict[str, Any]) -> None:
        version = self._version(options)
        if options["json"]:
            self.stdout.write(json.dumps(version.manifest, indent=2, ensure_ascii=False))
            return
        self.stdout.write(card_text(version.facts))
        self._write_log(version.promotions.all())

    def _log(self, options: dict[str, Any]) -> None:
        self._write_log(Promotion.objects.all()[: options["limit"]])

    def _publish(self, options: dict[str, Any]) -> None:
        folder: Path = options["folder"]
        version = version_publish(
            folder,
            model_name=options["name"],
            origin=options["origin"] or f"folder {folder.resolve().name}",
            licence=options["licence"],
        )
        self.stdout.write(f"Published {version}.")

    def _promote(self, options: dict[str, Any]) -> None:
        version = self._version(options)
        alias = Alias.Name(options["alias"])
        promotions.version_promote(version, alias=alias, reason=options["reason"])
        self.stdout.write(f"{version} is the {alias}. Web processes take it up within seconds.")

    def _rollback(self, options: dict[str, Any]) -> None:
        version = promotions.champion_rollback(reason=options["reason"], expected=options["expected"])
        self.stdout.write(f"{version} is the champion again.")

    def _clear(self, options: dict[str, Any]) -> None:
        version = promotions.challenger_clear(reason=options["reason"])
        self.stdout.write(f"{version} is no challenger any more." if version else "There is no challenger.")

    def _canary(self, options: dict[str, Any]) -> None:
        shares = {"canary_share": options["share"], "shadow_share": options["shadow"]}
        changes = {name: share for name, share in shares.items() if share is not None}
        rollout = promotions.rollout_update(**changes) if changes else promotions.rollout_get()
        self.stdout.write(f"Challenger: {promotions.challenger_get() or 'none'}. {rollout}.")

    def _pin(self, options: dict[str, Any]) -> None:
        version = self._version(options)
        version_pin(version)
        self.stdout.write(f"{version} is pinned: retention keeps it.")

    def _unpin(self, options: dict[str, Any]) -> None:
        version = self._version(options)
        version_unpin(version)
        self.stdout.write(f"{version} is not pinned: retention may remove it.")

    def _retain(self, options: dict[str, Any]) -> None:
        versions = versions_retain(keep=options["keep"], dry_run=not options["yes"])
        for version in versions:
            facts = version.readable_facts
            self.stdout.write(f"{version.pk}  {facts.size / 1e6:.0f} MB" if facts else version.pk)
        done = "removed" if options["yes"] else "would be removed; add --yes to do it"
        self.stdout.write(f"{len(versions)} versions {done}.")

    def _export(self, options: dict[str, Any]) -> None:
        version = self._version(options)
        version_export(version, options["folder"])
        self.stdout.write(f"Exported {version} to {options['folder']}.")

    def _version(self, options: dict[str, Any]) -> ModelVersion:
        name = options["version"]
        return promotions.aliases_get().get(name) or version_get(name)

    def _write_log(self, entries: Any) -> None:
        for entry in entries.select_related("promoted_by"):
            who = f" by {entry.promoted_by}" if entry.promoted_by else ""
            what = f"{entry.alias} {entry.get_action_display().lower()}"
            self.stdout.write(
                f"{entry.created_at:%Y-%m-%d %H:%M}  {what} {entry.version_id}{who}: {entry.reason}"
            )
