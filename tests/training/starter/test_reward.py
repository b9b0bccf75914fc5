from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedTokenizerBase
from transformers.modeling_outputs import BaseModelOutput

from training.learning.objective import IGNORED
from training.starter.augment import pixels_normalise
from training.starter.caption import CaptionedPhotos
from training.starter.config import RewardConfig
from training.starter.reward import RewardBatches, SelfCritic, captions_draw, gains_of

CONFIG = RewardConfig(batch=8, draws=4, max_tokens=8, size=64, temperature=1.0)
CAPTIONS = [["a red circle on the left"], ["a blue square"]]


@pytest.fixture
def states(captioner: Any) -> Tensor:
    torch.manual_seed(0)
    captioner.eval()
    return torch.randn(40, 17, 16)


def drawn(captioner: Any, states: Tensor, temperature: float = 1.0, seed: int = 0) -> Tensor:
    return captions_draw(captioner, states, temperature, 8, torch.Generator().manual_seed(seed))


def test_the_same_seed_draws_the_same_captions_and_another_others(captioner: Any, states: Tensor) -> None:
    assert torch.equal(drawn(captioner, states), drawn(captioner, states))
    assert not torch.equal(drawn(captioner, states), drawn(captioner, states, seed=1))


def test_a_drawn_caption_is_ignored_after_its_end(captioner: Any, states: Tensor) -> None:
    end = captioner.config.eos_token_id
    with torch.no_grad():
        captioner.decoder.transformer.wte.weight[end] *= 20.0  # so that some end early
    rows = drawn(captioner, states).tolist()
    ended = [row for row in rows if end in row[:-1]]
    assert ended
    for row in rows:
        length = row.index(end) + 1 if end in row else len(row)
        assert IGNORED not in row[:length]
        assert set(row[length:]) <= {IGNORED}


def test_cold_draws_are_greedy_captions(captioner: Any, states: Tensor) -> None:
    greedy = captioner.generate(
        encoder_outputs=BaseModelOutput(last_hidden_state=states), max_new_tokens=8, do_sample=False
    )[:, 1:]
    cold = drawn(captioner, states, temperature=1e-6)
    said = cold != IGNORED
    assert torch.equal(cold[said], greedy[:, : cold.shape[1]][said])


def test_words_are_drawn_as_often_as_the_temperature_says(captioner: Any, states: Tensor) -> None:
    with torch.no_grad():
        captioner.decoder.transformer.wte.weight.mul_(20.0)  # so that chances differ
        start = torch.full((1, 1), captioner.config.decoder_start_token_id)
        logits = captioner.decoder(input_ids=start, encoder_hidden_states=states[:1]).logits[0, -1]
    firsts = captions_draw(captioner, states[:1].repeat(4000, 1, 1), 0.5, 1, torch.Generator().manual_seed(0))
    share = torch.bincount(firsts[:, 0], minlength=len(logits)) / 4000
    assert torch.allclose(share, (logits / 0.5).softmax(-1), atol=0.03)
    assert not torch.allclose(share, logits.softmax(-1), atol=0.03)


def test_captions_are_judged_by_what_people_wrote_of_the_photo(
    captioner: Any, tokenizer: PreTrainedTokenizerBase
) -> None:
    critic = SelfCritic(CAPTIONS, tokenizer, CONFIG)
    rows = tokenizer(["a red circle on the left", "a red circle", "a blue square", "a blue square"]).input_ids
    longest = max(map(len, rows))
    labels = torch.tensor([row + [IGNORED] * (longest - len(row)) for row in rows])
    scores = critic.scores(labels, torch.tensor([0, 0, 0, 1]), torch.zeros(4, dtype=torch.bool))
    assert scores[0] == pytest.approx(10.0)  # a caption of people itself: 1000 %
    assert scores[3] == pytest.approx(10.0)
    assert scores[0] > scores[1] > scores[2]


def test_a_draw_gains_what_it_is_better_than_the_others_of_its_photo() -> None:
    scores = torch.tensor([[3.0, 1.0, 2.0], [5.0, 5.0, 5.0]])
    assert gains_of(scores).tolist() == [[1.5, -1.5, 0.0], [0.0, 0.0, 0.0]]


