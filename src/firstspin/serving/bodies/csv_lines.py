"""Lines of a CSV body, of bounded cost."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from typing import Final

from firstspin.serving.bodies.limits import MAX_LENGTH, MAX_VALUES, Body, too_long
from firstspin.serving.refusal import Refusal

_CSV_LINE: Final = re.compile(rb"[^\r\n]*+(?:\r\n?|\n)?")
_LINE_ENDS: Final = re.compile(rb"[\r\n]*+")
_BOM: Final = b"\xef\xbb\xbf"  # spreadsheets put it in front of CSV


class CsvLines:
    """The lines of a CSV body, for the parser.

    A row with too many values for a registration is refused before it is parsed.
    """

    def __init__(self, body: Body) -> None:
        self._body = body
        self.position = len(_BOM) if body.startswith(_BOM) else 0
        self._begun = self.position  # start of the row that is being parsed
        self._values = 0  # upper bound of its values

    def rows(self) -> Iterator[list[str]]:
        """The cells of each row; an empty row has none, and empty lines between rows are skipped.

        Raises Refusal where the body is no CSV, or a row is too long.
        """
        parsed = csv.reader(self, strict=True)
        while True:
            ends = _LINE_ENDS.match(self._body, self.position)
            self.position = self._begun = ends.end() if ends else self.position
            self._values = 0
            try:
                row = next(parsed, None)
            except csv.Error:
                raise Refusal(400, "malformed", "the body is not CSV") from None
            if row is None:
                return
            yield row

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = _CSV_LINE.match(self._body, self.position)
        if not line or line.end() == self.position:
            raise StopIteration
        self._values += self._body.count(b",", self.position, line.end()) + 2  # a line costs more than a comma
        self.position = line.end()
        if self._values > MAX_VALUES or self.position - self._begun > MAX_LENGTH:
            raise too_long().in_line(self.number())
        try:
            return line[0].decode()
        except UnicodeDecodeError:
            raise Refusal(400, "malformed", "the body is not UTF-8") from None

    def number(self) -> int:
        """The number of the line in which the row begins."""
        before = self._body[: self._begun]
        return len(before.splitlines()) + 1
