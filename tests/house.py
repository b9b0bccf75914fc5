"""The house in figures: `python -m tests.house` prints them, `tests/test_architecture.py` holds them to their limits.

Read from the code as text, nothing of it is run.
"""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STARTER_DIR = ROOT / "models_registry/starter"
APPS = ("captioner", "models_registry", "training", "webui")


@dataclass(frozen=True)
class Module:
    """A module of the product by its dotted name; `imports` are absolute names, `from a import b` counts as `a.b`."""

    name: str
    path: Path
    source: str
    tree: ast.Module
    imports: frozenset[str]


def modules() -> list[Module]:
    """All modules of the apps, but for migrations and the code that the starter's weights carry for other programs."""
    found = []
    for app in APPS:
        for path in sorted((ROOT / app).rglob("*.py")):
            if "migrations" in path.parts or path.is_relative_to(STARTER_DIR):
                continue
            parts = path.relative_to(ROOT).with_suffix("").parts
            source = path.read_text(encoding="utf-8")
            tree = ast.parse(source)
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found.append(Module(name, path, source, tree, frozenset(_imports(tree, path))))
    return found


def _imports(tree: ast.Module, path: Path) -> Iterator[str]:
    """At any depth: an import within a function, or for type checkers alone, is one too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def import_circles(found: list[Module]) -> list[set[str]]:
    """Modules that import each other, directly or through others: strong components (Tarjan 1972)."""
    names = {module.name for module in found}

    def target(name: str) -> str:
        while name not in names and "." in name:
            name = name.rpartition(".")[0]
        return name

    edges = {
        module.name: {target(name) for name in module.imports if target(name) in names} - {module.name}
        for module in found
    }
    index: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    circles: list[set[str]] = []

    def visit(name: str) -> None:
        index[name] = lowest[name] = len(index)
        stack.append(name)
        for other in edges[name]:
            if other not in index:
                visit(other)
            if other in stack:
                lowest[name] = min(lowest[name], lowest[other])
        if lowest[name] == index[name]:
            place = stack.index(name)
            if len(part := stack[place:]) > 1:
                circles.append(set(part))
            del stack[place:]

    for name in sorted(edges):
        if name not in index:
            visit(name)
    return circles


def folder_sizes(found: list[Module]) -> Counter[str]:
    """How many modules are directly in each folder, `__init__.py` included."""
    return Counter(module.path.parent.relative_to(ROOT).as_posix() for module in found)


def functions(found: list[Module]) -> list[tuple[Module, ast.FunctionDef | ast.AsyncFunctionDef]]:
    return [
        (module, node)
        for module in found
        for node in ast.walk(module.tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]


def helpers_with_one_caller(found: list[Module]) -> list[str]:
    """Private functions that their module names once beside their definition."""
    return [
        f"{module.name}.{node.name}"
        for module, node in functions(found)
        if node.name.startswith("_")
        and not node.name.startswith("__")
        and len(re.findall(rf"\b{node.name}\b", module.source)) == 2
    ]


def main() -> None:
    found = modules()
    lengths = sorted((node.end_lineno or 0) - node.lineno + 1 for _, node in functions(found))
    lonely = helpers_with_one_caller(found)
    print(f"{len(found)} modules, {sum(module.source.count(chr(10)) for module in found):,} lines")
    print(
        f"{len(lengths)} functions: median {lengths[len(lengths) // 2]} lines, p90 {lengths[len(lengths) * 9 // 10]}"
    )
    print(f"{len(lonely)} private helpers with one caller, {len(lonely) / len(lengths):.1%}:")
    for module, count in Counter(name.rpartition(".")[0] for name in lonely).most_common():
        names = ", ".join(name.rpartition(".")[2] for name in lonely if name.rpartition(".")[0] == module)
        print(f"  {count} {module}: {names}")
    print(
        "largest folders:",
        ", ".join(f"{folder} {count}" for folder, count in folder_sizes(found).most_common(8)),
    )
    print("circles:", import_circles(found) or "none")


if __name__ == "__main__":
    main()
