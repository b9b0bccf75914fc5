"""A version that is tried beside the champion: it answers its share, or captions along in idle moments."""

import contextlib
import hashlib
import math
import threading
import uuid
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, wait
from concurrent.futures import TimeoutError as FutureTimeout
from typing import TYPE_CHECKING, NamedTuple

from django.db import DatabaseError, connection

from captioner.exceptions import CaptionerError
from captioner.inference.types import DecodingParameters, Prediction
from captioner.models import ChallengerTrial
from captioner.serving.loaded_version import LoadedVersion
from models_registry.models import Rollout

if TYPE_CHECKING:
    from PIL import Image

    from captioner.inference.batcher import Batcher

# Told the caption that the champion gave, and what version of a challenger made what of the same photo, in which role.
TrialReport = Callable[[uuid.UUID, ChallengerTrial.Kind, str, Prediction | Exception], None]

# A challenger gets this much more time than the champion would need; then the champion answers instead.
_PATIENCE_FACTOR, _PATIENCE_SECONDS = 5.0, 1.0

_SHADOW_QUEUE = 4  # photos that may wait for an idle moment; more would be memory spent on a sample
_SHADOW_IDLE_SECONDS = 0.25  # without any work before the moment counts as idle
_SHADOW_SECONDS = (
    30.0  # after which a challenger in the shadow counts as hanging, if the champion would need less
)


class _Sample(NamedTuple):
    caption: uuid.UUID
    image: "Image.Image"
    parameters: DecodingParameters


class Challenger:
    """A version that is tried beside the champion, on an inference thread of its own.

    One that hangs or crawls holds up nobody else's photo. All methods may be called from any thread.
    """

    def __init__(
        self, champion: "Batcher", version: LoadedVersion, rollout: Rollout, report: TrialReport
    ) -> None:
        self.version, self.rollout, self.report = version, rollout, report
        self._champion = champion
        self._batcher = champion.sibling(version.predictor)
        self._samples: deque[_Sample] = deque(maxlen=_SHADOW_QUEUE)
        self._hangs = False
        self._stopped, self._offered = threading.Event(), threading.Event()
        threading.Thread(target=self._shadow_run, name="shadow", daemon=True).start()

    def answers(self, sha256: str) -> bool:
        """Whether the photo with this hash is one of its share; the same photo always is, or never."""
        return self._lot("canary", sha256) < self.rollout.canary_share

    def patience(self, parameters: DecodingParameters) -> float:
        """Seconds it may take over one photo."""
        stats = self._champion.stats()
        expected = stats.seconds_per_batch + stats.seconds_per_row * parameters.num_beams
        return max(_PATIENCE_SECONDS, _PATIENCE_FACTOR * (stats.predicted_wait_seconds + expected))

    def submit(
        self, image: "Image.Image", parameters: DecodingParameters, deadline: float
    ) -> "Future[Prediction]":
        return self._batcher.submit(self.version.predictor.preprocess(image), parameters, deadline)

    def shadow_offer(
        self, caption: uuid.UUID, image: "Image.Image", sha256: str, parameters: DecodingParameters
    ) -> None:
        """Perhaps caption this photo too, for comparison, once there is nothing else to do."""
        if self._lot("shadow", sha256) < self.rollout.shadow_share:
            self._samples.append(_Sample(caption, image, parameters))
            self._offered.set()

    def stop(self, timeout: float = 0.0) -> bool:
        """Take nothing more; returns whether nothing runs any more after `timeout` seconds."""
        self._stopped.set()
        self._offered.set()
        self._samples.clear()
        return self._batcher.drain(timeout)

    def _lot(self, purpose: str, sha256: str) -> float:
        """A number from 0 up to 1 that a photo keeps for as long as this challenger stands."""
        ticket = hashlib.sha256(f"{purpose} {self.version.model_version} {sha256}".encode()).digest()
        return int.from_bytes(ticket[:8], "big") / 2**64

    def _shadow_run(self) -> None:
        while self._offered.wait() and not self._stopped.is_set():
            self._offered.clear()
            while self._samples and self._wait_idle():
                with contextlib.suppress(IndexError):  # it was stopped this moment
                    self._shadow(self._samples.popleft())

    def _wait_idle(self) -> bool:
        """Return once nothing was asked of the champion for a moment; False when this challenger was stopped."""
        photos = -1
        while not self._stopped.wait(_SHADOW_IDLE_SECONDS):
            stats = self._champion.stats()
            # One that hangs is never idle; that it still does is to be seen.
            if stats.photos == photos and self._champion.is_idle and (self._hangs or self._batcher.is_idle):
                return True
            photos = stats.photos
        return False

    def _shadow(self, sample: "_Sample") -> None:
        """Caption the sample's photo, and report that or how it failed."""
        outcome: Prediction | Exception
        patience = max(_SHADOW_SECONDS, self.patience(sample.parameters))
        try:
            future = self.submit(sample.image, sample.parameters, math.inf)
            self._hangs = not wait([future], patience).done
            if self._hangs:
                future.cancel()
                raise FutureTimeout(f"It was not done with the photo after {patience:.0f} seconds.")
            outcome = future.result()
        except CaptionerError:  # it was taken back this moment
            return
        except Exception as error:  # noqa: BLE001  which is what we want to know about it
            outcome = error
        if not self._stopped.is_set():
            try:
                self.report(sample.caption, ChallengerTrial.Kind.SHADOW, self.version.model_version, outcome)
            finally:
                # This thread lives long and seldom needs a connection.
                with contextlib.suppress(DatabaseError):
                    connection.close()
