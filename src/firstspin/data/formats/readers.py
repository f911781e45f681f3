"""Reading of opened files: the SQL with which DuckDB reads the rows of a source.

A CSV file that DuckDB can't read is rewritten first (`csv_rewriting`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import TypeVar

from firstspin.data.formats import csv_rewriting
from firstspin.data.formats.columns import Shape, shape_of
from firstspin.data.formats.connections import in_our_words
from firstspin.data.formats.csv_rewriting import MAX_LINE, Dialect
from firstspin.data.formats.sources import PROBLEM, Column, Source, name_at
from firstspin.data.sql import identifier, literal

Result = TypeVar("Result")


def read(source: Source, run: Callable[[str], Result]) -> Result:
    """Call `run` with the SQL of the source's table: its columns by their `sql` names, and PROBLEM.

    A CSV file that DuckDB can't read is rewritten and `run` called again. Raises InputError where the file can't be
    read at all.
    """
    import duckdb

    with in_our_words(f"{source.path.name} can't be read"):
        if source.dialect is None or source.dialect.plain:
            try:
                return run(_as_received(source))
            except (duckdb.OutOfMemoryException, duckdb.IOException):
                raise
            except duckdb.Error:
                if source.dialect is None:
                    raise
        return run(_rewritten(source, source.dialect))


def _as_received(source: Source) -> str:
    if source.parts:
        alike = groupby(source.parts, key=lambda part: (part.names, part.dialect, str(dict(part.columns))))
        return _united(source, ((part, _files([part, *more])) for _, (part, *more) in alike))
    return _files([source])


def _united(source: Source, parts: Iterable[tuple[Source, str]]) -> str:
    """SQL: the rows of all parts, each given with its SQL, in order; a column that a part lacks is null there."""
    selected = []
    for part, rows in parts:
        columns = []
        for name, column in source.columns.items():
            value = part.columns[name].sql if name in part.columns else "NULL"
            floats = shape_of(column.type) is Shape.floating
            columns.append(f"{f'{value}::DOUBLE' if floats else value} AS {column.sql}")
        selected.append(f"SELECT {', '.join(columns)}, {identifier(PROBLEM)} FROM {rows}")
    return f"({' UNION ALL '.join(selected)})"


def _files(alike: Sequence[Source]) -> str:
    """SQL: the rows of files with the same columns and dialect, as received."""
    source, paths = alike[0], f"[{', '.join(literal(one.link) for one in alike)}]"
    names = [name_at(position) for position in range(source.width)]
    if source.dialect is None:
        by_position = f"received({', '.join(map(identifier, names))})"
        rows = source.stored if source.table else f"read_parquet({paths}, hive_partitioning = false)"
        file = f"{rows} AS {by_position}"
    else:
        file = _read_csv(paths, names, source.dialect.delimiter, "header = true")
    columns = ", ".join(_by_bytes(column) if source.table else column.sql for column in source.columns.values())
    return f"(SELECT {columns}, NULL::VARCHAR AS {identifier(PROBLEM)} FROM {file})"


def _by_bytes(column: Column) -> str:
    """SQL: a column of a database, whose texts are equal by their bytes: its own collation may ignore case, say."""
    is_text = shape_of(column.type) is Shape.text
    return f"{column.sql}::VARCHAR COLLATE C AS {column.sql}" if is_text else column.sql


def _rewritten(source: Source, dialect: Dialect) -> str:
    if source.parts:
        return _united(
            source, ((one, _rewritten(one, one.dialect) if one.dialect else _files([one])) for one in source.parts)
        )
    out = source.link.with_suffix(f"{source.link.suffix}.rewritten")
    positions = [column.position for column in source.columns.values()]
    csv_rewriting.rewrite(source.path, dialect, out, source.width, positions)
    line_end = r"header = false, new_line = '\r\n'"  # otherwise DuckDB takes the first one, even in quotes
    return _read_csv(literal(out), [PROBLEM, *map(name_at, positions)], ",", line_end)


def _read_csv(paths: str, names: Sequence[str], delimiter: str, more: str) -> str:
    """SQL: all columns as text; DuckDB's type detection is off."""
    columns = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in names)
    return (
        f"read_csv({paths}, columns = {{{columns}}}, {more}, delim = {literal(delimiter)}, quote = '\"', "
        "escape = '\"', nullstr = '', auto_detect = false, compression = 'none', hive_partitioning = false, "
        f"max_line_size = {MAX_LINE})"
    )
