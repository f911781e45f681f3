"""Each column takes the types that can hold its values, and refuses all others by name."""

from __future__ import annotations

import math
import uuid
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import made_tables
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from firstspin.data import parsing, schema
from firstspin.data.formats.columns import KINDS, Shape, shape_of
from firstspin.data.ingest import Tables, open_tables, read_registrations
from firstspin.data.sql import identifier
from firstspin.data.stations import station_colours, station_markets, station_popularity
from firstspin.records import MAX_TEXT, InputError

AT = datetime(2026, 2, 5, 10, tzinfo=UTC)
NAIVE = AT.replace(tzinfo=None)
ROW = identifier(schema.ROW)


def good(n: int = 1) -> dict[str, dict[str, pa.Array]]:
    """Tables of n rows each, every value good."""
    moments = pa.array([AT] * n, pa.timestamp("us", "UTC"))
    ids = pa.array([f"00{i}" for i in range(n)])
    return {
        "registrations": {
            "user_id": ids,
            "registered_at": moments,
            "age": pa.array([31] * n),
            "gender": pa.array(["female"] * n),
            "country": pa.array(["US"] * n),
            "genres": pa.array([["Rock"]] * n),
        },
        "listens": {
            "user_id": ids,
            "started_at": moments,
            "station_id": pa.array(["1"] * n),
            "seconds": pa.array([900] * n),
        },
        "stations": {"station_id": pa.array(["1"]), "name": pa.array(["Rock FM"]), "genre": pa.array(["Rock"])},
    }


def opened(folder: Path, table: str, column: str, values: pa.Array, *, skip: bool = False) -> Tables:
    """Good Parquet tables, but for one column."""
    columns = good(1 if table == "stations" else len(values))
    columns[table][column] = values
    if table == "stations":
        n = len(values)
        columns[table] |= {"station_id": pa.array([str(i + 1) for i in range(n)]), "name": pa.array(["x"] * n)}
        columns[table] |= {"genre": values} if column == "genre" else {"genre": pa.array(["Rock"] * n)}
        columns[table][column] = values
    for name, arrays in columns.items():
        pq.write_table(pa.table(arrays), folder / f"{name}.parquet")
    extra = [column] if table == "registrations" and column not in KINDS[table] else []
    return open_tables(folder, workspace=folder, extra=extra, skip_bad_rows=skip)


def became(folder: Path, table: str, column: str, values: pa.Array) -> list[object]:
    found = opened(folder, table, column, values)
    order = f"ORDER BY {ROW}" if table != "listens" else ""
    return [value for (value,) in found.connection.sql(f"SELECT {identifier(column)} FROM {table} {order}").fetchall()]


TEXTS = {
    "string": pa.array(["a", "b"]),
    "large": pa.array(["a", "b"], pa.large_string()),
    "view": pa.array(["a", "b"], pa.string_view()),
    "dictionary": pa.array(["a", "b"]).dictionary_encode(),
    "dictionary of large strings": pa.array(["a", "b"], pa.large_string()).dictionary_encode(),
}


@pytest.mark.parametrize("how", TEXTS)
@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("registrations", "user_id"),
        ("registrations", "gender"),
        ("registrations", "country"),
        ("registrations", "device"),
    ],
)
def test_text_is_read_in_every_encoding(table: str, column: str, how: str, tmp_path: Path) -> None:
    assert became(tmp_path, table, column, TEXTS[how]) == ["a", "b"]


@pytest.mark.parametrize(
    "values",
    [
        pa.array([7, 8], pa.int8()),
        pa.array([7, 8], pa.uint64()),
        pa.array([Decimal(7), Decimal(8)], pa.decimal128(38, 0)),
        pa.array([7, 8]).dictionary_encode(),
    ],
    ids=str,
)
def test_whole_numbers_are_ids_without_a_fraction(values: pa.Array, tmp_path: Path) -> None:
    assert became(tmp_path, "registrations", "user_id", values) == ["7", "8"]
    assert became(tmp_path, "registrations", "gender", values) == ["7", "8"]


def test_a_uuid_is_the_text_that_it_is_written_as(tmp_path: Path) -> None:
    users = [uuid.UUID(int=1), uuid.UUID(int=2)]
    assert became(tmp_path, "registrations", "user_id", pa.array([u.bytes for u in users], pa.uuid())) == [
        str(user) for user in users
    ]


