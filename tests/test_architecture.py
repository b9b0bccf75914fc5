"""The direction of imports, read from the code, and torch kept off the light import paths, seen in a process."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
APPS = ("captioner", "models_registry", "training", "webui")

# What each app may import of the others.
ALLOWED = {
    "captioner": {"captioner", "models_registry"},
    "models_registry": {"models_registry"},
    "training": {
        "training",
        "captioner.models",
        "captioner.services",
        "captioner.admin",
        "captioner.inference",
        "captioner.exceptions",
        "captioner.images.difference_hash",
        "models_registry",
    },
    "webui": {"webui", "captioner"},
}
# The composition root may name any app; no domain module imports it.
COMPOSITION_ROOT = {f"captioner.{name}" for name in ("settings", "urls", "wsgi", "celery", "apps")}
NO_DJANGO = (
    *(f"captioner.{name}" for name in ("inference", "images", "image_containers", "exceptions", "benchmark")),
    *(
        f"training.{name}"
        for name in (
            *(
                "objective",
                "loop",
                "metrics",
                "config",
                "curation",
                "gate",
                "evaluate",
                "captioner",
                "golden",
                "processes",
            ),
            *("charts", "report", "photo_sets", "starter", "quality", "experiments"),
        )
    ),
)
TORCH_ALLOWED = ("captioner.runtime", "captioner.inference", "training.")


def modules() -> Iterator[tuple[str, Path]]:
    for app in APPS:
        for path in sorted((ROOT / app).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports(path: Path) -> set[str]:
    """Absolute names of everything `path` imports, at any depth; `from a import b` counts as `a.b`."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


MODULES = list(modules())


@pytest.mark.parametrize(("module", "path"), MODULES, ids=[module for module, _ in MODULES])
def test_imports_run_in_the_allowed_direction(module: str, path: Path) -> None:
    siblings = {name for name in imports(path) if name.split(".")[0] in APPS}
    if module not in COMPOSITION_ROOT:
        assert not {name for name in siblings for root in COMPOSITION_ROOT if is_within(name, root)}
        allowed = ALLOWED[module.split(".")[0]]
        assert not {name for name in siblings if not any(is_within(name, package) for package in allowed)}
    if any(is_within(module, package) for package in NO_DJANGO):
        assert not {name for name in imports(path) if name.split(".")[0] in {"django", "rest_framework"}}
    if not module.startswith(TORCH_ALLOWED):
        assert not {name for name in imports(path) if name.split(".")[0] in {"torch", "transformers"}}


def test_the_rules_above_see_every_app() -> None:
    assert {module.split(".")[0] for module, _ in MODULES} == set(APPS)
    assert {f"{app}.apps" for app in APPS} <= {module for module, _ in MODULES}


LIGHT_PATHS = {
    "captioner": "import captioner",
    "inference types": "import captioner.inference.types",
    "all routes": "import django; django.setup(); import captioner.urls",
    "migrate": "import django.core.management; django.setup(); django.core.management.call_command('migrate', '-v0')",
    "beat": "from captioner.celery import app; app.loader.import_default_modules(); app.Beat",
}


@pytest.mark.parametrize("code", LIGHT_PATHS.values(), ids=LIGHT_PATHS.keys())
def test_light_paths_never_load_torch(code: str, tmp_path: Path) -> None:
    check = f"import sys; {code}; print(sorted({{'torch', 'transformers'}} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", check],
        cwd=ROOT,
        env={"DJANGO_SETTINGS_MODULE": "captioner.settings", "CAPTIONER_DATA_DIR": str(tmp_path), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout.strip()) == (0, "[]"), result.stderr
