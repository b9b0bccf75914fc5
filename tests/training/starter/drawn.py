"""Photo sets drawn for the tests, laid out like the real ones: tars of image and json, contact sheets."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

from PIL import Image, ImageDraw

from tests.photos import scene_image

COLOURS = ("red", "green", "blue", "yellow")
SHAPES = ("square", "circle")


def shape_draw(size: int, colour: str, shape: str) -> Image.Image:
    image = Image.new("RGB", (size, size), "white")
    box = (size // 5, size // 5, size - size // 5, size - size // 5)
    draw = ImageDraw.Draw(image)
    (draw.rectangle if shape == "square" else draw.ellipse)(box, fill=colour)
    return image


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()


def tar_write(path: Path, files: Mapping[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def captioned_files(split: str, count: int, **record: object) -> dict[str, bytes]:
    """Photos of which none is in another split, nor its captions; `record` is what else their rows tell."""
    files = {}
    for index in range(count):
        colour, shape = COLOURS[index % 4], SHAPES[index // 4 % 2]
        captions = [f"A {colour} {shape} .", f"One {shape} that is {colour} , on the left ."]
        if split != "train":
            captions = [f"A {shape} , {colour} .", f"There is a {colour} {shape} on the left ."]
        image = scene_image((split, index), (48, 48))
        image.paste(shape_draw(16, colour, shape), (16, 16))
        files[f"{split}{index}.png"] = encoded(image)
        files[f"{split}{index}.json"] = json.dumps(record | {"captions": captions, "split": split}).encode()
    return files


def sheet_draw(tile: int, labels: list[int]) -> bytes:
    sheet = Image.new("RGB", (10 * tile, 10 * tile))
    for place, label in enumerate(labels):
        drawn = shape_draw(tile, COLOURS[label % 4], SHAPES[label // 4 % 2])
        sheet.paste(drawn, (place % 10 * tile, place // 10 * tile))
    return encoded(sheet)


def sets_write(data: Path) -> Path:
    """All sets that the starter is trained on, in miniature, under `data`."""
    tar_write(data / "flickr8k/train.tar", captioned_files("train", 12))
    tar_write(data / "flickr8k/val.tar", captioned_files("val", 8))
    tar_write(data / "coco/photos-000.tar", captioned_files("train", 4) | captioned_files("val", 4))
    tar_write(
        data / "openstax/photos-000.tar",
        captioned_files("train", 2, source="book/1.jpg", credit="(credit: A. Uthor)"),
    )
    written = [{"image": f"{number}.jpg", "captions": [f"A pizza for {number} ."]} for number in range(25)]
    (data / "text").mkdir()
    (data / "text/coco_captions.jsonl").write_text("\n".join(json.dumps(line) for line in written))
    labels = {"train-0000": [i % 8 for i in range(100)], "val-0000": [i % 8 for i in range(20)]}
    for split in ("train", "val"):
        name = f"{split}-0000"
        tar_write(data / f"tiny_imagenet/{split}.tar", {f"{name}.png": sheet_draw(16, labels[name])})
    (data / "tiny_imagenet/labels.json").write_text(json.dumps(labels))
    (data / "tiny_imagenet/classes.json").write_text(json.dumps([f"class {i}" for i in range(8)]))
    tar_write(data / "labelled/sheets.tar", {"sheet-0000.png": sheet_draw(24, [1, 2, 3])})
    (data / "labelled/labels.json").write_text(json.dumps({"sheet-0000": ["a/pizza", "a/y", "b/pizza"]}))
    return data