MOMENTS = {
    **{unit: pa.array([NAIVE, NAIVE], pa.timestamp(unit)) for unit in ("s", "ms", "us", "ns")},
    **{f"{unit}, UTC": pa.array([AT, AT], pa.timestamp(unit, "UTC")) for unit in ("s", "ms", "us", "ns")},
    **{f"{unit}, Berlin": pa.array([AT, AT], pa.timestamp(unit, "Europe/Berlin")) for unit in ("us", "ns")},
    "offset": pa.array([AT, AT], pa.timestamp("ns", "+02:00")),
    "text": pa.array([AT.isoformat(), "2026-02-05 12:00:00 +02:00"]),
    "dictionary of text": pa.array([AT.isoformat()] * 2).dictionary_encode(),
}


@pytest.mark.parametrize("how", MOMENTS)
def test_times_of_every_unit_and_zone_are_utc(how: str, tmp_path: Path) -> None:
    assert became(tmp_path, "registrations", "registered_at", MOMENTS[how]) == [NAIVE, NAIVE]
    assert became(tmp_path, "listens", "started_at", MOMENTS[how]) == [NAIVE, NAIVE]


def test_nanoseconds_are_cut_off(tmp_path: Path) -> None:
    values = pa.array([1_770_285_600_123_456_789] * 2, pa.timestamp("ns", "UTC"))
    assert became(tmp_path, "listens", "started_at", values) == [NAIVE.replace(microsecond=123_456)] * 2


@pytest.mark.parametrize("kind", [pa.date32(), pa.date64()], ids=str)
def test_a_date_is_its_midnight(kind: pa.DataType, tmp_path: Path) -> None:
    values = pa.array([date(2026, 2, 5)], kind)
    assert became(tmp_path, "registrations", "registered_at", values) == [datetime(2026, 2, 5)]


NUMBERS = {
    "int8": pa.array([31, None], pa.int8()),
    "uint64": pa.array([31, None], pa.uint64()),
    "half": pa.array([31.0, None], pa.float16()),
    "float": pa.array([31.0, float("nan")], pa.float32()),
    "double": pa.array([31.0, float("nan")]),
    "decimal": pa.array([Decimal("31.00"), None], pa.decimal128(10, 2)),
    "long decimal": pa.array([Decimal("31.00"), None], pa.decimal256(60, 2)),
    "whole decimal": pa.array([Decimal(31), None], pa.decimal128(20, 0)),
    "text": pa.array([" 31.0", ""]),
    "text with NaN": pa.array(["31", "NaN"]),
    "dictionary": pa.array(["31", None]).dictionary_encode(),
}


@pytest.mark.parametrize("how", NUMBERS)
def test_numbers_of_every_type_are_numbers_and_nan_is_a_gap(how: str, tmp_path: Path) -> None:
    assert became(tmp_path, "registrations", "age", NUMBERS[how]) == [31, None]
    assert became(tmp_path, "registrations", "visits", NUMBERS[how]) == [31.0, None]
    popularity = station_popularity(opened(tmp_path, "stations", "popularity", NUMBERS[how]))
    assert [value for _, value in popularity] == [31.0, 0.0]
    with pytest.raises(InputError, match=r"listens\.parquet row 2: seconds ('.*' )?is missing"):
        opened(tmp_path, "listens", "seconds", NUMBERS[how])
    assert became(tmp_path, "listens", "seconds", NUMBERS[how][:1]) == [31.0]


@pytest.mark.parametrize(
    "value", ["1,200", "12 min", "1_200", "0x1f", "inf", "-Infinity", "1e999", "true", "NA", "five"]
)
def test_what_is_no_number_is_a_bad_row_and_never_zero(value: str, tmp_path: Path) -> None:
    values = pa.array(["5", value])
    for table, column in (("registrations", "age"), ("listens", "seconds"), ("stations", "popularity")):
        with pytest.raises(InputError, match=rf"{table}\.parquet row 2: {column} '.*' is not a number"):
            opened(tmp_path, table, column, values)
    left = opened(tmp_path, "stations", "popularity", values, skip=True)
    assert [value for _, value in station_popularity(left)] == [5.0]
    assert left.ignored["stations.parquet: popularity is not a number"] == 1


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_an_infinite_float_is_a_bad_row(value: float, tmp_path: Path) -> None:
    places = (("registrations", "age"), ("registrations", "visits"), ("listens", "seconds"), ("stations", "popularity"))
    for table, column in places:
        with pytest.raises(InputError, match=rf"{table}\.parquet row 2: {column} '-?inf' is not a number"):
            opened(tmp_path, table, column, pa.array([5.0, value]))


