"""A folder of safetensors weights -> a captioning model in fp32 on the CPU, or `IncompatibleModel`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from captioner.exceptions import IncompatibleModel
from captioner.inference.calibration import Calibration, calibration_read
from captioner.inference.likeness.embedding import Centre, centre_read
from captioner.ops.cores import cores_bounded

PICKLED_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".h5", ".msgpack"})

# Never reach for the network, never run code that came with a checkpoint.
_LOCAL_ONLY = {"local_files_only": True, "trust_remote_code": False}


@dataclass(frozen=True, slots=True)
class CaptioningModel:
    """The parts of a checkpoint, as transformers' own objects; `model` is in eval mode."""

    model: Any
    tokenizer: Any
    image_processor: Any
    calibration: Calibration | None = None
    centre: Centre | None = None


def load_model(folder: Path) -> CaptioningModel:
    """Load an encoder-decoder captioner (BLIP, GIT, VisionEncoderDecoder, ...) saved by transformers.

    Weights are computed with in fp32 whatever precision they are stored in. Raises `IncompatibleModel` when
    the folder is incomplete or damaged, holds pickled weights only, needs code of its own, or is no
    captioner.
    """
    if not folder.is_dir():
        raise IncompatibleModel(
            f"{folder} is no folder; give a folder holding config.json and *.safetensors."
        )
    if not any(folder.glob("*.safetensors")):
        pickled = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLED_SUFFIXES)
        found = f"only pickled weights ({', '.join(pickled)})" if pickled else "no weights"
        raise IncompatibleModel(
            f"{folder.name} holds {found}; only *.safetensors is allowed, because a pickle can run code. "
            "Save the model again with transformers' save_pretrained()."
        )
    from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer
    from transformers.utils import logging

    import captioner.inference.efficientnet_lite  # noqa: F401  tells the Auto classes of the starter's encoder

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    config = _load_part("configuration (config.json)", AutoConfig.from_pretrained, folder)
    model, report = _load_part(
        "weights",
        AutoModelForImageTextToText.from_pretrained,
        folder,
        config=config,
        dtype=torch.float32,
        use_safetensors=True,
        output_loading_info=True,
    )
    # transformers fills these with random numbers. (Captions are read off the patches, never the pooler.)
    if missing := sorted(name for name in report["missing_keys"] if ".pooler." not in name):
        raise IncompatibleModel(
            f"The weights of {folder.name} are incomplete: {len(missing)} tensors are missing, "
            f"among them {', '.join(missing[:3])}."
        )
    # Held in memory of our own: they may be mapped from a file, whose truncation would end the process.
    for tensor in (*model.parameters(), *model.buffers()):  # one copy more at a time; tied weights stay one
        tensor.data = tensor.data.clone()
    if lacking := _tokenizer_lacks(folder):  # some classes would make do with an empty vocabulary
        raise IncompatibleModel(f"The tokenizer of {folder.name} cannot be loaded: {lacking}.")
    tokenizer = _load_part("tokenizer", AutoTokenizer.from_pretrained, folder)
    # Pillow's resampling is the same on every machine, whether or not torchvision is installed.
    image_processor = _load_part("image processor", AutoImageProcessor.from_pretrained, folder, backend="pil")
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise IncompatibleModel(
            f"{folder.name} has no tokenizer: save it beside the weights (tokenizer.json)."
        )
    return CaptioningModel(
        model.eval(), tokenizer, image_processor, calibration_read(folder), centre_read(folder)
    )


def thread_count() -> int:
    """Threads a model should use: the cores torch finds, bounded by a container's CPU limit."""
    # torch counts the physical cores this process may run on, or fewer if so configured.
    return cores_bounded(torch.get_num_threads())


def _tokenizer_lacks(folder: Path) -> str:
    """Which files are missing that its class reads, as a sentence; empty where none is, or nobody knows."""
    import transformers

    if (folder / "tokenizer.json").is_file():
        return ""
    try:
        name = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))["tokenizer_class"]
    except (OSError, ValueError, KeyError, TypeError):
        return "add tokenizer.json, or a tokenizer_config.json that names its tokenizer_class"
    files = getattr(getattr(transformers, str(name), None), "vocab_files_names", {}).values()
    lacking = sorted({*files} - {"tokenizer.json"} - {path.name for path in folder.iterdir()})
    return f"{name} reads {' and '.join(lacking)}, which must be added" if lacking else ""


def _load_part(part: str, from_pretrained: Any, folder: Path, **options: Any) -> Any:
    try:
        return from_pretrained(folder, **_LOCAL_ONLY, **options)
    # Broken checkpoints make the libraries raise almost anything, a bare Exception included.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise IncompatibleModel(
            f"The {part} of {folder.name} cannot be loaded: {reason.rstrip('.:')}. Allowed are captioners of "
            "a class that comes with transformers (such as BLIP, GIT and VisionEncoderDecoder), saved with "
            "their tokenizer and image processor."
        ) from error
