"""`deploy/env.example` is the truth about variables: all that are read, with the defaults they have."""

import ast
import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
READERS = [*(ROOT / "captioner").rglob("*.py"), *(ROOT / "models_registry").rglob("*.py")]
READERS += [*(ROOT / "training").rglob("*.py"), *(ROOT / "webui").rglob("*.py"), DEPLOY / "gunicorn.conf.py"]
COMPOSE_FILES = sorted(DEPLOY.glob("compose*.yml"))
# Read by docker compose itself.
OF_DOCKER = {"COMPOSE_PROFILES", "COMPOSE_PROJECT_NAME"}


def documented() -> dict[str, str]:
    lines = re.findall(r"^([A-Z][A-Z0-9_]*)=(.*)$", (DEPLOY / "env.example").read_text(), re.MULTILINE)
    names = [name for name, _ in lines]
    assert len(names) == len(set(names)), "no variable is listed twice"
    return dict(lines)


def read_by_application() -> dict[str, str | None]:
    """Each variable and its default as it is written in env.example; None where the default depends on others."""
    defaults: dict[str, str | None] = {}
    for path in READERS:
        for call in ast.walk(ast.parse(path.read_text())):
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
                continue
            if not re.fullmatch(r"env_[a-z]+", call.func.id) or not isinstance(call.args[0], ast.Constant):
                continue
            if len(call.args) > 1 or call.args[0].value not in defaults:
                defaults[call.args[0].value] = written_default(call)
    return defaults


def written_default(call: ast.Call) -> str | None:
    if len(call.args) < 2:
        return ""
    if isinstance(call.args[1], ast.Constant):
        value = call.args[1].value
        return str(value).lower() if isinstance(value, bool) else str(value)
    return "" if isinstance(call.args[1], ast.List) else None


def read_by_compose() -> dict[str, str]:
    text = "".join(path.read_text() for path in COMPOSE_FILES)
    found = re.findall(r"\$\{([A-Z0-9_]+)(?::?([-?])([^}]*))?\}", text)
    return {name: default if kind == "-" else "" for name, kind, default in found}


def test_every_variable_that_is_read_is_listed_and_no_other() -> None:
    assert set(documented()) == set(read_by_application()) | set(read_by_compose()) | OF_DOCKER


def test_the_defaults_are_those_of_the_application() -> None:
    listed = documented()
    wrong = {
        name: (listed[name], default)
        for name, default in read_by_application().items()
        # One that depends on others is explained, not filled in; the folder's is, for it is what people look for.
        if listed[name] != (default or "") and name != "CAPTIONER_DATA_DIR"
    }
    assert not wrong


def test_the_defaults_are_those_of_the_compose_files() -> None:
    listed, of_application = documented(), read_by_application()
    wrong = {
        name: (listed[name], default)
        for name, default in read_by_compose().items()
        if name not in of_application and listed[name] != default
    }
    assert not wrong


def test_no_value_carries_a_comment() -> None:
    """Readers of such files differ on whether `NAME=  # text` is empty."""
    assert not {name: value for name, value in documented().items() if "#" in value}


def test_what_the_image_sets_is_not_unset_by_env() -> None:
    """The containers are given all of .env, a copy of env.example, where most variables are empty."""
    of_image = dict(
        re.findall(r"^(?:ENV|   ) ([A-Z_]+)=(\S+)", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    )
    given = yaml.safe_load((DEPLOY / "compose.yml").read_text())["services"]["web"]["environment"]
    assert "CAPTIONER_STATIC_DIR" in of_image
    for name in of_image.keys() & documented().keys():
        assert given[name] == of_image[name], name


def test_no_setting_of_the_loop_reaches_the_tests_from_the_shell() -> None:
    from tests import conftest

    loop = re.findall(r"^(TRAINING_\w+)=", (DEPLOY / "env.example").read_text(), re.MULTILINE)
    assert loop
    assert all(name.startswith(conftest._OURS) for name in loop)
