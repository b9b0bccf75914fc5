from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from captioner.env import env_bool, env_int, env_list, env_path, env_rate, env_text


@pytest.fixture(autouse=True)
def _unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("THING", raising=False)
    monkeypatch.delenv("THING_FILE", raising=False)


def test_an_unset_or_empty_variable_gives_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert env_text("THING", "x") == "x"
    monkeypatch.setenv("THING", "  ")
    assert env_text("THING", "x") == "x"
    assert env_int("THING", 3) == 3
    assert env_list("THING", ["a"]) == ["a"]


def test_a_secret_may_come_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cret\n")
    monkeypatch.setenv("THING_FILE", str(tmp_path / "secret"))
    assert env_text("THING") == "s3cret"


def test_a_value_and_a_file_at_once_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("THING", "a")
    monkeypatch.setenv("THING_FILE", str(tmp_path / "secret"))
    with pytest.raises(ImproperlyConfigured, match="both set"):
        env_text("THING")


def test_an_unreadable_secret_file_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THING_FILE", "/does/not/exist")
    with pytest.raises(ImproperlyConfigured, match="THING_FILE='/does/not/exist' cannot be read"):
        env_text("THING")


@pytest.mark.parametrize(("text", "expected"), [("TRUE", True), ("on", True), ("0", False), ("no", False)])
def test_booleans(monkeypatch: pytest.MonkeyPatch, text: str, expected: bool) -> None:
    monkeypatch.setenv("THING", text)
    assert env_bool("THING", not expected) is expected


def test_a_word_that_is_no_boolean_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THING", "maybe")
    with pytest.raises(ImproperlyConfigured, match="THING='maybe' is not a boolean; use one of: true"):
        env_bool("THING", False)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("ten", "not a whole number"), ("0", "least allowed is 1"), ("9", "most allowed is 5")],
)
def test_bad_integers(monkeypatch: pytest.MonkeyPatch, text: str, complaint: str) -> None:
    monkeypatch.setenv("THING", text)
    with pytest.raises(ImproperlyConfigured, match=complaint):
        env_int("THING", 2, minimum=1, maximum=5)


def test_a_value_outside_the_choices_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THING", "c")
    with pytest.raises(ImproperlyConfigured, match="use one of: a, b"):
        env_text("THING", "a", choices=("a", "b"))


def test_lists_and_paths(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("THING", " a , b,,")
    assert env_list("THING", []) == ["a", "b"]
    monkeypatch.setenv("THING", str(tmp_path / "x" / ".." / "y"))
    assert env_path("THING", tmp_path) == tmp_path / "y"


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("500/5m", (500, 300)),
        ("10/s", (10, 1)),
        ("1/2h", (1, 7200)),
        ("1000/d", (1000, 86400)),
        ("off", None),
    ],
)
def test_rates(monkeypatch: pytest.MonkeyPatch, text: str, rate: tuple[int, int] | None) -> None:
    monkeypatch.setenv("THING", text)
    assert env_rate("THING", "1/s") == rate


@pytest.mark.parametrize("text", ["0/m", "10", "10/0m", "10/w", "/m", "-1/m", "many"])
def test_what_is_no_rate(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("THING", text)
    with pytest.raises(ImproperlyConfigured, match="write a number per time"):
        env_rate("THING", "1/s")
