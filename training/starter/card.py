"""The model card of the starter: what it is, what it was trained on and under which terms, what it scores."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from training.photo_sets import photo_sets_read
from training.quality import tables
from training.quality.evaluation import Tick, evaluate
from training.starter.evaluate import Decoding
from training.starter.loop import CURVE

TEXTS = Path(__file__).parent
JUDGED_ON = ("flickr8k", "coco", "openstax")
_FIGURES = """\
On photos that no weight was trained on. The checkpoint and the decoding were chosen on the Flickr8k rows, which are
therefore a little optimistic."""


def card_write(folder: Path, run: Path, decoding: Decoding) -> None:
    """Write README.md and ATTRIBUTION.md beside the weights in `folder`; what they score is added later."""
    weights = (folder / "model.safetensors").stat().st_size
    config = json.loads((folder / "config.json").read_text())
    card = (
        (TEXTS / "card.md")
        .read_text()
        .format(
            parameters=weights / 2e6,
            megabytes=weights / 1e6,
            size=config["encoder"]["image_size"],
            pretrain_steps=_steps(run / "pretrain"),
            caption_steps=_steps(run / "caption"),
            decoding=", ".join(f"`{name}={value}`" for name, value in decoding.arguments().items()),
        )
    )
    (folder / "README.md").write_text(card)
    shutil.copyfile(TEXTS / "attribution.md", folder / "ATTRIBUTION.md")


def _steps(stage: Path) -> int:
    lines = (stage / CURVE).read_text().splitlines()
    return int(json.loads(lines[-1])["step"])


def figures_write(data: Path, output: Path, tick: Tick = lambda *_: None) -> None:
    """Judge the weights in `output` on photos below `data` that trained nothing, and say so in their card."""
    there = [data / name for name in JUDGED_ON if (data / name).is_dir()]
    evaluation = evaluate(output, photo_sets_read(there), tick)
    section_write(output, "Figures", f"{_FIGURES}\n\n{tables.figures(evaluation)}".rstrip())


def section_write(folder: Path, title: str, text: str) -> None:
    """Put a section into the card in `folder`, in place of one with that title, else before "Known weaknesses"."""
    card = (folder / "README.md").read_text(encoding="utf-8")
    head, *sections = card.split("\n## ")
    kept = [section for section in sections if not section.startswith(f"{title}\n")]
    place = next((i for i, section in enumerate(kept) if section.startswith("Known weaknesses")), len(kept))
    kept.insert(place, f"{title}\n\n{text}\n")
    (folder / "README.md").write_text("\n## ".join([head, *kept]), encoding="utf-8")
