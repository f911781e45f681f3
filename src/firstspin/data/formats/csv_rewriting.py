"""Rewrites a CSV file that DuckDB can't read into one that it can, with a column that marks malformed rows.

Needed for UTF-16, mixed line ends and broken rows. Python takes one or two microseconds per row, so only files that
DuckDB can't read are rewritten.
"""

from __future__ import annotations

import codecs
import csv
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO

UTF_8: Final = "utf-8-sig"  # with a byte order mark or without
MAX_LINE: Final = 10_000_000
"""Maximum length of a line, in characters, and in bytes for DuckDB."""

_MAX_CELL: Final = 1_000_000  # the search for a closing quote ends after this many characters
_TOO_LONG: Final = f"is longer than {MAX_LINE:,} characters"
NOT_TEXT: Final = "is not text in UTF-8"
ENCODING_HINT: Final = "--encoding names the encoding of a file that is not UTF-8, as in --encoding cp1252"
MISQUOTED: Final = f"has a quote that does not close at the end of its cell, or a cell of over {_MAX_CELL:,} characters"

Record = list[str] | str
"""The cells of a row, or why it is malformed."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """The dialect of a CSV file: encoding (Python name), delimiter, and lines to skip before the header.

    DuckDB tries to read `plain` files directly.
    """

    encoding: str
    delimiter: str = ","
    skip: int = 0
    plain: bool = True


class Broken(csv.Error):
    """A line can't be part of a row; the message says why."""


class LineReader:
    """The lines of a file for a CSV reader; after a malformed record, all its lines but the first are read again."""

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
            raise Broken(NOT_TEXT)
        return line

    def begin_record(self) -> None:
        """Start a record at the next line."""
        self._taken.clear()

    def give_again(self) -> None:
        """End a malformed record after its first line; the other lines are read again."""
        self._again.extendleft(reversed(self._taken[1:]))

    def _read(self) -> str:
        line = self._file.readline(MAX_LINE + 1)
        if len(line) > MAX_LINE:
            rest = line
            while rest and not rest.endswith(("\n", "\r")):
                rest = self._file.readline(MAX_LINE)
        return line


def _escaped(line: str) -> bool:
    """Whether a line has bytes that are not UTF-8."""
    try:
        line.encode()
    except UnicodeEncodeError:
        return True
    return False


def is_encoding(name: str) -> bool:
    """Whether Python knows a text encoding of this name."""
    try:
        return "a".encode(name).decode(name) == "a"
    except (LookupError, ValueError):
        return False


def is_utf_8(path: Path) -> bool:
    """Whether a file is text in UTF-8. Zero and escape characters are signs of UTF-16 and ISO 2022."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with path.open("rb") as file:
        try:
            while part := file.read(1 << 20):
                decoder.decode(part)
                if b"\0" in part or b"\x1b" in part:
                    return False
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return False
    return True


def open_text(path: Path, dialect: Dialect) -> TextIO:
    """Open a file as text, with line ends unchanged and invalid UTF-8 escaped."""
    lenient = "surrogateescape" if dialect.encoding == UTF_8 else "strict"
    return path.open(encoding=dialect.encoding, errors=lenient, newline="")


def records(file: TextIO, dialect: Dialect) -> Iterator[Record]:
    """The records of a file, with the header, without empty lines."""
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


def rewrite(path: Path, dialect: Dialect, out: Path, width: int, positions: Sequence[int]) -> None:
    """Write the columns at `positions` of a table `width` columns wide as CSV without a header.

    The first column says why a row is malformed; it is empty in a well-formed row.
    """
    with open_text(path, dialect) as file, out.open("w", encoding="utf-8", newline="") as rewritten:
        rows = records(file, dialect)
        next(rows, None)  # the header
        csv.writer(rewritten).writerows(_checked(row, width, positions) for row in rows)


def _checked(row: Record, width: int, positions: Sequence[int]) -> list[str]:
    if isinstance(row, list):
        if len(row) == width or (len(row) > width and not any(row[width:])):
            return ["", *(row[position] for position in positions)]
        row = f"has {len(row)} cells instead of {width}"
    return [row, *[""] * len(positions)]
