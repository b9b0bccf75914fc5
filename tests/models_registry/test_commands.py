"""`manage.py models ...`."""

import io
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError
from django.utils import timezone

from models_registry import processes, promotions
from models_registry.models import Alias, ModelVersion, Promotion, Rollout

pytestmark = pytest.mark.django_db


@pytest.fixture
def versions(tmp_path: Path) -> list[ModelVersion]:
    made = []
    for number in range(3):
        folder = tmp_path / f"v{number}"
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"%d" % number)
        call_command(
            "models", "publish", str(folder), "--name", f"v{number}", "--licence", "MIT", stdout=io.StringIO()
        )
        made.append(ModelVersion.objects.get(model_name=f"v{number}"))
    return made


def run(*arguments: str) -> str:
    output = io.StringIO()
    call_command("models", *arguments, stdout=output, stderr=output)
    return output.getvalue()


def test_versions_are_listed_with_what_they_serve_as(versions: list[ModelVersion]) -> None:
    run("promote", versions[0].pk, "--reason", "good")
    run("promote", versions[1].pk, "--alias", "challenger", "--reason", "try it")
    run("pin", versions[2].pk)
    lines = run("list").splitlines()
    assert [line.split()[2:] for line in lines] == [
        [versions[2].pk, "pinned"],
        [versions[1].pk, "challenger"],
        [versions[0].pk, "champion"],
    ]


def test_the_list_ends_with_what_is_wrong(versions: list[ModelVersion]) -> None:
    processes.process_report(
        state="ready",
        champion=versions[0].pk,
        previous="",
        challenger="",
        alerts=["it is broken"],
        started_at=timezone.now(),
    )
    shown = run("list")
    assert f"ready, serves {versions[0].pk}" in shown
    assert "it is broken" in shown


def test_promoting_rolling_back_and_the_log(versions: list[ModelVersion]) -> None:
    for version in versions[:2]:
        run("promote", version.pk, "--reason", f"{version.model_name} is better")
    with pytest.raises(CommandError, match="not the champion any more"):
        run("rollback", "--from", versions[0].pk, "--reason", "it is not")
    assert (
        run("rollback", "--from", versions[1].pk, "--reason", "it is not")
        == f"{versions[0].pk} is the champion again.\n"
    )
    log = run("log")
    assert f"champion rolled back to {versions[0].pk}: it is not" in log
    assert f"champion promoted {versions[1].pk}: v1 is better" in log
    assert f"# {versions[0].pk}" in run("show", "champion")
    assert '"licence": "MIT"' in run("show", "champion", "--json")


def test_a_challenger_is_tried_and_taken_back(versions: list[ModelVersion]) -> None:
    run("promote", versions[0].pk, "--alias", "challenger", "--reason", "try it")
    assert "20% of photos answered" in run("canary", "--share", "0.2", "--shadow", "0")
    assert Rollout.objects.get().canary_share == 0.2
    assert versions[0].pk in run("canary")
    assert "no challenger any more" in run("clear", "--reason", "enough")
    assert "There is no challenger" in run("clear", "--reason", "enough")


def test_a_share_is_a_share() -> None:
    with pytest.raises(CommandError, match="canary_share"):
        run("canary", "--share", "20")
    assert not Rollout.objects.exists()


@pytest.mark.parametrize("option", ["--share", "--shadow"])
@pytest.mark.parametrize("share", ["nan", "inf", "-0.1"])
def test_what_is_no_share_changes_nothing(option: str, share: str) -> None:
    with pytest.raises(CommandError, match="_share"):
        run("canary", f"{option}={share}")
    assert not Rollout.objects.exists()


@pytest.mark.parametrize("number", ["-1", "many", "1.5", "9" * 30])
@pytest.mark.parametrize("arguments", [["log", "--limit"], ["retain", "--keep"]])
def test_what_counts_nothing_is_told(versions: list[ModelVersion], arguments: list[str], number: str) -> None:
    with pytest.raises(CommandError, match=f"from 0 to 1000000, not '{number}'"):
        run(*arguments, number)


def test_the_log_shows_as_many_entries_as_asked_for(versions: list[ModelVersion]) -> None:
    for version in versions:
        run("promote", version.pk, "--reason", "better")
    assert [run("log", "--limit", str(limit)).count("promoted") for limit in (0, 2, 9)] == [0, 2, 3]


def test_retention_asks_first(versions: list[ModelVersion]) -> None:
    run("promote", versions[2].pk, "--reason", "good")
    assert "would be removed" in run("retain", "--keep", "0")
    assert not ModelVersion.objects.exclude(retired_at=None).exists()
    assert "2 versions removed" in run("retain", "--keep", "0", "--yes")
    assert ModelVersion.objects.exclude(retired_at=None).count() == 2
    assert "retired" in run("list")


def test_a_version_is_exported_with_its_card(versions: list[ModelVersion], tmp_path: Path) -> None:
    run("export", versions[0].pk, str(tmp_path / "out"))
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"model.safetensors", "manifest.json", "MODEL_CARD.md"}
    with pytest.raises(CommandError, match="not empty"):
        run("export", versions[0].pk, str(tmp_path / "out"))


@pytest.mark.parametrize("command", [["promote", "nothing", "--reason", "x"], ["pin", "nothing"]])
def test_an_unknown_version_is_told_with_those_there_are(
    versions: list[ModelVersion], command: list[str]
) -> None:
    with pytest.raises(CommandError, match=f"no version nothing.*{versions[2].pk}"):
        run(*command)


@pytest.mark.parametrize("reason", ["", "  \n"])
def test_without_a_reason_nothing_is_promoted(versions: list[ModelVersion], reason: str) -> None:
    with pytest.raises(CommandError, match="--reason"):
        run("promote", versions[0].pk)
    for command in (["promote", versions[0].pk], ["rollback"], ["clear"]):
        with pytest.raises(CommandError, match="Say why"):
            run(*command, "--reason", reason)
    assert not Promotion.objects.exists()
    assert not Alias.objects.exists()
    assert promotions.challenger_get() is None


def test_a_database_that_cannot_be_used_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OperationalError("no such table: models_registry_alias")

    monkeypatch.setattr(promotions, "aliases_get", fail)
    with pytest.raises(CommandError, match=r"no such table.*setup"):
        run("show", "champion")
