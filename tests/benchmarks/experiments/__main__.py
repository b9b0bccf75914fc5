"""Experiments on the learning loop, on real photos with real sentences; training/EXPERIMENTS.md says what they showed.

python -m tests.benchmarks.experiments NAME --data DATA --folder FOLDER [--base FOLDER] [--seeds N]
"""

import argparse
import json
import sys
from importlib import import_module
from pathlib import Path

from tests.benchmarks.experiments.bench import STARTER
from tests.benchmarks.experiments.plots import plot

HERE = Path(__file__).parent
NAMES = sorted(
    path.stem for path in HERE.glob("e[0-9].py")
)  # each has a `run(options)` that yields rows of figures


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="make experiment", description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument(
        "--data", type=Path, help="folder that holds flickr8k/ and whatever else the experiment reads"
    )
    parser.add_argument("--folder", type=Path, required=True, help="caches and results")
    parser.add_argument("--base", type=Path, default=STARTER, help="checkpoint to start from")
    parser.add_argument("--seeds", type=int, default=5, help="repetitions; of e5, how often it is killed")
    parser.add_argument(
        "--sizes", type=int, nargs="+", help="how many corrections, or rows; default: the design's"
    )
    parser.add_argument("--minutes", type=float, help="of e1: begin nothing that would end later")
    parser.add_argument("--photos", type=int, help="of e3: so many of each kind of photos at most")
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    rows = []
    with (options.folder / f"{options.name}.jsonl").open("w") as file:
        for row in import_module(f"tests.benchmarks.experiments.{options.name}").run(options):
            rows.append(row)
            text = json.dumps(row) + "\n"
            file.write(text)
            file.flush()  # a run that is stopped leaves what it found
            sys.stdout.write(text)
            sys.stdout.flush()
    if svg := plot(options.name, rows):
        (options.folder / f"{options.name}.svg").write_text(svg)


if __name__ == "__main__":
    main()
