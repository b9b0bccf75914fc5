"""The confidence of a caption: how often captions of this mean log-probability came close to what people wrote.

Measured on photos with known captions (`training.judging.calibration`; no person has judged) and kept beside the
weights. Multiplied token probabilities would not do: they fall with every word, and are never compared with photos.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from captioner.exceptions import IncompatibleModel

FILE_NAME = "calibration.json"


@dataclass(frozen=True, slots=True)
class Calibration:
    """Platt scaling (Platt 1999): `1 / (1 + exp(-(slope * x + intercept)))`.

    x is the mean natural log-probability of a caption's tokens. `accepted` says in words which captions counted
    as close when this was fitted.
    """

    slope: float
    intercept: float
    accepted: str

    def confidence(self, token_log_probabilities: Sequence[float]) -> float:
        """From 0 to 1; raises `ValueError` without any token."""
        if not token_log_probabilities:
            raise ValueError("A caption without tokens has no confidence.")
        mean = math.fsum(token_log_probabilities) / len(token_log_probabilities)
        # tanh, because exp overflows for a caption that is next to impossible.
        return 0.5 * (1 + math.tanh((self.slope * mean + self.intercept) / 2))

    def write(self, folder: Path) -> None:
        (folder / FILE_NAME).write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")


def calibration_read(folder: Path) -> Calibration | None:
    """The calibration of the weights in `folder`, None without one. Raises `IncompatibleModel` if it is broken."""
    try:
        fields = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
        calibration = Calibration(
            float(fields["slope"]), float(fields["intercept"]), str(fields.get("accepted", ""))
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise IncompatibleModel(
            f"{FILE_NAME} of {folder.name} cannot be read ({error!r}); it holds the numbers `slope` and `intercept`."
        ) from error
    if not (math.isfinite(calibration.slope) and math.isfinite(calibration.intercept)):
        raise IncompatibleModel(f"{FILE_NAME} of {folder.name} holds numbers that are not finite.")
    return calibration
