"""E4 and E7 without photos, small. No figure is asserted that the full tables are for."""

import json
import random
from pathlib import Path

import pytest

from tests.benchmarks.experiments import e4, e7
from tests.benchmarks.experiments.sentences import SENTENCES, Described, captions_borrowed, photos_described

WHO = ("dog", "cat", "child", "man", "woman", "horse", "bird", "girl")
DOES = ("runs", "sits", "jumps", "sleeps", "stands", "plays")
WHERE = ("in the grass", "on a sofa", "by the sea", "under a tree", "in the snow", "on the road")


@pytest.fixture
def photos(tmp_path: Path) -> list[Described]:
    generator = random.Random(0)
    path = tmp_path / SENTENCES
    path.parent.mkdir()
    rows = []
    for number in range(120):
        who, does, where = (generator.choice(words) for words in (WHO, DOES, WHERE))
        said = [f"a {who} {does} {where}", f"one {who} {where}", f"the {who} there {does}"]
        said += [f"{where} a {who} {does}", f"some {who} that {does} {where}"]
        rows.append(json.dumps({"image": f"{number}.jpg", "captions": said}))
    path.write_text("\n".join(rows))
    return photos_described(tmp_path)


def test_the_gate_is_tried_with_sentences(photos: list[Described], monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"NIGHTS": 3, "FIRST_NIGHT": 30, "ANCHOR": 30, "SMALL": 10, "CORRECTIONS": 60, "JUDGED": 60}
    for name, size in sizes.items():
        monkeypatch.setattr(e4, name, size)
    assert e4.equals(photos, 0)["nights"] == 3
    assert e4.instalments(photos, 2.9, 0)["rejected_on_night"] >= 1
    copied = e4.copies(photos, 0.2, False, 0)
    assert 0 < copied["judging"] <= 48, "drawn sentences are alike, and some count as light edits"
    assert copied["gain"] > copied["gain_were_they_references"]
    assert e4.small(photos, 0)["verdict"]


def test_teams_are_tried_with_sentences(photos: list[Described]) -> None:
    row = e7.team(photos, 3, 20, False, 0, 0)
    assert 0 < row["kept"] <= 1
    assert e7.team(photos, 10, 10, False, 100, 0)["flooder"] <= 0.5


def test_what_is_borrowed_is_another_photo_s_caption(photos: list[Described]) -> None:
    for photo, said in zip(photos, captions_borrowed(photos), strict=True):
        assert said in {other.captions[0] for other in photos if other is not photo}
