"""What an encoder saw of a photo, as one vector: the mean over its places, centred and normalised.

Taken from the pass that captions the photo: nothing is encoded twice. Features of all photos have much in common, so
the mean of many photos is taken away first; what is left has a cosine near 0 for photos that have nothing to do with
each other (Mu and Viswanath 2018 did so with word vectors).
"""

import hashlib
import json
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from captioner.exceptions import IncompatibleModel

logger = logging.getLogger(__name__)

FILE_NAME = "likeness.json"


@dataclass(frozen=True, slots=True)
class Centre:
    """The mean of what an encoder sees of `photos` photos, kept beside the weights. `encoder` is their `digest`."""

    encoder: str
    photos: int
    mean: tuple[float, ...]

    def write(self, folder: Path) -> None:
        (folder / FILE_NAME).write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")


def centre_read(folder: Path) -> Centre | None:
    """The centre kept in `folder`, None without one. Raises `IncompatibleModel` if it is broken."""
    try:
        fields = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
        centre = Centre(str(fields["encoder"]), int(fields["photos"]), tuple(map(float, fields["mean"])))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IncompatibleModel(
            f"{FILE_NAME} of {folder.name} cannot be read ({error!r}); it holds `encoder`, `photos` and `mean`."
        ) from error
    if not centre.mean or not all(map(math.isfinite, centre.mean)):
        raise IncompatibleModel(f"{FILE_NAME} of {folder.name} holds numbers that are not finite.")
    return centre


class Embedder:
    """Watches the encoder of a captioner while it captions.

    Of an encoder with a `backbone` (EfficientNet-Lite) it is the backbone that is watched, which learning leaves as it
    is; of others, the encoder itself. Where weights came without a centre, `drawings_look` is called once, to show the
    encoder some drawings: what it says of any picture is then taken away, which tells less than the mean of photos.
    """

    def __init__(self, model: Any, centre: Centre | None, drawings_look: Callable[[], object]) -> None:
        # By what they take: every image encoder of transformers says so, and so does ours.
        encoders = (
            part
            for part in model.modules()
            if part is not model and getattr(part, "main_input_name", None) == "pixel_values"
        )
        encoder = next(encoders, None)
        self._watched: nn.Module | None = getattr(encoder, "backbone", encoder)
        self._kept, self._drawings_look = centre, drawings_look
        self._seen: Tensor | None = None

    @cached_property
    def encoder(self) -> str:
        """Names what makes the vectors: equal for versions with the same encoder, whose vectors can be compared.

        Empty where the model has no encoder of its own, whose photos then have no vectors.
        """
        if self._watched is None:
            return ""
        own = encoder_digest(self._watched)
        if self._kept is not None and self._kept.encoder != own:
            logger.warning("%s was made for other weights and is not used.", FILE_NAME)
            self._kept = None
        mean = "drawings" if self._kept is None else repr(self._kept.mean)
        return hashlib.sha256(f"{own} {mean}".encode()).hexdigest()[:16]

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Around a pass through the model; one at a time."""
        self._seen = None
        if self._watched is None:
            yield
            return
        handle = self._watched.register_forward_hook(self._keep)
        try:
            yield
        finally:
            handle.remove()

    def vectors(self, photos: int) -> list[bytes]:
        """Of each photo of the pass that was watched last: float16, little-endian; empty where there is none."""
        seen = self._seen
        if seen is None or not self.encoder:
            return [b""] * photos
        # generate() may have shown it every photo once for each beam.
        seen = seen[:: max(1, len(seen) // photos)]
        return vectors_from(seen - self._mean)

    @cached_property
    def _mean(self) -> Tensor:
        if self._kept is not None:
            return torch.tensor(self._kept.mean)
        seen = self._seen
        try:
            with self.watching():
                self._drawings_look()
            if self._seen is None:
                return torch.zeros(1)
            return self._seen.mean(0)
        finally:
            self._seen = seen

    def _keep(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        if self._seen is None:  # its first look is at the photos
            self._seen = pooled(getattr(output, "last_hidden_state", output))


def pooled(features: Tensor) -> Tensor:
    """Maps (B, channels, h, w) or places (B, places, channels) -> their mean over places (B, channels), float32."""
    return (features.flatten(2).mean(2) if features.ndim == 4 else features.mean(1)).float()


def vectors_from(centred: Tensor) -> list[bytes]:
    """Centred features (B, channels) -> unit vectors as float16 bytes; empty where there is no direction."""
    rows = nn.functional.normalize(centred, dim=1).numpy().astype("<f2")
    return [row.tobytes() if row.any() and np.isfinite(row).all() else b"" for row in rows]


def encoder_digest(module: nn.Module) -> str:
    """SHA-256 of all weights in single precision: the same in whatever precision a version stores them."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def centre_from(module: nn.Module, means: Sequence[Tensor]) -> Centre:
    """The centre of what `module`, the watched part of an encoder, saw of photos: rows (photos, channels)."""
    rows = torch.cat([part.double() for part in means])
    mean = tuple(float(f"{value:.6g}") for value in rows.mean(0).tolist())
    return Centre(encoder_digest(module), len(rows), mean)
