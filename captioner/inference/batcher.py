"""Micro-batching on one inference thread: no waiting at low load, bounded by predicted wait at high load."""

import logging
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from captioner.exceptions import DeadlineExceeded, ModelUnavailable, Overloaded
from captioner.inference.cost import CostModel
from captioner.inference.types import BatcherStats, DecodingParameters, Prediction, Seen

logger = logging.getLogger(__name__)


class BatchPredictor(Protocol):
    """What the batcher needs of `captioner.inference.predictor.Predictor`."""

    model_version: str

    @property
    def encoder(self) -> str: ...

    def look(self, pixels: Tensor, parameters: DecodingParameters) -> list[Seen]: ...


@dataclass(frozen=True, slots=True, eq=False)
class _Request:
    pixels: Tensor
    parameters: DecodingParameters
    deadline: float
    # The photo was preprocessed for this predictor, so no later one may caption it.
    predictor: BatchPredictor
    submitted_at: float
    future: Future[Prediction] = field(default_factory=Future)

    @property
    def group(self) -> tuple[int, DecodingParameters, torch.Size]:
        """Requests of one group may share a batch."""
        return id(self.predictor), self.parameters, self.pixels.shape


class Batcher:
    """Queues photos and captions them in batches, oldest first.

    The inference thread takes what is queued the moment it is free, up to `max_batch` photos with equal
    parameters, and never waits for more. A photo that would have to wait longer than `max_wait_seconds` is
    refused. All times are in seconds, deadlines on the clock of `time.monotonic`. The thread keeps the
    process alive until `drain`. Where it does not linger, it ends whenever nothing is queued, and the next photo
    starts another.
    """

    def __init__(
        self,
        predictor: BatchPredictor,
        *,
        max_batch: int = 8,
        max_wait_seconds: float = 10.0,
        cost: CostModel | None = None,
        lingers: bool = True,
    ) -> None:
        self.on_batch: Callable[[int, float], None] | None = None  # told photos and seconds of each batch
        self._max_batch = max_batch
        self._max_wait_seconds = max_wait_seconds
        # The condition guards everything below and tells the inference thread of work, or that there will be
        # no more.
        self._changed = threading.Condition()
        self._predictor = predictor
        self._cost = cost or CostModel()
        self._queue: deque[_Request] = deque()
        self._busy_until: float | None = None
        self._is_draining = False
        self._rejects: Counter[str] = Counter()
        self._batches = self._photos = self._last_batch_size = 0
        self._lingers = lingers
        self._thread: threading.Thread | None = None
        if lingers:
            self._thread_start()

    def submit(
        self,
        pixels: Tensor,
        parameters: DecodingParameters,
        deadline: float,
        predictor: BatchPredictor | None = None,
    ) -> Future[Prediction]:
        """Queue one photo, pixels of shape (3, height, width), that was preprocessed for `predictor`.

        Cancel the future to drop the photo while it is queued. The future raises `DeadlineExceeded` when the
        photo was still queued at its deadline, or what the model raised. Raises `Overloaded` at once when the
        photo would probably not be done in time, `ModelUnavailable` when draining.
        """
        predictor = predictor or self._predictor
        request = _Request(pixels, parameters, deadline, predictor, time.monotonic())
        with self._changed:
            if self._is_draining:
                self._rejects["draining"] += 1
                raise ModelUnavailable("This process is shutting down; send the photo again.")
            self._room_check(parameters, deadline)
            self._queue.append(request)
            if self._thread is None:
                self._thread_start()
            self._changed.notify()
        return request.future

    def room_check(self, parameters: DecodingParameters, deadline: float) -> None:
        """Raises `Overloaded` where `submit` would now, for who has not prepared the photo's pixels yet."""
        with self._changed:
            self._room_check(parameters, deadline)

    def swap(self, predictor: BatchPredictor) -> None:
        """Caption photos submitted from now on with `predictor`; those already queued end on the old one."""
        with self._changed:
            self._predictor = predictor
            self._cost = self._cost.start_over(self._max_batch)

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs and nothing waits."""
        with self._changed:
            return not self._queue and self._busy_until is None

    def sibling(self, predictor: BatchPredictor) -> "Batcher":
        """A batcher with a thread of its own for other weights; it predicts waits as this one until it knows better.

        Its thread does not linger. OpenMP keeps a team of workers for each thread that has multiplied matrices, and
        once all teams together are more than the cores, none of them spins while it waits for its next piece of
        work any more: every caption of this batcher would take twice as long for as long as the other thread lives.
        """
        return Batcher(
            predictor,
            max_batch=self._max_batch,
            max_wait_seconds=self._max_wait_seconds,
            cost=self._cost.start_over(self._max_batch),
            lingers=False,
        )

    def drain(self, timeout: float) -> bool:
        """Refuse new photos, finish the accepted ones and end the thread.

        Returns whether that was done within `timeout` seconds; photos still queued then fail with
        `ModelUnavailable`.
        """
        with self._changed:
            self._is_draining = True
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            thread.join(timeout)
        self._abandon()
        return thread is None or not thread.is_alive()

    def stats(self) -> BatcherStats:
        """A consistent snapshot."""
        with self._changed:
            return BatcherStats(
                queue_depth=len(self._queue),
                predicted_wait_seconds=self._predicted_wait(),
                batches=self._batches,
                photos=self._photos,
                last_batch_size=self._last_batch_size,
                seconds_per_row=self._cost.per_row,
                seconds_per_batch=self._cost.per_batch,
                rejects=dict(self._rejects),
                is_alive=self._thread is None or self._thread.is_alive(),
                is_draining=self._is_draining,
            )

    def _abandon(self) -> None:
        with self._changed:
            abandoned, self._queue = self._queue, deque()
        for request in abandoned:
            if request.future.set_running_or_notify_cancel():
                request.future.set_exception(
                    ModelUnavailable("This process shut down before it got to the photo.")
                )

    def _room_check(self, parameters: DecodingParameters, deadline: float) -> None:
        # An idle engine takes anything: were it to refuse, a wrong prediction could never be corrected.
        if not self._queue and self._busy_until is None:
            return
        wait = self._predicted_wait()
        done_at = time.monotonic() + wait + self._cost.predict(parameters.num_beams)
        excess = max(wait - self._max_wait_seconds, done_at - deadline)
        if excess > 0:
            self._rejects["overloaded"] += 1
            raise Overloaded(
                f"Captions are wanted faster than they can be made: {wait:.1f} seconds of work are queued. "
                f"Try again in {math.ceil(excess)} seconds.",
                retry_after=excess,
            )

    def _predicted_wait(self) -> float:
        """Seconds until everything running and queued should be done."""
        running = max(0.0, (self._busy_until or 0.0) - time.monotonic())
        groups = Counter(request.group for request in self._queue if not request.future.cancelled())
        queued = 0.0
        for (_, parameters, _), photos in groups.items():
            full, rest = divmod(photos, self._max_batch)
            queued += full * self._cost.predict(self._max_batch * parameters.num_beams)
            queued += self._cost.predict(rest * parameters.num_beams)
        return running + queued

    def _thread_start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="inference", daemon=False)
        self._thread.start()

    def _run(self) -> None:
        try:
            while batch := self._next_batch():
                self._caption(batch)
                del batch  # while it waits it keeps neither photos nor weights that are served no more
        except BaseException:  # a defect: nobody may wait for what will never come
            with self._changed:
                self._is_draining = True
            self._abandon()
            raise

    def _next_batch(self) -> list[_Request]:
        """Wait for the oldest photo that is still wanted, and its group; empty once there will be none."""
        batch: list[_Request] = []
        while not batch:
            expired: list[_Request] = []
            others: deque[_Request] = deque()
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._is_draining or not self._lingers)
                if not self._queue:
                    self._thread = self._thread if self._lingers else None
                    break
                now = time.monotonic()
                for request in self._queue:
                    if batch and (len(batch) == self._max_batch or request.group != batch[0].group):
                        others.append(request)
                    elif not request.future.set_running_or_notify_cancel():
                        self._rejects["cancelled"] += 1
                    elif request.deadline <= now:
                        self._rejects["expired"] += 1
                        expired.append(request)
                    else:
                        batch.append(request)
                self._queue = others
                self._busy_until = now + self._cost.predict(_rows(batch)) if batch else None
                del request  # while it waits it keeps no photo
            for late in expired:
                late.future.set_exception(
                    DeadlineExceeded("The photo's deadline passed while it was queued.")
                )
        return batch

    def _caption(self, batch: list[_Request]) -> None:
        predictor = batch[0].predictor
        started = time.monotonic()
        try:
            answers = predictor.look(torch.stack([request.pixels for request in batch]), batch[0].parameters)
            if len(answers) != len(batch):
                raise RuntimeError(f"The model gave {len(answers)} answers to {len(batch)} photos.")
        except Exception as error:
            logger.exception("A batch of %d photos failed.", len(batch))
            with self._changed:
                self._busy_until = None
                self._rejects["failed"] += len(batch)
            for request in batch:
                request.future.set_exception(error)
            return
        seconds = time.monotonic() - started
        with self._changed:
            self._busy_until = None
            self._cost.observe(_rows(batch), seconds)
            self._batches += 1
            self._photos += len(batch)
            self._last_batch_size = len(batch)
        for request, seen in zip(batch, answers, strict=True):
            request.future.set_result(
                Prediction(
                    seen.beams[: request.parameters.num_captions],
                    predictor.model_version,
                    started - request.submitted_at,
                    seconds,
                    len(batch),
                    seen.beams,
                    seen.vector,
                    predictor.encoder,
                )
            )
        if self.on_batch is not None:
            try:
                self.on_batch(len(batch), seconds)
            except Exception:  # a full disk, say, under the metrics: captions go on
                logger.exception("A batch could not be counted.")


def _rows(batch: list[_Request]) -> int:
    """Sequences decoded at once."""
    return sum(request.parameters.num_beams for request in batch)
