"""Every kind of value has one format, which Python and DuckDB read alike."""

from __future__ import annotations

import doctest
import sys
from collections.abc import Callable
from datetime import UTC

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st
from spellings import AGES, NUMBERS, REFUSED, TIMES

from firstspin.data import parsing
from firstspin.data.parsing import Misspelt, age, moment, number, picks
from firstspin.records import Registration


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
