"""What encoders tell apart: `python -m tests.benchmarks.label_probe --data DATA --folder CACHE VERSION...`.

Photos of the catalogue's 26 kinds and of Tiny-ImageNet's 200 classes are named by the five most similar other photos,
by the vectors that the memory of corrections compares. A class is told apart when most of its photos get its name.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from captioner.inference.predictor import Predictor
from captioner.inference.types import DecodingParameters
from tests.benchmarks.experiments.domains import SETS, TILE
from training.data.pixels import sheets_load

NEIGHBOURS = 5
EACH = 20  # photos of a class at most
BATCH = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("versions", type=Path, nargs="+", help="folders of checkpoints")
    options = parser.parse_args()
    for version in options.versions:
        predictor = Predictor.load(version, model_version=str(version))
        for name in ("labelled", "tiny-val"):
            photos, labels = classes_load(options.data, options.folder, name)
            named = neighbours_name(vectors(predictor, photos), labels)
            right = Counter(label for label, name in zip(labels, named, strict=True) if label == name)
            each = Counter(labels)
            apart = sum(right[label] * 2 > count for label, count in each.items())
            sys.stdout.write(
                f"{version}  {name}: {apart} of {len(each)} classes told apart, "
                f"{100 * right.total() / len(labels):.1f} % of {len(labels)} photos named right\n"
            )


def classes_load(data: Path, folder: Path, name: str) -> tuple[list[Image.Image], list[str]]:
    """The first photos of each class, and the name of each one's class."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels, flat = sheets_load(data, folder, name, TILE)
    seen: Counter[str] = Counter()
    chosen = []
    for index, label in enumerate(map(str, flat)):
        is_wanted = name != "labelled" or label.split("/")[0] in SETS
        if is_wanted and seen[label] < EACH:
            seen[label] += 1
            chosen.append(index)
    return [Image.fromarray(np.array(pixels[index])) for index in chosen], [str(flat[i]) for i in chosen]


def vectors(predictor: Predictor, photos: Sequence[Image.Image]) -> NDArray[np.float32]:
    """What the encoder sees of each photo: (photos, width), of length 1."""
    found = []
    for start in range(0, len(photos), BATCH):
        pixels = torch.stack([predictor.preprocess(photo) for photo in photos[start : start + BATCH]])
        seen = predictor.look(pixels, DecodingParameters(max_new_tokens=1))
        found += [np.frombuffer(each.vector, np.float16).astype(np.float32) for each in seen]
    stacked = np.stack(found)
    return stacked / np.linalg.norm(stacked, axis=1, keepdims=True)


def neighbours_name(vectors: NDArray[np.float32], labels: Sequence[str]) -> list[str]:
    """The commonest label of each photo's nearest others; of several as common ones, that of the nearest."""
    alike = vectors @ vectors.T
    np.fill_diagonal(alike, -np.inf)
    nearest = np.argsort(-alike, axis=1)[:, :NEIGHBOURS]
    return [Counter(labels[other] for other in row).most_common(1)[0][0] for row in nearest]


if __name__ == "__main__":
    main()
