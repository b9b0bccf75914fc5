"""Caption photo files in this process, without a server: the yardstick of `make bench`.

Run as `python -m tests.benchmarks.speed.offline LOOP WEIGHTS MAX_NEW_TOKENS`, LOOP being `bare` or
`engine`. It first writes that it is ready, then answers the requests it reads, all as lines of
JSON: see `timed_pass` for what is asked and answered.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps

from captioner.inference.loading import load_model
from captioner.inference.predictor import Predictor
from captioner.inference.types import DecodingParameters
from captioner.intake.decode import photo_decode

CaptionBatch = Callable[[list[Path]], list[str]]


def bare_loop(weights: Path, max_new_tokens: int) -> CaptionBatch:
    """The plain way: Pillow, the checkpoint's image processor and tokenizer, greedy `generate()` in fp32."""
    parts = load_model(weights)

    def caption(paths: list[Path]) -> list[str]:
        photos = [ImageOps.exif_transpose(Image.open(path)).convert("RGB") for path in paths]
        inputs = parts.image_processor(images=photos, return_tensors="pt")
        with torch.inference_mode():
            tokens = parts.model.generate(
                **inputs, num_beams=1, do_sample=False, max_new_tokens=max_new_tokens
            )
        captions: list[str] = parts.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return captions

    return caption


def engine_loop(predictor: Predictor, max_new_tokens: int) -> CaptionBatch:
    """The service's own photo intake and engine, called in turn by one thread."""
    parameters = DecodingParameters(max_new_tokens=max_new_tokens)

    def caption(paths: list[Path]) -> list[str]:
        pixels = [predictor.preprocess(photo_decode(path.read_bytes()).image) for path in paths]
        return [best.caption for best, *_ in predictor.predict(torch.stack(pixels), parameters)]

    return caption


def timed_pass(caption: CaptionBatch, paths: list[Path], batch: int, threads: int) -> dict[str, list[Any]]:
    """The `captions` of `paths` in their order, and the `seconds` each batch took, file reading included."""
    torch.set_num_threads(threads)
    caption(paths[:batch])  # a new batch size or thread count is slower the first time
    captions: list[str] = []
    seconds: list[float] = []
    for start in range(0, len(paths), batch):
        started = time.perf_counter()
        captions += caption(paths[start : start + batch])
        seconds.append(time.perf_counter() - started)
    return {"captions": captions, "seconds": seconds}


def main(loop: str, weights: str, max_new_tokens: str) -> None:
    if loop == "bare":
        caption = bare_loop(Path(weights), int(max_new_tokens))
    else:
        caption = engine_loop(Predictor.load(Path(weights), model_version="offline"), int(max_new_tokens))
    _write({"ready": True})
    for line in sys.stdin:
        request = json.loads(line)
        paths = [Path(path) for path in request["paths"]]
        _write(timed_pass(caption, paths, request["batch"], request["threads"]))


def _write(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
