"""The rehearsal, small: people correct captions over HTTP, one run starts, a reviewer takes it, everybody serves it."""

import pytest

from tests.benchmarks import rehearsal

pytestmark = pytest.mark.stack


def test_from_nothing_to_a_learned_version_that_all_web_processes_serve(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rehearsal, "UNSEEN", 24)  # of six, one caption decides whether the mean rises
    monkeypatch.setattr(rehearsal, "CONTENT_VISITORS", 2)
    monkeypatch.setenv("TRAINING_NICENESS", "0")  # whatever else this machine does, the run is to end
    rehearsal.main(None, corrections=100)
