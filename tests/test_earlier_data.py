"""A data folder that an earlier release left opens: its rows are migrated, and shown by pages and API.

`data_before_the_move.sql` is a dump of what commit ebcc666 wrote, cut down to a few rows of everything: captions
with feedback, a job, a trial, versions, promotions by a release, a run, a person and a breach, a run, and schedules.
"""

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT

DUMP = Path(__file__).with_name("data_before_the_move.sql")
KEY = "key-of-an-earlier-release-0123456789"
# What a fresh process of today's code answers, pages as their text.
OPEN = f"""
import json
from django.conf import settings
from django.core.management import call_command
settings.STORAGES["staticfiles"] = {{"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}}
call_command("migrate", verbosity=0)
from django.contrib.auth.models import User
from django.test import Client
from captioner.models import Caption
pages, program = Client(), Client(headers={{"Authorization": "Bearer {KEY}"}})
pages.force_login(User.objects.get(username="admin"))
captions = program.get("/api/v1/captions").json()
urls = ["/captions/", "/jobs/", "/admin/captioner/caption/", "/admin/captioner/feedback/", "/admin/captioner/job/",
    "/admin/models_registry/modelversion/", "/admin/models_registry/promotion/", "/admin/training/trainingrun/",
    "/admin/training/trainingrun/1/change/", *(f"/captions/{{row['id']}}" for row in captions["results"])]
answers = {{url: pages.get(url) for url in urls}}
print("ANSWERS", json.dumps({{
    "captions": captions,
    "jobs": program.get("/api/v1/jobs").json(),
    "statuses": {{url: answer.status_code for url, answer in answers.items()}},
    "runs": answers["/admin/training/trainingrun/"].content.decode(),
}}))
call_command("models", "log")
call_command("migrate", check_unapplied=True)
"""


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("earlier")
    with sqlite3.connect(folder / "captioner.sqlite3") as database:
        database.executescript(DUMP.read_text())
    result = subprocess.run(
        [sys.executable, "manage.py", "shell", "--no-imports", "--verbosity", "0", "-c", OPEN],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "CAPTIONER_DATA_DIR": str(folder), "ALLOWED_HOSTS": "testserver"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    line, log = result.stdout.removeprefix("ANSWERS ").split("\n", 1)
    return json.loads(line) | {"log": log, "columns": _columns(folder / "captioner.sqlite3")}


def _columns(database: str | Path) -> dict[tuple[str, str], bool]:
    """Whether an insert that does not name it works, by table and column."""
    with sqlite3.connect(database) as connection:
        if database == ":memory:":
            connection.executescript(DUMP.read_text())
        rows = connection.execute(
            'SELECT t.name, c.name, NOT c."notnull" OR c.dflt_value IS NOT NULL '
            "FROM sqlite_master t, pragma_table_info(t.name) c WHERE t.type = 'table'"
        )
        return {(table, column): bool(optional) for table, column, optional in rows}


def test_every_page_opens(opened: dict) -> None:
    assert {url: status for url, status in opened["statuses"].items() if status != 200} == {}


def test_its_key_still_lists_captions_with_their_versions_and_feedback(opened: dict) -> None:
    captions = opened["captions"]["results"]
    assert len(captions) == 5
    assert {row["model"]["version"].rpartition("-")[0] for row in captions} == {
        "captioner-starter",
        "captioner-starter-learned",
    }
    said = [row["feedback"]["ideal_caption"] for row in captions if row["feedback"]]
    assert sorted(said) == [f"a photo number {number} of a thing" for number in (4, 5, 6)]


def test_its_job_is_finished(opened: dict) -> None:
    (job,) = opened["jobs"]["results"]
    assert (job["status"], job["photos"]["captioned"]) == ("finished", 2)


def test_its_log_of_promotions_is_whole_and_its_run_is_there(opened: dict) -> None:
    for reason in (
        "Bundled starter weights",
        "learned",
        "Passed the gate in training run 1",
        "Let us see",
        "It failed",
    ):
        assert reason in opened["log"]
    assert "insufficient evidence" in opened["runs"].lower()


def test_the_release_before_can_read_and_write_the_new_tables_while_this_one_rolls_out(opened: dict) -> None:
    before, now = _columns(":memory:"), opened["columns"]
    assert before.keys() - now.keys() == set()
    tables = {table for table, _ in before}
    added = now.keys() - before.keys()
    assert {column for column in added if column[0] in tables and not now[column]} == set()
