from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import (
    BlipImageProcessorPil,
    CLIPImageProcessorPil,
    ViTImageProcessorPil,
)

from captioner.inference.drawings import drawn_images
from captioner.inference.preprocessing import make_preprocess

PROCESSORS = {
    "vit": ViTImageProcessorPil(size={"height": 160, "width": 160}),
    "blip": BlipImageProcessorPil(),
    "not square, half range": ViTImageProcessorPil(
        size={"height": 48, "width": 64},
        rescale_factor=1 / 127.5,
        image_mean=[0.1, 0.2, 0.3],
        image_std=[1, 2, 3],
    ),
    "clip, cropped": CLIPImageProcessorPil(),
    "no normalisation": ViTImageProcessorPil(do_normalize=False),
}
SIZES = [(320, 240), (241, 640), (160, 160), (31, 3)]


def reference(processor: Any, image: Image.Image) -> torch.Tensor:
    return processor(images=image, return_tensors="pt")["pixel_values"][0]


@pytest.mark.parametrize("name", PROCESSORS)
@pytest.mark.parametrize("size", SIZES)
def test_pixels_are_those_of_the_processor_to_the_bit(name: str, size: tuple[int, int]) -> None:
    image = drawn_images(1)[0].resize(size)
    pixels = make_preprocess(PROCESSORS[name])(image)
    assert pixels.dtype == torch.float32
    assert torch.equal(pixels, reference(PROCESSORS[name], image))


@pytest.mark.parametrize(("name", "is_replaced"), [("vit", True), ("blip", True), ("clip, cropped", False)])
def test_only_plain_processors_are_replaced(
    name: str, is_replaced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    preprocess = make_preprocess(PROCESSORS[name])
    calls: list[str] = []
    processor_class = type(PROCESSORS[name])
    original = processor_class.__call__
    monkeypatch.setattr(
        processor_class, "__call__", lambda *args, **kwargs: calls.append(name) or original(*args, **kwargs)
    )
    preprocess(drawn_images(1)[0])
    assert calls == ([] if is_replaced else [name])


def test_a_processor_with_a_step_of_its_own_is_called_itself() -> None:
    class Inverting(ViTImageProcessorPil):
        def normalize(self, image: Any, mean: Any, std: Any, **kwargs: Any) -> Any:
            return -super().normalize(image, mean, std, **kwargs)

    processor, image = Inverting(), drawn_images(1)[0]
    assert torch.equal(make_preprocess(processor)(image), reference(processor, image))


@pytest.mark.parametrize("name", ["vit", "clip, cropped"])
def test_threads_do_not_disturb_each_other(name: str) -> None:
    preprocess, images = make_preprocess(PROCESSORS[name]), drawn_images(8)
    alone = [preprocess(image) for image in images]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(preprocess, images * 4))
    assert all(torch.equal(one, other) for one, other in zip(together, alone * 4, strict=True))
