"""The versions this process has loaded, and which of them captions a photo.

The champion answers. A challenger may answer a share of the photos, or caption some of them when there is nothing else
to do.
"""

import contextlib
import hashlib
import logging
import math
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from concurrent.futures import TimeoutError as FutureTimeout
from typing import TYPE_CHECKING, NamedTuple

from django.conf import settings
from django.db import DatabaseError, connection

from captioner.exceptions import CaptionerError, ClientGone, DeadlineExceeded, ModelUnavailable
from captioner.inference.types import DecodingParameters, Prediction
from captioner.models import ChallengerTrial
from captioner.serving.loaded_version import LoadedVersion
from models_registry.models import Rollout

if TYPE_CHECKING:
    from PIL import Image

    from captioner.inference.batcher import Batcher

logger = logging.getLogger(__name__)

# Told the caption that the champion gave, and what version of a challenger made what of the same photo, in which role.
TrialReport = Callable[[uuid.UUID, ChallengerTrial.Kind, str, Prediction | Exception], None]

# A challenger gets this much more time than the champion would need; then the champion answers instead.
_PATIENCE_FACTOR, _PATIENCE_SECONDS = 5.0, 1.0

_SHADOW_QUEUE = 4  # photos that may wait for an idle moment; more would be memory spent on a sample
_SHADOW_IDLE_SECONDS = 0.25  # without any work before the moment counts as idle
_SHADOW_SECONDS = (
    30.0  # after which a challenger in the shadow counts as hanging, if the champion would need less
)

_TURN_POLL_SECONDS = 0.01
_CLIENT_CHECK_SECONDS = 0.2  # how often a waiting request looks whether its client is still there


class Engine:
    """The loaded versions with their inference threads. All methods may be called from any thread.

    `timings`, rows and seconds of batches, are what the prediction of waits starts from.
    """

    def __init__(
        self,
        champion: LoadedVersion,
        *,
        max_wait_seconds: float,
        timings: Iterable[tuple[int, float]] = (),
    ) -> None:
        # Which import torch.
        from captioner.inference.batcher import Batcher
        from captioner.inference.cost import CostModel

        self.champion = champion
        self.previous: LoadedVersion | None = None
        self.challenger: Challenger | None = None
        self.batcher = Batcher(
            champion.predictor,
            max_batch=settings.CAPTION_MAX_BATCH,
            max_wait_seconds=max_wait_seconds,
            cost=CostModel(timings),
        )
        self._stopped: list[Challenger] = []

    @property
    def model_name(self) -> str:
        return self.champion.model_name

    @property
    def model_version(self) -> str:
        return self.champion.model_version

    @property
    def default_parameters(self) -> DecodingParameters:
        return self.champion.default_parameters

    def room_check(self, parameters: DecodingParameters | None, deadline: float) -> None:
        """Raises `Overloaded` where a photo would be refused now.

        Asked before a photo is decoded: under a storm of requests the refused ones would take the cores from those
        that were accepted.
        """
        self.batcher.room_check(parameters or self.default_parameters, deadline)

    def submit(
        self, image: "Image.Image", parameters: DecodingParameters, deadline: float
    ) -> "Future[Prediction]":
        """Queue one RGB image for the champion; `deadline` is in `time.monotonic()` seconds.

        Raises `Overloaded`, `ModelUnavailable`.
        """
        champion = self.champion  # read once: it may be swapped between the two steps
        pixels = champion.predictor.preprocess(image)
        return self.batcher.submit(pixels, parameters, deadline, champion.predictor)

    def photo_submit(
        self, image: "Image.Image", sha256: str, parameters: DecodingParameters | None, deadline: float
    ) -> "Ticket":
        """Queue one RGB image for whichever version its hash chooses, by default with that version's parameters.

        Raises `Overloaded`, `ModelUnavailable`.
        """
        return Ticket(self, image, sha256, parameters, deadline)

    def champion_swap(self, version: LoadedVersion) -> None:
        """Answer with `version` from the next photo on; what is queued ends on the one before, which stays warm."""
        if version.model_version == self.champion.model_version:
            return
        self.previous, self.champion = self.champion, version
        self.batcher.swap(version.predictor)

    def challenger_start(self, version: LoadedVersion, rollout: Rollout, report: TrialReport) -> None:
        """Try `version` beside the champion, as `rollout` says."""
        self.challenger_stop()
        self.challenger = Challenger(self.batcher, version, rollout, report)

    def challenger_stop(self) -> None:
        standing, self.challenger = self.challenger, None
        if standing is not None and not standing.stop():
            self._stopped.append(standing)

    def turn_wait(self, timeout: float) -> None:
        """Return once no photo waits for the champion, or after `timeout` seconds: there may always be one."""
        ends_at = time.monotonic() + timeout
        while self.batcher.stats().queue_depth and time.monotonic() < ends_at:
            time.sleep(_TURN_POLL_SECONDS)

    def stopped_forget(self) -> bool:
        """Let go of challengers that were stopped and run no more; returns whether there were any."""
        before = len(self._stopped)
        self._stopped = [each for each in self._stopped if not each.stop()]
        return len(self._stopped) < before

    def loaded(self, model_version: str) -> LoadedVersion | None:
        """The version of this id, if it is in memory."""
        return next((each for each in self.versions() if each.model_version == model_version), None)

    def versions(self) -> list[LoadedVersion]:
        """All that is in memory."""
        challenger = self.challenger.version if self.challenger else None
        return [each for each in (self.champion, self.previous, challenger) if each is not None]

    def drain(self, timeout: float) -> bool:
        """Finish what was accepted, for at most `timeout` seconds; returns whether nothing runs any more."""
        ends_at = time.monotonic() + timeout
        self.challenger_stop()
        # Half of the time: what hangs must not cost the champion's photos.
        ended = [challenger.stop(timeout / 2) for challenger in self._stopped]
        return self.batcher.drain(max(0.0, ends_at - time.monotonic())) and all(ended)