def test_a_further_column_of_numbers_stays_one_with_nan_and_refuses_the_infinite(tmp_path: Path) -> None:
    header = (*made_tables.REGISTRATIONS, "score")
    person = ("2026-01-01T00:00:00Z", "31", "female", "US", "Rock")
    data = made_tables.tables(tmp_path / "data", [], [("1", AT.isoformat(), "1", 900)])
    made_tables.write(data, "registrations", header, [("1", *person, "9"), ("2", *person, "NaN"), ("3", *person, "")])
    found = open_tables(data, workspace=tmp_path, extra=["score"])
    assert found.extra == {"score": "number"}
    assert found.connection.sql(f"SELECT score FROM registrations ORDER BY {ROW}").fetchall() == [
        (9,),
        (None,),
        (None,),
    ]
    made_tables.write(data, "registrations", header, [("1", *person, "9"), ("2", *person, "inf")])
    with pytest.raises(InputError, match=r"registrations\.csv row 2: score 'inf' is not a number"):
        open_tables(data, workspace=tmp_path, extra=["score"])
    made_tables.write(data, "registrations", header, [("1", *person, "9"), ("2", *person, "1,200")])
    assert open_tables(data, workspace=tmp_path, extra=["score"]).extra == {"score": "text"}
    with pytest.raises(InputError, match=r"registrations\.csv row 2: score '1,200' is not a number"):
        read_registrations(data / "registrations.csv", workspace=tmp_path, extra={"score": "number"})


LISTS = {
    "list": pa.array([["a", "b"], []]),
    "large": pa.array([["a", "b"], None], pa.large_list(pa.string())),
    "view": pa.array([["a", "b"], None], pa.list_view(pa.string())),
    "fixed size": pa.array([["a", "b"], None], pa.list_(pa.string(), 2)),
    "of large strings": pa.array([["a", "b"], []], pa.list_(pa.large_string())),
    "with gaps": pa.array([["a", None, " ", "b "], [None]]),
    "text": pa.array(["a| |b", None]),
}


@pytest.mark.parametrize("how", LISTS)
def test_picks_and_markets_are_lists_of_text_or_text(how: str, tmp_path: Path) -> None:
    assert became(tmp_path, "registrations", "genres", LISTS[how]) == [["a", "b"], []]
    assert station_markets(opened(tmp_path, "stations", "market", LISTS[how])) == {"1": ("a", "b")}


@pytest.mark.parametrize("other", ["b", "b "])  # tidy names are copied without trimming
def test_a_pick_that_is_too_long_is_a_bad_row_in_lists_too(other: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"row 1: genres .*x{{20}}.*names a genre of more than {MAX_TEXT}"):
        became(tmp_path, "registrations", "genres", pa.array([["x" * (MAX_TEXT + 1)], [other]]))


AVAILABLE = {
    "boolean": pa.array([True, False, None]),
    "whole": pa.array([1, 0, None], pa.int8()),
    "float": pa.array([1.0, 0.0, float("nan")]),
    "text": pa.array(["TRUE", "No", ""]),
    "text of floats": pa.array(["1.0", "0.0", ""]),
}


@pytest.mark.parametrize("how", AVAILABLE)
def test_availability_is_a_boolean_or_spells_one(how: str, tmp_path: Path) -> None:
    found = opened(tmp_path, "stations", "available", AVAILABLE[how])
    assert [station.station_id for station, _ in station_popularity(found)] == ["1", "3"]


COLOURS = {
    "text": pa.array(["#0B7A75 ", "teal", "#0b7a7", None, ""]),
    "numbers": pa.array([1, 2, None]),
    "nothing": pa.nulls(2),
}


@pytest.mark.parametrize("how", COLOURS)
def test_a_colour_is_hexadecimal_and_anything_else_is_none(how: str, tmp_path: Path) -> None:
    found = station_colours(opened(tmp_path, "stations", "colour", COLOURS[how]))
    assert found == ({"1": "#0b7a75"} if how == "text" else {})


def test_a_column_of_nothing_but_gaps_has_no_type_and_is_read(tmp_path: Path) -> None:
    for column, gap in (("age", None), ("gender", None), ("country", None), ("genres", []), ("device", None)):
        assert became(tmp_path, "registrations", column, pa.nulls(2)) == [gap, gap]
    assert station_markets(opened(tmp_path, "stations", "market", pa.nulls(1))) == {}
    with pytest.raises(InputError, match=r"registrations\.parquet row 1: registered_at is missing"):
        opened(tmp_path, "registrations", "registered_at", pa.nulls(1))


