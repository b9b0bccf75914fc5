"""The same service on LitServe with its dynamic batching: up to 8 photos per `generate()`, one worker.

`make bench` starts it as `python peer_litserve.py WEIGHTS PORT MAX_NEW_TOKENS`.
"""

import sys
from typing import Any

import litserve
import torch
from fastapi import Request
from PIL import Image, ImageOps
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

WEIGHTS, PORT, MAX_NEW_TOKENS = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
# Seconds to wait for a batch to fill. With 0, the default, its worker spins, on a core `generate()` needs.
BATCH_TIMEOUT = 0.01


class Captioner(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.model = AutoModelForImageTextToText.from_pretrained(WEIGHTS, dtype=torch.float32).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(WEIGHTS)
        self.image_processor = AutoImageProcessor.from_pretrained(WEIGHTS, backend="pil")

    def decode_request(self, request: Request) -> Image.Image:
        return ImageOps.exif_transpose(Image.open(request["image"].file)).convert("RGB")

    def batch(self, inputs: list[Image.Image]) -> Any:
        return self.image_processor(images=inputs, return_tensors="pt")

    def predict(self, x: Any) -> list[str]:
        with torch.inference_mode():
            tokens = self.model.generate(**x, num_beams=1, do_sample=False, max_new_tokens=MAX_NEW_TOKENS)
        return self.tokenizer.batch_decode(tokens, skip_special_tokens=True)

    def encode_response(self, output: str) -> dict[str, str]:
        return {"caption": output.strip()}


if __name__ == "__main__":
    api = Captioner(max_batch_size=8, batch_timeout=BATCH_TIMEOUT, api_path="/api/v1/captions")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=300)
    server.run(host="127.0.0.1", port=PORT, log_level="warning", generate_client_file=False)
