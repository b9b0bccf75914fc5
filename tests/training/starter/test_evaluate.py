from __future__ import annotations

from training.starter.network import Decoding


def test_greedy_decoding_has_no_length_penalty() -> None:
    assert "length_penalty" not in Decoding(num_beams=1).arguments()
    assert Decoding(num_beams=3, length_penalty=0.7).arguments()["length_penalty"] == 0.7