def test_a_further_boolean_is_one_of_two_texts(tmp_path: Path) -> None:
    found = opened(tmp_path, "registrations", "premium", pa.array([True, False, None]))
    assert found.extra == {"premium": "text"}
    values = found.connection.sql(f"SELECT premium FROM registrations ORDER BY {ROW}").fetchall()
    assert values == [("true",), ("false",), (None,)]


ANY = {
    "binary": pa.array([b"a"]),
    "large_binary": pa.array([b"a"], pa.large_binary()),
    "binary_view": pa.array([b"a"], pa.binary_view()),
    "fixed_size_binary[2]": pa.array([b"ab"], pa.binary(2)),
    "duration[us]": pa.array([timedelta(minutes=15)], pa.duration("us")),
    "time64[us]": pa.array([time(1, 2)]),
    "struct<a: int64>": pa.array([{"a": 1}]),
    "map<string, int64": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
    "list<element: int64>": pa.array([[1]]),
    "list<element: list<element: string>>": pa.array([[["a"]]]),
}
REFUSED: dict[str, tuple[pa.Array, tuple[str, ...]]] = {
    "int64": (pa.array([1_770_285_600]), ("registered_at", "started_at", "genres", "market")),
    "double": (pa.array([7.0]), ("user_id", "station_id", "name", "genre", "gender", "country", "registered_at")),
    "bool": (pa.array([True]), ("user_id", "age", "seconds", "popularity", "registered_at", "gender")),
    "timestamp[us]": (pa.array([NAIVE]), ("user_id", "age", "seconds", "genres", "available", "further")),
    "date32[day]": (pa.array([date(2026, 2, 5)]), ("age", "genre", "further")),
    "list<element: string>": (pa.array([["a"]]), ("user_id", "registered_at", "gender", "genre", "seconds", "further")),
    "decimal128(10, 2)": (pa.array([Decimal("7.50")], pa.decimal128(10, 2)), ("user_id", "genre")),
    "decimal256(60, 0)": (pa.array([Decimal(7)], pa.decimal256(60, 0)), ("user_id",)),
}
EVERY = {column: table for table, kinds in KINDS.items() for column in kinds} | {"further": "registrations"}
CASES = [(kind, values, column) for kind, values in ANY.items() for column in EVERY]
CASES += [(kind, values, column) for kind, (values, columns) in REFUSED.items() for column in columns]


@pytest.mark.parametrize(("kind", "values", "column"), CASES, ids=lambda value: value if isinstance(value, str) else "")
def test_any_other_type_is_refused_by_file_column_and_type(
    kind: str, values: pa.Array, column: str, tmp_path: Path
) -> None:
    table = EVERY[column]
    with pytest.raises(InputError) as refused:
        opened(tmp_path, table, column, values)
    said = str(refused.value)
    assert said.startswith(f"{table}.parquet: {column} is {kind}")
    assert said.endswith("needed")
    assert ", where " in said


@pytest.mark.parametrize("year", [1, 1969, 1970, 9900, 9999])
def test_a_time_of_no_sane_year_is_a_bad_row(year: int, tmp_path: Path) -> None:
    moment = datetime(year, 1, 1)
    for values in (
        pa.array([moment], pa.timestamp("us")),
        pa.array([f"{moment.isoformat()}Z"]),
        pa.array([moment.date()]),
    ):
        for table, column in (("registrations", "registered_at"), ("listens", "started_at")):
            with pytest.raises(InputError, match=rf"{table}\.parquet row 1: {column} '.*' {parsing.NO_SUCH_YEAR}"):
                opened(tmp_path, table, column, values)


def test_a_time_that_no_calendar_holds_is_reported(tmp_path: Path) -> None:
    far = pa.array([2**62], pa.timestamp("ms"))  # nanoseconds called milliseconds
    for table, column in (("registrations", "registered_at"), ("listens", "started_at")):
        with pytest.raises(InputError, match=rf"{table}\.parquet can't be read: a number or a time is out of range"):
            opened(tmp_path, table, column, far)


def test_shapes_follow_from_the_schema_alone() -> None:
    assert shape_of(pa.dictionary(pa.int8(), pa.timestamp("ns", "UTC"))) is Shape.nanoseconds
    assert shape_of(pa.list_view(pa.dictionary(pa.int8(), pa.large_string()))) is Shape.texts
    assert shape_of(pa.bool8()) is Shape.whole  # an extension type is what it is stored as
    assert shape_of(pa.list_(pa.binary())) is None


def test_zones_are_honoured_in_text(tmp_path: Path) -> None:
    berlin = AT.astimezone(timezone(timedelta(hours=1)))
    assert became(tmp_path, "listens", "started_at", pa.array([berlin.isoformat()])) == [NAIVE]
