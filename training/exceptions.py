"""What can end a training run early."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.learning.curation import Snapshot


class TrainingError(Exception):
    """Base of this app's errors; `str(error)` is fit to be shown to a person."""


class DatasetError(TrainingError, ValueError):
    """A set on disk is not what its documentation says; the message names the file and what was expected."""


class RunRefused(TrainingError):
    """The wish cannot be met in the state the run is in."""


class NothingToLearn(TrainingError):
    """The approved feedback gives nothing to learn from; trying again would not change that."""


class NothingLearned(TrainingError):
    """No share of what was learned is better than the base on photos kept aside; `report` says what was seen.

    `snapshot` was learned from, but for the feedback with the numbers `chose_by`, which was kept aside.
    """

    def __init__(
        self, message: str, report: dict[str, Any], snapshot: Snapshot, chose_by: Collection[int]
    ) -> None:
        super().__init__(message)
        self.report, self.snapshot, self.chose_by = report, snapshot, chose_by


class NothingNew(NothingToLearn):
    """Exactly this was learned before."""


class RunCancelled(TrainingError):
    """Somebody asked the run to stop."""


class RunLost(TrainingError):
    """Another worker has taken this run over; whoever notices stops at once and writes nothing."""
