"""A checkpoint as training sees it: a frozen encoder whose features are cached, and a decoder that learns.

One interface over the classes that the engine serves (VisionEncoderDecoder, BLIP, GIT). The encoder is taken out and
a stand-in that hands on cached features is put in its place, so that the model's own forward pass and the engine's
own decoding run unchanged on features: what is measured is what would be served.
"""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from captioner.exceptions import IncompatibleModel
from captioner.inference.likeness.embedding import encoder_digest
from captioner.inference.loading import CaptioningModel, load_model
from captioner.inference.predictor import Predictor
from captioner.inference.types import MAX_NEW_TOKENS
from training.data.features import Features
from training.learning.objective import IGNORED

# Attention of the decoders: GPT-2's names, then those that BLIP and GIT share with BERT.
_LORA_TARGETS = {
    "vision-encoder-decoder": r".*decoder.*\.(c_attn|q_attn|c_proj|query|key|value|q_proj|k_proj|v_proj)",
    "blip": r".*text_decoder.*\.(query|key|value)",
    "git": r".*git\.encoder.*\.(query|key|value)",
}
# The widest precision that any of a base's weights is stored in is that of its descendants.
_STORED = {"F32": torch.float32, "BF16": torch.bfloat16}
_ENCODERS = {"vision-encoder-decoder": "encoder", "blip": "vision_model", "git": "git.image_encoder"}


class CachedEncoder(nn.Module):
    """Stands in for an image encoder: the "pixels" (B, 1, patches, width) it is given are its output."""

    main_input_name = "pixel_values"  # generate() asks an encoder for it

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    def forward(self, pixel_values: Tensor, **_: Any) -> BaseModelOutput:
        return BaseModelOutput(last_hidden_state=pixel_values[:, 0])


