"""Text in the CSV that we write: no spreadsheet may take it for a formula, and our readers get it back as it was.

A text that begins like a formula gets an apostrophe in front; one that does so after apostrophes gets one more. So the
original is what is left without the first apostrophe, and no two texts become the same cell.
docs/decisions/0015-an-apostrophe-before-a-formula.md says why. Numbers never pass through here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

FORMULA: Final = "[ \u00a0\u3000]*[=+@\uff1d\uff0b\uff0d\uff20-]|[\t\r\n]"
"""How a formula begins, also in full width and after spaces; a tab or a line end may be dropped before it is read."""

GUARDED: Final = f"^'+({FORMULA})"
"""A cell that `guarded` has changed. Python's `re` and RE2, the engine of DuckDB, match the same cells."""

_BEGINS_LIKE_ONE: Final = re.compile(f"'*({FORMULA})")
_GUARDED: Final = re.compile(GUARDED)
_IN_QUOTES: Final = re.compile('[",;\t\r\n]')  # a semicolon or a tab separates cells for many spreadsheets


def is_guarded(text: str) -> bool:
    """Whether `guarded` changes the text."""
    return _BEGINS_LIKE_ONE.match(text) is not None


def guarded(text: str) -> str:
    """The text as a cell that is no formula.

    >>> guarded("=1+1"), guarded("'=1+1"), guarded("O'Brien"), guarded("'s Gravenhage")
    ("'=1+1", "''=1+1", "O'Brien", "'s Gravenhage")
    """
    return f"'{text}" if is_guarded(text) else text


def original(cell: str) -> str:
    """The text of a cell that `guarded` made.

    >>> original("'=1+1"), original("'s Gravenhage")
    ('=1+1', "'s Gravenhage")
    """
    return cell[1:] if _GUARDED.match(cell) else cell


def csv_line(cells: Iterable[str]) -> str:
    r"""A row of texts without its line end, in quotes where a cell holds a separator of any spreadsheet.

    >>> csv_line(["u;1", "@Rock|Jazz", "0.75|0.25"])
    '"u;1",\'@Rock|Jazz,0.75|0.25'
    """
    return ",".join(map(_quoted, map(guarded, cells)))


def _quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"' if _IN_QUOTES.search(cell) else cell
