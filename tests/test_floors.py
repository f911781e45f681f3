"""The house keeps its floors: imports go down only, at the top of a file, and serving stays lean."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "firstspin"
FLOORS = (
    ("records", "files", "installation", "http_call"),
    ("data", "settings", "webhooks", "experiment.assign", "aws.clients"),
    ("events", "models"),
    ("experiment", "serving"),
    ("evaluation", "preflight", "watch"),
    ("service", "aws", "client"),
    ("simulation", "tools"),
    ("learn", "answer", "score", "evaluation.report.story"),
    ("cli", "__main__", "api"),
)
"""From the ground up. A name stands for itself and all below it, unless a longer name says otherwise."""

IMPORTED_WHERE_NEEDED = {
    ("aws.clients", "boto3"),
    ("aws.clients", "botocore"),
    ("api", "pyarrow"),
    ("cli.terminal", "rich"),
    ("data.formats.arrays", "pyarrow"),
    ("data.formats.columns", "pyarrow"),
    ("data.formats.dataframes", "pyarrow"),
    ("data.formats.connections", "duckdb"),
    ("data.formats.connections", "pyarrow"),
    ("data.formats.opening", "duckdb"),
    ("data.formats.opening", "pyarrow"),
    ("data.formats.readers", "duckdb"),
    ("data.importers.run", "pyarrow"),
    ("data.labels.incremental", "ibis"),
    ("data.labels.expressions", "ibis"),
    ("data.labels.label_file", "pyarrow"),
    ("data.labels.labelling", "pyarrow"),
    ("data.labels.new_listens", "pyarrow"),
    ("data.formats.postgres_address", "psycopg"),
    ("data.labels.postgres", "ibis"),
    ("data.labels.postgres", "psycopg"),
    ("data.labels.postgres", "pyarrow"),
    ("data.labels.remote", "ibis"),
    ("data.labels.remote", "pyarrow"),
    ("data.labels.spark", "ibis"),
    ("data.labels.spark", "py4j"),
    ("data.labels.spark", "pyarrow"),
    ("data.labels.spark", "pyspark"),
    ("data.labels.windows", "pyarrow"),
    ("evaluation.promotion", "scipy"),
    ("evaluation.report.charts", "altair"),
    ("evaluation.report.charts", "vl_convert"),
    ("evaluation.report.page", "jinja2"),
    ("events.databases.postgres", "psycopg"),
    ("models.search.checkpoint", "optuna"),
    ("evaluation.listens_curve", "scipy"),
    ("models.ensemble", "scipy"),
    ("models.evidence.training", "scipy"),
    ("models.linear.logistic", "scipy"),
    ("models.popularity", "scipy"),
    ("models.trees.boosting", "lightgbm"),
    ("models.trees.forest", "lightgbm"),
    ("models.search.tuning", "optuna"),
    ("models.task", "scipy"),
    ("service.metrics", "prometheus_client"),
    ("service.pages.analysis", "jinja2"),
    ("serving.spark_batch", "pyarrow"),
    ("serving.batch", "pyarrow"),
    ("installation.version", "importlib"),
}
"""Modules that import a heavy library inside the functions that need it, so that a command loads only what it runs."""

HEAVY = (
    "pandas",
    "ibis",
    "duckdb",
    "pyarrow",
    "sklearn",
    "lightgbm",
    "scipy",
    "altair",
    "statsmodels",
    "optuna",
    "pyspark",
)
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


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imports(path: Path) -> set[str]:
    """Our own modules that a file imports."""
    found = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ImportFrom) and node.module:
            base = node.module.removeprefix("firstspin").lstrip(".")
            found |= {f"{base}.{name.name}".lstrip(".") for name in node.names} | {base}
    return found & MODULES.keys()


@cache
def imports_inside_functions(path: Path) -> set[str]:
    """The libraries, and our modules by their full name, that a file imports inside its functions."""
    functions = [n for n in ast.walk(parsed(path)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    found = set()
    for node in (node for function in functions for node in ast.walk(function)):
        names = [name.name for name in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        found |= {name if name.startswith("firstspin") else name.split(".")[0] for name in names}
    return found


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_go_down_and_stand_at_the_top(module: str) -> None:
    for other in imports(MODULES[module]):
        assert floor(other) <= floor(module), f"{module} (floor {floor(module)}) imports {other} ({floor(other)})"
    hidden = {(module, name) for name in imports_inside_functions(MODULES[module])}
    if floor(module) == floor("cli") or module.endswith("__main__"):  # a command, or a process, imports what it runs
        hidden = {(module, name) for _, name in hidden if not name.startswith("firstspin")}
    assert hidden <= IMPORTED_WHERE_NEEDED, f"{module} imports inside a function: {hidden - IMPORTED_WHERE_NEEDED}"


def test_the_list_of_heavy_imports_holds_nothing_else() -> None:
    hidden = {(module, name) for module, path in MODULES.items() for name in imports_inside_functions(path)}
    assert hidden >= IMPORTED_WHERE_NEEDED


def test_no_module_is_imported_by_a_name_in_text() -> None:
    tricks = ("import_module", "__import__", "LazyLoader")
    assert [(module, trick) for module, path in MODULES.items() for trick in tricks if trick in path.read_text()] == []


def test_no_module_imports_itself_by_way_of_others() -> None:
    below = {module: imports(path) for module, path in MODULES.items()}
    seen = set[str]()  # on no cycle, nor anything that they import

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, f"a cycle: {' -> '.join([*way, module])}"
        if module in seen:
            return
        for other in below[module]:
            visit(other, (*way, module))
        seen.add(module)

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


@pytest.mark.parametrize(
    "words", [["--help"], ["--version"], ["train", "--help"], ["experiment", "--help"], ["events", "--help"]]
)
def test_help_loads_no_heavy_library(words: list[str]) -> None:
    ended = f"atexit.register(lambda: print([m for m in {HEAVY} if m in sys.modules]))"
    code = f"import atexit, sys; {ended}; sys.argv[1:] = {words}; from firstspin.__main__ import main; main()"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip().endswith("[]")
