"""Stage 3: the decoder learns to speak whole captions that the photo's captioners agree with.

Self-critical sequence training (Rennie et al. 2017, arXiv:1612.00563): captions are drawn from the model, their
reward is CIDEr-D against the photo's references, and a photo's other draws are the baseline (Luo 2020,
arXiv:2003.09971). It needs several references per photo; with one it would learn to please the metric, which is why
the learning loop has no such term.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase, VisionEncoderDecoderModel
from transformers.modeling_outputs import BaseModelOutput

from training.loop import parameter_groups
from training.metrics import CiderD, Words, caption_words
from training.starter.caption import CACHE_MARGIN, SETS, CaptionBatches, captioned_load, keep_best
from training.starter.config import CaptionConfig, LoopConfig, ReinforceConfig
from training.starter.dataset import caption_mirror
from training.starter.loop import Fit
from training.starter.objective import reinforce_loss, states_project

# Counted as a word, so that a caption that breaks off ("a dog in a") misses what all references have.
END = "</s>"


class Judge:
    """CIDEr-D of captions of training photos, as they are and mirrored, with the end of a caption as a word."""

    def __init__(self, captions: Sequence[Sequence[str]]) -> None:
        mirrored = [[caption_mirror(caption) for caption in group] for group in captions]
        self.judges = [
            CiderD([[_ended(text) for text in group] for group in s]) for s in (captions, mirrored)
        ]

    def reward(self, photo: int, mirrored: bool, caption: str, ended: bool) -> float:
        """CIDEr-D in the conventional unit (1.0, not percent); `ended` says whether the caption came to its end."""
        words = _ended(caption) if ended else caption_words(caption)
        return self.judges[mirrored].score(photo, words) / 100.0


def _ended(caption: str) -> Words:
    return (*caption_words(caption), END)


def advantages(rewards: Tensor) -> Tensor:
    """Reward of each draw above the mean of the photo's other draws: (B, K) -> (B, K); K must be at least 2."""
    others = (rewards.sum(1, keepdim=True) - rewards) / (rewards.shape[1] - 1)
    return rewards - others


def reinforce(data: Path, run: Path, config: ReinforceConfig, until: int | None = None) -> Any:
    """Train (or continue) in `run/reinforce` from `run/captioner`; the best so far goes to `run/reinforced`."""
    torch.manual_seed(config.seed)
    model = VisionEncoderDecoderModel.from_pretrained(run / "captioner", dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(run / "captioner")
    size, cache = model.config.encoder.image_size, run / "cache"
    train = [captioned_load(data, cache, name, "train", round(size * CACHE_MARGIN)) for name in SETS]
    val = captioned_load(data, cache, SETS[0], "val", size)
    judge = Judge([group for photos in train for group in photos.captions])
    views = replace(CaptionConfig(), size=size, batch=config.batch, seed=config.seed)
    batches = CaptionBatches(train, tokenizer, views)

    def batch_at(step: int) -> tuple[Tensor, Tensor, Tensor]:
        photos, mirrored, images = batches.photos_at(step)
        with torch.no_grad():
            states = model.encoder(pixel_values=images).last_hidden_state
            tokens = captions_draw(model, states, config)
            attended = states_project(model, states)
        return attended, tokens, advantages(_rewards(judge, tokenizer, tokens, photos, mirrored.tolist()))

    # The encoder is not in the loop's hands: it keeps what it has seen, and its batch statistics.
    fit = Fit(
        model.decoder,
        parameter_groups(model.decoder, config.lr, 0.0),
        _loop(config, len(batches)),
        run / "reinforce",
        {"stage": asdict(replace(config, passes=0))},
    )
    fit.run(batch_at, reinforce_loss, lambda _: keep_best(model, tokenizer, val, run / "reinforced"), until)
    return model


def _loop(config: ReinforceConfig, photos: int) -> LoopConfig:
    steps = max(1, int(config.passes * photos / config.batch))
    return LoopConfig(
        steps,
        config.lr,
        config.seed,
        warmup=config.warmup,
        ema_decay=config.ema_decay,
        save_every=config.save_every,
        eval_every=config.eval_every,
        threads=config.threads,
    )


def captions_draw(model: Any, states: Tensor, config: ReinforceConfig) -> Tensor:
    """`draws` captions per photo from the model's own distribution: (B, draws, 1 + T) ids from the start token on."""
    model.decoder.eval()
    tokens = model.generate(
        encoder_outputs=BaseModelOutput(last_hidden_state=states),
        do_sample=True,
        top_k=0,
        num_return_sequences=config.draws,
        max_new_tokens=config.max_tokens,
    )
    model.decoder.train()
    drawn: Tensor = tokens.unflatten(0, (len(states), config.draws))
    return drawn


def _rewards(
    judge: Judge,
    tokenizer: PreTrainedTokenizerBase,
    tokens: Tensor,
    photos: Sequence[int],
    mirrored: Sequence[bool],
) -> Tensor:
    ended = (tokens == tokenizer.eos_token_id).any(-1).tolist()
    texts = tokenizer.batch_decode(tokens.flatten(0, 1), skip_special_tokens=True)
    draws = tokens.shape[1]
    return torch.tensor(
        [
            [
                judge.reward(photo, mirrored[row], texts[row * draws + draw], ended[row][draw])
                for draw in range(draws)
            ]
            for row, photo in enumerate(photos)
        ]
    )
