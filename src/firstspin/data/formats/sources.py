"""The columns of an input file, and which of them are read: needed, optional and mapped ones, by our names.

No name chosen by a user becomes part of an SQL statement: columns are named by position.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from firstspin.data.formats.csv_rewriting import UTF_8, Dialect
from firstspin.data.formats.written_values import AS_WRITTEN, Spelling
from firstspin.data.names import assigned
from firstspin.data.sql import identifier
from firstspin.records import MAX_TEXT, InputError, listed

if TYPE_CHECKING:
    import pyarrow as pa

PROBLEM: Final = "problem of the row"
"""A column of every table read: why the row is not well-formed, or null."""

DATABASE: Final = "attached"
"""The name of a DuckDB database in a connection that reads it."""

DELIMITER_NAMES: Final = {",": "commas", ";": "semicolons", "\t": "tabs"}
_SHOWN_NAMES: Final = 20


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a file: its position, its type (text in CSV) and its name in the file."""

    position: int
    type: pa.DataType
    header: str

    @property
    def sql(self) -> str:
        """The SQL name of the column, which no further column can have."""
        return identifier(name_at(self.position))


@dataclass(frozen=True, slots=True)
class Source:
    """A file with the columns `names`, and the `columns` to read, by our name; `dialect` is None for Parquet.

    `spelling` says how its values are written. DuckDB reads the file at `link`, a path in the workspace; of a folder,
    the `parts` are its files, and `dialect` is that of one in CSV, if any. Of a DuckDB database, the source is the
    `table`: its name, or schema.name.
    """

    path: Path
    link: Path
    names: tuple[str, ...]
    columns: Mapping[str, Column]
    dialect: Dialect | None
    spelling: Spelling = AS_WRITTEN
    parts: tuple[Source, ...] = ()
    table: str = ""

    @property
    def stored(self) -> str:
        """The SQL name of the table of a database."""
        return ".".join(map(identifier, (DATABASE, *self.table.split(".", 1))))

    @property
    def width(self) -> int:
        """The number of columns in the file."""
        return len(self.names)

    @property
    def format(self) -> str:
        """The name of the format, with what is unusual about it."""
        if self.dialect is None:
            return "DuckDB" if self.table else "Parquet"
        unusual = [DELIMITER_NAMES[self.dialect.delimiter]] if self.dialect.delimiter != "," else []
        unusual += [self.dialect.encoding.upper()] if self.dialect.encoding != UTF_8 else []
        return f"CSV ({', '.join(unusual)})" if unusual else "CSV"


def name_at(position: int) -> str:
    """The name of the column at a position of the file, which no further column can have."""
    return f"column {position}"


def columns_to_read(
    path: Path,
    schema: pa.Schema,
    names: Sequence[str],
    needed: Sequence[str],
    optional: Sequence[str] | None,
    mapped: Mapping[str, Sequence[str]] | None,
    mapped_at: str,
) -> dict[str, Column]:
    """The columns of a file to read, by our names, as `opening.open_table` takes them. Raises InputError as that."""
    if optional is None:
        optional = [name for name in names if name and name not in needed and names.count(name) == 1]
    aliases = {column: (mapped or {}).get(column, (column,)) for column in (*needed, *optional)}
    headers = {column: next((name for name in aliases[column] if name in names), None) for column in aliases}
    missing = [column for column in aliases if headers[column] is None and column in (*needed, *(mapped or ()))]
    if missing:
        raise _missing(path, missing, aliases, names, None if mapped is None else mapped_at)
    there = {column: header for column, header in headers.items() if header is not None}
    if twice := [header for header in there.values() if names.count(header) > 1]:
        raise InputError(f"{path.name} names the column {_shown(twice[0])} twice", field=twice[0])
    positions = {column: names.index(header) for column, header in there.items()}
    return {column: Column(at, schema.field(at).type, names[at]) for column, at in positions.items()}


def _missing(
    path: Path,
    missing: Sequence[str],
    aliases: Mapping[str, Sequence[str]],
    names: Sequence[str],
    mapped_at: str | None,
) -> InputError:
    """The error for needed columns that a file lacks, with its columns and those of similar names."""
    if any("\0" in name for name in names):
        return InputError(f"{path.name} has NUL bytes in its first line: save it as CSV in UTF-8")
    wanted = (shown_alias(column, aliases[column][0]) for column in missing)
    lacks = f"{path.name} has no column {', '.join(wanted)}"
    has = listed(list(map(_shown, names)), _SHOWN_NAMES)
    used = {header for known in aliases.values() for header in known if header in names}
    free = (name for name in names if name.isprintable() and not set(name) & set(",\"'") and name not in used)
    similar = assigned({column: aliases[column][0] for column in missing}, free)
    pairs = ",".join(f"{column}={similar.get(column, 'NAME')}" for column in missing)
    hint = "" if mapped_at is None else f"; for columns of other names: --map {shlex.quote(pairs)}{mapped_at}"
    bare = lacks  # without a header the names are values of a row
    return InputError(f"{lacks} (it has {has}){hint}", bare=bare, field=missing[0])


def shown_alias(column: str, header: str) -> str:
    """A column of ours as messages name it: with its name in the file, where that is another."""
    return column if column == header else f"{_shown(header)} ({column})"


def _shown(name: str) -> str:
    return name if name.isprintable() and len(name) <= MAX_TEXT else f"{name[:80]!r}"
