"""Every public module, class and function is documented: a summary, shapes of arrays, errors raised.

Ruff (rules D) checks that docstrings exist and how they are written; this test checks what they say. One style:
prose, "Raises InputError where …", shapes in parentheses after the name, such as `shares` (n, k).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "firstspin"
MODULES = {
    ".".join(path.relative_to(SOURCE).with_suffix("").parts): path
    for path in sorted(SOURCE.rglob("*.py"))
    if path.name != "__init__.py"
}

SHAPE = re.compile(r"\(\w[\w +*-]*,( \w[\w +*-]*(, \w[\w +*-]*)*)?\)")
ENDS_THE_PROGRAM = {"AssertionError", "BadParameter", "Exit", "StopIteration", "SystemExit"}
CONSTRUCTORS = {"__init__", "__post_init__"}

Documented = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def public(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, Documented]]:
    """The public classes, functions and methods of a module, by name."""
    for node in body:
        if isinstance(node, Documented) and not node.name.startswith("_") and not is_overload(node):
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from public(node.body, f"{prefix}{node.name}.")


def is_overload(node: Documented) -> bool:
    """Whether it only types a function whose definition follows, and so has no docstring (ruff's D418)."""
    return "overload" in map(ast.unparse, node.decorator_list)


def interface(node: Documented) -> list[ast.expr]:
    """The annotations of a function's parameters and result, or of a class's fields and constructor."""
    if isinstance(node, ast.ClassDef):
        fields = [part.annotation for part in node.body if isinstance(part, ast.AnnAssign)]
        return fields + [annotation for part in constructors(node) for annotation in interface(part)]
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    annotations = [argument.annotation for argument in arguments] + [node.returns]
    return [annotation for annotation in annotations if annotation is not None]


def constructors(node: ast.ClassDef) -> list[ast.FunctionDef]:
    return [part for part in node.body if isinstance(part, ast.FunctionDef) and part.name in CONSTRUCTORS]


def own_arrays(module: ast.Module) -> set[str]:
    """The names that a module gives to types of arrays, such as Array."""
    assigned = [node for node in module.body if isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript)]
    return {ast.unparse(node.targets[0]) for node in assigned if ast.unparse(node.value).startswith("NDArray[")}


ARRAYS = {f"firstspin.{name}": own_arrays(ast.parse(path.read_text())) for name, path in MODULES.items()}


def arrays(module: ast.Module) -> set[str]:
    """The names of types of arrays that a module uses."""
    imports = [node for node in module.body if isinstance(node, ast.ImportFrom)]
    imported = {one.name for node in imports for one in node.names if one.name in ARRAYS.get(node.module or "", ())}
    return {"NDArray", "ndarray"} | own_arrays(module) | imported


def takes_arrays(node: Documented, types: set[str]) -> bool:
    names = {getattr(part, "id", getattr(part, "attr", "")) for top in interface(node) for part in ast.walk(top)}
    return bool(names & types)


def raised(node: Documented) -> set[str]:
    """The names of the errors that a function or a constructor raises itself."""
    bodies = constructors(node) if isinstance(node, ast.ClassDef) else [node]
    errors = [part.exc for body in bodies for part in ast.walk(body) if isinstance(part, ast.Raise) and part.exc]
    called = [error.func if isinstance(error, ast.Call) else error for error in errors]
    names = {getattr(error, "id", getattr(error, "attr", "")) for error in called}
    return {name for name in names - ENDS_THE_PROGRAM if name[:1].isupper()}


def is_command(node: Documented) -> bool:
    """Whether a docstring is the --help of a Typer command, which shows no errors."""
    return not isinstance(node, ast.ClassDef) and "typer.Option(" in ast.unparse(node.args)


def problems(module: ast.Module) -> list[str]:
    """What is missing in the docstrings of a module, a line for each."""
    missing = [] if ast.get_docstring(module) else ["the module has no docstring"]
    types = arrays(module)
    for name, node in public(module.body):
        text = " ".join((ast.get_docstring(node) or "").split())
        if not text:
            missing.append(f"{name} (line {node.lineno}) has no docstring")
            continue
        if takes_arrays(node, types) and not SHAPE.search(text):
            missing.append(f"{name} (line {node.lineno}) does not give the shapes of its arrays, such as (n, k)")
        errors = set() if is_command(node) else raised(node)
        missing += [
            f"{name} (line {node.lineno}) does not say: Raises {error} where …"
            for error in sorted(errors)
            if not re.search(rf"[Rr]aises? ([^.]*\b)?{error}\b", text)
        ]
    return missing


@pytest.mark.parametrize("module", MODULES)
def test_docstrings_give_summary_shapes_and_errors(module: str) -> None:
    assert problems(ast.parse(MODULES[module].read_text())) == []


DOCUMENTED = '''
"""A module."""

def halved(rates: NDArray[np.float64]) -> NDArray[np.float64]:
    """Half of `rates` (n, k). Raises InputError where one is negative."""
    if (rates < 0).any():
        raise InputError("negative")
    return rates / 2
'''


@pytest.mark.parametrize(
    ("without", "problem"),
    [
        ("", []),
        ('"""A module."""', ["the module has no docstring"]),
        (" (n, k)", ["halved (line 4) does not give the shapes of its arrays, such as (n, k)"]),
        (" Raises InputError where one is negative.", ["halved (line 4) does not say: Raises InputError where …"]),
        (
            '"""Half of `rates` (n, k). Raises InputError where one is negative."""',
            ["halved (line 4) has no docstring"],
        ),
    ],
)
def test_a_missing_part_is_reported(without: str, problem: list[str]) -> None:
    assert problems(ast.parse(DOCUMENTED.replace(without, "", 1))) == problem
