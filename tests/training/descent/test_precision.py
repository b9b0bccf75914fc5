import pytest
import torch

from training.descent.precision import bf16_is_fast


@pytest.mark.parametrize(
    ("capabilities", "fast"),
    [
        ({"avx512_bf16": True, "amx_bf16": True}, True),
        ({"avx512_bf16": True, "amx_bf16": False}, False),
        ({"avx2": True}, False),
    ],
)
def test_bf16_is_fast_with_matrix_units_alone(
    capabilities: dict[str, bool], fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert bf16_is_fast() is fast
