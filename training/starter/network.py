"""The starter's networks, all of transformers classes, so that the exported folder loads without our code.

With them their vocabulary, their loss, and how they caption photos as the service would.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    DPTConfig,
    DPTModel,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    ResNetConfig,
    ResNetModel,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTImageProcessorPil,
)

from captioner.inference import efficientnet_lite
from captioner.inference.efficientnet_lite import CaptionerConfig, CaptionerModel, EfficientNetLiteConfig
from captioner.inference.loading import CaptioningModel
from captioner.inference.predictor import Predictor
from training.data.pixels import Pixels
from training.judging.captioning import candidates_find
from training.learning.objective import IGNORED
from training.starter.augment import pixels_normalise
from training.starter.config import PIXEL_MEAN, PIXEL_STD, DecoderConfig, EncoderConfig

POSITIONS = "encoder.embeddings.position_embeddings"
STEM_STRIDE = 4  # of a ResNet; every stage but the first halves the map once more


def stride_of(config: EncoderConfig) -> int:
    """Pixels per side of one place of the encoder's last feature map."""
    return STEM_STRIDE << (len(config.depths) - 1)


def resnet_config(config: EncoderConfig) -> ResNetConfig:
    """The convolutional part; its last three stages are what a DPT encoder asks of a backbone."""
    stages = len(config.depths)
    return ResNetConfig(
        embedding_size=config.hidden_sizes[0],
        hidden_sizes=list(config.hidden_sizes),
        depths=list(config.depths),
        layer_type="basic",
        out_features=[f"stage{stage}" for stage in range(stages - 2, stages + 1)],
    )


def resnet_build(config: EncoderConfig) -> ResNetModel:
    """A residual network (He et al. 2015), untrained: (B, 3, H, W) -> (B, hidden_sizes[-1], H/stride, W/stride)."""
    return ResNetModel(resnet_config(config))