@dataclass
class FeatureCaptioner:
    """A captioner without its encoder; `parts.model` holds a `CachedEncoder` in the encoder's place."""

    parts: CaptioningModel
    encoder: nn.Module
    folder: Path
    longest: int | None = None  # tokens of a caption, where that is not what the base says

    @classmethod
    def load(cls, folder: Path) -> FeatureCaptioner:
        """The checkpoint in `folder`. Raises `IncompatibleModel`, also for a class that training does not know."""
        with torch.random.fork_rng(devices=[]):
            # transformers draws weights that a checkpoint lacks and nothing reads (poolers), and `save` writes them.
            torch.manual_seed(0)
            parts = load_model(folder)
        family = parts.model.config.model_type
        if family not in _ENCODERS:
            raise IncompatibleModel(
                f"{folder.name} is of the class {family}, which can be served but not trained. "
                f"Trained are: {', '.join(_ENCODERS)}."
            )
        owner, _, name = _ENCODERS[family].rpartition(".")
        parent = parts.model.get_submodule(owner)
        encoder = getattr(parent, name)
        setattr(parent, name, CachedEncoder(encoder.config))
        encoder.requires_grad_(False)
        return cls(parts, encoder.eval(), folder)

    @property
    def family(self) -> str:
        return str(self.parts.model.config.model_type)

    # --- From photos to features ---

    @torch.inference_mode()
    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) -> features (B, patches, width)."""
        if self.family == "vision-encoder-decoder":
            states = self.encoder(pixel_values=pixels).last_hidden_state
        else:
            states = self.encoder(pixels).last_hidden_state
        return cast(Tensor, states)

    def encode_images(self, images: Sequence[Image.Image]) -> Features:
        """RGB images -> features (images, patches, width), preprocessed as the engine does."""
        preprocess = self.predictor().preprocess
        return cast(Features, self.encode(torch.stack([preprocess(image) for image in images])).numpy())

    def encoder_digest(self) -> str:
        """A short name for what this encoder sees: the same weights and preprocessing give the same features."""
        preprocessing = json.dumps(self.parts.image_processor.to_dict(), sort_keys=True)
        return hashlib.sha256(f"{encoder_digest(self.encoder)} {preprocessing}".encode()).hexdigest()[:16]

    # --- From features to words ---

    def tokenise(self, caption: str, max_tokens: int) -> list[int]:
        """Label ids of a caption and the end-of-caption token, or as many as `max_tokens` and the decoder allow.

        A caption that is cut has no end: else the model would learn to stop in the middle of a sentence.
        """
        return self._tokens(caption)[: min(max_tokens, self.positions)]

    def is_cut(self, caption: str, max_tokens: int) -> bool:
        """Whether `tokenise` would cut the caption, which then teaches no end."""
        return len(self._tokens(caption)) > min(max_tokens, self.positions)

    @property
    def positions(self) -> int:
        """Tokens that the decoder can say."""
        config = self.parts.model.config.get_text_config(decoder=True)
        return int(getattr(config, "max_position_embeddings", MAX_NEW_TOKENS + 1)) - 1

    def length_allow(self, tokens: int) -> None:
        """Let captions be so long, if they could not be yet: who is taught longer ones is not to be cut short."""
        if tokens > self.predictor().default_parameters.max_new_tokens:
            self.longest = min(tokens, self.positions, MAX_NEW_TOKENS)
            self.parts.model.generation_config.max_new_tokens = self.longest

    def _tokens(self, caption: str) -> list[int]:
        return [*self.parts.tokenizer(caption, add_special_tokens=False).input_ids, self._end_id]

    def logits(self, features: Tensor, labels: Tensor) -> Tensor:
        """Features (B, patches, width), labels (B, T) as padded by `labels_pad` -> logits (B, T, vocabulary)."""
        model, pad = self.parts.model, self.parts.tokenizer.pad_token_id
        if self.family == "blip":
            start = model.config.text_config.bos_token_id
        else:
            name = "decoder_start_token_id" if self.family == "vision-encoder-decoder" else "bos_token_id"
            own = getattr(model.generation_config, name, None)
            start = getattr(model.config, name) if own is None else own
        known = labels[:, :-1].masked_fill(labels[:, :-1] == IGNORED, self._end_id if pad is None else pad)
        inputs = torch.cat([torch.full_like(labels[:, :1], start), known], 1)
        # Padding comes last and the decoder is causal, so that no mask is needed to keep it from what is scored.
        mask = torch.ones_like(inputs)
        if self.family == "vision-encoder-decoder":
            states = features
            if getattr(model, "enc_to_dec_proj", None) is not None:
                states = model.enc_to_dec_proj(features)
            output = model.decoder(
                input_ids=inputs, attention_mask=mask, encoder_hidden_states=states, use_cache=False
            )
        elif self.family == "blip":
            output = model.text_decoder(
                input_ids=inputs, attention_mask=mask, encoder_hidden_states=features, use_cache=False
            )
        else:
            output = model(
                input_ids=inputs, attention_mask=mask, pixel_values=features[:, None], use_cache=False
            )
        return cast(Tensor, output.logits[:, -labels.shape[1] :].float())

    def predictor(self) -> Predictor:
        """The engine's predictor over this model, in eval mode: it takes features (B, 1, patches, width) for pixels."""
        self.parts.model.eval()
        return Predictor(self.parts, self.folder.name)

    @property
    def _end_id(self) -> int:
        if self.family == "blip":
            return int(self.parts.model.config.text_config.sep_token_id)
        end = self.parts.model.generation_config.eos_token_id
        return int(end if isinstance(end, int) else end[0])

    # --- Learning ---

    def frozen_copy(self) -> FeatureCaptioner:
        """The base that learning is compared with: the same weights, which never change."""
        model = copy.deepcopy(self.parts.model).eval().requires_grad_(False)
        return FeatureCaptioner(
            CaptioningModel(model, self.parts.tokenizer, self.parts.image_processor),
            self.encoder,
            self.folder,
        )

    def parameter_count(self) -> int:
        """Parameters of all but the encoder."""
        return sum(parameter.numel() for parameter in self.parts.model.parameters())

    def adapters_add(self, rank: int) -> None:
        """Learn low-rank updates of the decoder's attention only (Hu et al. 2021); `save` merges them."""
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=_LORA_TARGETS[self.family])
        # The wrapper changes the layers in place; the model itself stays what everything else here calls.
        self._adapted = get_peft_model(self.parts.model, config)

    def adapters_merge(self) -> None:
        """Make plain weights of what adapters learned, if there are any."""
        if hasattr(self, "_adapted"):
            self._adapted.merge_and_unload()
            del self._adapted

    def save(self, folder: Path) -> None:
        """Write a complete checkpoint to `folder`: the learned weights, everything else as the base has it.

        Weights are stored in the base's precision. Adapters, if any, are merged and gone afterwards.
        """
        self.adapters_merge()
        if folder.exists():
            shutil.rmtree(folder)
        with safe_open(next(iter(sorted(self.folder.glob("*.safetensors")))), "pt") as file:
            kinds = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118  no mapping
        stored = next((dtype for kind, dtype in _STORED.items() if kind in kinds), torch.float16)
        whole = copy.deepcopy(self.parts.model)
        owner, _, name = _ENCODERS[self.family].rpartition(".")
        setattr(whole.get_submodule(owner), name, copy.deepcopy(self.encoder))
        whole.to(stored).save_pretrained(folder)
        for path in filter(Path.is_file, self.folder.iterdir()):
            if path.name in _KEPT:
                shutil.copyfile(path, folder / _KEPT[path.name])
            elif path.suffix == ".py":  # the classes that `auto_map` in config.json names
                shutil.copyfile(path, folder / path.name)
        if self.longest:
            path = folder / "generation_config.json"
            settings = json.loads(path.read_text(encoding="utf-8")) | {"max_new_tokens": self.longest}
            path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        for path in folder.glob("*.safetensors"):
            path.chmod(0o644)  # safetensors writes for its owner alone


# Files of a base that its descendants keep, and under which name: its own card speaks of the base alone.
_KEPT = {
    name: name
    for name in (
        *("config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json"),
        *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "vocab.json"),
        *("merges.txt", "added_tokens.json", "ATTRIBUTION.md", "LICENSE"),
        "likeness.json",  # of the encoder, which learning leaves as it is
    )
} | {"README.md": "BASE_README.md"}


def labels_pad(captions: Sequence[Sequence[int]]) -> Tensor:
    """Label ids of several captions -> (captions, longest), IGNORED after each one's end."""
    longest = max(map(len, captions), default=1)
    return torch.tensor([[*ids, *[IGNORED] * (longest - len(ids))] for ids in captions]).reshape(-1, longest)
