"""The learning loop from a terminal: what the admin's buttons and the schedule do."""

import json
from argparse import ArgumentParser
from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError

from captioner.captions.photos import photos_hash
from models_registry.exceptions import RegistryError
from training import decisions, services
from training.admin import authors_capped
from training.exceptions import TrainingError
from training.judging.gate_report import counts_told, figures_table
from training.judging.tables import table_text
from training.learning.snapshot import snapshot_take
from training.models import TrainingRun
from training.uses import sentences_forget

ACTIONS = {
    "now": "queue a run for the trainer; with --here do it in this process",
    "status": "the last runs",
    "show": "a run's report",
    "cancel": "stop a run",
    "retry": "try a quarantined run again",
    "overrule": "let a reviewer's verdict count: RUN --verdict passed|rejected --reason ... --by USER "
    "[--despite-harm]",
    "snapshot": "what a run would learn from now, one row a line, by number and hash",
    "forget-sentences": "take people's sentences out of versions that earlier releases published",
    "hash-photos": "compute the hashes of photos stored before there were any",
}


class Command(BaseCommand):
    help = "; ".join(f"{action}: {what}" for action, what in ACTIONS.items())

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("action", choices=ACTIONS)
        parser.add_argument("run", nargs="?", type=int, help="the run's number; default: the last one")
        parser.add_argument("--here", action="store_true", help="with now: train in this process")
        parser.add_argument("--seed", type=int, default=0)
        parser.add_argument("--verdict", choices=("passed", "rejected"))
        parser.add_argument("--reason", default="")
        parser.add_argument("--by", help="with overrule: the user who decides")
        parser.add_argument(
            "--despite-harm", action="store_true", help="with overrule: pass what was proven to be worse"
        )

    def handle(self, *, action: str, **options: Any) -> None:
        try:
            getattr(self, f"_{action.replace('-', '_')}")(options)
        except (TrainingError, RegistryError) as error:
            raise CommandError(str(error)) from error

    def _now(self, options: dict[str, Any]) -> None:
        run = services.run_request(seed=options["seed"])
        if options["here"]:
            from training.execution import run_execute  # it loads torch, which other actions do not need

            run_execute(run.pk)
            run.refresh_from_db()
        self._print(run)

    def _status(self, options: dict[str, Any]) -> None:
        for run in TrainingRun.objects.all()[:10]:
            self._print(run)
        needless = services.run_needless()
        self.stdout.write(f"A scheduled run would {f'do nothing: {needless}' if needless else 'start.'}")

    def _show(self, options: dict[str, Any]) -> None:
        run = self._run(options)
        self._print(run)
        self.stdout.write(run.report.get("reason", "There is no report yet."))
        for check in run.report.get("checks", []):
            answer = {True: "yes ", False: "NO  ", None: "open"}[check["passed"]]
            self.stdout.write(f"  {answer} {check['name']}: {check['measured']} ({check['required']})")
        self.stdout.write(table_text(figures_table(run.report)))
        for told in [
            *counts_told(run.counts),
            *(f"{who}: {rows} left out" for who, rows in authors_capped(run)),
        ]:
            self.stdout.write(told)

    def _cancel(self, options: dict[str, Any]) -> None:
        services.run_cancel(self._run(options))

    def _retry(self, options: dict[str, Any]) -> None:
        services.run_retry(self._run(options))

    def _overrule(self, options: dict[str, Any]) -> None:
        reviewer = User.objects.filter(username=options["by"] or "").first()
        if reviewer is None or not options["verdict"]:
            raise CommandError("Say which verdict counts and whose it is: --verdict passed --by USERNAME.")
        decisions.run_overrule(
            self._run(options),
            options["verdict"],
            reason=options["reason"],
            by=reviewer,
            despite_harm=options["despite_harm"],
        )

    def _snapshot(self, options: dict[str, Any]) -> None:
        snapshot = snapshot_take()
        self.stdout.write(snapshot.to_jsonl(), ending="")
        self.stderr.write(json.dumps(snapshot.counts))

    def _hash_photos(self, options: dict[str, Any]) -> None:
        self.stdout.write(f"Hashed {photos_hash()} photos.")

    def _forget_sentences(self, options: dict[str, Any]) -> None:
        self.stdout.write(
            f"{sentences_forget()} versions held sentences, and name them by number and hash now."
        )

    def _run(self, options: dict[str, Any]) -> TrainingRun:
        runs = TrainingRun.objects.all()
        run = runs.filter(pk=options["run"]).first() if options["run"] else runs.first()
        if run is None:
            raise CommandError(f"There is no run {options['run'] or ''}; `train status` lists them.")
        return run

    def _print(self, run: TrainingRun) -> None:
        self.stdout.write("  ".join(f"{name}={value}" for name, value in run.facts.items() if value))
