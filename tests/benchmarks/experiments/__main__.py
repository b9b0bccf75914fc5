"""Experiments on the learning loop with simulated users; training/EXPERIMENTS.md says what they showed.

python -m tests.benchmarks.experiments NAME --data DATA --folder FOLDER
"""

import argparse
import json
import sys
from pathlib import Path

from tests.benchmarks.experiments.bench import bench_open
from tests.benchmarks.experiments.plots import plot
from tests.benchmarks.experiments.runs import EXPERIMENTS, rows_write

STARTER = Path(__file__).resolve().parents[3] / "models_registry" / "starter"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="make experiment", description=__doc__)
    parser.add_argument("name", choices=EXPERIMENTS)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds flickr8k/ and labelled/")
    parser.add_argument("--folder", type=Path, required=True, help="caches and results")
    parser.add_argument("--base", type=Path, default=STARTER, help="checkpoint to start from")
    parser.add_argument("--seeds", type=int, default=3, help="repetitions; of e5, how often it is killed")
    options = parser.parse_args(arguments)
    bench = bench_open(options.data, options.base, options.folder)
    rows = []
    for row in rows_write(
        EXPERIMENTS[options.name](bench, options.seeds), options.folder / f"{options.name}.jsonl"
    ):
        rows.append(row)
        sys.stdout.write(json.dumps(row) + "\n")
        sys.stdout.flush()
    if svg := plot(options.name, rows):
        (options.folder / f"{options.name}.svg").write_text(svg)


if __name__ == "__main__":
    main()
