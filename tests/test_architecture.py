"""The direction of imports, read from the code, and torch kept off the light import paths, seen in a process."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests import house
from tests.house import APPS, ROOT, Module

# What each app may import of the others.
ALLOWED = {
    "captioner": ("captioner", "models_registry"),
    "models_registry": ("models_registry",),
    "training": (
        "training",
        "models_registry",
        *(
            f"captioner.{part}"
            for part in ("models", "exceptions", "captions", "inference", "intake", "review")
        ),
        "captioner.admin.bases",
        "captioner.http.owner",  # a page tells whoever looks what their own corrections taught
        "captioner.ops.cores",
    ),
    "webui": ("webui", "captioner"),
}
# What rooms that others build on may import of their own app.
FOUNDATIONS = {
    "training.data": ("training.data", "training.exceptions", "training.progress"),
    "training.progress": (),
}
# The composition root may name any app; no domain module imports it.
COMPOSITION_ROOT = {f"captioner.{name}" for name in ("settings", "urls", "wsgi", "celery", "apps")}
# Inside an app: what none but the first may import.
PRIVATE = {
    "captioner.api": ("captioner.api", "captioner.urls"),  # pages and API meet in http and the domain
    "training.starter": ("training.starter", "training.management.commands.train_starter"),  # a recipe
    "training.management": (),
    "captioner.management": (),
}
NO_DJANGO = (
    *(f"captioner.{name}" for name in ("inference", "intake", "exceptions", "ops.cores", "ops.logs")),
    *(f"training.{name}" for name in ("data", "descent", "judging", "starter", "exceptions", "progress")),
    *(
        f"training.learning.{name}"
        for name in ("blending", "config", "curation", "finetune", "model", "objective")
    ),
)
NO_IMPORTS = ("captioner.intake.limits",)
TORCH_ALLOWED = (
    "captioner.inference",
    "captioner.importing.unpickle",  # a program, which nothing imports
    "training.data",
    "training.descent",
    "training.judging",
    "training.learning",
    "training.starter",
)
MOST_MODULES = 14  # in a folder
MOST_LONELY_HELPERS = 0.10  # private functions with one caller, of all functions

MODULES = house.modules()


def is_within(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


@pytest.mark.parametrize("module", MODULES, ids=[module.name for module in MODULES])
def test_imports_run_in_the_allowed_direction(module: Module) -> None:
    siblings = {name for name in module.imports if name.split(".")[0] in APPS}
    if module.name not in COMPOSITION_ROOT:
        assert not {name for name in siblings if is_within(name, tuple(COMPOSITION_ROOT))}
        allowed = ALLOWED[module.name.split(".")[0]]
        assert not {name for name in siblings if not is_within(name, allowed)}
    for room, foundations in FOUNDATIONS.items():
        if is_within(module.name, (room,)):
            app = room.split(".")[0]
            assert not {
                name for name in siblings if is_within(name, (app,)) and not is_within(name, foundations)
            }
    for package, importers in PRIVATE.items():
        if not is_within(module.name, (package, *importers)):
            assert not {name for name in siblings if is_within(name, (package,))}
    if is_within(module.name, NO_DJANGO):
        assert not {name for name in module.imports if name.split(".")[0] in {"django", "rest_framework"}}
    if is_within(module.name, NO_IMPORTS):
        assert not module.imports
    if not is_within(module.name, TORCH_ALLOWED):
        assert not {name for name in module.imports if name.split(".")[0] in {"torch", "transformers"}}


def test_the_rules_above_see_every_app() -> None:
    names = {module.name for module in MODULES}
    assert {name.split(".")[0] for name in names} == set(APPS)
    assert {f"{app}.apps" for app in APPS} <= names
    mentioned = {*FOUNDATIONS, *PRIVATE, *NO_DJANGO, *NO_IMPORTS, *TORCH_ALLOWED, *COMPOSITION_ROOT}
    mentioned |= {package for allowed in ALLOWED.values() for package in allowed}
    assert not {
        each for each in mentioned if each not in names and not (ROOT / each.replace(".", "/")).is_dir()
    }


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert house.import_circles(MODULES) == []


def test_every_room_can_be_taken_in_at_a_glance() -> None:
    assert not {folder: n for folder, n in house.folder_sizes(MODULES).items() if n > MOST_MODULES}
    assert len(list((ROOT / "captioner").glob("*.py"))) <= 12


def test_helpers_are_worth_their_hop() -> None:
    lonely = house.helpers_with_one_caller(MODULES)
    assert len(lonely) <= MOST_LONELY_HELPERS * len(house.functions(MODULES)), lonely


LIGHT_PATHS = {
    "captioner": "import captioner",
    "inference types": "import captioner.inference.types",
    "all routes": "import django; django.setup(); import captioner.urls",
    "migrate": "import django.core.management; django.setup(); django.core.management.call_command('migrate', '-v0')",
    "beat": "from captioner.celery import app; app.loader.import_default_modules(); app.Beat",
}


def loaded_by(code: str, data_dir: Path, *names: str) -> str:
    """Which of the packages `names` a fresh process holds after `code`, as the text of a sorted list."""
    check = f"import sys; {code}; print(sorted({set(names)} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", check],
        cwd=ROOT,
        env={"DJANGO_SETTINGS_MODULE": "captioner.settings", "CAPTIONER_DATA_DIR": str(data_dir), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.parametrize("code", LIGHT_PATHS.values(), ids=LIGHT_PATHS.keys())
def test_light_paths_never_load_torch(code: str, tmp_path: Path) -> None:
    assert loaded_by(code, tmp_path, "torch", "transformers") == "[]"


@pytest.mark.parametrize("path", ["captioner", "inference types", "migrate", "beat"])
def test_light_paths_never_load_pillow(path: str, tmp_path: Path) -> None:
    assert loaded_by(LIGHT_PATHS[path], tmp_path, "PIL") == "[]"
