"""Dropout that several threads can compute at once and still repeat to the last bit.

(Srivastava et al. 2014.) `nn.Dropout` draws from one generator for all threads, so who comes first would decide.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Its rate is handed on to the attention kernel, which draws by itself.
ATTENTION = "attn_dropout"


class Dropout(nn.Module):
    """While training, zeroes elements at `rate`, drawn from `generator`, and scales up the others."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.generator: torch.Generator | None = None  # torch's own, until `generator_set`

    def forward(self, inputs: Tensor) -> Tensor:
        """A tensor of the same shape."""
        if not self.training:
            return inputs
        kept = torch.empty_like(inputs).bernoulli_(1.0 - self.rate, generator=self.generator)
        return inputs * kept.div_(1.0 - self.rate)


def dropout_insert(model: nn.Module, rate: float) -> None:
    """Put a `Dropout` of `rate` wherever the model has one of torch's, but for those of attention weights."""
    for path, module in list(model.named_modules()):
        parent, _, name = path.rpartition(".")
        if isinstance(module, nn.Dropout) and name != ATTENTION:
            setattr(model.get_submodule(parent), name, Dropout(rate))


def generator_set(model: nn.Module, generator: torch.Generator) -> None:
    """Let every `Dropout` of the model draw from `generator`."""
    for module in model.modules():
        if isinstance(module, Dropout):
            module.generator = generator
