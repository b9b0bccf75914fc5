"""Compare a bare `generate()` loop, the engine and the whole service, all with the weights that serve now.

Prints tables. This takes minutes and all cores: leave the machine alone meanwhile. The service that is measured is a
second one with a database and folders of its own, removed afterwards.
"""

import argparse
import os
import signal
import sys
from pathlib import Path

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "captioner.settings")
django.setup()

from django.conf import settings  # noqa: E402  after the set-up

from models_registry import bundled, promotions, versions  # noqa: E402
from models_registry.exceptions import NoChampion, RegistryError  # noqa: E402
from tests.benchmarks.speed.comparison import Plan, benchmark_run  # noqa: E402
from tests.benchmarks.speed.errors import BenchmarkError  # noqa: E402
from tests.processes import NotStarted  # noqa: E402

PEERS = [Path(__file__).with_name(f"peer_{name}.py") for name in ("fastapi", "litserve")]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--photos", type=Path, metavar="FOLDER", help="JPEG files; default: drawn ones")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each; default: %(default)s")
    parser.add_argument(
        "--peer",
        type=Path,
        action="append",
        metavar="SCRIPT",
        help="another server, started as `python SCRIPT WEIGHTS PORT MAX_NEW_TOKENS`; may be repeated; "
        "default: those beside this file",
    )
    options = parser.parse_args(arguments)
    peers = options.peer or PEERS
    if options.rounds < 1:
        parser.error(f"--rounds must be at least 1, not {options.rounds}.")
    for path in filter(None, (options.photos, *peers)):
        if not path.exists():
            parser.error(f"{path} does not exist.")
    # TERM ends what is started, as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        weights, model_version = weights_in_use()
        plan = Plan(
            weights=weights,
            model_version=model_version,
            scratch=settings.DATA_DIR,
            photos=options.photos,
            peers=peers,
            rounds=options.rounds,
        )
        sys.stdout.write(benchmark_run(plan) + "\n")
    except (BenchmarkError, NotStarted, RegistryError) as error:
        sys.exit(str(error))


def weights_in_use() -> tuple[Path, str]:
    """Folder and name of the version that serves, or of the bundled starter where nothing was set up yet."""
    try:
        version = promotions.champion_get()
    except NoChampion:
        return bundled.STARTER_DIR, "The bundled starter"
    return versions.version_fetch(version), version.pk


if __name__ == "__main__":
    main()
