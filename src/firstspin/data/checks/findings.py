"""What is wrong with the tables, and what to do about it: raised, skipped and counted, or collected.

`label`, `train` and the others raise the first problem, or skip bad rows. `check` collects all problems: a bad row is
left out, and a table that can't be read is left out of the comparisons.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import msgspec

from firstspin.data import parsing
from firstspin.records import MAX_PICKS, MAX_TEXT, BadRows, InputError

SHOWN: Final = 10
"""Bad rows in one error message."""

NEARLY_ALL: Final = 0.95
"""From this share of bad values on, a whole column is taken for wrong."""

SHOWN_OF_A_KIND: Final = 3
"""Bad rows that `check` shows of each kind."""

SKIP: Final = "--skip-bad-rows"

MALFORMED: Final = "rows that are not well-formed"
MISSING: Final = "is missing"
TOO_LONG: Final = f"is longer than {MAX_TEXT} characters"
NOT_POSITIVE: Final = "is not more than 0"
HAS_PIPE: Final = "holds a pipe sign, which separates genres"
TOO_MANY: Final = f"names more than {MAX_PICKS} genres"
LONG_GENRE: Final = f"names a genre of more than {MAX_TEXT} characters"
NOT_A_FLAG: Final = "is not true or false"
REPEATED: Final = "appears a second time"
UNKNOWN_STATION: Final = "is not in the stations"

ADVICE: Final[Mapping[str, str]] = {
    MALFORMED: "quote cells that contain the delimiter, a quote or a line end, and save the file as UTF-8",
    MISSING: "fill it in, or remove the row",
    TOO_LONG: f"shorten it to {MAX_TEXT} characters",
    NOT_POSITIVE: "write the seconds that were listened to, and remove listens without any",
    HAS_PIPE: "give the station one genre, without a pipe sign",
    TOO_MANY: f"keep the first {MAX_PICKS} picks",
    LONG_GENRE: "separate the picks by pipe signs, as in Rock|Jazz, or name their separator with --pick-separator",
    NOT_A_FLAG: "write true or false, or leave it empty for true",
    REPEATED: "keep one row per id",
    UNKNOWN_STATION: "add the station with its genre to the stations, or correct the id",
    parsing.NO_ZONE: "write the time in UTC with a Z, as in 2026-02-05T12:02:03Z",
    parsing.NO_TIME: "write the time as in 2026-02-05T12:02:03Z",
    parsing.NO_DATE: "write the date with its year, as in 2026-02-05 or 2026-02-05T12:02:03Z",
    parsing.NO_SUCH_YEAR: "correct the year",
    parsing.NO_NUMBER: "write a plain number, without thousands separators and units, as in 1200.5",
    parsing.NOT_WHOLE: "write whole years, or leave it empty",
    parsing.NO_AGE: "correct it, or leave it empty",
}
"""What to do about each kind of bad row."""


class BadValue(msgspec.Struct, frozen=True):
    """One bad row (from 1; None on Spark) and its value; for a malformed row, what is wrong with it."""

    row: int | None
    value: str | None


class TableProblem(msgspec.Struct, frozen=True):
    """A problem to fix: of `rows` bad rows of a kind, with examples, or (0) of a whole file or column.

    `label` is the column `field` as messages name it; `bare` the problem without values of the tables.
    """

    problem: str
    bare: str
    file: str = ""
    field: str = ""
    label: str = ""
    rows: int = 0
    examples: tuple[BadValue, ...] = ()
    advice: str = ""
    option: str = ""


@dataclass(frozen=True, slots=True)
class RowRule:
    """A row is bad where `broken` (SQL over the validated values) is true; `complaint` ends the error message.

    `label` is the column as messages name it, `value` the SQL of the bad value. A row that is not well-formed has no
    `field`: its value says what is wrong.
    """

    field: str
    label: str
    broken: str
    complaint: str
    value: str

    @property
    def named(self) -> str:
        """The complaint with its column."""
        return f"{self.label} {self.complaint}" if self.label else self.complaint


@dataclass(frozen=True, slots=True)
class BadRowsOfATable:
    """The number of bad rows `of` all, of each rule (by position), and the first: row (from 0, or None), rule, value.

    `hints` are options that read the values, by the position of the rule.
    """

    rows: int
    of: int
    counts: Mapping[int, int]
    first: Sequence[tuple[int | None, int, str | None]]
    hints: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Complaints:
    """What happens to problems: raised, unless bad rows may be skipped; or `collected`, where that is a list.

    `skipped` counts the bad rows that were left out by reason, `bad_rows` by file, and `valid` the others of that file.
    """

    skip_bad_rows: bool = False
    collected: list[TableProblem] | None = None
    skipped: dict[str, int] = field(default_factory=dict)
    bad_rows: dict[str, int] = field(default_factory=dict)
    valid: dict[str, int] = field(default_factory=dict)

    @property
    def show_rows(self) -> bool:
        """Whether bad rows are shown, and not only counted."""
        return self.collected is not None or not self.skip_bad_rows

    @contextmanager
    def of(self, file: str) -> Iterator[None]:
        """Collect an InputError about a file, where problems are collected."""
        try:
            yield
        except InputError as problem:
            if self.collected is None:
                raise
            self.collected.append(TableProblem(str(problem), problem.bare, file, problem.field))

    def unknown_stations(self, file: str) -> int:
        """The number of listens in this file that were left out because of their station."""
        return sum(n for why, n in self.skipped.items() if why.startswith(file) and why.endswith(UNKNOWN_STATION))

    def dropped(self, file: str, remaining: int) -> str:
        """The number of this file's rows that were dropped, and why; empty where none was."""
        if not (rows := self.bad_rows.get(file, 0)):
            return ""
        counts = {why.removeprefix(f"{file}: "): n for why, n in self.skipped.items() if why.startswith(f"{file}: ")}
        reasons = ", ".join(why if n == rows else f"{why} ({n:,})" for why, n in counts.items())
        return f"{file}: {rows:,} of {rows + remaining:,} rows dropped: {reasons}"

    def add(self, file: str, rules: Sequence[RowRule], bad: BadRowsOfATable) -> None:
        """Handle the bad rows of a file. Raises BadRows where they are neither skipped nor collected."""
        if self.collected is not None:
            self.collected.extend(_finding(file, rules[at], bad, at) for at in bad.counts)
        elif not self.skip_bad_rows:
            raise _bad_rows(file, rules, bad)
        reasons = Counter[str]()
        for at, count in bad.counts.items():  # several rules of a column may have one reason
            reasons[f"{file}: {rules[at].named}"] += count
        self.skipped.update(reasons)
        self.bad_rows[file], self.valid[file] = bad.rows, bad.of - bad.rows


