"""The model card of the starter: what it is, what it was trained on and under which terms, what it scores."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from training.starter.evaluate import Decoding
from training.starter.loop import CURVE

TEXTS = Path(__file__).parent
COLUMNS = ("cider_d", "bleu_1", "bleu_4", "rouge_l", "distinct", "repeating")


def card_write(
    folder: Path, run: Path, table: dict[str, dict[str, dict[str, float]]], decoding: Decoding
) -> None:
    """Write README.md and ATTRIBUTION.md beside the weights in `folder`, with the figures of `table`."""
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
            table=_markdown(table),
        )
    )
    (folder / "README.md").write_text(card)
    shutil.copyfile(TEXTS / "attribution.md", folder / "ATTRIBUTION.md")


def _steps(stage: Path) -> int:
    lines = (stage / CURVE).read_text().splitlines()
    return int(json.loads(lines[-1])["step"])


def _markdown(table: dict[str, dict[str, dict[str, float]]]) -> str:
    head = ["Photos", "Captions", "CIDEr-D", "BLEU-1", "BLEU-4", "ROUGE-L", "distinct", "repeating"]
    rows = [head, ["---"] * 2 + ["---:"] * len(COLUMNS)]
    for name, ways in table.items():
        for way, figures in ways.items():
            rows.append([f"{name} val", way, *(f"{figures[column]:.1f}" for column in COLUMNS)])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def section_write(folder: Path, title: str, text: str) -> None:
    """Put a section into the card in `folder`, in place of one with that title, else before "Known weaknesses"."""
    card = (folder / "README.md").read_text(encoding="utf-8")
    head, *sections = card.split("\n## ")
    kept = [section for section in sections if not section.startswith(f"{title}\n")]
    place = next((i for i, section in enumerate(kept) if section.startswith("Known weaknesses")), len(kept))
    kept.insert(place, f"{title}\n\n{text}\n")
    (folder / "README.md").write_text("\n## ".join([head, *kept]), encoding="utf-8")
