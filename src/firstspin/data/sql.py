"""Names and values as SQL writes them. The only code that quotes for SQL: no other module builds a quoted string."""

from __future__ import annotations

from pathlib import Path

from firstspin.records import InputError


def identifier(name: str) -> str:
    """The name of a column or a table as a quoted SQL identifier, whatever characters it holds.

    Raises InputError for what no database can name: no character at all, or half of a surrogate pair.

    >>> identifier('a "genre" of station')
    '"a ""genre"" of station"'
    """
    if not name:
        raise InputError("an empty name can't be a column")
    return '"' + _unicode(name).replace('"', '""') + '"'


def literal(value: str | Path) -> str:
    """Text, or a path, as an SQL string. Raises InputError for text that is not Unicode.

    >>> literal("it's")
    "'it''s'"
    """
    return "'" + _unicode(str(value)).replace("'", "''") + "'"


def _unicode(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"{text[:80]!r} is not Unicode text") from None
    return text
