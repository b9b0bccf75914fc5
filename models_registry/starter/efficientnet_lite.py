"""EfficientNet-Lite as a captioner's encoder: its feature maps, then global attention over their places.

The convolutional part is that of Tan and Le 2019 (arXiv:1905.11946) in its "lite" form: ReLU6, no
squeeze-and-excitation, stem and head as wide for all sizes. transformers has no such class, and maps
(B, C, H, W) are not what a `VisionEncoderDecoderModel` takes.

This file needs torch and transformers and nothing else, because an exported folder carries a copy of it: there plain
transformers loads the captioner if told to trust the folder's code. The service never runs that copy, but this file.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoModel,
    PreTrainedConfig,
    PreTrainedModel,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
)
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput

STRIDE = 32  # pixels per side of one place of the last map


class EfficientNetLiteConfig(PreTrainedConfig):  # type: ignore[misc]
    """The defaults are those of Lite2: a stage has so many `depths` blocks, the first of them with its stride.

    `hidden_size` is the width of the places that come out, `num_hidden_layers` how often they look at each other.
    """

    model_type = "efficientnet_lite"

    image_size: int = 256
    stem: int = 32
    widths: list[int] | tuple[int, ...] = (16, 24, 48, 88, 120, 208, 352)
    depths: list[int] | tuple[int, ...] = (1, 3, 3, 4, 4, 5, 1)
    kernels: list[int] | tuple[int, ...] = (3, 3, 5, 3, 5, 5, 3)
    strides: list[int] | tuple[int, ...] = (1, 2, 2, 2, 1, 2, 1)
    expansions: list[int] | tuple[int, ...] = (1, 6, 6, 6, 6, 6, 6)
    head: int = 1280
    hidden_size: int = 256
    num_hidden_layers: int = 2
    num_attention_heads: int = 4
    initializer_range: float = 0.02


class Convolution(nn.Module):
    """Convolution padded as TensorFlow's "same", the odd pixel at the end; batch normalisation is folded into it."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, kernel, stride, groups=groups)
        self.kernel, self.stride = kernel, stride

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, ceil(H / stride), ceil(W / stride))."""
        (top, bottom), (left, right) = (self._padding(side) for side in inputs.shape[2:])
        if top == bottom and left == right:
            self.convolution.padding = (top, left)
        else:
            self.convolution.padding = (0, 0)
            inputs = functional.pad(inputs, (left, right, top, bottom))
        outputs: Tensor = self.convolution(inputs)
        return outputs

    def _padding(self, side: int) -> tuple[int, int]:
        missing = max(0, (math.ceil(side / self.stride) - 1) * self.stride + self.kernel - side)
        return missing // 2, missing - missing // 2


class InvertedResidual(nn.Module):
    """Widens, looks around within each channel, narrows (Sandler et al. 2018); added to its input where it can be."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.expand = Convolution(inputs, inner) if expansion > 1 else None
        self.depthwise = Convolution(inner, inner, kernel, stride, groups=inner)
        self.project = Convolution(inner, outputs)
        self.is_residual = stride == 1 and inputs == outputs

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        hidden = inputs if self.expand is None else functional.relu6(self.expand(inputs))
        narrowed: Tensor = self.project(functional.relu6(self.depthwise(hidden)))
        return inputs + narrowed if self.is_residual else narrowed


class Backbone(nn.Module):
    """The convolutional part: its last map, and beside each place the 2x2 places of the finer map before it."""

    def __init__(self, config: EfficientNetLiteConfig) -> None:
        super().__init__()
        self.stem = Convolution(3, config.stem, 3, 2)
        self.blocks = nn.ModuleList()
        inputs = config.stem
        for width, depth, kernel, stride, expansion in zip(
            config.widths, config.depths, config.kernels, config.strides, config.expansions, strict=True
        ):
            for number in range(depth):
                first = stride if number == 0 else 1
                self.blocks.append(InvertedResidual(inputs, width, kernel, first, expansion))
                inputs = width
        # The last stride lies at the start of a stage; the map before it is twice as fine.
        self.fine_stage = max(i for i, stride in enumerate(config.strides) if stride == 2) - 1
        self.fine_block = sum(config.depths[: self.fine_stage + 1]) - 1

    def forward(self, pixels: Tensor) -> Tensor:
        """Standardised photos (B, 3, H, W) -> (B, widths[-1] + 4 * fine width, H / 32, W / 32)."""
        hidden = functional.relu6(self.stem(pixels))
        fine = hidden
        for number, block in enumerate(self.blocks):
            hidden = block(hidden)
            if number == self.fine_block:
                fine = hidden
        return torch.cat([hidden, functional.pixel_unshuffle(fine, 2)], 1)


