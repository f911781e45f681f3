"""Sections of a help text, as `firstspin serve` and the other commands print them: no word is broken or cut."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Final

MIN_WIDTH: Final = 20
MAX_NAME: Final = 32
"""A longer name has what it does below it, not beside."""


def section(heading: str, rows: Sequence[tuple[str, str]], width: int) -> str:
    """A heading, and a row for each option or command: its name, and beside it what it does."""
    column = max((len(name) for name, _ in rows if len(name) <= MAX_NAME), default=0) + 2
    lines = [f"{heading}:"]
    for name, text in rows:
        first, *further = _wrapped(text, width - column - 2)
        lines += [f"  {name:{column}}{first}"] if len(name) < column else [f"  {name}", f"{'':{column + 2}}{first}"]
        lines += [f"{'':{column + 2}}{line}" for line in further]
    return "\n".join([*lines, ""])


def example(words: str, width: int) -> str:
    """The section of an example, in lines that a shell takes."""
    return "\n".join(["Example:", "  " + " \\\n    ".join(_wrapped(words, width - 6)), ""])


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(width, MIN_WIDTH), break_on_hyphens=False, break_long_words=False) or [""]
