"""The scripts' own logic, with a `docker` that only notes what it was told; the servers are real in tests/stack."""

import fcntl
import json
import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from tests.stack import servers

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"

# Knows one web container, and a second one once it was asked to scale; and nginx, whose container is another one after
# --force-recreate, or once anything was asked of it with CHANGED, which stands for a change that Compose sees itself.
DOCKER = """#!/bin/bash
echo "$*" >>"$CALLS"
case "$*" in
    *"ps --quiet nginx"*)
        if grep -q "force-recreate nginx${CHANGED:+\\|up .* nginx}" "$CALLS"; then echo nginx-2; exit; fi
        echo nginx-1 ;;
    *"exec -T nginx cat"*) cat nginx/nginx.conf nginx/reload-on-change.sh; echo -n "${STALE:-}" ;;
    *"exec -T nginx sh"*) sed -n 2p >>"$CALLS" ;;
    *"run --rm --no-deps -T nginx"*) exit "${NGINX:-0}" ;;
    *PG_VERSION*) echo "${POSTGRES:-17}" ;;
    *"config --images postgres"*) echo postgres:17.10-bookworm@sha256:4f73 ;;
    *"image inspect"*) echo "${IMAGE_ID:-}" ;;
    *"ps --quiet web"*)
        if [ -n "${DOWN:-}" ]; then exit; fi
        echo old-1
        if grep -q "scale web=2" "$CALLS"; then echo new-1; fi ;;
    *"config --services"*) printf '%s\\n' setup web nginx certbot postgres redis minio prometheus ;;
    *"config --images setup"*) printf '%s\\n' postgres:17.10-bookworm@sha256:4f73 "${IMAGE:-captioner:local}" ;;
    *State.Health*) echo "${HEALTH:-healthy}" ;;
    *Networks*) printf 'captioner_inside 10.0.1.7\\ncaptioner_edge 10.0.0.7\\n' ;;
    *"pull setup"*) exit "${PULL:-0}" ;;
    *"SELECT count"*) echo 1 ;;
    *psql*) cat >>"$CALLS" ;;
    *pg_dump*) exit "${DUMP:-0}" ;;
    *"--data-only"*)
        if [ -n "${TRUNCATED:-}" ]; then exit 1; fi
        printf 'COPY public.t (id) FROM stdin;\\n1\\n\\\\.\\n' ;;
    *pg_restore*)
        if [ -n "${BROKEN:-}" ]; then exit 1; fi
        printf 'COPY public.t (id) FROM stdin;\\n1\\n\\\\.\\n' ;;
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
        "compose run --rm --no-deps -T nginx nginx -p /tmp/ -t",
        "compose up --detach --wait postgres redis minio",
        "compose run --rm setup",
        "compose up --detach --no-deps --no-recreate --scale web=2 web",
        "compose exec -T nginx sh -s 10.0.0.7:8000",
        "# Let nginx send new requests to exactly these web servers",
        "docker-stop old-1",
        "compose up --detach --no-deps --wait --timeout 10 nginx",
        "# Render nginx's templates anew",
        "compose up --detach --no-deps worker-io worker-train beat",
        "compose up --detach --no-deps --force-recreate certbot prometheus",
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
    assert not [line for line in calls(deploy) if "nginx sh" in line or "old-1" in line]
    assert "rm --force new-1" in calls(deploy)


def version_named(deploy: Path) -> str:
    (line,) = [
        line for line in (deploy / ".env").read_text().splitlines() if line.startswith("CAPTIONER_VERSION=")
    ]
    return line.partition("=")[2]


@pytest.mark.parametrize("change", [{"STALE": "x"}, {"CHANGED": "1"}])
def test_an_upgrade_makes_nginx_anew_only_where_its_files_or_what_compose_sees_changed(
    deploy: Path, change: dict[str, str]
) -> None:
    """Its templates are taken up without an interruption; that is seen in tests/stack."""
    run(deploy, "install", "captions.example.org")
    result = run(deploy, "upgrade")
    assert "interrupting nobody" in result.stdout
    assert not [line for line in calls(deploy) if "force-recreate nginx" in line]
    (deploy.parent / "calls").unlink()
    result = run(deploy, "upgrade", **change)
    assert result.returncode == 0, result.stderr
    assert "nobody could connect for some seconds" in result.stdout
    told = calls(deploy)
    assert bool([line for line in told if "--force-recreate nginx" in line]) is ("STALE" in change)
    assert not [line for line in told if "Render nginx's templates" in line], "it has just done so"
    recreated = next(n for n, line in enumerate(told) if "--timeout 10" in line)
    assert told.index("stop --time 45 old-1") < recreated, "once the new web processes answer"


def test_an_upgrade_stops_before_it_touches_a_database_of_another_postgresql(deploy: Path) -> None:
    run(deploy, "install", "captions.example.org")
    (deploy.parent / "calls").unlink()
    result = run(deploy, "upgrade", POSTGRES="16")
    assert result.returncode == 1
    assert "PostgreSQL 16 wrote this database" in result.stderr
    assert not [line for line in calls(deploy) if " up " in line]


FAILURES = [
    {"DUMP": "1"},
    {"PULL": "1"},
    {"NGINX": "1"},
    {"POSTGRES": "16"},
    {"HEALTH": "starting"},
]


@pytest.mark.parametrize("failure", FAILURES)
def test_an_upgrade_that_fails_leaves_the_version_that_runs_named(
    deploy: Path, failure: dict[str, str]
) -> None:
    """Otherwise the next `docker compose up`, for whatever reason, would start what failed."""
    run(deploy, "install", "captions.example.org")
    (deploy.parent / "bin" / "sleep").write_text("#!/bin/sh\n")
    (deploy.parent / "bin" / "sleep").chmod(0o755)
    image = "registry.example.org/captioner:9.9.9"
    result = run(deploy, "upgrade", "9.9.9", IMAGE=image, IMAGE_ID="sha256:before", **failure)
    assert result.returncode == 1
    assert version_named(deploy) == "local"
    assert calls(deploy)[-1] == f"tag sha256:before {image}", "a name that was built anew goes back, too"


def test_an_upgrade_where_nothing_serves_starts_everything(deploy: Path) -> None:
    run(deploy, "install", "captions.example.org")
    (deploy.parent / "calls").unlink()
    assert run(deploy, "upgrade", "1.2.3", DOWN="1").returncode == 0
    assert "compose up --detach" in calls(deploy)
    assert not [line for line in calls(deploy) if "--scale" in line or line.startswith("stop")]
    assert version_named(deploy) == "1.2.3"


# `ssh HOST COMMAND` and what rsync makes of it, on a folder that stands for the other machine's home.
SSH = """#!/bin/bash
shift
cd "$MACHINE" && exec bash -c "$*"
"""


@pytest.fixture
def machine(deploy: Path) -> Path:
    """The folder of another machine's installation, of a release before that of `deploy`, with a file of its own."""
    servers.find_program("rsync")
    folder = deploy.parent / "machine" / "captioner" / "deploy"
    shutil.copytree(deploy, folder)
    run(folder, "install", "captions.example.org", **paths_of(deploy))
    (folder / "compose.override.yml").write_text("services: {}\n")
    (folder / "nginx/templates/gone.conf.template").write_text("# only in the release before\n")
    for name, text in (("ssh", SSH), ("sleep", "#!/bin/sh\n")):
        (deploy.parent / "bin" / name).write_text(text)
        (deploy.parent / "bin" / name).chmod(0o755)
    with (deploy / "compose.yml").open("a") as file:
        file.write("# changed\n")
    (deploy / "nginx/templates/new.conf.template").write_text("# only in the new release\n")
    return folder


