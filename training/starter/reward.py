"""Stage 3: the captioner draws captions of its training photos and learns from what each scores against people's.

Self-critical sequence training (Rennie et al. 2017, arXiv:1612.00563): words are learned one by one until here, while
captions are judged as a whole. The baseline of a draw is the mean score of the photo's other draws (Kool et al. 2019;
Luo 2020, arXiv:2003.09971).
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoTokenizer, PreTrainedTokenizerBase, VisionEncoderDecoderModel

from models_registry.files import file_sha256
from training.data.caption_text import Words, caption_mirror, caption_words
from training.data.duplicates import duplicates_cache
from training.data.photo_sets import TRAIN
from training.descent.checkpoint import CHECKPOINT
from training.descent.sampler import batch_indexes
from training.judging.scores import CiderD
from training.learning.objective import IGNORED
from training.starter.augment import photos_stack
from training.starter.caption import (
    SETS,
    CaptionedPhotos,
    captioned_load,
    fit_config,
    groups_of,
    identity_of,
    keep_best,
)
from training.starter.config import RewardConfig
from training.starter.fit import Fit
from training.starter.network import captioner_resize, photos_encode, words_predict

# The sets with several captions of each photo: against a single one a score says little.
JUDGED = SETS[:2]
# Counts as a word, so that captions are also judged by where they stop.
END = "</s>"


class RewardBatches:
    """Draws photos as they are looked at when serving, half of them mirrored, and says which they are.

    Not crops: what it says of these is no measure of what it says of whole photos. Those of the second set are
    visited `coco_visits` times a pass.
    """

    def __init__(self, sets: Sequence[CaptionedPhotos], config: RewardConfig) -> None:
        self.config = config
        self.photos = [(photos.pixels, index) for photos in sets for index in range(len(photos.pixels))]
        first = len(sets[0].pixels)
        self.visits = [*range(first), *list(range(first, len(self.photos))) * config.coco_visits]

    def __len__(self) -> int:
        return len(self.visits)

    def at(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Images (B, 3, size, size), numbers of the photos, whether mirrored, and seeds (B,).

        What is drawn for a part of the batch follows from its first seed.
        """
        chosen = batch_indexes(len(self), self.config.batch, self.config.seed, step).tolist()
        numbers = [self.visits[index] for index in chosen]
        mirrored = torch.rand(len(numbers)) < 0.5
        images = photos_stack([self.photos[number] for number in numbers])
        images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        return images, torch.tensor(numbers), mirrored, torch.randint(2**62, (len(numbers),))


class SelfCritic:
    """Judges what the captioner says of training photos by CIDEr-D against `captions`, those people wrote of each."""

    def __init__(
        self, captions: Sequence[Sequence[str]], tokenizer: PreTrainedTokenizerBase, config: RewardConfig
    ) -> None:
        self.judge = CiderD([[(*caption_words(caption), END) for caption in group] for group in captions])
        self.tokenizer, self.config = tokenizer, config

    def loss(self, model: Any, images: Tensor, photos: Tensor, mirrored: Tensor, seeds: Tensor) -> Tensor:
        """Minus the mean score of what is drawn (1 being a CIDEr-D of 100), whose gradient is the policy gradient.

        That is of -(score - baseline) log p, mean over drawn tokens. `images` (B, 3, H, W); `photos` (B,) numbers of
        their captions; of a `mirrored` (B,) one left is right.
        """
        model.eval()  # statistics of batch normalisation stay as they are, and nothing is dropped
        draws, temperature = self.config.draws, self.config.temperature
        states = photos_encode(model, images).repeat_interleave(draws, 0)
        generator = torch.Generator().manual_seed(int(seeds[0]))
        labels = captions_draw(model, states, temperature, self.config.max_tokens, generator)
        scores = self.scores(labels, photos.repeat_interleave(draws), mirrored.repeat_interleave(draws))
        gains = gains_of(scores.view(-1, draws)).flatten()
        real = labels != IGNORED
        logits = words_predict(model, states, labels).float() / temperature
        surprise = functional.cross_entropy(logits, labels[real], reduction="none")
        policy = (gains[:, None].expand_as(labels)[real] * surprise).mean()
        return policy - policy.detach() - scores.mean()

    def scores(self, labels: Tensor, photos: Tensor, mirrored: Tensor) -> Tensor:
        """What each of the drawn `labels` (N, T) scores (N,) as a caption of its photo."""
        return torch.tensor(
            [
                self.judge.score(photo, self._words(row, is_mirrored)) / 100.0
                for row, photo, is_mirrored in zip(labels, photos.tolist(), mirrored.tolist(), strict=True)
            ]
        )

    def _words(self, row: Tensor, is_mirrored: bool) -> Words:
        ids = row[row != IGNORED].tolist()
        text = str(self.tokenizer.decode(ids, skip_special_tokens=True))
        words = caption_words(caption_mirror(text) if is_mirrored else text)
        return (*words, END) if ids[-1] == self.tokenizer.eos_token_id else words


