"""The house keeps its floors: imports go down only, at the top of a file, and serving stays lean."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "firstspin"
FLOORS = (
    ("records", "files", "extras", "arguments", "lazily"),
    ("data", "environment", "experiment.assign", "aws.clients"),
    ("events", "models"),
    ("experiment", "serving"),
    ("evaluation", "preflight"),
    ("service", "aws"),
    ("simulation", "tools"),
    ("pipeline",),
    ("cli", "__main__"),
)
"""From the ground up. A name stands for itself and all below it, unless a longer name says otherwise."""

HEAVY = ("pandas", "ibis", "duckdb", "pyarrow", "sklearn", "lightgbm", "scipy", "altair", "statsmodels", "optuna")
MODULES = {
    ".".join(path.relative_to(SOURCE).with_suffix("").parts): path
    for path in SOURCE.rglob("*.py")
    if path.name != "__init__.py"
}


def floor(module: str) -> int:
    """Which floor a module is on: that of the longest name that covers it."""
    names = {name: number for number, floor in enumerate(FLOORS) for name in floor}
    covering = [name for name in names if module == name or module.startswith(f"{name}.")]
    assert covering, f"{module} is on no floor: name it in test_floors.py and docs/architecture.md"
    return names[max(covering, key=len)]


def imports(path: Path) -> set[str]:
    """Our own modules that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            base = node.module.removeprefix("firstspin").lstrip(".")
            found |= {f"{base}.{name.name}".lstrip(".") for name in node.names} | {base}
    return found & MODULES.keys()


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_go_down_and_stand_at_the_top(module: str) -> None:
    for other in imports(MODULES[module]):
        assert floor(other) <= floor(module), f"{module} (floor {floor(module)}) imports {other} ({floor(other)})"
    tree = ast.parse(MODULES[module].read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    hidden = [n for f in functions for n in ast.walk(f) if isinstance(n, ast.Import | ast.ImportFrom)]
    assert not hidden, f"{module} line {hidden[0].lineno} imports inside a function"


def test_no_module_imports_itself_by_way_of_others() -> None:
    below = {module: imports(path) for module, path in MODULES.items()}

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, f"a cycle: {' -> '.join([*way, module])}"
        for other in below[module]:
            visit(other, (*way, module))

    for module in below:
        visit(module, ())


def test_every_package_file_is_empty() -> None:
    assert [path for path in SOURCE.rglob("__init__.py") if path.read_text()] == []


@pytest.mark.parametrize(
    "door", ["firstspin.serving.policy", "firstspin.serving.explanations", "firstspin.service.__main__"]
)
def test_the_serving_process_is_lean(door: str) -> None:
    code = f"import sys, {door}; print([m for m in {HEAVY} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
