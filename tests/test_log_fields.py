"""Every field of a log line is in the table of docs/telemetry.md, and the table has no other."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "firstspin"
OF_EVERY_LINE = {"at", "level", "event", "pid", "where"}
"""What `service.process.logs` writes itself."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def extras(tree: ast.Module) -> list[tuple[ast.expr, ast.AST]]:
    """The values of `extra=` in the calls of a module that log, each with the function around it."""
    functions = functions_of(tree)
    found = []
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        for keyword in call.keywords:
            if keyword.arg == "extra" and isinstance(call.func, ast.Attribute) and is_log(call.func):
                around = [function for function in functions if call in ast.walk(function)]
                found.append((keyword.value, around[-1] if around else tree))
    return found


def functions_of(tree: ast.AST) -> list[Function]:
    return [node for node in ast.walk(tree) if isinstance(node, Function)]


def is_log(function: ast.Attribute) -> bool:
    return function.attr in ("debug", "info", "warning", "error", "exception", "critical", "log")


def fields(value: ast.expr, around: ast.AST, tree: ast.Module) -> set[str]:
    """The keys of a dict: written there, assigned to the name in the function around, or returned by a function."""
    if isinstance(value, ast.BinOp):
        return fields(value.left, around, tree) | fields(value.right, around, tree)
    if isinstance(value, ast.IfExp):
        return fields(value.body, around, tree) | fields(value.orelse, around, tree)
    if isinstance(value, ast.Call):
        [called] = [one for one in functions_of(tree) if one.name == getattr(value.func, "id", "")]
        returned = [one.value for one in ast.walk(called) if isinstance(one, ast.Return) and one.value]
        return set().union(*(fields(one, called, tree) for one in returned))
    if isinstance(value, ast.Name):
        assigned = [
            node.value
            for node in ast.walk(around)
            if isinstance(node, ast.Assign) and any(getattr(to, "id", "") == value.id for to in node.targets)
        ]
        assert assigned, f"line {value.lineno}: the fields are not assigned in the function that logs them"
        return set().union(*(fields(one, around, tree) for one in assigned))
    assert isinstance(value, ast.Dict), f"line {value.lineno}: the fields of a log line are a dict with written keys"
    assert all(isinstance(key, ast.Constant) for key in value.keys), f"line {value.lineno}: a key that is not written"
    return {str(key.value) for key in value.keys if isinstance(key, ast.Constant)}


@cache
def emitted() -> dict[str, str]:
    """Each field of a log line of the package, with a module that emits it."""
    found = {}
    for path in SOURCE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for value, around in extras(tree):
            found |= dict.fromkeys(fields(value, around, tree), str(path.relative_to(SOURCE)))
    return found


def documented() -> set[str]:
    page = (ROOT / "docs" / "telemetry.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?`) \|", page.partition("## Log fields")[2], re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def test_every_field_that_is_emitted_is_documented() -> None:
    found = emitted()
    assert len(found) > 20
    missing = {name: module for name, module in found.items() if name not in documented()}
    assert not missing, missing


def test_every_field_that_is_documented_is_emitted() -> None:
    assert documented() - OF_EVERY_LINE == set(emitted())
    assert documented() >= OF_EVERY_LINE


def test_no_field_is_about_a_person() -> None:
    assert not {"age", "gender", "country", "user", "user_id", "genres", "body", "key"} & set(emitted())
