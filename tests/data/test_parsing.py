"""Every kind of value has one format, which Python and DuckDB read alike."""

from __future__ import annotations

import doctest
import sys
from collections.abc import Callable
from datetime import UTC, datetime

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstspin.data import parsing
from firstspin.data.parsing import Misspelt, age, moment, number, picks
from firstspin.records import Registration

REFUSED = "refused"

TIMES: dict[str, object] = {
    "2026-02-05T12:02:03Z": datetime(2026, 2, 5, 12, 2, 3, tzinfo=UTC),
    "2026-02-05t12:02:03z": datetime(2026, 2, 5, 12, 2, 3, tzinfo=UTC),
    "2026-02-05T12:02Z": datetime(2026, 2, 5, 12, 2, tzinfo=UTC),
    "2026-02-05 12:02:03 UTC": datetime(2026, 2, 5, 12, 2, 3, tzinfo=UTC),
    "2026-02-05 12:02:03utc": datetime(2026, 2, 5, 12, 2, 3, tzinfo=UTC),
    "2026-02-05 12:02:03 Z": datetime(2026, 2, 5, 12, 2, 3, tzinfo=UTC),
    "2026-02-05T12:02:03+01:00": datetime(2026, 2, 5, 11, 2, 3, tzinfo=UTC),
    "2026-02-05T12:02:03+0130": datetime(2026, 2, 5, 10, 32, 3, tzinfo=UTC),
    "2026-02-05 12:02:03+00": datetime(2026, 2, 5, 12, 2, 3, tzinfo=UTC),
    "2026-02-05 12:02:03 +0000": datetime(2026, 2, 5, 12, 2, 3, tzinfo=UTC),
    "2026-02-05T12:02:03-00:00": datetime(2026, 2, 5, 12, 2, 3, tzinfo=UTC),
    "2026-02-05T12:02:03+14:00": datetime(2026, 2, 4, 22, 2, 3, tzinfo=UTC),
    "2026-02-05T12:02:03.5Z": datetime(2026, 2, 5, 12, 2, 3, 500_000, tzinfo=UTC),
    "2026-02-05T12:02:03.123456Z": datetime(2026, 2, 5, 12, 2, 3, 123_456, tzinfo=UTC),
    "2026-02-05T12:02:03.999999999Z": datetime(2026, 2, 5, 12, 2, 3, 999_999, tzinfo=UTC),
    "\t2026-02-05T12:02:03Z\n": datetime(2026, 2, 5, 12, 2, 3, tzinfo=UTC),
    "2024-02-29T00:00Z": datetime(2024, 2, 29, tzinfo=UTC),
    "1971-01-01T00:00Z": datetime(1971, 1, 1, tzinfo=UTC),
    "1971-01-01T00:00+01": REFUSED,
    "1970-01-01T00:00Z": REFUSED,
    "9899-12-31T23:59:59Z": datetime(9899, 12, 31, 23, 59, 59, tzinfo=UTC),
    "9900-01-01T00:00Z": REFUSED,
    "9999-12-31T23:59:59-14:00": REFUSED,
    "0001-01-01T00:00+14:00": REFUSED,
    "0000-01-01T00:00Z": REFUSED,
    "12026-02-05T12:02Z": REFUSED,
    "-2026-02-05T12:02Z": REFUSED,
    "2026-02-05": REFUSED,
    "2026-02-05Z": REFUSED,
    "2026-02-05T12Z": REFUSED,
    "2026-02-05T12:02:03": REFUSED,
    "2026-02-05 12:02": REFUSED,
    "2026-02-30T12:02Z": REFUSED,
    "2025-02-29T12:02Z": REFUSED,
    "2026-13-01T12:02Z": REFUSED,
    "2026-02-05T24:00:00Z": REFUSED,
    "2016-12-31T23:59:60Z": REFUSED,
    "2026-02-05T12:60Z": REFUSED,
    "2026-02-05T12:02:03.Z": REFUSED,
    "2026-02-05T12:02:03,5Z": REFUSED,
    "2026-02-05T12:02:03.1234567890Z": REFUSED,
    "2026-02-05T12:02+15:00": REFUSED,
    "2026-02-05T12:02+14:30": REFUSED,
    "2026-02-05T12:02+1": REFUSED,
    "2026-02-05T12:02+01:60": REFUSED,
    "2026-02-05T12:02\u221201:00": REFUSED,
    "2026-02-05T12:02 Europe/Berlin": REFUSED,
    "2026-02-05T12:02 CET": REFUSED,
    "2026-02-05  12:02Z": REFUSED,
    "2026-02-05T12:02  Z": REFUSED,
    "2026-02-05T12:02ZZ": REFUSED,
    "20260205T120203Z": REFUSED,
    "2026-W06-4T12:02Z": REFUSED,
    "2026/02/05 12:02Z": REFUSED,
    "05.02.2026 12:02Z": REFUSED,
    "1769860800": REFUSED,
    "\uff12\uff10\uff12\uff16-02-05T12:02Z": REFUSED,
    "yesterday": REFUSED,
    "": REFUSED,
}

NUMBERS: dict[str, object] = {
    "5": 5.0,
    "+5": 5.0,
    "-5": -5.0,
    " 5 ": 5.0,
    "\u00a05\u2003": 5.0,
    "005": 5.0,
    "5.": 5.0,
    ".5": 0.5,
    "5.25": 5.25,
    "1e3": 1000.0,
    "1.5E-3": 0.0015,
    "1e+3": 1000.0,
    "1e-400": 0.0,
    "-0": 0.0,
    "": None,
    " \t": None,
    "NaN": None,
    "nan": None,
    "-nan": None,
    "inf": REFUSED,
    "-Infinity": REFUSED,
    "1e400": REFUSED,
    "9" * 400: REFUSED,
    "1,200": REFUSED,
    "1_200": REFUSED,
    "1 200": REFUSED,
    "0x1f": REFUSED,
    "5e": REFUSED,
    ".": REFUSED,
    "--5": REFUSED,
    "\u0665": REFUSED,
    "\uff15": REFUSED,
    "5d": REFUSED,
    "five": REFUSED,
    "true": REFUSED,
    "NA": REFUSED,
    "null": REFUSED,
}

