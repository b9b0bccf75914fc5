"""Tiny random checkpoints of each captioner family, saved as transformers saves real ones."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessorPil,
    CLIPImageProcessorPil,
    FocalNetConfig,
    FocalNetModel,
    GitConfig,
    GitForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    VisionEncoderDecoderModel,
    ViTConfig,
    ViTImageProcessorPil,
    ViTModel,
)

IMAGE_SIZE = 32
SENTENCES = (
    "a small brown dog runs across the green field",
    "two people are walking along the beach at sunset",
    "a red car parked in front of a tall white building",
    "the children play with a yellow ball, laughing and jumping",
)


def save_blip(folder: Path) -> None:
    tokenizer = _wordpiece_tokenizer()
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "encoder_hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 80,
        "bos_token_id": tokenizer.cls_token_id,
        "sep_token_id": tokenizer.sep_token_id,
        "eos_token_id": tokenizer.sep_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = BlipConfig(text_config=text, vision_config=_vision(), projection_dim=32)
    processor = BlipImageProcessorPil(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE})
    _save(folder, BlipForConditionalGeneration(config), tokenizer, processor)


def save_git(folder: Path) -> None:
    tokenizer = _wordpiece_tokenizer()
    config = GitConfig(
        vision_config=_vision(),
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=80,
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": IMAGE_SIZE}, crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    )
    _save(folder, GitForCausalLM(config), tokenizer, processor)


def save_vit_gpt2(folder: Path, **generation: Any) -> None:
    encoder = ViTModel(ViTConfig(**_vision()), add_pooling_layer=False)
    _save_encoder_decoder(folder, encoder, torch.float32, generation)


def save_focalnet_gpt2(folder: Path, **generation: Any) -> None:
    """Like the bundled starter: stored in half precision, encoder and decoder of different widths."""
    # FocalNetConfig has no hidden_size, which VisionEncoderDecoderModel asks for.
    config = FocalNetConfig(
        image_size=IMAGE_SIZE,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        focal_levels=[1] * 4,
        focal_windows=[3] * 4,
        hidden_size=64,
    )
    _save_encoder_decoder(folder, FocalNetModel(config), torch.float16, generation)


SAVERS: dict[str, Callable[[Path], None]] = {
    "blip": save_blip,
    "git": save_git,
    "vit_gpt2": save_vit_gpt2,
    "focalnet_gpt2": save_focalnet_gpt2,
}


def _save_encoder_decoder(folder: Path, encoder: Any, dtype: torch.dtype, generation: dict[str, Any]) -> None:
    tokenizer = _byte_level_tokenizer()
    decoder = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=80,
            n_embd=32,
            n_layer=2,
            n_head=2,
            add_cross_attention=True,
            is_decoder=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model = VisionEncoderDecoderModel(encoder=encoder, decoder=decoder)
    model.generation_config.update(
        decoder_start_token_id=tokenizer.bos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **generation,
    )
    processor = ViTImageProcessorPil(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE})
    _save(folder, model, tokenizer, processor, dtype)


def _save(
    folder: Path, model: Any, tokenizer: Any, processor: Any, dtype: torch.dtype = torch.float32
) -> None:
    # Trained models differ between photos; random ones as initialised hardly do.
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    model.to(dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    processor.save_pretrained(folder)


def _vision() -> dict[str, Any]:
    return {
        "image_size": IMAGE_SIZE,
        "patch_size": 16,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }


def _byte_level_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "</s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


def _wordpiece_tokenizer() -> BertTokenizer:
    # Written out, because training a WordPiece vocabulary numbers its entries differently every time.
    words = sorted({word for sentence in SENTENCES for word in sentence.replace(",", "").split()})
    letters = sorted({letter for word in words for letter in word})
    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        ",",
        *words,
        *(f"##{letter}" for letter in letters),
    ]
    return BertTokenizer(vocab={piece: number for number, piece in enumerate(pieces)})