def paths_of(deploy: Path) -> dict[str, str]:
    home = deploy.parent
    paths = {"PATH": f"{home / 'bin'}:{os.environ['PATH']}", "CALLS": str(home / "calls")}
    return paths | {"MACHINE": str(home / "machine"), "IMAGE": "registry.example.org/captioner:9.9.9"}


def contents(folder: Path) -> dict[str, bytes]:
    """All files but backups, by name."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        name: path.read_bytes()
        for path in files
        if not (name := str(path.relative_to(folder))).startswith("backups")
    }


def test_a_rollout_puts_the_files_of_the_release_in_place_and_keeps_the_machines_own(
    deploy: Path, machine: Path
) -> None:
    before = contents(machine)
    result = run(deploy, "rollout", "machine.example.org", "9.9.9", **paths_of(deploy))
    assert result.returncode == 0, result.stderr
    after = contents(machine)
    assert contents(deploy).items() <= after.items()
    kept = after.keys() - contents(deploy).keys()
    assert kept == {".env", "compose.override.yml"} | {name for name in before if name.startswith("secrets")}
    assert all(after[name] == before[name] for name in kept - {".env"})
    assert version_named(machine) == "9.9.9"
    assert not (machine.parent / "deploy.before").exists()


@pytest.mark.parametrize("failure", FAILURES)
def test_a_rollout_that_fails_leaves_the_files_of_what_runs(
    deploy: Path, machine: Path, failure: dict[str, str]
) -> None:
    before, folder = contents(machine), (machine / "nginx/errors").stat().st_ino
    result = run(deploy, "rollout", "machine.example.org", "9.9.9", **paths_of(deploy), **failure)
    assert result.returncode == 1
    assert contents(machine) == before
    assert (machine / "nginx/errors").stat().st_ino == folder, "which a container has mounted"
    assert not (machine.parent / "deploy.before").exists()


def test_an_upgrade_that_was_killed_does_not_pass_its_files_off_as_those_of_what_runs(
    deploy: Path, machine: Path
) -> None:
    before = contents(machine)
    shutil.copytree(machine, machine.parent / "deploy.before")
    (machine / "compose.yml").write_text("# half-way\n")
    assert (
        run(deploy, "rollout", "machine.example.org", "9.9.9", **paths_of(deploy), PULL="1").returncode == 1
    )
    assert contents(machine) == before


def test_install_does_not_overlook_a_new_domain(deploy: Path) -> None:
    run(deploy, "install", "captions.example.org")
    result = run(deploy, "install", "other.example.org")
    assert result.returncode == 1
    assert "another DOMAIN" in result.stderr


@pytest.mark.parametrize("domain", ["https://captions.example.org", "a b", "x|y"])
def test_install_refuses_what_is_no_domain(deploy: Path, domain: str) -> None:
    result = run(deploy, "install", domain)
    assert result.returncode == 1
    assert "is no domain" in result.stderr
    assert not (deploy / ".env").exists()


@pytest.mark.parametrize("keep", ["0", "-1", "all"])
def test_a_backup_never_keeps_nothing(deploy: Path, keep: str) -> None:
    result = run(deploy, "backup", KEEP=keep)
    assert result.returncode == 1
    assert "give the number of dumps to keep" in result.stderr


def test_a_backup_that_fails_leaves_no_part_of_a_dump(deploy: Path) -> None:
    assert run(deploy, "backup", DUMP="1").returncode == 1
    assert not [path.name for path in (deploy / "backups").iterdir() if path.suffix in {".part", ".rows"}]


def test_two_backups_to_one_folder_do_not_meet(deploy: Path) -> None:
    (deploy / "backups").mkdir()
    with (deploy / "backups" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = run(deploy, "backup")
    assert result.returncode == 1
    assert "Another backup" in result.stderr


@pytest.fixture
def backup(deploy: Path) -> Path:
    """The dump of a backup that a restore may take."""
    assert run(deploy, "backup").returncode == 0
    (deploy / "backups" / "objects" / "objects.sha256").touch()  # `docker` makes none
    (deploy.parent / "calls").unlink()
    (dump,) = (deploy / "backups").glob("*.dump")
    return dump


def test_restore_replaces_the_database_as_a_whole(deploy: Path, backup: Path) -> None:
    result = run(deploy, "restore", "--replace", str(backup))
    assert result.returncode == 0, result.stderr
    told = calls(deploy)
    begin, commit = (
        told.index("BEGIN; DROP SCHEMA public CASCADE; CREATE SCHEMA public;"),
        told.index("COMMIT;"),
    )
    assert told.index("compose stop web worker-io worker-train beat") < begin < commit
    assert told[-1] == "compose up --detach"


def test_restore_of_a_dump_that_breaks_off_half_way_keeps_the_database(deploy: Path, backup: Path) -> None:
    result = run(deploy, "restore", "--replace", str(backup), BROKEN="1")
    assert result.returncode == 1
    assert "The database is as it was before" in result.stderr
    assert "COMMIT;" not in calls(deploy)


@pytest.mark.parametrize("damage", ["truncated", "rows", "no rows", "no objects"])
def test_restore_touches_nothing_for_a_damaged_backup(deploy: Path, backup: Path, damage: str) -> None:
    environment = {"TRUNCATED": "1"} if damage == "truncated" else {}
    if damage == "rows":
        backup.with_suffix(".rows").write_text("public.t 2\n")
    elif damage == "no rows":
        backup.with_suffix(".rows").unlink()
    elif damage == "no objects":
        (backup.parent / "objects" / "objects.sha256").unlink()
    result = run(deploy, "restore", "--replace", str(backup), **environment)
    assert result.returncode == 1
    assert str(backup.parent) in result.stderr
    assert not [line for line in calls(deploy) if "stop" in line or "psql" in line]


def test_restore_asks_to_be_meant(deploy: Path) -> None:
    result = run(deploy, "restore", "backups/x.dump")
    assert result.returncode == 1
    assert "This replaces the database" in result.stderr
    assert not (deploy.parent / "calls").exists()


KUBECTL = """#!/bin/bash
echo "$*" >>"$CALLS"
cat >/dev/null
"""


def test_pods_are_replaced_when_the_files_change_that_they_read_at_their_start(deploy: Path) -> None:
    (deploy.parent / "bin" / "kubectl").write_text(KUBECTL)
    (deploy.parent / "bin" / "kubectl").chmod(0o755)

    def patches() -> dict[str, str]:
        (deploy.parent / "calls").unlink(missing_ok=True)
        result = run(deploy, "k8s/apply")
        assert result.returncode == 0, result.stderr
        patch = re.compile(r"--namespace captioner patch deployment (\S+) --patch (.*)")
        return dict(match.groups() for line in calls(deploy) if (match := patch.fullmatch(line)))

    first = patches()
    assert first.keys() == {"nginx", "web", "worker-io", "worker-train", "beat"}
    assert json.loads(first["web"])["spec"]["template"]["metadata"]["annotations"]
    assert patches() == first
    with (deploy / "nginx/templates/captioner.conf.template").open("a") as file:
        file.write("# changed\n")
    second = patches()
    assert {name for name in first if second[name] != first[name]} == {"nginx"}
    with (deploy / "k8s/config.yaml").open("a") as file:
        file.write("# changed\n")
    third = patches()
    assert all(third[name] != second[name] for name in first)
