"""One loaded version of the weights: images in, captions with probabilities out."""

import logging
import math
import threading
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from captioner.exceptions import IncompatibleModel
from captioner.inference.decoding import Decoder, Sequence
from captioner.inference.drawings import drawn_images
from captioner.inference.likeness.embedding import Embedder
from captioner.inference.loading import CaptioningModel, load_model, thread_count
from captioner.inference.preprocessing import make_preprocess
from captioner.inference.types import (
    MAX_NEW_TOKENS,
    MAX_NUM_BEAMS,
    Candidate,
    DecodingParameters,
    Gaze,
    NextWords,
    Seen,
)
from captioner.inference.words import gaze, merge_tokens

logger = logging.getLogger(__name__)

_DRAWINGS = 8  # whose mean stands in for that of photos


class Predictor:
    """Captions batches of photos. All methods may be called from any thread; `look` does one batch at a time.

    `preprocess` turns an RGB `PIL.Image` into float32 pixels of shape (3, height, width).
    """

    def __init__(self, parts: CaptioningModel, model_version: str, *, remembers: bool = True) -> None:
        self.model_version = model_version
        self._remembers = remembers  # whether anybody asks what `look` sees beside the captions
        self.preprocess = make_preprocess(parts.image_processor)
        self._parts = parts
        self._decode = Decoder(parts.model)
        self._embedder = Embedder(parts.model, parts.centre, self._drawings_look)
        # The decoder's caches are for one batch at a time, and a version may pass from one thread to another.
        self._decoding = threading.Lock()

    @classmethod
    def load(
        cls, folder: Path, *, model_version: str, num_threads: int | None = None, remembers: bool = True
    ) -> Self:
        """The captioner saved in `folder`, after it has captioned a drawing.

        Sets torch's thread count for the whole process, by default to the cores this process may use. Raises
        `IncompatibleModel`.
        """
        torch.set_num_threads(num_threads or thread_count())
        predictor = cls(load_model(folder), model_version, remembers=remembers)
        predictor.drawings_caption(1)
        logger.info("Model %s computes on %d threads.", model_version, torch.get_num_threads())
        return predictor

    @property
    def default_parameters(self) -> DecodingParameters:
        """What the checkpoint's own generation settings ask for, within our limits."""
        generation = self._parts.model.generation_config
        # max_length counts the start token too.
        length = generation.max_new_tokens or (generation.max_length or 0) - 1
        return DecodingParameters(
            num_beams=min(generation.num_beams or 1, MAX_NUM_BEAMS),
            max_new_tokens=min(length if length > 0 else 30, self._decode.max_new_tokens, MAX_NEW_TOKENS),
        )

    def drawings_caption(self, count: int = _DRAWINGS) -> list[str]:
        """What it says of drawings, as it will serve. Raises `IncompatibleModel` where that is no text or no number."""
        try:
            pixels = torch.stack([self.preprocess(image) for image in drawn_images(count)])
            captions = [best for best, *_ in self.predict(pixels, self.default_parameters)]
        # What a model that needs more than pixels (a prompt, say) raises is its own affair.
        except Exception as error:
            raise IncompatibleModel(
                f"{self.model_version} loads but cannot caption a photo from its pixels alone: {error}"
            ) from error
        if not all(math.isfinite(best.log_probability) for best in captions):
            raise IncompatibleModel(
                f"{self.model_version} computes no finite numbers; its weights are damaged."
            )
        return [best.caption for best in captions]

    @property
    def encoder(self) -> str:
        """Names what makes the vectors of `look`; see `Embedder.encoder`. Empty where there are none."""
        return self._embedder.encoder if self._remembers else ""

    def predict(self, pixels: Tensor, parameters: DecodingParameters) -> list[tuple[Candidate, ...]]:
        """Caption float32 pixels of shape (batch, 3, height, width); 1 to `num_captions` captions per photo.

        Candidates of a photo have different captions and come best first. Of `NextWords` the words that were given
        are certain, and the others as probable as they are after these.
        """
        with self._decoding:
            decoded = self._decode(pixels, parameters, self._given(parameters))
        return self._candidates(decoded, parameters.num_captions)

    def look(self, pixels: Tensor, parameters: DecodingParameters) -> list[Seen]:
        """As `predict`, with all that the beams found, and the vector of each photo out of the same pass.

        Where nothing is remembered that is of no use to anybody, and left out.
        """
        if not self._remembers:
            return [Seen(candidates) for candidates in self.predict(pixels, parameters)]
        with self._decoding:
            with self._embedder.watching():
                decoded = self._decode(pixels, parameters, self._given(parameters))
            vectors = self._embedder.vectors(len(pixels))
        beams = self._candidates(decoded, parameters.num_beams)
        return [Seen(found, vector) for found, vector in zip(beams, vectors, strict=True)]

    def _given(self, parameters: DecodingParameters) -> list[int] | None:
        """Tokens of the words that captions are to begin with; None where nothing is asked at a place."""
        if not isinstance(parameters, NextWords):
            return None
        ids: list[int] = self._parts.tokenizer(parameters.prefix, add_special_tokens=False).input_ids
        return ids

    def _drawings_look(self) -> None:
        """For the encoder to see some drawings, within `look`."""
        pixels = torch.stack([self.preprocess(image) for image in drawn_images(_DRAWINGS)])
        self._decode(pixels, DecodingParameters(max_new_tokens=1))

    def _candidates(self, decoded: list[list[Sequence]], most: int) -> list[tuple[Candidate, ...]]:
        """Up to `most` distinct captions of each photo, best first."""
        calibration = self._parts.calibration
        answers = []
        for sequences in decoded:
            distinct: dict[str, Candidate] = {}
            for sequence in sequences:
                if len(distinct) == most:
                    break
                words = merge_tokens(self._parts.tokenizer, sequence.token_ids, sequence.log_probabilities)
                caption = " ".join(word.text for word in words)
                if caption not in distinct:
                    distinct[caption] = Candidate(
                        caption=caption,
                        words=words,
                        log_probability=math.fsum(sequence.log_probabilities),
                        token_log_probabilities=tuple(sequence.log_probabilities),
                        confidence=calibration.confidence(sequence.log_probabilities)
                        if calibration
                        else None,
                    )
            answers.append(tuple(distinct.values()))
        return answers

    def gaze(self, pixels: Tensor, caption: str) -> tuple[Gaze, ...]:
        """Where in the photo (3, height, width) each word of a caption looked; see `words.gaze`."""
        with self._decoding:
            return gaze(self._parts.model, self._parts.tokenizer, pixels, caption)
