"""The sums of listens in label windows: equal to those of the expressions, run by DuckDB."""

from __future__ import annotations

from dataclasses import astuple
from datetime import datetime
from functools import cache
from typing import Any

import duckdb
import ibis
import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from firstspin.data.labels import window_sums
from firstspin.data.labels.expressions import COPIES, COUNTED, PLAYED_GENRES, seconds_by_genre
from firstspin.data.labels.expressions import sums_by_user as users_of
from firstspin.data.labels.window_sums import GenreSums, Groups, HeardListens, collect, sums_by_genre, sums_by_user
from firstspin.data.schema import ROW
from firstspin.records import LabelRule

SECONDS = (0.1, 0.2, 0.3, 1.0, 30.0, 1234.567891)
NOT_ROUNDED = (1e-4, 2.0**33 + 0.5, 0.0000005)
GENRE_OF_STATION = np.array([2, 0, 1, 2, 0], dtype=np.uint64)
OPENS = 1_738_281_600_000_000  # 31 January 2025, in microseconds


def made(seed: int, listens: int, lengths: tuple[float, ...] = SECONDS) -> dict[str, NDArray[Any]]:
    """Listens of few users, stations, times and lengths, so that many are copies."""
    rng = np.random.default_rng(seed)
    return {
        "row": rng.integers(0, 6, listens).astype(np.int32),
        "station": rng.integers(0, len(GENRE_OF_STATION), listens).astype(np.int32),
        "at": OPENS + rng.integers(0, 3, listens),
        "seconds": rng.choice(lengths, listens),
    }


def summed(listens: dict[str, NDArray[Any]], codes: NDArray[np.uint64] = GENRE_OF_STATION) -> GenreSums:
    """The sums of listens that come in two parts."""
    half = len(listens["row"]) // 2
    groups = Groups(codes, int(listens["row"].max(initial=0)))
    halves = [[column[:half] for column in listens.values()], [column[half:] for column in listens.values()]]
    return sums_by_genre(collect([HeardListens(*columns) for columns in halves], groups))


@cache
def instance() -> duckdb.DuckDBPyConnection:
    """One for all tests."""
    return duckdb.connect()


@cache
def queries() -> list[str]:
    """SQL of `seconds_by_genre` and `sums_by_user`, in order."""
    kinds = {
        "registrations": {ROW: "int32", "user_id": "string", "registered_at": "timestamp"},
        "stations": {ROW: "int32", "station_id": "string", "genre": "int64"},
        "listens": {"user_id": "string", "started_at": "timestamp", "station_id": "string", "seconds": "float64"},
    }
    tables = {name: ibis.table(of, name) for name, of in kinds.items()}
    rule = LabelRule(data_ends=datetime(2026, 1, 1))
    by_genre = seconds_by_genre(tables["registrations"], tables["listens"], tables["stations"], rule)
    columns = (ROW, "genre", "seconds", COUNTED, COPIES)
    of_users = (ROW, PLAYED_GENRES, "seconds", "top_genre")
    both = by_genre.select(*columns).order_by(ROW, "genre"), users_of(by_genre).select(*of_users).order_by(ROW)
    return [str(ibis.to_sql(of, dialect="duckdb")) for of in both]


def by_duckdb(listens: dict[str, NDArray[Any]]) -> list[list[tuple[float, ...]]]:
    """The rows of both queries."""
    connection = instance()
    stations = pa.table({ROW: np.arange(len(GENRE_OF_STATION)), "genre": GENRE_OF_STATION.astype(np.int64)})
    connection.register("made", pa.table(listens))
    connection.register("genres", stations)
    connection.execute(f"""
        CREATE OR REPLACE TABLE registrations AS
            SELECT i::INT AS "{ROW}", 'u' || i AS user_id, TIMESTAMP '2025-01-01' AS registered_at FROM range(6) t(i);
        CREATE OR REPLACE TABLE stations AS
            SELECT "{ROW}", 's' || "{ROW}" AS station_id, genre FROM genres;
        CREATE OR REPLACE TABLE listens AS
            SELECT 'u' || row AS user_id, make_timestamp("at") AS started_at, 's' || station AS station_id, seconds
            FROM made""")
    return [connection.sql(query).fetchall() for query in queries()]


