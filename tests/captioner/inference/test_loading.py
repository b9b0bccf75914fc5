import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel

from captioner.exceptions import IncompatibleModel
from captioner.inference import loading
from captioner.inference.loading import load_model
from captioner.inference.predictor import Predictor
from captioner.ops import cores
from tests.captioner.inference.checkpoints import SAVERS
from tests.captioner.inference.conftest import load

Copied = Callable[[str], Path]


@pytest.mark.parametrize("family", SAVERS)
def test_every_family_loads_in_fp32_and_eval_mode(family: str, checkpoints: dict[str, Path]) -> None:
    model = load_model(checkpoints[family]).model
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not model.training


def test_the_starter_is_stored_in_half_precision(checkpoints: dict[str, Path]) -> None:
    stored = load_file(checkpoints["focalnet_gpt2"] / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}


def test_pickled_weights_are_refused_by_name(copied: Copied) -> None:
    folder = copied("vit_gpt2")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(IncompatibleModel, match=r"pytorch_model\.bin.*only \*\.safetensors is allowed"):
        load_model(folder)


def test_a_pickle_beside_safetensors_is_never_opened(copied: Copied) -> None:
    folder = copied("vit_gpt2")
    (folder / "pytorch_model.bin").write_bytes(b"no pickle at all")
    assert load_model(folder).model is not None


def test_code_in_the_folder_is_never_run(copied: Copied, tmp_path: Path) -> None:
    folder, marker = copied("vit_gpt2"), tmp_path / "code was run"
    plant_code(folder, marker)
    assert load_model(folder).model.config.model_type == "vision-encoder-decoder"
    assert not marker.exists()


def test_a_model_that_needs_code_of_its_own_is_refused(copied: Copied, tmp_path: Path) -> None:
    folder, marker = copied("vit_gpt2"), tmp_path / "code was run"
    plant_code(folder, marker)
    edit_json(folder / "config.json", model_type="its_own", architectures=["ItsOwn"])
    with pytest.raises(
        IncompatibleModel, match="Allowed are captioners of a class that comes with transformers"
    ):
        load_model(folder)
    assert not marker.exists()


def test_a_model_that_is_no_captioner_is_refused(tmp_path: Path) -> None:
    config = BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=9
    )
    BertModel(config).save_pretrained(tmp_path)
    with pytest.raises(IncompatibleModel, match="BertConfig"):
        load_model(tmp_path)


@pytest.mark.parametrize("family", SAVERS)
@pytest.mark.parametrize(
    ("part", "files"),
    [
        ("tokenizer", ["tokenizer.json", "tokenizer_config.json"]),
        ("image processor", ["preprocessor_config.json"]),
    ],
)
def test_a_missing_part_is_named(family: str, part: str, files: list[str], copied: Copied) -> None:
    folder = copied(family)
    for name in files:
        (folder / name).unlink()
    with pytest.raises(IncompatibleModel, match=part):
        load_model(folder)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IncompatibleModel, match="nowhere is no folder"):
        load_model(tmp_path / "nowhere")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IncompatibleModel, match="holds no weights"):
        load_model(tmp_path)


def test_missing_tensors_are_not_made_up(copied: Copied) -> None:
    folder = copied("vit_gpt2")
    edit_weights(folder, lambda weights: weights.pop("decoder.transformer.ln_f.weight"))
    with pytest.raises(
        IncompatibleModel, match=r"1 tensors are missing, among them decoder\.transformer\.ln_f"
    ):
        load_model(folder)


def test_a_truncated_file_is_refused(copied: Copied) -> None:
    weights = copied("blip") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(IncompatibleModel, match="weights of blip cannot be loaded"):
        load_model(weights.parent)


def test_weights_without_finite_numbers_are_refused(copied: Copied) -> None:
    folder = copied("focalnet_gpt2")
    edit_weights(folder, lambda weights: weights["enc_to_dec_proj.weight"].fill_(torch.nan))
    with pytest.raises(IncompatibleModel, match="no finite numbers"):
        load(folder)


def test_a_model_that_cannot_caption_from_pixels_alone_is_refused(copied: Copied) -> None:
    folder = copied("vit_gpt2")
    edit_json(folder / "preprocessor_config.json", size={"height": 48, "width": 48})
    with pytest.raises(IncompatibleModel, match="cannot caption a photo from its pixels alone"):
        load(folder)


def test_loading_says_nothing_on_the_console(
    checkpoints: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    load_model(checkpoints["focalnet_gpt2"])
    assert capfd.readouterr() == ("", "")


def test_the_number_of_threads_is_set(checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    for num_threads in (3, None):
        Predictor.load(checkpoints["git"], model_version="", num_threads=num_threads)
    assert asked == [3, loading.thread_count()]


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("max 100000", 4), ("250000 100000", 2), ("50000 100000", 1), ("900000 100000", 4)],
)
def test_a_containers_cpu_limit_bounds_the_threads(
    limit: str, expected: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "cpu.max").write_text(limit)
    monkeypatch.setattr(cores, "_CGROUP_CPU_LIMIT", tmp_path / "cpu.max")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert loading.thread_count() == expected


def plant_code(folder: Path, marker: Path) -> None:
    (folder / "planted.py").write_text(f"open({str(marker)!r}, 'w').close()\nclass Planted: pass\n")
    names = {"config.json": ["AutoConfig", "AutoModelForImageTextToText"]}
    names |= {"preprocessor_config.json": ["AutoImageProcessor"], "tokenizer_config.json": ["AutoTokenizer"]}
    for file, classes in names.items():
        reference = dict.fromkeys(classes, "planted.Planted")
        edit_json(folder / file, auto_map=reference)


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_weights(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


_TRUNCATED = """
import os, sys
from pathlib import Path
from captioner.inference.predictor import Predictor
from captioner.inference.drawings import drawn_images
folder = Path(sys.argv[1])
predictor = Predictor.load(folder, model_version="tiny", num_threads=1)
os.truncate(folder / "model.safetensors", 0)
pixels = predictor.preprocess(drawn_images(1)[0])
predictor.predict(pixels[None], predictor.default_parameters)
"""


@pytest.mark.parametrize("family", ["blip", "vit_gpt2"])
def test_a_file_that_is_truncated_after_loading_harms_nobody(copied: Copied, family: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _TRUNCATED, str(copied(family))], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
