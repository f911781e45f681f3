"""A CSV file that DuckDB can't read as it is -> one that it can, which names the rows that are not well-formed.

UTF-16, mixed line ends and broken rows come to this. It takes Python a microsecond or two a row, so only files that
need it come here; DuckDB reads all others alone.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO

UTF_8: Final = "utf-8-sig"  # with a byte order mark or without
MAX_LINE: Final = 10_000_000
"""Characters, and bytes for DuckDB."""

_MAX_CELL: Final = 1_000_000  # a quote that is never closed is looked for no further than this
_TOO_LONG: Final = f"is longer than {MAX_LINE:,} characters"
_NOT_TEXT: Final = "is not text in UTF-8"
MISQUOTED: Final = f"has a quote that does not close at the end of its cell, or a cell of over {_MAX_CELL:,} characters"

Record = list[str] | str
"""The cells of a row, or what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a CSV file is written: the encoding by its Python name, the delimiter, and the lines before the header.

    `plain` files are tried by DuckDB first.
    """

    encoding: str
    delimiter: str = ","
    skip: int = 0
    plain: bool = True


class Broken(csv.Error):
    """A line can't be part of any row; the message says why."""


class LineReader:
    """The lines of a file, for a CSV reader. After a broken record, all that it took but its first line comes again."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._again: deque[str] = deque()
        self._taken: list[str] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else self._read()
        if not line:
            raise StopIteration
        self._taken.append(line)
        if len(line) > MAX_LINE:
            raise Broken(_TOO_LONG)
        if not line.isascii() and _escaped(line):
            raise Broken(_NOT_TEXT)
        return line

    def begin_record(self) -> None:
        """The next line begins a record."""
        self._taken.clear()

    def give_again(self) -> None:
        """The record is broken, and only its first line is part of it."""
        self._again.extendleft(reversed(self._taken[1:]))

    def _read(self) -> str:
        line = self._file.readline(MAX_LINE + 1)
        if len(line) > MAX_LINE:
            rest = line
            while rest and not rest.endswith(("\n", "\r")):
                rest = self._file.readline(MAX_LINE)
        return line


def _escaped(line: str) -> bool:
    """Whether a line holds bytes that are not UTF-8."""
    try:
        line.encode()
    except UnicodeEncodeError:
        return True
    return False


def open_text(path: Path, dialect: Dialect) -> TextIO:
    """The file as text, its line ends as they are and bytes that are not UTF-8 escaped."""
    lenient = "surrogateescape" if dialect.encoding == UTF_8 else "strict"
    return path.open(encoding=dialect.encoding, errors=lenient, newline="")


def records(file: TextIO, dialect: Dialect) -> Iterator[Record]:
    """Each record of a file, its header included; empty lines are none."""
    lines = LineReader(file)
    for _ in range(dialect.skip):
        next(lines, None)
    reader = csv.reader(lines, delimiter=dialect.delimiter, strict=True)
    usual = csv.field_size_limit(_MAX_CELL)
    try:
        while True:
            lines.begin_record()
            try:
                cells = next(reader)
                if len(cells) > 1 or any(map(str.strip, cells)):
                    yield cells
            except StopIteration:
                return
            except csv.Error as problem:
                lines.give_again()
                yield str(problem) if isinstance(problem, Broken) else MISQUOTED
    finally:
        csv.field_size_limit(usual)


def rewrite(path: Path, dialect: Dialect, out: Path, width: int, kept: Sequence[int]) -> None:
    """Write the `kept` columns (positions) of a table `width` columns wide as CSV without a header.

    Before them stands what is wrong with the row, empty where it is well-formed.
    """
    with open_text(path, dialect) as file, out.open("w", encoding="utf-8", newline="") as rewritten:
        rows = records(file, dialect)
        next(rows, None)  # the header
        csv.writer(rewritten).writerows(_checked(row, width, kept) for row in rows)


def _checked(row: Record, width: int, kept: Sequence[int]) -> list[str]:
    if isinstance(row, list):
        if len(row) == width or (len(row) > width and not any(row[width:])):
            return ["", *(row[position] for position in kept)]
        row = f"has {len(row)} cells instead of {width}"
    return [row, *[""] * len(kept)]