def rows(sums: object) -> list[tuple[float, ...]]:
    return list(zip(*(column.tolist() for column in astuple(sums)), strict=True))  # type: ignore[call-overload]


@pytest.mark.parametrize("listens", [0, 1, 2, 5, 40, 400])
@pytest.mark.parametrize(("block", "users"), [(1, 1), (7, 4), (1000, 1000)])
def test_the_sums_are_those_of_the_expressions(
    block: int, users: int, listens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(window_sums, "_BLOCK", block)
    monkeypatch.setattr(window_sums, "_RANGE", users)
    heard = made(listens + block, listens)
    by_genre, by_user = by_duckdb(heard)
    sums = summed(heard)
    assert rows(sums) == by_genre
    assert rows(sums_by_user(sums)) == by_user


def test_sums_that_are_not_rounded_depend_on_the_order_of_their_terms_alone() -> None:
    heard = made(3, 400, (*SECONDS, *NOT_ROUNDED))
    by_genre, by_user = by_duckdb(heard)
    sums = summed(heard)
    assert rows(sums) == [pytest.approx(row, rel=1e-13) for row in by_genre]
    assert rows(sums_by_user(sums)) == [pytest.approx(row, rel=1e-13) for row in by_user]


@pytest.mark.parametrize("mixers", [(0, 0, 0), (1, 0, 0), (0, 1 << 60, 0)])
def test_copies_are_found_among_listens_with_equal_hashes(
    mixers: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = made(7, 300)
    expected = rows(summed(heard))
    monkeypatch.setattr(window_sums, "_MIXERS", tuple(map(np.uint64, mixers)))
    assert rows(summed(heard)) == expected
    assert sum(copies for *_, copies in expected) > 40


@pytest.mark.parametrize("code", [2**20, 2**26, 2**30])
def test_groups_may_leave_no_room_for_hashes_or_positions(code: int) -> None:
    heard, far = made(8, 300), np.int32(2**31 - 7)
    expected = [(row + far, genre, *sums) for row, genre, *sums in rows(summed(heard))]
    large = np.append(GENRE_OF_STATION, code).astype(np.uint64)
    assert rows(summed({**heard, "row": heard["row"] + far}, large)) == expected


def test_a_zero_with_a_sign_is_a_zero() -> None:
    heard = {**made(1, 2), "row": np.zeros(2, np.int32), "station": np.zeros(2, np.int32), "at": np.zeros(2, np.int64)}
    assert rows(summed({**heard, "seconds": np.array([0.0, -0.0])})) == [(0, 2, 0.0, 1, 1)]


def test_a_sum_beyond_all_doubles_is_infinite() -> None:
    heard = {**made(1, 2), "row": np.zeros(2, np.int32), "station": np.array([0, 1], np.int32)}
    assert rows(sums_by_user(summed({**heard, "seconds": np.full(2, 1.7e308)}))) == [(0, 2, np.inf, 0)]


def test_listens_of_unregistered_users_are_only_counted() -> None:
    rows_of, stations = np.array([3, -1, -1, 0], np.int32), np.array([1, 2, 0, 4], np.int32)
    whole = HeardListens(rows_of, stations, np.arange(4), np.arange(1.0, 5.0))
    groups = Groups(GENRE_OF_STATION, 3)
    heard = collect([whole], groups)
    assert heard.unregistered == 2
    assert rows(sums_by_genre(heard)) == [(0, 0, 4.0, 1, 0), (3, 0, 1.0, 1, 0)]
    assert rows(sums_by_genre(collect([], groups))) == []
