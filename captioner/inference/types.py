"""What goes into the model and what comes out of it. No torch here: web code imports these on light paths."""

from dataclasses import dataclass

MAX_NUM_CAPTIONS = 5
MAX_NUM_BEAMS = 8
MAX_NEW_TOKENS = 64

_LIMITS = {"num_captions": MAX_NUM_CAPTIONS, "num_beams": MAX_NUM_BEAMS, "max_new_tokens": MAX_NEW_TOKENS}


@dataclass(frozen=True, slots=True)
class DecodingParameters:
    """How captions are searched for. Hashable: requests with equal parameters share a batch.

    One beam is greedy decoding; more beams are needed for more than one caption. Raises `ValueError` naming
    the field and what it allows.
    """

    num_captions: int = 1
    num_beams: int = 1
    max_new_tokens: int = 30

    def __post_init__(self) -> None:
        for name, limit in _LIMITS.items():
            value = getattr(self, name)
            # bool is an int to Python, but no count to a person.
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= limit:
                raise ValueError(f"{name} must be a whole number from 1 to {limit}, not {value!r}.")
        if self.num_beams < self.num_captions:
            raise ValueError(
                f"num_beams must be at least num_captions, but {self.num_beams} beams cannot give "
                f"{self.num_captions} captions; raise num_beams or lower num_captions."
            )


@dataclass(frozen=True, slots=True)
class NextWords(DecodingParameters):
    """How a caption that begins with the words of `prefix` may go on: with each of the `num_beams` tokens that are most
    probable there, and after it greedily, for `max_new_tokens` beside the prefix.
    """

    prefix: str = ""


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a caption as a person reads it; `probability` in (0, 1] is the product over its sub-word tokens."""

    text: str
    probability: float


@dataclass(frozen=True, slots=True)
class Gaze:
    """One word of a caption as displayed, and rows of places from the photo's top: shares that add up to 1."""

    text: str
    places: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One caption of a photo.

    `token_log_probabilities` are natural logarithms, one per sub-word token the model emitted, the
    end-of-caption token included when it was reached; `log_probability` is their sum. They are the model's
    own probabilities, before constraints such as n-gram blocking. `confidence`, from 0 to 1, is the
    estimated probability that the caption comes close to people's (see `calibration`); None for uncalibrated weights.
    """

    caption: str
    words: tuple[Word, ...]
    log_probability: float
    token_log_probabilities: tuple[float, ...]
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """What a model made of one photo: all distinct captions of its beams, best first, and the photo's vector.

    `vector` is what the encoder saw, as bytes (see `likeness.embedding`); empty where there is none.
    """

    beams: tuple[Candidate, ...]
    vector: bytes = b""


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer to one photo, best captions first, and where the time went.

    `beams` are all captions that were found, of which `candidates` are as many as were asked for. Vectors of photos can
    be compared where `encoder` is the same.
    """

    candidates: tuple[Candidate, ...]
    model_version: str
    queue_seconds: float
    inference_seconds: float
    batch_size: int
    beams: tuple[Candidate, ...] = ()
    vector: bytes = b""
    encoder: str = ""


@dataclass(frozen=True, slots=True)
class BatcherStats:
    """A snapshot of the engine for metrics and `/readyz`.

    `rejects` counts photos not captioned by reason: "overloaded", "draining", "expired", "cancelled" or
    "failed". A batch of n photos with k beams is predicted to take `seconds_per_row * n * k +
    seconds_per_batch` seconds.
    """

    queue_depth: int
    predicted_wait_seconds: float
    batches: int
    photos: int
    last_batch_size: int
    seconds_per_row: float
    seconds_per_batch: float
    rejects: dict[str, int]
    is_alive: bool
    is_draining: bool