class ChallengerFailure(NamedTuple):
    """What a challenger did instead of answering."""

    challenger: "Challenger"
    error: Exception


class Ticket:
    """A photo under way. Where a challenger has it and fails, or takes too long, the champion answers after all."""

    def __init__(
        self,
        engine: Engine,
        image: "Image.Image",
        sha256: str,
        parameters: DecodingParameters | None,
        deadline: float,
    ) -> None:
        self.failure: ChallengerFailure | None = None
        self._engine, self._image, self._sha256 = engine, image, sha256
        self._wished, self._deadline = parameters, deadline
        challenger = engine.challenger
        if challenger is None or not challenger.answers(sha256):
            self._champion_ask()
        else:
            self._challenger: Challenger | None = challenger
            self.version = challenger.version
            self.parameters = parameters or self.version.default_parameters
            self._patient_until = time.monotonic() + challenger.patience(self.parameters)
            try:
                self.future = challenger.submit(image, self.parameters, deadline)
            except CaptionerError:  # it is busy, or was taken back this moment
                self._champion_ask()
            except Exception as error:  # noqa: BLE001  it cannot even look at the photo
                self.future = Future()
                self.future.set_exception(error)

    def result(self, timeout: float) -> Prediction:
        """The answer. Raises `concurrent.futures.TimeoutError`, and what the champion's future raises."""
        if self._challenger is None:
            return self.future.result(timeout)
        patience = self._patient_until - time.monotonic()
        try:
            return self.future.result(min(timeout, max(0.0, patience)))
        except ModelUnavailable:  # it was taken back this moment
            self._champion_ask()
        except Exception as error:  # whatever it is, the person gets a caption
            if isinstance(error, FutureTimeout) and not self.future.done():
                if patience > timeout:
                    raise
                error = FutureTimeout("It took far longer than the champion would have.")
            self.failure = ChallengerFailure(self._challenger, error)
            logger.warning("The challenger %s failed a photo: %r", self.version.model_version, error)
            self.future.cancel()
            self._champion_ask()
        return self.future.result(timeout)

    def answer(self, is_abandoned: Callable[[], bool]) -> Prediction:
        """The answer. Raises `DeadlineExceeded`, `ClientGone` once `is_abandoned()`, and what `result` raises."""
        while True:
            try:
                return self.result(timeout=_CLIENT_CHECK_SECONDS)
            except FutureTimeout:
                if is_abandoned():
                    raise ClientGone(
                        "The client closed its connection while its photo was waiting."
                    ) from None
                if time.monotonic() > self._deadline:
                    raise DeadlineExceeded(
                        f"No caption within {settings.CAPTION_TIMEOUT_SECONDS} seconds; please try again."
                    ) from None

    def cancel(self) -> None:
        self.future.cancel()

    def logged(self, caption: uuid.UUID) -> None:
        """Report how a challenger failed the photo of this logged caption, or let it caption along if it may."""
        challenger = self._engine.challenger
        if self.failure is not None:
            failed, error = self.failure
            failed.report(caption, ChallengerTrial.Kind.CANARY, failed.version.model_version, error)
        elif challenger is not None and challenger.version is not self.version:
            challenger.shadow_offer(caption, self._image, self._sha256, self.parameters)

    def _champion_ask(self) -> None:
        self._challenger = None
        self.version = self._engine.champion
        self.parameters = self._wished or self.version.default_parameters
        self.future = self._engine.submit(self._image, self.parameters, self._deadline)


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