AGES: dict[str, object] = {
    "31": 31,
    "31.0": 31,
    " 31. ": 31,
    "3.1e1": 31,
    "0": 0,
    "-0.0": 0,
    "120": 120,
    "": None,
    "NaN": None,
    "121": REFUSED,
    "-1": REFUSED,
    "30.5": REFUSED,
    "31 years": REFUSED,
    "thirty": REFUSED,
    "1e999": REFUSED,
    "9" * 5000: REFUSED,
    "true": REFUSED,
    "3 1": REFUSED,
}


def parsed(parser: Callable[[str], object], text: str) -> object:
    try:
        return parser(text)
    except Misspelt:
        return REFUSED


@pytest.fixture(scope="module")
def duck() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def moment_in_sql(duck: duckdb.DuckDBPyConnection, text: str) -> object:
    zoned = "regexp_replace(replace(upper(text), 'UTC', 'Z'), $spaced, '\\1')"
    sql = (
        f"SELECT moment FROM (SELECT TRY_CAST({zoned} AS TIMESTAMPTZ)::TIMESTAMP AS moment FROM "
        "(SELECT trim($text, $space) AS text) WHERE regexp_full_match(text, $time)) "
        "WHERE moment >= $earliest::TIMESTAMPTZ::TIMESTAMP AND moment < $latest::TIMESTAMPTZ::TIMESTAMP"
    )
    told = {
        "text": text,
        "space": parsing.SPACE,
        "time": parsing.TIME,
        "spaced": parsing.SPACED_ZONE,
        "earliest": parsing.EARLIEST,
        "latest": parsing.LATEST,
    }
    found = duck.execute(sql, told).fetchall()
    return found[0][0].replace(tzinfo=UTC) if found else REFUSED


def number_in_sql(duck: duckdb.DuckDBPyConnection, text: str) -> object:
    sql = (
        "SELECT text = '' OR regexp_full_match(text, $nan), regexp_full_match(text, $number), TRY_CAST(text AS DOUBLE) "
        "FROM (SELECT trim($text, $space) AS text)"
    )
    told = {"text": text, "space": parsing.SPACE, "nan": parsing.NOT_A_NUMBER, "number": parsing.NUMBER}
    ((gap, matched, value),) = duck.execute(sql, told).fetchall()
    return None if gap else value if matched and abs(value) < float("inf") else REFUSED


@pytest.mark.parametrize("text", TIMES)
def test_times(text: str, duck: duckdb.DuckDBPyConnection) -> None:
    assert parsed(moment, text) == TIMES[text]
    assert moment_in_sql(duck, text) == TIMES[text]


@pytest.mark.parametrize("text", NUMBERS)
def test_numbers(text: str, duck: duckdb.DuckDBPyConnection) -> None:
    assert parsed(number, text) == NUMBERS[text]
    assert number_in_sql(duck, text) == NUMBERS[text]


@pytest.mark.parametrize("text", AGES)
def test_ages(text: str) -> None:
    found = parsed(age, text)
    assert (found, type(found)) == (AGES[text], type(AGES[text]))


NEAR = st.text("0123456789-+:.,TtZzUCuc eE_xnaN\n\u0663\uff11\u2212\u00a0", max_size=30)
NEAR_TIME = st.from_regex(parsing.LOCAL_TIME + parsing.ZONE + r"|" + parsing.TIME, fullmatch=True)


@given(NEAR | NEAR_TIME | st.text(max_size=12))
def test_python_and_duckdb_never_differ(duck: duckdb.DuckDBPyConnection, text: str) -> None:
    if "\0" not in text:  # no text of DuckDB's holds one
        assert parsed(moment, text) == moment_in_sql(duck, text)
        assert parsed(number, text) == number_in_sql(duck, text)


def test_space_is_what_python_strips() -> None:
    assert "".join(filter(str.isspace, map(chr, range(sys.maxunicode + 1)))) == parsing.SPACE


def test_a_time_without_a_zone_has_its_own_error() -> None:
    for text in ("2026-02-05", "2026-02-05 12:02", "2026-02-05T12:02:03.5"):
        with pytest.raises(Misspelt, match="has no time zone"):
            moment(text)
    with pytest.raises(Misspelt, match="is not an ISO 8601 time"):
        moment("2026-02-05 12:02 CET")
    with pytest.raises(Misspelt, match="is not in the years 1971 to 9899"):
        moment("9999-01-01T00:00Z")


def test_picks_are_separated_by_pipes() -> None:
    assert picks(" Rock | |Hip Hop||Jazz,Soul ") == ("Rock", "Hip Hop", "Jazz,Soul")
    assert picks("") == picks(" | ") == ()


def test_a_registration_has_the_same_rules_however_it_is_made() -> None:
    made = Registration(age=31.0, gender=" Female\n", country="\u00a0", genres=(" Rock", "", " ", "Jazz"))  # type: ignore[arg-type]
    assert made == Registration(age=31, gender="Female", genres=("Rock", "Jazz"))
    assert type(made.age) is int


def test_the_examples_are_true() -> None:
    assert doctest.testmod(parsing).failed == 0
