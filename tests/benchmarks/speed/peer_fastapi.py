"""The service most people would write first: FastAPI, a `def` endpoint, `generate()`, default threads.

`make bench` starts it as `python peer_fastapi.py WEIGHTS PORT MAX_NEW_TOKENS`.
"""

import sys
from typing import Annotated

import torch
import uvicorn
from fastapi import FastAPI, File, UploadFile
from PIL import Image, ImageOps
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

WEIGHTS, PORT, MAX_NEW_TOKENS = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

model = AutoModelForImageTextToText.from_pretrained(WEIGHTS, dtype=torch.float32).eval()
tokenizer = AutoTokenizer.from_pretrained(WEIGHTS)
image_processor = AutoImageProcessor.from_pretrained(WEIGHTS, backend="pil")
app = FastAPI()


@app.post("/api/v1/captions")
def create_caption(image: Annotated[UploadFile, File()]) -> dict[str, str]:
    picture = ImageOps.exif_transpose(Image.open(image.file)).convert("RGB")
    inputs = image_processor(images=picture, return_tensors="pt")
    with torch.inference_mode():
        tokens = model.generate(**inputs, num_beams=1, do_sample=False, max_new_tokens=MAX_NEW_TOKENS)
    return {"caption": tokenizer.decode(tokens[0], skip_special_tokens=True).strip()}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=PORT, log_level="warning")
