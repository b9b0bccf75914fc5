"""Versions swapped under load, tried, taken back and rolled back in a real web process."""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests import client
from tests.captioner.inference.checkpoints import SAVERS
from tests.photos import draw_photo
from tests.processes import BIN, ROOT, free_port, process, wait_until
from tests.stack import servers

pytestmark = pytest.mark.stack

DEPLOYED = ROOT / "deploy" / "gunicorn.conf.py"
BROKEN = ROOT / "tests" / "stack" / "gunicorn_broken.py"


class Service:
    """A database and a store with tiny versions, and a web process to start on them."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.folder, self.port = folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = {
            "PATH": os.environ["PATH"],
            "CAPTIONER_DATA_DIR": str(folder / "var"),
            "CAPTION_THREADS": "1",
            "PORT": str(self.port),
            **variables,
        }
        (folder / "var").mkdir(parents=True)
        self.manage("migrate", "--verbosity", "0")

    def manage(self, *arguments: str) -> str:
        return servers.manage(self.environment, *arguments)

    def publish(self, *names: str) -> list[str]:
        """The ids of new versions, all in one process: starting one is what takes time."""
        for name in names:
            SAVERS["vit_gpt2"](self.folder / name)
            (self.folder / name / "name.txt").write_text(name)
        code = (
            "from pathlib import Path; from models_registry.versions import version_publish\n"
            f"for name in {names!r}: print(version_publish(Path({str(self.folder)!r}, name),"
            " model_name=name, origin='a test', licence='MIT'))"
        )
        return self.manage("shell", "--no-imports", "-c", code).split()

    def promote(self, version: str, alias: str = "champion") -> None:
        self.manage("models", "promote", version, "--alias", alias, "--reason", "a test")

    @contextmanager
    def web(self, configuration: Path = DEPLOYED, **variables: str) -> Iterator[None]:
        command = [BIN / "gunicorn", "--config", configuration]
        environment = self.environment | variables
        with process(command, self.folder / "web.log", env=environment, cwd=ROOT):
            yield

    def status(self) -> dict:
        try:
            answer = client.request(f"{self.url}/readyz")
        except OSError:
            return {}
        return answer.body if isinstance(answer.body, dict) else json.loads(answer.body)

    def wait(self, version: str, alias: str = "model") -> None:
        wait_until(
            lambda: (self.status().get(alias) or {}).get("version") == version,
            f"{version} serves (see {self.folder / 'web.log'})",
            seconds=120,
        )


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(tmp_path)


def versions_in(load: client.Load) -> set[str]:
    return {answer.body["model"]["version"] for answer in list(load.answers) if answer.status == 201}


def test_swaps_and_a_rollback_under_load_fail_no_request_and_every_answer_names_its_version(
    service: Service,
) -> None:
    versions = service.publish("v0", "v1", "v2")
    service.promote(versions[0])
    with service.web():
        service.wait(versions[0])
        with client.Load(service.url, clients=4) as load:
            for version in versions[1:]:
                service.promote(version)
                service.wait(version)
            service.manage("models", "rollback", "--reason", "worse")
            service.wait(versions[1])
        assert {answer.status for answer in load.answers} == {201}
        assert not load.broken
        assert versions_in(load) == set(versions)
        answered = {answer.body["id"]: answer.body["model"]["version"] for answer in load.answers}
    query = (
        "import json; from captioner.models import Caption;"
        "print(json.dumps({str(c.pk): c.model_version for c in Caption.objects.all()}))"
    )
    assert json.loads(service.manage("shell", "--no-imports", "-c", query)) == answered


def test_a_flipped_byte_is_refused_and_the_last_good_serves_with_an_alert(service: Service) -> None:
    good, bad = service.publish("good", "bad")
    service.promote(good)
    with service.web():
        service.wait(good)
        path = service.folder / "var" / "weights" / "versions" / bad / "model.safetensors"
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        with pytest.raises(AssertionError, match="cannot serve"):
            service.promote(bad)
        assert client.request(f"{service.url}/readyz").status == 200
        # And where it was damaged only after it had been promoted:
        alias = f"from models_registry.models import Alias; Alias.objects.update(version_id={bad!r})"
        service.manage("shell", "--no-imports", "-c", alias)
        wait_until(lambda: bool(service.status().get("alerts")), "an alert")
        assert "is not what was published" in service.status()["alerts"][0]
        assert client.caption(service.url, draw_photo(1)).body["model"]["version"] == good
        assert "ready, serves" in service.manage("models", "list")
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        service.wait(bad)
        assert service.status()["alerts"] == []


@pytest.mark.parametrize("broken", ["BROKEN_THROWS", "BROKEN_SLOW"])
def test_a_challenger_that_throws_or_is_slow_is_taken_back_and_costs_nobody_an_answer(
    service: Service, broken: str
) -> None:
    champion, challenger = service.publish("champion", "challenger")
    service.promote(champion)
    service.manage("models", "canary", "--share", "0.3", "--shadow", "0")
    with service.web(BROKEN, **{broken: challenger, "BROKEN_SECONDS": "0.3"}):
        service.wait(champion)
        with client.Load(service.url, clients=2) as load:
            service.promote(challenger, "challenger")
            service.wait(challenger, "challenger")
            wait_until(lambda: not service.status().get("challenger"), "taken back", seconds=60)
        assert {answer.status for answer in load.answers} == {201}
        assert not load.broken
    log = service.manage("models", "log")
    assert "challenger taken back" in log
    assert ("It failed" if broken == "BROKEN_THROWS" else "It takes") in log


def test_with_the_store_down_a_process_starts_from_its_verified_cache_or_says_why_it_cannot(
    tmp_path: Path,
) -> None:
    with ExitStack() as stack:
        store = stack.enter_context(servers.s3(tmp_path))
        service = Service(tmp_path / "service", **store)
        [version] = service.publish("v1")
        service.promote(version)
        with service.web():
            service.wait(version)
    with service.web():
        service.wait(version)
        assert client.request(f"{service.url}/readyz").status == 200
    (service.folder / "var" / "model-cache").rename(service.folder / "away")
    with service.web():
        wait_until(lambda: service.status().get("state") == "failed", "a reason")
        answer = client.request(f"{service.url}/readyz")
        assert answer.status == 503
        assert "store of the weights cannot be reached" in answer.body["reason"]
        # Once there is a verified copy again, it serves without being started again.
        (service.folder / "away").rename(service.folder / "var" / "model-cache")
        service.wait(version)