class PlacesLayer(nn.Module):
    """A transformer layer, normalised before each part: every place looks at every other."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.normalise_attention = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.normalise_inner = nn.LayerNorm(width)
        self.inner = nn.Linear(width, 2 * width)
        self.inner_out = nn.Linear(2 * width, width)
        self.dropout = nn.Dropout(0.0)

    def forward(self, places: Tensor) -> Tensor:
        """(B, places, width) -> the same shape."""
        batch, count, width = places.shape
        projected = self.query_key_value(self.normalise_attention(places))
        projected = projected.view(batch, count, 3, self.heads, width // self.heads)
        query, key, value = projected.permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(query, key, value)
        attended = attended.transpose(1, 2).reshape(batch, count, width)
        places = places + self.dropout(self.attention_out(attended))
        inner = functional.gelu(self.inner(self.normalise_inner(places)))
        told: Tensor = places + self.dropout(self.inner_out(inner))
        return told


class EfficientNetLiteModel(PreTrainedModel):  # type: ignore[misc]
    """Photos -> places that the words of a caption can look at; the first place is the photo as a whole."""

    config_class = EfficientNetLiteConfig
    base_model_prefix = "efficientnet_lite"
    main_input_name = "pixel_values"

    def __init__(self, config: EfficientNetLiteConfig) -> None:
        super().__init__(config)
        width = config.hidden_size
        self.backbone = Backbone(config)
        self.coarse = config.widths[-1]
        fine = 4 * config.widths[self.backbone.fine_stage]
        # What the network was made to classify from: part of its weights, applied to each place by itself.
        self.head = Convolution(self.coarse, config.head)
        self.normalise_head = nn.LayerNorm(config.head)
        self.normalise_fine = nn.LayerNorm(fine)
        self.from_head = nn.Linear(config.head, width)
        self.from_whole = nn.Linear(config.head, width)
        self.from_fine = nn.Linear(fine, width)
        side = config.image_size // STRIDE
        self.positions = nn.Parameter(torch.zeros(1, width, side, side))
        self.dropout = nn.Dropout(0.0)
        self.layers = nn.ModuleList(
            PlacesLayer(width, config.num_attention_heads) for _ in range(config.num_hidden_layers)
        )
        self.normalise = nn.LayerNorm(width)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, EfficientNetLiteModel):
            init.normal_(module.positions, std=self.config.initializer_range)

    def forward(self, pixel_values: Tensor, **_: Any) -> BaseModelOutput:
        """Standardised photos (B, 3, H, W) -> last_hidden_state (B, 1 + H / 32 * W / 32, hidden_size).

        H and W are multiples of 32; where they are not `image_size`, positions are interpolated.
        """
        return BaseModelOutput(last_hidden_state=self.places(self.backbone(pixel_values)))

    def places(self, maps: Tensor) -> Tensor:
        """Maps of the backbone (B, channels, h, w) -> (B, 1 + h * w, hidden_size)."""
        seen = functional.relu6(self.head(maps[:, : self.coarse])).flatten(2).transpose(1, 2)
        fine = maps[:, self.coarse :].flatten(2).transpose(1, 2)
        each = self.from_head(self.normalise_head(seen)) + self.from_fine(self.normalise_fine(fine))
        positions: Tensor = self.positions
        if positions.shape[2:] != maps.shape[2:]:
            positions = functional.interpolate(positions, maps.shape[2:], mode="bicubic")
        each = each + positions.flatten(2).transpose(1, 2)
        whole = self.from_whole(self.normalise_head(seen.mean(1, keepdim=True)))
        places = self.dropout(torch.cat([whole, each], 1))
        for layer in self.layers:
            places = layer(places)
        normalised: Tensor = self.normalise(places)
        return normalised


class CaptionerConfig(VisionEncoderDecoderConfig):  # type: ignore[misc]
    """What plain transformers makes of an exported folder's config.json, once this file told it of the encoder."""


class CaptionerModel(VisionEncoderDecoderModel):  # type: ignore[misc]
    """`VisionEncoderDecoderModel` under a name of this file."""

    config_class = CaptionerConfig


AutoConfig.register(EfficientNetLiteConfig.model_type, EfficientNetLiteConfig, exist_ok=True)
AutoModel.register(EfficientNetLiteConfig, EfficientNetLiteModel, exist_ok=True)
