"""What a training run is made of: plain frozen dataclasses, written into every checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, replace

from training.descent.config import DescentConfig

PIXEL_MEAN = 0.5
PIXEL_STD = 0.5


@dataclass(frozen=True)
class FitConfig(DescentConfig):
    """A descent on so many `threads`. Matrices learn with Muon, unless not `muon`: then all learns with AdamW."""

    muon: bool = True
    threads: int = 2


@dataclass(frozen=True)
class EncoderConfig:
    """A small residual network, then layers of global attention over its last feature map."""

    hidden_sizes: tuple[int, ...] = (64, 128, 256)
    depths: tuple[int, ...] = (2, 2, 3)
    layers: int = 2
    heads: int = 4


@dataclass(frozen=True)
class DecoderConfig:
    """A GPT-2 style decoder with cross-attention; `width` must be a multiple of `heads`."""

    width: int = 256
    layers: int = 3
    heads: int = 4
    positions: int = 48
    vocabulary: int = 4000


@dataclass(frozen=True)
class PretrainConfig:
    """Stage 1: the encoder learns to name photos. Sizes are pixels; the first passes see smaller photos."""

    passes: float = 6.5
    batch: int = 128
    size: int = 64
    first_passes: float = 1.0
    first_size: int = 48
    smallest_crop: float = 0.6
    lr: float = 2e-3
    weight_decay: float = 0.05
    warmup: int = 100
    label_smoothing: float = 0.1
    seed: int = 0
    save_every: int = 100
    threads: int = 2


@dataclass(frozen=True)
class CaptionConfig:
    """Stage 2: encoder and decoder learn to describe photos, squashed to `size` x `size` pixels.

    `labelled` photos of `labelled_size` pixels, with captions about such things, come along with each batch; a share of
    `blurred` of the others is made as unsharp as these, and a share of `erased` of all loses a box. A pass visits each
    photo of COCO `coco_visits` times: they are few, and show much that Flickr8k's do not. `dropout` is the rate in
    the transformer layers and on the decoder's embeddings, not in convolutions nor on attention weights.
    """

    passes: float = 8.0
    coco_visits: int = 3
    batch: int = 16
    labelled: int = 3
    labelled_size: int = 64
    blurred: float = 0.25
    captions_each: int = 4
    max_tokens: int = 22
    size: int = 128
    smallest_crop: float = 0.6
    colour: float = 0.3
    erased: float = 0.4
    dropout: float = 0.2
    lr: float = 1e-3
    encoder_lr_scale: float = 0.25
    weight_decay: float = 0.1
    warmup: int = 100
    label_smoothing: float = 0.1
    ema_decay: float = 0.995
    seed: int = 0
    save_every: int = 100
    eval_every: int = 400
    threads: int = 2


@dataclass(frozen=True)
class RewardConfig:
    """Stage 3: the captioner learns from what `draws` of its own captions of a photo score, at `temperature`.

    Drawn as they are (1.0) most captions hold a slip, and it learns little but to avoid slips. Raises ValueError
    where nothing could be learned.
    """

    passes: float = 2.8
    coco_visits: int = 3
    batch: int = 32
    draws: int = 6
    temperature: float = 0.6
    max_tokens: int = 22
    size: int = 144
    lr: float = 1e-4
    encoder_lr_scale: float = 0.2
    weight_decay: float = 0.0
    warmup: int = 10
    ema_decay: float = 0.98
    seed: int = 0
    save_every: int = 50
    eval_every: int = 100
    threads: int = 2

    def __post_init__(self) -> None:
        if self.draws < 2 or self.temperature <= 0.0:
            raise ValueError(
                f"{self.draws} draws at temperature {self.temperature}: a draw is judged beside at least one other of "
                "its photo, at a temperature above 0."
            )


# --- The same stages for an encoder whose convolutions come with published weights and stay as they are ---

# Its maps lie on disk, so that all captions of a photo are learned at every visit; `erased` is the share of places.
WORDS = CaptionConfig(
    passes=5.5,
    batch=32,
    labelled_size=96,
    blurred=0.0,
    captions_each=5,
    size=256,
    erased=0.15,
    encoder_lr_scale=1.0,
    warmup=100,
    eval_every=290,
    save_every=100,
)
# Within forty minutes of two cores; of one set, without labelled photos.
BASE = replace(WORDS, passes=5.0, labelled=0, eval_every=250)
WORDS_REWARD = RewardConfig(size=256)
