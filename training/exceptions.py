"""What can end a training run early."""

from typing import Any


class TrainingError(Exception):
    """Base of this app's errors; `str(error)` is fit to be shown to a person."""


class DatasetError(TrainingError, ValueError):
    """A set on disk is not what its documentation says; the message names the file and what was expected."""


class RunRefused(TrainingError):
    """The wish cannot be met in the state the run is in."""


class NothingToLearn(TrainingError):
    """The approved feedback gives nothing to learn from; trying again would not change that."""


class NothingLearned(TrainingError):
    """No share of what was learned is better than the base on photos kept aside; `report` says what was seen."""

    def __init__(self, message: str, report: dict[str, Any]) -> None:
        super().__init__(message)
        self.report = report


class NothingNew(NothingToLearn):
    """Exactly this was learned before."""


class RunCancelled(TrainingError):
    """Somebody asked the run to stop."""


class RunLost(TrainingError):
    """Another worker has taken this run over; whoever notices stops at once and writes nothing."""
