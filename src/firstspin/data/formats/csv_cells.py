"""Protection against formula injection in CSV output: cells that spreadsheets take for formulas are escaped.

A text that begins like a formula, also after apostrophes, gets one apostrophe in front. Removing the first apostrophe
restores the text, and no two texts become the same cell. Numbers are not escaped. The reasons:
docs/decisions/0015-an-apostrophe-before-a-formula.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

FORMULA: Final = "[ \u00a0\u3000]*[=+@\uff1d\uff0b\uff0d\uff20-]|[\t\r\n]"
"""The beginning of a formula, also in full width and after spaces; spreadsheets may drop a tab or a line end."""

GUARDED: Final = f"^'+({FORMULA})"
"""Matches a cell that `guarded` has escaped, in Python's `re` and in RE2, the engine of DuckDB."""

_BEGINS_LIKE_ONE: Final = re.compile(f"'*({FORMULA})")
_GUARDED: Final = re.compile(GUARDED)
_IN_QUOTES: Final = re.compile('[",;\t\r\n]')  # many spreadsheets separate cells by semicolons or tabs


def is_guarded(text: str) -> bool:
    """Whether `guarded` escapes the text."""
    return _BEGINS_LIKE_ONE.match(text) is not None


def guarded(text: str) -> str:
    """The text as a cell that no spreadsheet takes for a formula.

    >>> guarded("=1+1"), guarded("'=1+1"), guarded("O'Brien"), guarded("'s Gravenhage")
    ("'=1+1", "''=1+1", "O'Brien", "'s Gravenhage")
    """
    return f"'{text}" if is_guarded(text) else text


def original(cell: str) -> str:
    """The text of a cell written by `guarded`.

    >>> original("'=1+1"), original("'s Gravenhage")
    ('=1+1', "'s Gravenhage")
    """
    return cell[1:] if _GUARDED.match(cell) else cell


def csv_line(cells: Iterable[str]) -> str:
    r"""A line of CSV without its line end; cells with a separator of any spreadsheet are quoted.

    >>> csv_line(["u;1", "@Rock|Jazz", "0.75|0.25"])
    '"u;1",\'@Rock|Jazz,0.75|0.25'
    """
    return ",".join(map(_quoted, map(guarded, cells)))


def _quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"' if _IN_QUOTES.search(cell) else cell
