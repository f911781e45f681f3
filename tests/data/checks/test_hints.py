"""Dates as people write them, and text not in UTF-8: an option reads them, and the error without it names that."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import duckdb
import made_tables
import pytest
from command_line import failed, firstspin

from firstspin import api
from firstspin.data import parsing
from firstspin.data.checks import findings
from firstspin.data.checks.checking import check_tables
from firstspin.data.checks.findings import RowRule
from firstspin.data.checks.hints import option_hints
from firstspin.data.dataset import Reading
from firstspin.data.formats.csv_rewriting import UTF_8, Dialect
from firstspin.data.formats.sources import Source
from firstspin.data.formats.written_values import DayOrder, Spelling
from firstspin.data.ingest import open_tables
from firstspin.records import BadRows, InputError

DAY_FIRST = ("13.01.2025 09:30", "1/2/2025", "2025-01-03T00:00:00Z", "4 Jan 2025", "2025-01-05 10:00")
READ_AS_IS = "2025-01-03T00:00:00Z"
READ = [(2025, 1, 13, 9, 30), (2025, 2, 1), (2025, 1, 3), (2025, 1, 4), (2025, 1, 5, 10)]


def tables(folder: Path, registered: tuple[str, ...], started: str = "2025-02-05T10:00:00Z") -> Path:
    rows = [(str(at), time, "31", "", "", "Rock") for at, time in enumerate(registered)]
    return made_tables.tables(folder / "data", rows, [("0", started, "1", "900")])


def read(folder: Path, dates: DayOrder | None, **more: bool) -> list[datetime]:
    opened = open_tables(folder / "data", workspace=folder, spelling=Spelling(dates=dates), **more)
    rows = opened.connection.execute("SELECT registered_at FROM registrations UNION ALL SELECT started_at FROM listens")
    return [at for (at,) in rows.fetchall()]


def hints(folder: Path) -> tuple[str, ...]:
    with pytest.raises(BadRows) as problem:
        read(folder, None)
    return problem.value.hints


def test_dates_are_read_in_the_order_of_the_option(tmp_path: Path) -> None:
    tables(tmp_path, DAY_FIRST, "05/02/2025 10:00:00")
    assert read(tmp_path, "day-first") == [*(datetime(*at) for at in READ), datetime(2025, 2, 5, 10)]
    tables(tmp_path, ("1/13/2025 9:30 PM",), "2/5/2025 10:00 AM")
    assert read(tmp_path, "month-first") == [datetime(2025, 1, 13, 21, 30), datetime(2025, 2, 5, 10)]


@pytest.mark.parametrize(
    ("written", "option"),
    [
        (("31.12.2024 14:05",), "--dates day-first"),
        (("01/02/2025", "13/01/2025"), "--dates day-first"),
        (("01/02/2025", "01/13/2025"), "--dates month-first"),
        (("01/02/2025",), "--dates day-first or --dates month-first"),
        (("2025-01-01 10:00:00",), "--dates day-first"),
    ],
)
def test_the_hint_names_the_option_that_reads_the_dates(tmp_path: Path, written: tuple[str, ...], option: str) -> None:
    tables(tmp_path, written)
    assert hints(tmp_path) == (f"registered_at: {option} reads such dates, without a zone as UTC",)


def test_only_rules_that_rows_break_are_looked_into() -> None:
    """A closed connection shows it: each query would read the whole table again."""
    complaints = (findings.MISSING, parsing.NO_TIME, parsing.NO_ZONE, parsing.NO_DATE, findings.MALFORMED)
    rules = [RowRule("started_at", "started_at", "true", complaint, "''") for complaint in complaints]
    source = Source(Path("listens.csv"), Path("listens.csv"), (), {}, Dialect(UTF_8))
    connection = duckdb.connect()
    connection.close()
    assert option_hints(connection, "SELECT 0 AS row, 0 AS rule, '' AS value", source, rules, {0: 1}) == {}
    with pytest.raises(duckdb.ConnectionException):
        option_hints(connection, "SELECT 0 AS row, 1 AS rule, '' AS value", source, rules, {1: 1})


def test_there_is_no_hint_where_no_option_helps(tmp_path: Path) -> None:
    tables(tmp_path, ("yesterday",))
    assert hints(tmp_path) == ()
    tables(tmp_path, ("13/01/2025", "01/13/2025"))
    assert hints(tmp_path) == ("registered_at: some dates have the day first and some the month: write all alike",)


@pytest.mark.parametrize("skip", [False, True])
def test_dates_in_the_other_order_are_refused_even_where_bad_rows_are_skipped(tmp_path: Path, *, skip: bool) -> None:
    tables(tmp_path, ("1/2/2025", "1/13/2025"))
    advice = "has the month first, against --dates day-first: write all alike, or give --dates month-first"
    with pytest.raises(InputError) as problem:
        read(tmp_path, "day-first", skip_bad_rows=skip)
    assert str(problem.value) == f"registrations.csv row 2: registered_at '1/13/2025' {advice}"
    assert problem.value.bare == f"registrations.csv row 2: registered_at {advice}"


def test_a_text_that_is_no_date_is_a_bad_row(tmp_path: Path) -> None:
    tables(tmp_path, ("1/2/2025", "yesterday"))
    with pytest.raises(BadRows, match="row 2: registered_at 'yesterday' is not a date with a year"):
        read(tmp_path, "day-first")
    assert len(read(tmp_path, "day-first", skip_bad_rows=True)) == 2


def test_check_prints_how_dates_are_read_and_advises_the_option(tmp_path: Path) -> None:
    data = tables(tmp_path, DAY_FIRST)
    checked = check_tables(data, Reading(spelling=Spelling(dates="day-first")), lambda _step, _done: None)
    assert {table.table: table.columns[1].read_as for table in checked.tables} == {
        "registrations": "time, day-first",
        "listens": "time, day-first",
        "stations": "text",
    }
    without_zone, no_time, *_ = check_tables(data, Reading(), lambda _step, _done: None).problems
    reads = "reads such dates, without a zone as UTC"
    assert without_zone.advice.endswith(f"; --dates day-first {reads}")
    assert no_time.advice.endswith(f"; --dates day-first or --dates month-first {reads}")


def test_a_row_that_is_not_utf_8_has_the_hint_of_the_encoding(tmp_path: Path) -> None:
    path = tables(tmp_path, (READ_AS_IS,)) / "registrations.csv"
    path.write_bytes(path.read_bytes().replace(b"Rock", "Schlager für alle".encode("cp1252")))
    hint = "--encoding names the encoding of a file that is not UTF-8, as in --encoding cp1252"
    assert hints(tmp_path) == (hint,)
    checked = check_tables(tmp_path / "data", Reading(), lambda _step, _done: None)
    assert checked.problems[0].advice.endswith(f"save the file as UTF-8; {hint}")
    checked = check_tables(tmp_path / "data", Reading(spelling=Spelling(encoding="cp1252")), lambda _step, _done: None)
    assert [table.format for table in checked.tables] == ["CSV (CP1252)", "CSV", "CSV"]
    assert "'Schlager für alle' (1)" in checked.problems[0].problem


def test_option_variable_and_settings_file_give_the_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So does the Python API. Read with the month first, the listen would be outside the window."""
    data = tables(tmp_path, ("1/1/2025", "2/1/2025"))
    listens = [("0", "5/2/2025 10:00", "1", "900"), ("0", "5.5.2025", "1", "900")]
    made_tables.write(data, "listens", made_tables.LISTENS, listens)
    monkeypatch.chdir(tmp_path)
    command = ["label", "--data", "data", "--out", "labels.parquet"]
    assert "--dates day-first or --dates month-first reads such dates" in failed(*command)
    labelled = "1 of 2 registrations have a label"
    assert labelled in firstspin(*command, "--dates", "day-first").stdout
    monkeypatch.setenv("FIRSTSPIN_DATES", "day-first")
    assert labelled in firstspin(*command).stdout
    monkeypatch.delenv("FIRSTSPIN_DATES")
    (tmp_path / "firstspin.toml").write_text('[data]\ndates = "day-first"\n', encoding="utf-8")
    assert labelled in firstspin(*command).stdout
    assert len(api.label(data, spelling=api.Spelling(dates="day-first"))) == 1
