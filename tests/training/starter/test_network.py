from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from training.starter.network import POSITIONS, captioner_resize


@pytest.fixture
def captioner(captioner: Any) -> Any:
    """One that has learned something of positions."""
    torch.nn.init.normal_(captioner.get_parameter(POSITIONS))
    return captioner.eval()


def states(model: Any, side: int) -> Tensor:
    torch.manual_seed(0)
    with torch.inference_mode():
        found: Tensor = model.encoder(pixel_values=torch.randn(1, 3, side, side)).last_hidden_state
    return found


def test_a_captioner_of_its_own_size_is_the_same(captioner: Any) -> None:
    same = captioner_resize(captioner, 1.1).eval()  # of four places per side the nearest whole number is four
    assert same.config.encoder.image_size == 64
    torch.testing.assert_close(states(same, 64), states(captioner, 64))
    weights = same.state_dict()
    assert weights.keys() == captioner.state_dict().keys()
    assert all(torch.equal(weights[name], value) for name, value in captioner.state_dict().items())


def test_a_larger_one_looks_at_more_places_and_keeps_what_it_knows_of_them(captioner: Any) -> None:
    by_column = torch.arange(4.0).repeat(4)
    captioner.get_parameter(POSITIONS).data[:, 1:] = by_column[None, :, None]
    larger = captioner_resize(captioner, 2.0).eval()
    assert (captioner.config.encoder.image_size, larger.config.encoder.image_size) == (64, 128)
    assert states(larger, 128).shape == (1, 1 + 8 * 8, 16)
    positions = larger.get_parameter(POSITIONS)[0]
    torch.testing.assert_close(positions[0], captioner.get_parameter(POSITIONS)[0, 0])
    columns = positions[1:].reshape(8, 8, 16)
    torch.testing.assert_close(columns, columns[:1, :, :1].expand(8, 8, 16))
    assert columns[0, :, 0].diff().min() > 0
    assert (
        larger.generation_config.decoder_start_token_id == captioner.generation_config.decoder_start_token_id
    )