def test_captions_of_mirrored_photos_are_judged_with_left_for_right(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    critic = SelfCritic(CAPTIONS, tokenizer, CONFIG)
    row = torch.tensor(tokenizer("a red circle on the right").input_ids)
    assert critic._words(row, True) == ("a", "red", "circle", "on", "the", "left", "</s>")
    assert critic._words(row, False)[-2] == "right"


def test_a_caption_that_was_cut_short_is_worth_less(tokenizer: PreTrainedTokenizerBase) -> None:
    critic = SelfCritic(CAPTIONS, tokenizer, CONFIG)
    row = torch.tensor(tokenizer("a blue square").input_ids)
    whole, cut = critic._words(row, False), critic._words(row[:-1], False)
    assert critic.judge.score(1, whole) > critic.judge.score(1, cut)


def test_the_loss_descends_along_the_policy_gradient(
    captioner: Any, tokenizer: PreTrainedTokenizerBase
) -> None:
    torch.manual_seed(0)
    end = captioner.config.eos_token_id
    with torch.no_grad():
        captioner.decoder.transformer.wte.weight[end] *= 20.0  # so that some end early
    config = replace(CONFIG, temperature=0.5)
    critic = SelfCritic(CAPTIONS, tokenizer, config)
    scores = torch.rand(8)

    def judged(labels: Tensor, photos: Tensor, mirrored: Tensor) -> Tensor:
        # With random weights no draw says anything: what each is worth is given.
        assert (labels == IGNORED).any()
        assert photos.tolist() == [0] * 4 + [1] * 4
        assert mirrored.tolist() == [False] * 4 + [True] * 4
        return scores

    critic.scores = judged  # type: ignore[method-assign]
    images = torch.randn(2, 3, 64, 64)
    batch = (images, torch.tensor([0, 1]), torch.tensor([False, True]), torch.tensor([5, 6]))
    weights = [
        captioner.decoder.transformer.ln_f.weight,
        captioner.decoder.transformer.wte.weight,
        next(captioner.encoder.embeddings.backbone.parameters()),
    ]
    before = {name: value.clone() for name, value in captioner.named_buffers()}
    captioner.train()
    loss = critic.loss(captioner, *batch)
    assert float(loss.detach()) == pytest.approx(-float(scores.mean()), rel=1e-5)
    ours = torch.autograd.grad(loss, weights)
    assert all(torch.equal(value, before[name]) for name, value in captioner.named_buffers())

    states = captioner.encoder(pixel_values=images).last_hidden_state.repeat_interleave(4, 0)
    labels = captions_draw(captioner, states, 0.5, 8, torch.Generator().manual_seed(5))
    inputs = captioner.prepare_decoder_input_ids_from_labels(labels)
    logits = captioner.decoder(input_ids=inputs, encoder_hidden_states=states).logits / 0.5
    log_chances = -functional.cross_entropy(
        logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none"
    )
    gains = gains_of(scores.view(2, 4)).flatten()
    value = (log_chances.sum(1) * gains).sum() / (labels != IGNORED).sum()
    for mine, theirs in zip(ours, torch.autograd.grad(-value, weights), strict=True):
        assert mine.abs().max() > 1e-6
        assert torch.allclose(mine, theirs, rtol=1e-4, atol=1e-6)


def test_what_is_drawn_follows_from_the_first_seed(
    captioner: Any, tokenizer: PreTrainedTokenizerBase
) -> None:
    critic = SelfCritic(CAPTIONS, tokenizer, CONFIG)
    seen: list[Tensor] = []
    critic.scores = lambda labels, *_: (seen.append(labels), torch.rand(8))[1]  # type: ignore[method-assign]
    images, photos, mirrored = torch.ones(2, 3, 64, 64), torch.zeros(2), torch.zeros(2)
    for seeds in ([5, 0], [5, 1], [6, 0]):
        critic.loss(captioner, images, photos, mirrored, torch.tensor(seeds))
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])


@pytest.mark.parametrize("wrong", [{"draws": 1}, {"temperature": 0.0}])
def test_settings_from_which_nothing_can_be_learned_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="judged beside at least one other"):
        RewardConfig(**wrong)


def test_every_photo_keeps_its_number_and_coco_comes_thrice() -> None:
    flickr8k, coco = (
        CaptionedPhotos(np.full((count, 64, 64, 3), value, np.uint8), [["a"]] * count)
        for count, value in ((5, 0), (2, 255))
    )
    batches = RewardBatches([flickr8k, coco], CONFIG)
    assert len(batches) == 5 + 3 * 2
    torch.manual_seed(0)
    images, numbers, mirrored, seeds = batches.at(0)
    assert images.shape == (8, 3, 64, 64)
    assert len(mirrored) == len(seeds) == 8
    bright = images.mean((1, 2, 3)) > 0
    assert torch.equal(bright, numbers >= 5)
    assert sorted(batches.visits) == [0, 1, 2, 3, 4, 5, 5, 5, 6, 6, 6]


def test_photos_are_whole_and_those_called_mirrored_are() -> None:
    photo = np.zeros((1, 64, 64, 3), np.uint8)
    photo[:, :, :10] = 255
    photos = CaptionedPhotos(photo, [["a"]])
    torch.manual_seed(0)
    images, _, mirrored, _ = RewardBatches([photos, photos], CONFIG).at(0)
    expected = pixels_normalise(torch.from_numpy(photo))[0]
    assert 0 < mirrored.sum() < 8
    for image, is_mirrored in zip(images, mirrored, strict=True):
        assert torch.equal(image, expected.flip(2) if is_mirrored else expected)
