"""The scripts' own logic, with a `docker` that only notes what it was told; the servers are real in tests/stack."""

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"

# Knows one web container, and a second one once it was asked to scale.
DOCKER = """#!/bin/bash
echo "$*" >>"$CALLS"
case "$*" in
    *"ps --quiet web"*) echo old-1; if grep -q "scale web=2" "$CALLS"; then echo new-1; fi ;;
    *"config --services"*) printf 'web\\npostgres\\nminio\\n' ;;
    *"config --images setup"*) echo "${IMAGE:-captioner:local}" ;;
    *State.Health*) echo "${HEALTH:-healthy}" ;;
    *Networks*) printf 'captioner_inside 10.0.1.7\\ncaptioner_edge 10.0.0.7\\n' ;;
    *pg_restore*) printf 'COPY public.t (id) FROM stdin;\\n1\\n\\\\.\\n' ;;
esac
"""


@pytest.fixture
def deploy(tmp_path: Path) -> Path:
    """A copy of the folder to run scripts in."""
    folder = tmp_path / "deploy"
    shutil.copytree(DEPLOY, folder, ignore=shutil.ignore_patterns("secrets", "backups", ".env"))
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text(DOCKER)
    docker.chmod(0o755)
    return folder


def run(deploy: Path, script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    paths = {"PATH": f"{deploy.parent / 'bin'}:{os.environ['PATH']}", "CALLS": str(deploy.parent / "calls")}
    command = [str(deploy / script), *arguments]
    return subprocess.run(command, env=paths | environment, capture_output=True, text=True, check=False)


def calls(deploy: Path) -> list[str]:
    """What docker was told."""
    return (deploy.parent / "calls").read_text().splitlines()


def test_install_makes_secrets_that_fit_together_and_keeps_them(deploy: Path) -> None:
    result = run(deploy, "install", "captions.example.org", "you@example.org")
    assert result.returncode == 0, result.stderr
    secrets = {path.name: path.read_text().strip() for path in (deploy / "secrets").iterdir()}
    assert len(secrets["secret_key"]) >= 50
    assert (
        secrets["database_url"]
        == f"postgres://captioner:{secrets['postgres_password']}@postgres:5432/captioner"
    )
    password = secrets["redis.conf"].removeprefix("requirepass ")
    assert secrets["redis_url"] == f"redis://:{password}@redis:6379/0"
    assert stat.S_IMODE((deploy / "secrets").stat().st_mode) == 0o700
    settings = (deploy / ".env").read_text().splitlines()
    assert {"DOMAIN=captions.example.org", "CERTBOT_EMAIL=you@example.org"} <= set(settings)
    assert run(deploy, "install").returncode == 0
    assert {path.name: path.read_text().strip() for path in (deploy / "secrets").iterdir()} == secrets


def test_every_secret_of_the_compose_file_is_made(deploy: Path) -> None:
    run(deploy, "install", "captions.example.org")
    named = {
        line.split("secrets/")[1]
        for line in (deploy / "compose.yml").read_text().splitlines()
        if "file: secrets/" in line
    }
    assert named == {path.name for path in (deploy / "secrets").iterdir()}


def test_install_needs_a_domain(deploy: Path) -> None:
    result = run(deploy, "install")
    assert result.returncode == 1
    assert "Name the domain" in result.stderr


def test_upgrade_moves_nginx_to_the_new_process_before_the_old_one_ends(deploy: Path) -> None:
    run(deploy, "install", "captions.example.org")
    (deploy.parent / "calls").unlink()
    result = run(deploy, "upgrade", "1.2.3", IMAGE="registry.example.org/captioner:1.2.3")
    assert result.returncode == 0, result.stderr
    assert "CAPTIONER_VERSION=1.2.3" in (deploy / ".env").read_text().splitlines()
    order = [
        "compose exec -T postgres pg_dump",
        "compose pull setup",
        "compose run --rm setup",
        "compose up --detach --no-deps --no-recreate --scale web=2 web",
        "compose exec -T nginx web-servers 10.0.0.7:8000",
        "docker-stop old-1",
        "compose exec -T nginx web-servers web:8000",
        "compose up --detach --no-deps worker-io worker-train beat",
    ]
    told = [line.replace("stop --time 45", "docker-stop") for line in calls(deploy)]
    places = [next(n for n, line in enumerate(told) if line.startswith(step)) for step in order]
    assert places == sorted(places), told
    assert list((deploy / "backups").glob("*.dump"))


def test_an_upgrade_whose_new_process_stays_sick_leaves_the_old_one_serving(deploy: Path) -> None:
    run(deploy, "install", "captions.example.org")
    (deploy.parent / "calls").unlink()
    (deploy.parent / "bin" / "sleep").write_text("#!/bin/sh\n")
    (deploy.parent / "bin" / "sleep").chmod(0o755)
    result = run(deploy, "upgrade", HEALTH="starting")
    assert result.returncode == 1
    assert "the old one goes on serving" in result.stderr
    assert not [line for line in calls(deploy) if "web-servers" in line or "old-1" in line]
    assert "rm --force new-1" in calls(deploy)


def test_restore_asks_to_be_meant(deploy: Path) -> None:
    result = run(deploy, "restore", "backups/x.dump")
    assert result.returncode == 1
    assert "This replaces the database" in result.stderr
    assert not (deploy.parent / "calls").exists()
