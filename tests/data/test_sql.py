"""Any name or value survives quoting for SQL; one module quotes."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator

import duckdb
import pytest
from hostile_texts import HOSTILE
from hypothesis import given
from hypothesis import strategies as st
from test_floors import MODULES

from firstspin.data.sql import identifier, literal
from firstspin.records import InputError


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as opened:
        yield opened


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_a_name_and_a_value_and_nothing_else(connection: duckdb.DuckDBPyConnection, text: str) -> None:
    found = connection.execute(f"SELECT {literal(text)} AS {identifier(text)}")
    assert [name for name, *_ in found.description] == [text]
    assert found.fetchall() == [(text,)]


@given(text=st.text(min_size=1))
def test_any_text_comes_back_as_it_was(connection: duckdb.DuckDBPyConnection, text: str) -> None:
    found = connection.execute(f"SELECT {literal(text)} AS {identifier(text)}")
    assert ([name for name, *_ in found.description], found.fetchall()) == ([text], [(text,)])


def test_what_no_database_can_name_is_refused() -> None:
    with pytest.raises(InputError, match="an empty name"):
        identifier("")
    for quote in (identifier, literal):
        with pytest.raises(InputError, match="not Unicode"):
            quote("\ud800")


SPEAKS_SQL = {
    "duckdb",
    "sqlite3",
    "psycopg",
    "firstspin.data.sql",
    "firstspin.data.formats.connections",
    "firstspin.data.formats.readers",
    "firstspin.data.ingest",
}


def speaks_sql(tree: ast.AST) -> bool:
    """Whether a module imports a database, or what opens one."""
    nodes = list(ast.walk(tree))
    named = {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
    return bool(SPEAKS_SQL & (named | {node.module for node in nodes if isinstance(node, ast.ImportFrom)}))


def quotes_by_itself(tree: ast.AST) -> list[int]:
    """The lines where a value is put between SQL quotes, or a quote is doubled."""
    lines = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node.value in ("''", '""'):
            lines.append(node.lineno)
        if isinstance(node, ast.JoinedStr):
            parts = node.values
            before = {part.value[-1:] for part, value in itertools.pairwise(parts) if _text_then_value(part, value)}
            lines += [node.lineno] * bool(before & {"'", '"'})
    return lines


def _text_then_value(part: ast.expr, value: ast.expr) -> bool:
    return isinstance(part, ast.Constant) and isinstance(value, ast.FormattedValue)


@pytest.mark.parametrize("module", sorted(MODULES.keys() - {"sql"}))
def test_no_other_module_quotes_for_sql(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text())
    assert not (speaks_sql(tree) and quotes_by_itself(tree)), f"{module} line {quotes_by_itself(tree)[0]}: use sql.py"
