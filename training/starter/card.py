"""The model card of the starter: what it is, was trained on and scores; and how often its captions are right."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from captioner.inference.calibration import Calibration
from captioner.inference.efficientnet_lite import EfficientNetLiteConfig
from captioner.inference.loading import load_model
from captioner.inference.predictor import Predictor
from training.data.caption_text import caption_normalise
from training.data.photo_sets import ReferencePhoto, photo_sets_read, photos_read
from training.descent.curve import curve_read
from training.judging.calibration import (
    ACCEPTED,
    ACCEPTED_CIDER_D,
    calibration_error,
    calibration_measure,
)
from training.judging.captioning import candidates_find
from training.judging.quality import report
from training.judging.quality.evaluation import evaluate
from training.judging.quality.report import reliability_rows
from training.judging.scores import captions_score
from training.judging.tables import table_markdown
from training.progress import Tick, untold
from training.starter.network import Decoding

TEXTS = Path(__file__).parent
OWN_STAGES = ("pretrain", "caption")
WORDS_STAGES = ("words",)
REWARDED = (
    ", `reward` (its own captions of training photos, scored by CIDEr-D against people's, {steps} steps)"
)
JUDGED_ON = ("flickr8k", "coco", "openstax")
_FIGURES = """\
On photos that no weight was trained on. The checkpoint was chosen on the Flickr8k val photos, the size of photos and
the decoding on these and COCO's val photos alike, so their rows are optimistic: Flickr8k's a little, COCO's, being of
81 photos only, perhaps by some points."""


def card_write(folder: Path, run: Path, decoding: Decoding) -> None:
    """Write README.md beside the weights in `folder`; what they score is added later."""
    weights = (folder / "model.safetensors").stat().st_size
    config = json.loads((folder / "config.json").read_text())
    name, stages = (
        ("card_eye.md", WORDS_STAGES) if _sees_with_published_eye(config) else ("card.md", OWN_STAGES)
    )
    card = (
        (TEXTS / name)
        .read_text()
        .format(
            parameters=weights / 2e6,
            megabytes=weights / 1e6,
            size=config["encoder"]["image_size"],
            **{f"{stage}_steps": _steps(run / stage) for stage in stages},
            reward=REWARDED.format(steps=_steps(run / "reward")) if (run / "rewarded").exists() else "",
            decoding=", ".join(f"`{name}={value}`" for name, value in decoding.arguments().items()),
        )
    )
    (folder / "README.md").write_text(card)


def attribution_write(folder: Path, photos: Mapping[str, Sequence[ReferencePhoto]]) -> None:
    """Write ATTRIBUTION.md: the sets, and whose the captioned `photos` (by set) are, where the set tells."""
    text = (TEXTS / "attribution.md").read_text(encoding="utf-8").rstrip()
    if _sees_with_published_eye(json.loads((folder / "config.json").read_text())):
        text += "\n" + (TEXTS / "attribution_eye.md").read_text(encoding="utf-8").rstrip()
    for name, group in photos.items():
        owners = [line for photo in group if (line := _credit(photo))]
        if owners:
            text += f"\n\n## Captioned photos of {name}\n\n" + "\n".join(owners)
    (folder / "ATTRIBUTION.md").write_text(text + "\n", encoding="utf-8")


def _sees_with_published_eye(config: Mapping[str, Any]) -> bool:
    return bool(config["encoder"]["model_type"] == EfficientNetLiteConfig.model_type)


def _credit(photo: ReferencePhoto) -> str:
    record = photo.record
    if record.get("license_url"):
        address = record["license_url"].replace("\\/", "/")  # as JSON within JSON
        return f"- {photo.key}: {record['license']}, {address}"
    if "source" in record:
        return f"- {record['source']}: {record['credit'] or 'no credit in the book'}"
    return ""


def _steps(stage: Path) -> int:
    return int(curve_read(stage)[-1]["step"])


def figures_write(data: Path, output: Path, tick: Tick = untold) -> None:
    """Judge the weights in `output` on photos below `data` that trained nothing, and say so in their card."""
    there = [data / name for name in JUDGED_ON if (data / name).is_dir()]
    evaluation = evaluate(output, photo_sets_read(there), tick)
    section_write(output, "Figures", f"{_FIGURES}\n\n{report.figures(evaluation)}".rstrip())


def section_write(folder: Path, title: str, text: str) -> None:
    """Put a section into the card in `folder`, in place of one with that title, else before "Known weaknesses"."""
    card = (folder / "README.md").read_text(encoding="utf-8")
    head, *sections = card.split("\n## ")
    kept = [section for section in sections if not section.startswith(f"{title}\n")]
    place = next((i for i, section in enumerate(kept) if section.startswith("Known weaknesses")), len(kept))
    kept.insert(place, f"{title}\n\n{text}\n")
    (folder / "README.md").write_text("\n## ".join([head, *kept]), encoding="utf-8")


logger = logging.getLogger(__name__)

SET, SPLIT = "flickr8k", "val"


def calibrate(data: Path, output: Path) -> Calibration:
    """Fit the confidence of the weights in `output`; write it beside them and its reliability into their card.

    The reliability is that of fits on one half of the photos, on the other; what ships is fitted on all.
    """
    predictor = Predictor(load_model(output), output.name)
    photos = list(photos_read(data / SET / f"{SPLIT}.tar"))
    images = (Image.open(io.BytesIO(photo.data)).convert("RGB") for photo in photos)
    found = [best for best, *_ in candidates_find(predictor, map(predictor.preprocess, images))]
    references = [[caption_normalise(text) for text in photo.captions] for photo in photos]
    scores = captions_score([candidate.caption for candidate in found], references).cider_d_each
    accepted = [score >= ACCEPTED_CIDER_D for score in scores]
    means = [candidate.log_probability / len(candidate.token_log_probabilities) for candidate in found]
    calibration, bins = calibration_measure(means, accepted)
    calibration.write(output)
    text = f"""\
The confidence of a caption is the share of such captions that are accepted. No person has judged them:
accepted means {ACCEPTED}.
Fitted on one half of the {len(means)} {SET} {SPLIT} photos, it says this of the other half, and the other way
round (mean gap, or expected calibration error: {100 * calibration_error(bins):.1f} points); what ships is
fitted on both halves.

{table_markdown(reliability_rows(bins), words=1)}"""
    section_write(output, "Confidence", text)
    logger.info(text)
    return calibration