def gains_of(scores: Tensor) -> Tensor:
    """By how much each draw of a photo is better than the mean of its others: (photos, draws), as the scores."""
    others = (scores.sum(1, keepdim=True) - scores) / (scores.shape[1] - 1)
    return scores - others


@torch.no_grad()
def captions_draw(
    model: Any, states: Tensor, temperature: float, max_tokens: int, generator: torch.Generator
) -> Tensor:
    """Captions drawn word by word for encoder states (B, places, width): token ids (B, T), IGNORED after their end."""
    last = torch.full((len(states), 1), model.config.decoder_start_token_id)
    running = torch.ones(len(states), 1, dtype=torch.bool)
    drawn: list[Tensor] = []
    cache = None
    while len(drawn) < max_tokens and running.any():
        output = model.decoder(
            input_ids=last, encoder_hidden_states=states, past_key_values=cache, use_cache=True
        )
        cache = output.past_key_values
        chances = (output.logits[:, -1].float() / temperature).softmax(-1)
        last = torch.multinomial(chances, 1, generator=generator)
        drawn.append(last.where(running, IGNORED))
        running &= last != model.config.eos_token_id
    return torch.cat(drawn, 1)


def reward(data: Path, run: Path, config: RewardConfig, until: int | None = None) -> Any:
    """Train (or continue) `run/captioner` in `run/reward`; the best so far, itself included, goes to `run/rewarded`.

    Raises `CheckpointMismatch` where what is to be continued began with another captioner.
    """
    cache, source, best = run / "cache", run / "captioner", run / "rewarded"
    tokenizer = AutoTokenizer.from_pretrained(source)
    trained = VisionEncoderDecoderModel.from_pretrained(source, dtype=torch.float32)
    model = captioner_resize(trained, config.size / trained.config.encoder.image_size)
    size = model.config.encoder.image_size
    twins = duplicates_cache(data, cache / "near-duplicates.json")
    train = [captioned_load(data, cache, name, TRAIN, size, without=twins) for name in JUDGED]
    val = captioned_load(data, cache, SETS[0], "val", size)
    critic = SelfCritic([group for photos in train for group in photos.captions], tokenizer, config)
    batches = RewardBatches(train, config)
    fit = Fit(
        model,
        groups_of(model, model.encoder, config),
        fit_config(config, len(batches), muon=False),
        run / "reward",
        identity_of(config) | {"captioner": file_sha256(source / "model.safetensors")},
    )
    if not (run / "reward" / CHECKPOINT).exists():  # a new run: what an older one left is not its best
        shutil.rmtree(best, ignore_errors=True)
        keep_best(model.eval(), tokenizer, val, best)
    fit.run(batches.at, critic.loss, lambda trained: keep_best(trained, tokenizer, val, best), until)
    return model