def bad_row(file: str, label: str, problem: str, example: BadValue, *, bare: bool) -> str:
    """The line about a bad row; a `bare` one leaves out the value."""
    place = place_of(file, example.row)
    if not label:
        return f"{place} {example.value}"
    shown = "" if bare or example.value is None else f"{example.value!r} "
    return f"{place}: {label} {shown}{problem}"


def place_of(file: str, row: int | None) -> str:
    """The place of a row in messages: the rows of some engines have no order, and so no number."""
    return file if row is None else f"{file} row {row}"


def _example(row: int | None, value: str | None) -> BadValue:
    return BadValue(None if row is None else row + 1, value)


def _finding(file: str, rule: RowRule, bad: BadRowsOfATable, at: int) -> TableProblem:
    shown = tuple(_example(row, value) for row, of, value in bad.first if of == at)
    complaint = rule.complaint
    hint = bad.hints.get(at, "").removeprefix(f"{rule.label}: ")
    advice = f"{ADVICE[complaint]}{f'; {hint}' if hint else ''}"
    option = SKIP if bad.rows < NEARLY_ALL * bad.of else ""  # hardly a row would remain
    return TableProblem(complaint, complaint, file, rule.field, rule.label, bad.counts[at], shown, advice, option)


def _bad_rows(file: str, rules: Sequence[RowRule], bad: BadRowsOfATable) -> BadRows:
    shown, bare = (
        [
            bad_row(file, rules[at].label, rules[at].complaint, _example(row, value), bare=is_bare)
            for row, at, value in bad.first
        ]
        for is_bare in (False, True)
    )
    more = [f"{file}: and {bad.rows - SHOWN} more bad rows"] if bad.rows > SHOWN else []
    return BadRows("\n".join(shown + more), "\n".join(bare + more), tuple(dict.fromkeys(bad.hints.values())))
