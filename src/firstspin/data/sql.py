"""Quoting of SQL identifiers and literals, which no other module does, and the SQL that is compiled beforehand."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from firstspin.records import InputError


def identifier(name: str) -> str:
    """The name of a column or a table as a quoted SQL identifier, with any characters.

    Raises InputError where the name is empty or not Unicode (half of a surrogate pair).

    >>> identifier('a "genre" of station')
    '"a ""genre"" of station"'
    """
    if not name:
        raise InputError("an empty name can't be a column")
    return '"' + _unicode(name).replace('"', '""') + '"'


def literal(value: str | Path) -> str:
    """A text or a path as an SQL string. Raises InputError where it is not Unicode.

    >>> literal("it's")
    "'it''s'"
    """
    return "'" + _unicode(str(value)).replace("'", "''") + "'"


@cache
def compiled(name: str) -> str:
    """An Ibis expression as SQL for DuckDB, with names in braces for numbers.

    Importing Ibis and compiling takes longer than labelling a small table. A test compiles the expressions anew.
    """
    return (Path(__file__).parent / "compiled" / f"{name}.sql").read_text(encoding="utf-8")


def _unicode(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"{text[:80]!r} is not Unicode text") from None
    return text