def encoder_build(resnet: ResNetModel, config: EncoderConfig, size: int) -> DPTModel:
    """The captioner's encoder: convolution, then global attention over one token per place of its map.

    A DPT in its hybrid form, since VisionEncoderDecoderModel wants tokens and a bare ResNet gives a grid. (B,
    3, size, size) -> last_hidden_state (B, 1 + (size / stride)^2, hidden_sizes[-1]). The projection in between
    starts as identity.
    """
    width, stride = config.hidden_sizes[-1], stride_of(config)
    encoder = DPTModel(
        DPTConfig(
            is_hybrid=True,
            backbone_config=resnet_config(config),
            backbone_featmap_shape=[1, width, size // stride, size // stride],
            image_size=size,
            patch_size=stride,
            hidden_size=width,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            intermediate_size=2 * width,
            backbone_out_indices=[],
            layer_norm_eps=1e-5,
        )
    )
    backbone = encoder.embeddings.backbone
    backbone.embedder.load_state_dict(resnet.embedder.state_dict())
    backbone.encoder.load_state_dict(resnet.encoder.state_dict())
    nn.init.dirac_(encoder.embeddings.projection.weight)
    return encoder


def captioner_resize(model: Any, scale: float) -> Any:
    """A copy of a captioner of `captioner_build` for photos `scale` times as large.

    Its encoder's map has the nearest whole number of positions per side; its position embeddings are interpolated.
    """
    if scale == 1.0:
        return copy.deepcopy(model)
    config = VisionEncoderDecoderConfig.from_dict(model.config.to_dict())
    _, width, side, _ = config.encoder.backbone_featmap_shape
    wanted = round(side * scale)
    config.encoder.image_size = config.encoder.patch_size * wanted
    config.encoder.backbone_featmap_shape = [1, width, wanted, wanted]
    weights = model.state_dict()
    first, grid = weights[POSITIONS][:, :1], weights[POSITIONS][:, 1:]  # the class token's, then row by row
    grid = grid.reshape(1, side, side, width).permute(0, 3, 1, 2)
    grid = functional.interpolate(grid, (wanted, wanted), mode="bicubic").permute(0, 2, 3, 1)
    weights[POSITIONS] = torch.cat([first, grid.reshape(1, -1, width)], 1)
    resized = VisionEncoderDecoderModel(config)
    resized.load_state_dict(weights)
    resized.generation_config = copy.deepcopy(model.generation_config)
    return resized


class Classifier(nn.Module):
    """Encoder with one linear head over mean-pooled features: (B, 3, H, W) -> logits (B, labels)."""

    def __init__(self, encoder: ResNetModel, width: int, labels: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(width, labels)

    def forward(self, images: Tensor) -> Tensor:
        features = self.encoder(pixel_values=images).last_hidden_state
        logits: Tensor = self.head(features.mean((2, 3)))
        return logits


def captioner_build(encoder: DPTModel, config: DecoderConfig, tokenizer: PreTrainedTokenizerBase) -> Any:
    """A VisionEncoderDecoderModel: the encoder and a GPT-2 decoder of random weights with cross-attention."""
    decoder = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=config.positions,
            n_embd=config.width,
            n_layer=config.layers,
            n_head=config.heads,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            is_decoder=True,
            add_cross_attention=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model = VisionEncoderDecoderModel(encoder=encoder, decoder=decoder)
    model.config.decoder_start_token_id = tokenizer.bos_token_id
    model.config.eos_token_id = tokenizer.eos_token_id
    model.config.pad_token_id = tokenizer.pad_token_id
    model.generation_config = GenerationConfig(
        decoder_start_token_id=tokenizer.bos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        max_new_tokens=24,
    )
    return model


PAD, BOS, EOS = "<pad>", "<s>", "</s>"


def tokenizer_train(captions: Iterable[str], vocabulary: int, max_length: int) -> PreTrainedTokenizerFast:
    """Learn at most `vocabulary` tokens. Encoding ends with EOS; decoding gives plain text back."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {EOS}", special_tokens=[(EOS, tokenizer.token_to_id(EOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )


def photos_encode(model: Any, images: Tensor) -> Tensor:
    """What the decoder of a VisionEncoderDecoderModel sees of images (B, 3, H, W): (B, places, width)."""
    tokens: Tensor = model.encoder(pixel_values=images).last_hidden_state
    if hasattr(model, "enc_to_dec_proj"):  # exists where encoder and decoder differ in width
        tokens = model.enc_to_dec_proj(tokens)
    return tokens


def words_predict(model: Any, tokens: Tensor, labels: Tensor) -> Tensor:
    """Logits (real tokens, vocabulary) of the captions `labels` (N, T), row by row, each told the tokens before.

    `tokens` (N, places, width) of `photos_encode`, one row per caption.
    """
    hidden = model.decoder.transformer(
        input_ids=model.prepare_decoder_input_ids_from_labels(labels),
        encoder_hidden_states=tokens,
        use_cache=False,
    ).last_hidden_state
    logits: Tensor = model.decoder.lm_head(hidden[labels != IGNORED])
    return logits


def caption_loss(model: Any, images: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
    """Mean cross-entropy per token of a VisionEncoderDecoderModel with a GPT-2 decoder.

    `images` (B, 3, H, W); `labels` (B, K, T) token ids of up to K captions each, IGNORED after their end. The photo
    is encoded once for its captions, and only real tokens reach the vocabulary projection.
    """
    tokens = photos_encode(model, images)
    photos, captions = (labels != IGNORED).any(2).nonzero(as_tuple=True)
    tokens, labels = tokens.index_select(0, photos), labels[photos, captions]
    logits = words_predict(model, tokens, labels)
    return functional.cross_entropy(logits, labels[labels != IGNORED], label_smoothing=label_smoothing)


BICUBIC = 3


@dataclass(frozen=True)
class Decoding:
    """Arguments of `generate()` that are chosen on validation photos and shipped as the defaults."""

    num_beams: int = 1
    no_repeat_ngram_size: int = 3
    length_penalty: float = 1.0
    max_new_tokens: int = 24

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments for `generate()`; the length penalty means nothing to greedy decoding."""
        arguments = asdict(self)
        if self.num_beams == 1:
            del arguments["length_penalty"]
        return arguments


def image_processor(size: int) -> ViTImageProcessorPil:
    """The image processor of photos squashed to `size` pixels a side."""
    return ViTImageProcessorPil(
        size={"height": size, "width": size},
        resample=BICUBIC,
        image_mean=[PIXEL_MEAN] * 3,
        image_std=[PIXEL_STD] * 3,
    )


def pixels_inputs(pixels: Pixels) -> Iterator[Tensor]:
    """What the encoder takes of each photo (size, size, 3), uint8: (3, size, size), standardised."""
    return (pixels_normalise(torch.from_numpy(photo[None].copy()))[0] for photo in pixels)


def inputs_caption(
    model: Any, tokenizer: PreTrainedTokenizerBase, inputs: Iterable[Tensor], decoding: Decoding
) -> list[str]:
    """Returns one caption per input of the encoder by the engine; `model` is in eval mode."""
    searched = copy.copy(model)  # the same weights, with a decoding of its own
    searched.generation_config = copy.deepcopy(model.generation_config)
    searched.generation_config.update(**decoding.arguments())
    parts = CaptioningModel(searched, tokenizer, image_processor(model.config.encoder.image_size))
    return [best.caption for best, *_ in candidates_find(Predictor(parts, "starter"), inputs)]


def folder_write(model: Any, tokenizer: PreTrainedTokenizerBase, decoding: Decoding, output: Path) -> None:
    """Save what the transformers Auto classes load, weights in half precision."""
    for name, value in decoding.arguments().items():
        setattr(model.generation_config, name, value)
    model.half().save_pretrained(output)
    (output / "model.safetensors").chmod(0o644)  # safetensors writes for its owner alone
    _load_in_single_precision(output / "config.json")
    code_carry(output)
    tokenizer.save_pretrained(output)
    image_processor(model.config.encoder.image_size).save_pretrained(output)


def _load_in_single_precision(config: Path) -> None:
    # from_pretrained follows the dtype written here, and half precision is slow and inexact on a CPU.
    config.write_text(config.read_text().replace('"dtype": "float16"', '"dtype": "float32"'))


def code_carry(folder: Path) -> None:
    """Let plain transformers load the captioner in `folder`, if it is told to trust the code there.

    Does nothing where all classes are its own. The service runs its own code and never what lies in a folder.
    """
    config = json.loads((folder / "config.json").read_text())
    if config["encoder"]["model_type"] != EfficientNetLiteConfig.model_type:
        return
    code = Path(efficientnet_lite.__file__)
    shutil.copyfile(code, folder / code.name)
    classes = {"AutoConfig": CaptionerConfig, "AutoModelForImageTextToText": CaptionerModel}
    config["auto_map"] = {auto: f"{code.stem}.{own.__name__}" for auto, own in classes.items()}
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
