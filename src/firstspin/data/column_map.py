"""Column names of a service's own tables -> ours: `--map user_id=uid,listens.seconds=duration`.

A name of a file is only ever compared with a header; columns are read by position (`formats.sources`), so no name
becomes part of an SQL statement.
"""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from firstspin.data import schema
from firstspin.data.formats.columns import KINDS
from firstspin.data.names import NameIndex
from firstspin.records import InputError, readable

if TYPE_CHECKING:
    from firstspin.data.formats.sources import Source

_OPTION: Final = "--map"


@dataclass(frozen=True, slots=True)
class ColumnMap:
    """The name in the file of each (table, column of ours) that has another one; the table is "" for every table.

    `place` is the key of the settings file that gives the map, for messages; empty for an option.
    """

    headers: Mapping[tuple[str, str], str] = field(default_factory=dict)
    place: str = field(default="", compare=False)

    def __str__(self) -> str:
        """The map as the text of the option."""
        text = io.StringIO()
        entries = [
            f"{table}.{column}={name}" if table else f"{column}={name}"
            for (table, column), name in self.headers.items()
        ]
        csv.writer(text, lineterminator="").writerow(entries)
        return text.getvalue()

    @property
    def at_place(self) -> str:
        """The end of a message about the map."""
        return f" ({self.place})" if self.place else ""

    def aliases(self, table: str) -> dict[str, tuple[str, ...]]:
        """The names that a mapped column may have in the file of this table.

        A column of several tables that is mapped for all of them may have our name in some: `require_used` checks that
        it has not in all.
        """
        aliases: dict[str, tuple[str, ...]] = {}
        for (of, column), header in self.headers.items():
            if not of and table in _tables(column):
                aliases[column] = (header, column) if len(_tables(column)) > 1 else (header,)
        return aliases | {column: (header,) for (of, column), header in self.headers.items() if of == table}

    def check(self, extra: Sequence[str] = ()) -> None:
        """Raises InputError where a target is no column of ours, nor one of these further ones."""
        for (table, column), header in self.headers.items():
            further = extra if table in ("", schema.REGISTRATIONS) else ()
            known = [name for of in ([table] if table else KINDS) for name in KINDS[of]] + [*further]
            if column not in known:
                nearest = NameIndex(known).nearest(column)
                if nearest in further and ("", nearest) not in self.headers:
                    used = f"the nearest is {column}={shlex.quote(header)}"
                    raise InputError(f"--extra names {nearest}, which {_OPTION} has not; {used}{self.at_place}")
                hint = f"the nearest is {nearest}" if nearest else f"there are {', '.join(dict.fromkeys(known))}"
                named = "; further columns are named with --extra" if table in ("", schema.REGISTRATIONS) else ""
                target = f"{table}.{column}" if table else column
                lacks = f"{_OPTION} {target!r}: firstspin has no such column; {hint}{named}"
                raise InputError(f"{lacks}{self.at_place}")

    def require_used(self, sources: Sequence[Source]) -> None:
        """Raises InputError where a column that is mapped for every table has the new name in none of these files."""
        columns = [(name, column.header) for source in sources for name, column in source.columns.items()]
        for (table, column), header in self.headers.items():
            if not table and (column, header) not in columns and column in dict(columns):
                nearest = NameIndex(name for source in sources for name in source.names).nearest(header)
                hint = f"; the nearest is {nearest}" if nearest else ""
                lacks = f"{_OPTION} {column}={header}: no table has a column {header}"
                at = self.at_place
                raise InputError(f"{lacks}{hint}{at}", bare=f"{lacks}{at}", field=column)


OWN_NAMES: Final = ColumnMap()
"""The map of tables whose columns have our names."""


def column_map(given: str | Mapping[str, object], *, place: str = "") -> ColumnMap:
    """The map of an option (`user_id=uid,listens.seconds=duration`) or of a table of the settings file at `place`.

    A name with a comma is quoted as in CSV: `"name=Station, long",genre=style`. In a table, a column's name is a text
    and those of one table may be a table of their own: {"user_id": "uid", "listens": {"seconds": "duration"}}.

    Raises InputError where an entry is no pair, a table is unknown, or two columns are mapped to one.
    """
    headers: dict[tuple[str, str], str] = {}
    for target, header in _pairs(given):
        key = _key(target)
        if not header or not key[1]:
            raise InputError(f"{target!r}: expected COLUMN=NAME, where NAME is the column's name in the file")
        if key in headers:
            raise InputError(f"two columns, {headers[key]!r} and {header!r}, are mapped to {target}")
        headers[key] = header
    _refuse_shared(headers)
    return ColumnMap(headers, place)


def _pairs(given: str | Mapping[str, object]) -> list[tuple[str, str]]:
    if isinstance(given, str):
        try:
            entries = next(csv.reader([given], skipinitialspace=True), [])
        except csv.Error as problem:
            raise InputError(f"not a list of columns: {problem}") from None
        split = [entry.partition("=") for entry in entries if entry.strip()]
        return [(target.strip(), header.strip()) for target, _, header in split]
    pairs: list[tuple[str, str]] = []
    for name, value in given.items():
        columns = (
            {f"{name}.{column}": of for column, of in value.items()} if isinstance(value, Mapping) else {name: value}
        )
        for target, header in columns.items():
            if not isinstance(header, str):
                raise InputError(f"{target!r}: the name of a column is text, not {readable(repr(header))}")
            pairs.append((target.strip(), header.strip()))
    return pairs


def _key(target: str) -> tuple[str, str]:
    table, dot, column = target.partition(".")
    if not dot:
        return "", target
    if table not in schema.COLUMNS:
        raise InputError(f"{target!r}: the tables are {', '.join(schema.COLUMNS)}")
    return table, column


def _refuse_shared(headers: Mapping[tuple[str, str], str]) -> None:
    """Raises InputError where one column of a file is mapped to two of ours, which is a slip of the keyboard.

    Stations may be named by their id or genre.
    """
    for table in schema.COLUMNS:
        seen: dict[str, str] = {}
        for column, (header, *_) in ColumnMap(headers).aliases(table).items():
            if (table, column) == (schema.STATIONS, schema.NAME):
                continue
            if header in seen:
                raise InputError(f"the column {header!r} is mapped to two, {seen[header]} and {column}")
            seen[header] = column


def _tables(column: str) -> list[str]:
    """The tables that have this column; a further one is of the registrations."""
    return [table for table, kinds in KINDS.items() if column in kinds] or [schema.REGISTRATIONS]
