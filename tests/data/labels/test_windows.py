"""Listens in label windows: the same by the hash table in C, by DuckDB and by a dict."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from compiled import where_it_compiles
from hypothesis import given, settings
from hypothesis import strategies as st

from firstspin.data.ingest import open_tables
from firstspin.data.labels import windows
from firstspin.data.labels.labelling import label_tables
from firstspin.data.labels.window_sums import HeardListens
from firstspin.data.labels.windows import CompiledWindows, gathered, in_windows, joined_by_duckdb, joined_in_c
from firstspin.data.schema import ROW
from firstspin.records import InputError, LabelRule
from firstspin.simulation.world import write_world

pytestmark = where_it_compiles(CompiledWindows)

LAST = 2**63 - 1
ALIKE = 4096
"""So many ids of one hash are refused."""

IDS = st.sampled_from(["", "\0", "u\0", "u", "u1", "u2", "é", "12345678", "1234567890123456", "1234567890123457"])
LONG_IDS = st.sampled_from(["x" * 17, "x" * 16 + "y", "y" + "x" * 16, "x" * 33, "x" * 32 + "y", "ü" * 200])
TEXTS = IDS | LONG_IDS | st.text(max_size=20)
TIMES = st.integers(-5, 5) | st.sampled_from([LAST, LAST - 1, -LAST - 1, -LAST])
LISTENS = st.lists(st.tuples(TEXTS, TIMES), max_size=300)
PEOPLE = st.dictionaries(TEXTS, st.tuples(st.integers(0, 2**31 - 1), TIMES), max_size=200)
KEYS = st.binary(min_size=32, max_size=32) | st.just(bytes(32))


def texts(ids: Sequence[str], kind: pa.DataType | None = None) -> tuple[Any, Any]:
    return windows._texts(pa.array(ids, kind or pa.string()))


def numbers(values: Sequence[int], kind: type[np.signedinteger[Any]]) -> Any:
    return np.array(values, dtype=kind)


def table(people: dict[str, tuple[int, int]], key: bytes | None = None, parts: int = 1) -> CompiledWindows:
    """The table of ids with their rows and openings, from parts of nearly one size."""
    ids = list(people)
    pieces = [ids[i::parts] for i in range(parts)]
    of = [(np.array([people[id_][0] for id_ in ids], np.int32), [people[id_][1] for id_ in ids]) for ids in pieces]
    made = zip(pieces, of, strict=True)
    arrays = tuple((*texts(ids), rows, numbers(opens, np.int64)) for ids, (rows, opens) in made)
    return CompiledWindows(key or os.urandom(32), arrays)


def inside(
    people: CompiledWindows, listens: Sequence[tuple[str, int]], window: int, kind: pa.DataType | None = None
) -> list[tuple[int, int]]:
    places, rows = np.full(len(listens), -7, np.int32), np.full(len(listens), -7, np.int32)
    started = numbers([at for _, at in listens], np.int64)
    n = people.inside(*texts([id_ for id_, _ in listens], kind), started, window, places, rows)
    return list(zip(places[:n].tolist(), rows[:n].tolist(), strict=True))


@given(people=PEOPLE, listens=LISTENS, window=st.integers(0, 4) | st.just(LAST), key=KEYS, parts=st.integers(1, 3))
def test_the_table_finds_what_a_dict_does_at_all_times_and_with_any_key(
    people: dict[str, tuple[int, int]], listens: list[tuple[str, int]], window: int, key: bytes, parts: int
) -> None:
    expected = []
    for place, (id_, at) in enumerate(listens):
        row, opens = people.get(id_, (-1, at))
        if id_ not in people or opens <= at < opens + window:
            expected.append((place, row))
    made = table(people, key, parts)
    for kind in (pa.string(), pa.large_string()):
        assert inside(made, listens, window, kind) == expected
    places = np.arange(len(listens), dtype=np.int32)[::-1].copy()
    rows = np.empty(len(listens), np.int32)
    made.rows(*texts([id_ for id_, _ in listens]), places, rows)
    assert rows.tolist() == [people.get(id_, (-1, 0))[0] for id_, _ in reversed(listens)]


def test_ids_with_equal_hashes_are_told_apart_and_too_many_of_them_are_refused() -> None:
    people = {f"u{i}": (i, 0) for i in range(ALIKE)}
    made = table(people, bytes(32))  # with this key all hashes are 0
    assert inside(made, [(id_, 0) for id_ in people] + [("u", 0)], 1) == [
        *((i, i) for i in range(ALIKE)),
        (ALIKE, -1),
    ]
    with pytest.raises(ValueError, match="the hashes of too many ids are alike"):
        table({**people, "one more": (0, 0)}, bytes(32))
    assert len(inside(table({**people, "one more": (0, 0)}), [("one more", 0)], 1)) == 1


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
def test_texts_in_all_encodings_whole_or_a_slice(kind: pa.DataType) -> None:
    made = table({"a": (5, 0), "a long id of a user": (6, 0), "": (7, 0)})
    column = pa.array(["x", "a", "", "a long id of a user", "b"]).cast(kind)
    for begin, expected in ((0, [-1, 5, 7, 6, -1]), (1, [5, 7, 6, -1]), (4, [-1]), (5, [])):
        places = np.arange(len(expected), dtype=np.int32)
        rows = np.empty(len(expected), np.int32)
        if expected:
            made.rows(*windows._texts(column.slice(begin)), places, rows)
        assert rows.tolist() == expected


# ---------------------------------------------------------------------------------------------------------- arguments


ONE = ("one", np.int64(0))


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        (0, numbers([0, 4], np.int32)),  # past the text
        (0, numbers([0, 2**40], np.int64)),
        (0, numbers([-1, 3], np.int32)),
        (0, numbers([2, 1], np.int32)),
        (0, numbers([LAST, -LAST - 1], np.int64)),
        (0, numbers([], np.int32)),
        (0, np.zeros(2)),
        (0, np.zeros(4, np.int32)[::2]),
        (0, np.zeros((2, 1), np.int32)),
        (0, np.zeros(2, ">i4")),
        (0, np.frombuffer(bytes(9), np.uint8)[1:].view(np.int32)),
        (0, None),
        (1, np.zeros(3, np.int32)),
        (1, "one"),
        (2, numbers([1, 2], np.int64)),
        (2, numbers([1], np.int32)),
        (3, -1),
        (3, 0.5),
        (3, 2**63),
        (4, np.zeros(0, np.int32)),
        (4, np.zeros(2, np.int32)),
        (4, np.zeros(1, np.int64)),
        (4, np.frombuffer(bytes(4), np.int32)),
        (5, np.zeros(0, np.int32)),
        (5, np.frombuffer(bytes(4), np.int32)),
    ],
)
def test_lookups_refuse_arrays_that_do_not_fit(argument: int, value: Any) -> None:
    arguments: list[Any] = [numbers([0, 3], np.int32), b"one", numbers([0], np.int64), 1]
    arguments += [np.zeros(1, np.int32), np.zeros(1, np.int32)]
    made = table({"one": (0, 0)})
    assert made.inside(*arguments) == 1
    arguments[argument] = value
    with pytest.raises((ValueError, TypeError, BufferError, OverflowError)):
        made.inside(*arguments)


@pytest.mark.parametrize("places", [[1], [-1], [0, 2**31 - 1]])
def test_places_are_within_the_ids(places: list[int]) -> None:
    with pytest.raises(ValueError, match="out of bounds"):
        table({}).rows(*texts(["one"]), numbers(places, np.int32), np.zeros(len(places), np.int32))


@pytest.mark.parametrize(
    ("parts", "problem"),
    [
        (((*texts(["a", "b", "a"]), numbers([0, 1, 2], np.int32), numbers([0] * 3, np.int64)),), "twice"),
        (((*texts(["x" * 17] * 2), numbers([0, 1], np.int32), numbers([0] * 2, np.int64)),), "twice"),
        (((*texts(["a"]), numbers([-1], np.int32), numbers([0], np.int64)),), "negative"),
        (((*texts(["a"]), numbers([1, 2], np.int32), numbers([0], np.int64)),), "other lengths"),
        (((*texts(["a"]), numbers([1], np.int32), numbers([], np.int64)),), "other lengths"),
        (((numbers([0, 99], np.int32), b"a", numbers([1], np.int32), numbers([0], np.int64)),), "out of bounds"),
        (((numbers([9, 1], np.int32), b"a" * 9, numbers([1], np.int32), numbers([0], np.int64)),), "out of bounds"),
        ((texts(["a"]),), "tuples of"),
        (([],), "tuples of"),
    ],
)
def test_tables_are_made_of_distinct_ids_and_arrays_that_fit(parts: Any, problem: str) -> None:
    with pytest.raises((ValueError, TypeError), match=problem):
        CompiledWindows(bytes(range(32)), parts)


def test_a_key_has_32_bytes() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        CompiledWindows(bytes(31), ())


# ----------------------------------------------------------------------------------------------------- two ways, DuckDB


def tables(
    people: dict[str, tuple[int, int]], stations: Sequence[str], listens: Sequence[tuple[str, int, str, int]]
) -> duckdb.DuckDBPyConnection:
    """The tables that the views TIMED have; times in microseconds."""
    connection = duckdb.connect()
    rows, times = pa.array([row for row, _ in people.values()], pa.int64()), pa.int64()
    registered = pa.array([at for _, at in people.values()], times)
    made = {
        windows.TIMED["registrations"]: {
            ROW: rows,
            "user_id": pa.array(people, pa.string()),
            "registered_at": registered,
        },
        "stations": {ROW: pa.array(range(len(stations))), "station_id": pa.array(stations, pa.string())},
        windows.TIMED["listens"]: {
            "user_id": pa.array([of[0] for of in listens], pa.string()),
            "started_at": pa.array([of[1] for of in listens], times),
            "station_id": pa.array([of[2] for of in listens], pa.string()),
            "seconds": pa.array([of[3] for of in listens], pa.float64()),
        },
    }
    made["stations"]["genre"] = made["stations"]["station_id"]
    for name, columns in made.items():
        connection.register("made", pa.table(columns))
        connection.execute(f'CREATE TABLE "{name}" AS FROM made')
        connection.unregister("made")
    return connection


Way = Callable[[duckdb.DuckDBPyConnection, int, int], Any]


def heard(way: Way, connection: duckdb.DuckDBPyConnection, gap: int, window: int) -> list[tuple[float, ...]]:
    """The listens in order: those of DuckDB have none."""
    parts: list[HeardListens] = list(way(connection, gap, window))
    return sorted(row for part in parts for row in zip(*(column.tolist() for column in part), strict=True))


@pytest.mark.parametrize("examples", [15, pytest.param(400, marks=pytest.mark.soak)])
def test_listens_in_windows_are_those_of_duckdb(examples: int) -> None:
    @settings(max_examples=examples)
    @given(
        st.dictionaries(TEXTS, st.tuples(st.integers(0, 2**31 - 1), st.integers(-3, 3)), max_size=20),
        st.lists(TEXTS, max_size=4, unique=True),
        st.lists(st.tuples(TEXTS, st.integers(-5, 5), TEXTS, st.integers(0, 3)), max_size=80),
    )
    def alike(people: dict[str, tuple[int, int]], stations: list[str], listens: list[Any]) -> None:
        known = [(user, at, (*stations, "")[of % (len(stations) + 1)], of) for user, at, _, of in listens]
        with tables(people, stations, listens + known) as connection:
            assert heard(joined_in_c, connection, 1, 2) == heard(joined_by_duckdb, connection, 1, 2)

    alike()


def test_listens_come_in_the_order_of_the_table() -> None:
    listens = [("a", i % 7, "s", i) for i in range(300_000)]
    with tables({"a": (0, 0), "b": (1, 0)}, ["s"], listens) as connection:
        parts = list(joined_in_c(connection, 0, 2))
    assert len(parts) > 1
    assert np.concatenate([part.seconds for part in parts]).tolist() == [i for i in range(300_000) if i % 7 < 2]


@pytest.mark.parametrize("listens", [0, 1, 5, 300])
def test_small_parts_are_put_together_in_their_order(listens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "ROWS_AT_ONCE", 7)
    of = np.arange(listens)
    small = [HeardListens(*(column[i : i + 3] for column in (of, of, of, of))) for i in range(0, listens, 3)]
    parts = list(gathered(small))
    assert [len(part.rows) for part in parts] == [9] * (listens // 9) + [listens % 9] * (listens % 9 > 0)
    for column in range(4):
        assert [at for part in parts for at in part[column].tolist()] == of.tolist()


def test_an_id_that_is_longer_than_all_registered_ones_is_not_copied_for_each_listen() -> None:
    with tables({"ab": (3, 0)}, ["s"], [("ab", 0, "s", 1), ("--", 0, "s", 2), ("---", 0, "s", 3)]) as connection:
        name, long = windows.TIMED["listens"], "repeat('x', 20000)"  # 122,880 of them are more than Arrow takes
        connection.execute(f'ALTER TABLE "{name}" RENAME TO short')
        many = f"SELECT {long}, 0, 's', 1 FROM range(130000) UNION ALL SELECT 'ab', 0, {long}, 1 FROM range(130000)"
        connection.execute(f'CREATE VIEW "{name}" AS FROM short UNION ALL {many}')  # a constant, until it is copied
        listens = heard(joined_in_c, connection, 0, 1)
    assert listens[:130002] == [(-1, 0, 0, 1)] * 130_000 + [(-1, 0, 0, 2), (-1, 0, 0, 3)]
    assert listens[130002:] == [(3, 0, 0, 1)]


def test_long_ids_of_stations_are_read_in_smaller_batches() -> None:
    """As if all were long: of these, 122,880 are more than Arrow takes."""
    with tables({"a": (3, 0)}, ["s", "x" * 20_000], []) as connection:
        station = "CASE WHEN i < 7000 THEN repeat('x', 20000) ELSE 's' END"
        rows = f"SELECT 'a', 0, {station}, 1 FROM range(130000) t(i)"
        connection.execute(f'INSERT INTO "{windows.TIMED["listens"]}" {rows}')
        parts = list(joined_in_c(connection, 0, 1))
    assert max(len(part.rows) for part in parts) * 20_000 < 2**28
    assert np.concatenate([part.stations for part in parts]).tolist() == [1] * 7_000 + [0] * 123_000
    assert {row for part in parts for row in part.rows.tolist()} == {3}


@pytest.mark.parametrize("way", [joined_in_c, joined_by_duckdb])
def test_an_opening_after_all_times_is_an_error(way: Way) -> None:
    with (
        tables({"a": (0, LAST - 1)}, ["s"], [("a", 1, "s", 1)]) as connection,
        pytest.raises((duckdb.Error, OSError), match="Overflow"),
    ):
        heard(way, connection, 2, 1)


@pytest.mark.parametrize("null", [0, 1, 2, 3])
def test_a_null_that_was_not_rejected_is_an_error(null: int) -> None:
    listen: list[Any] = ["a", 0, "s", 1]
    listen[null] = None
    with tables({"a": (0, 0)}, ["s"], [tuple(listen)]) as connection, pytest.raises(InputError, match="lacks a value"):
        heard(joined_in_c, connection, 0, 1)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_labels_are_the_same_bytes_without_the_c_code(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_world(tmp_path / "data", users=400, seed=seed)
    made = {}
    for way in (CompiledWindows, None):
        monkeypatch.setattr(windows, "CompiledWindows", way)
        opened = open_tables(tmp_path / "data", workspace=tmp_path)
        census = label_tables(opened, LabelRule(), tmp_path / "labels.parquet", datetime(2030, 1, 1))
        made[way is None] = (tmp_path / "labels.parquet").read_bytes(), census
    assert made[True] == made[False]
    assert made[True][1][0].labelled > 100


def test_without_the_c_code_duckdb_joins(monkeypatch: pytest.MonkeyPatch) -> None:
    used = []
    for way in ("joined_in_c", "joined_by_duckdb"):
        monkeypatch.setattr(windows, way, lambda *_, way=way: used.append(way) or iter(()))
    for compiled in (CompiledWindows, None):
        monkeypatch.setattr(windows, "CompiledWindows", compiled)
        connection = duckdb.connect()
        connection.execute("CREATE TABLE registrations (user_id TEXT, registered_at TIMESTAMP)")
        connection.execute(f'ALTER TABLE registrations ADD COLUMN "{ROW}" INT')
        connection.execute("CREATE TABLE listens (user_id TEXT, started_at TIMESTAMP, station_id TEXT, seconds INT)")
        list(in_windows(connection, LabelRule()))
    assert used == ["joined_in_c", "joined_by_duckdb"]
