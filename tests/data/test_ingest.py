"""Bad input is reported by file, row, field and value; good input is read unchanged."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import made_tables
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from firstspin.data import schema
from firstspin.data.checks.mismatches import unknown_picks
from firstspin.data.column_map import column_map
from firstspin.data.ingest import open_tables, read_registrations
from firstspin.data.sql import identifier
from firstspin.data.stations import station_markets, station_popularity
from firstspin.records import InputError, Station

ROW = identifier(schema.ROW)
GOOD = ("007", "2025-01-01T00:00:00Z", "31", "female", "US", "Rock|Jazz")
LISTEN = ("007", "2025-02-05T10:00:00Z", "1", "900")


def refused(tmp_path: Path, **changed: object) -> str:
    """The message about tables of which one is bad."""
    rows = {"registrations": [GOOD], "listens": [LISTEN], "stations": made_tables.TWO_STATIONS} | changed
    made_tables.tables(tmp_path / "data", rows["registrations"], rows["listens"], rows["stations"])  # type: ignore[arg-type]
    with pytest.raises(InputError) as problem:
        open_tables(tmp_path / "data", workspace=tmp_path)
    return str(problem.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("", *GOOD[1:]), "registrations.csv row 1: user_id is missing"),
        (("7", "", *GOOD[2:]), "registrations.csv row 1: registered_at is missing"),
        (("7", "yesterday", *GOOD[2:]), "registrations.csv row 1: registered_at 'yesterday' is not an ISO 8601 time"),
        (
            ("7", "2025-01-01T00:00:00", *GOOD[2:]),
            "registrations.csv row 1: registered_at '2025-01-01T00:00:00' has no time zone",
        ),
        (("7", "2025-01-01", *GOOD[2:]), "registrations.csv row 1: registered_at '2025-01-01' has no time zone"),
        (("7", GOOD[1], "300", *GOOD[3:]), "registrations.csv row 1: age '300' is not between 0 and 120"),
        (("7", GOOD[1], "-1", *GOOD[3:]), "registrations.csv row 1: age '-1' is not between 0 and 120"),
        (("7", GOOD[1], "30.5", *GOOD[3:]), "registrations.csv row 1: age '30.5' is not a whole number"),
        (("7", GOOD[1], "old", *GOOD[3:]), "registrations.csv row 1: age 'old' is not a number"),
        (("7", GOOD[1], "inf", *GOOD[3:]), "registrations.csv row 1: age 'inf' is not a number"),
        (
            ("7", GOOD[1], "31", "x" * 201, *GOOD[4:]),
            f"registrations.csv row 1: gender {'x' * 80!r} is longer than 200 characters",
        ),
        (
            (*GOOD[:5], "|".join(["Rock"] * 101)),
            f"registrations.csv row 1: genres {'Rock|' * 16!r} names more than 100 genres",
        ),
        (
            (*GOOD[:5], "Jazz|" + "x" * 201),
            f"registrations.csv row 1: genres {'Jazz|' + 'x' * 75!r} names a genre of more than 200 characters",
        ),
    ],
)
def test_a_bad_registration_is_named(tmp_path: Path, row: tuple[str, ...], message: str) -> None:
    assert refused(tmp_path, registrations=[row]) == message


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("007", LISTEN[1], "1", "-3"), "listens.csv row 1: seconds '-3' is not more than 0"),
        (("007", LISTEN[1], "1", "0"), "listens.csv row 1: seconds '0' is not more than 0"),
        (("007", LISTEN[1], "1", "long"), "listens.csv row 1: seconds 'long' is not a number"),
        (("007", LISTEN[1], "1", "inf"), "listens.csv row 1: seconds 'inf' is not a number"),
        (("007", LISTEN[1], "1", ""), "listens.csv row 1: seconds is missing"),
        (("007", LISTEN[1], "9", "60"), "listens.csv row 1: station_id '9' is not in the stations"),
        (("007", "2025-02-05T10:00", "1", "60"), "listens.csv row 1: started_at '2025-02-05T10:00' has no time zone"),
    ],
)
def test_a_bad_listen_is_named(tmp_path: Path, row: tuple[str, ...], message: str) -> None:
    assert refused(tmp_path, listens=[row]) == message


def test_a_user_who_registers_twice_is_named(tmp_path: Path) -> None:
    message = refused(tmp_path, registrations=[GOOD, ("8", *GOOD[1:]), GOOD])
    assert message == "registrations.csv row 3: user_id '007' appears a second time"


def test_a_genre_with_the_separator_in_it_is_refused(tmp_path: Path) -> None:
    message = refused(tmp_path, stations=[("1", "Both", "Rock|Jazz")])
    assert message == "stations.csv row 1: genre 'Rock|Jazz' holds a pipe sign, which separates genres"


def test_ten_bad_rows_are_shown_and_the_rest_counted(tmp_path: Path) -> None:
    bad = [(f"u{i}", GOOD[1], "200", *GOOD[3:]) for i in range(25)]
    lines = refused(tmp_path, registrations=bad).split("\n")
    assert len(lines) == 11
    assert lines[0] == "registrations.csv row 1: age '200' is not between 0 and 120"
    assert lines[-1] == "registrations.csv: and 15 more bad rows"


def test_bad_rows_can_be_skipped_and_are_counted_by_reason(tmp_path: Path) -> None:
    registrations = [GOOD, ("8", GOOD[1], "200", *GOOD[3:]), GOOD]
    long = [("007", LISTEN[1], "1", seconds) for seconds in ("long", "longer", "1e999")]  # two rules, one reason
    listens = [LISTEN, ("007", LISTEN[1], "1", "-3"), ("007", LISTEN[1], "9", "60"), *long]
    data = made_tables.tables(tmp_path / "data", registrations, listens)
    found = open_tables(data, workspace=tmp_path, skip_bad_rows=True)
    assert found.connection.sql("SELECT user_id FROM registrations").fetchall() == [("007",)]
    assert found.connection.sql("SELECT count(*) FROM listens").fetchall() == [(1,)]
    assert found.ignored == {
        "registrations.csv: age is not between 0 and 120": 1,
        "registrations.csv: user_id appears a second time": 1,
        "listens.csv: station_id is not in the stations": 1,
        "listens.csv: seconds is not a number": 3,
        "listens.csv: seconds is not more than 0": 1,
    }


def test_values_come_through_as_they_were(tmp_path: Path) -> None:
    rows = [
        ("007", "2025-01-01T02:30:00+02:00", "", "", "", ""),
        ("NA", "2025-01-01T00:00:00Z", "0", "NULL", "NA", " Rock |Jazz"),
    ]
    found = open_tables(made_tables.tables(tmp_path / "data", rows, [LISTEN]), workspace=tmp_path)
    kept = found.connection.sql(f"SELECT * EXCLUDE {ROW} FROM registrations ORDER BY {ROW}").fetchall()
    assert kept == [
        ("007", datetime(2025, 1, 1, 0, 30), None, None, None, []),
        ("NA", datetime(2025, 1, 1), 0, "NULL", "NA", ["Rock", "Jazz"]),
    ]


def test_picks_are_compared_after_normalisation_and_unknown_ones_are_counted(tmp_path: Path) -> None:
    stations = [("1", "A", " Hip\u00a0Hop "), ("2", "B", "Caf\u0065\u0301")]
    rows = [("7", GOOD[1], "", "", "", "Hip Hop|Caf\u00e9|Polka")]
    found = open_tables(made_tables.tables(tmp_path / "data", rows, [LISTEN], stations), workspace=tmp_path)
    assert found.genres == ("Caf\u00e9", "Hip Hop")
    unknown = unknown_picks(found.connection, found.genres)
    assert (unknown.count, unknown.of, unknown.spellings) == (1, 3, {"Polka": 1})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: (data / "stations.csv").unlink(), "has neither stations.parquet nor stations.csv"),
        (lambda data: (data / "listens.csv").write_text(""), "listens.csv is empty"),
        (lambda data: (data / "listens.csv").write_text("user_id,started_at\n"), "has no column station_id, seconds"),
        (lambda data: (data / "listens.csv").write_bytes(b"\xff\xfe\x00"), "listens.csv can't be read"),
        (
            lambda data: (data / "listens.csv").rename(data / "listens.parquet").write_bytes(b"PAR1"),
            "listens.parquet can't be read",
        ),
        (
            lambda data: (data / "listens.parquet").write_bytes(b"PAR1"),
            r"has both listens.parquet and listens.csv: remove the one that is not to be used",
        ),
    ],
)
def test_a_file_that_is_no_table_is_named_in_one_line(tmp_path: Path, damage: object, message: str) -> None:
    data = made_tables.tables(tmp_path / "data", [GOOD], [LISTEN])
    damage(data)  # type: ignore[operator]
    with pytest.raises(InputError, match=message) as problem:
        open_tables(data, workspace=tmp_path)
    assert "\n" not in str(problem.value)


def test_a_ragged_csv_is_named_in_one_line(tmp_path: Path) -> None:
    data = made_tables.tables(tmp_path / "data", [GOOD], [LISTEN])
    with (data / "listens.csv").open("a") as file:
        file.write("007,2025-02-05T10:00:00Z,1,60,and,more\n")
    with pytest.raises(InputError, match=r"^listens\.csv row 2 has 6 cells instead of 4$"):
        open_tables(data, workspace=tmp_path)


def test_parquet_and_csv_give_the_same_tables(tmp_path: Path) -> None:
    data = made_tables.tables(tmp_path / "data", [GOOD], [LISTEN])
    columnar = tmp_path / "columnar"
    columnar.mkdir()
    moment = pa.array([datetime(2025, 1, 1)], pa.timestamp("us", tz="UTC"))
    registration = {"user_id": ["007"], "registered_at": moment, "age": [31], "gender": ["female"], "country": ["US"]}
    pq.write_table(pa.table(registration | {"genres": [["Rock", "Jazz"]]}), columnar / "registrations.parquet")
    started = pa.array([datetime(2025, 2, 5, 10)], pa.timestamp("ms"))
    pq.write_table(
        pa.table({"user_id": ["007"], "started_at": started, "station_id": ["1"], "seconds": [900]}),
        columnar / "listens.parquet",
    )
    stations = {"station_id": ["1", "2"], "name": ["Rock FM", "Jazz FM"], "genre": ["Rock", "Jazz"]}
    pq.write_table(pa.table(stations), columnar / "stations.parquet")
    read = [open_tables(folder, workspace=tmp_path) for folder in (data, columnar)]
    for table in ("registrations", "listens", "stations"):
        first, second = (found.connection.sql(f"FROM {table}").fetchall() for found in read)
        assert first == second


def test_a_bad_parquet_row_is_named_too(tmp_path: Path) -> None:
    data = made_tables.tables(tmp_path / "data", [GOOD], [LISTEN])
    (data / "listens.csv").unlink()
    started = pa.array([datetime(2025, 2, 5, 10)] * 2, pa.timestamp("us"))
    columns = {"user_id": ["007"] * 2, "started_at": started, "station_id": ["1", "1"], "seconds": [5.0, -3.0]}
    pq.write_table(pa.table(columns), data / "listens.parquet")
    with pytest.raises(InputError, match=r"listens\.parquet row 2: seconds '-3\.0' is not more than 0"):
        open_tables(data, workspace=tmp_path)


def test_bad_listens_of_many_row_groups_have_their_row_numbers(tmp_path: Path) -> None:
    data = made_tables.tables(tmp_path / "data", [("u", "2026-01-01T00:00:00Z", "", "", "", "")], [])
    bad = {7: "yesterday", 20: "noon", 33: "1e2"}
    n = 40
    (data / "listens.csv").unlink()
    listens = {
        "user_id": ["u"] * n,
        "started_at": [bad.get(row, "2026-02-05T00:00:00Z") for row in range(1, n + 1)],
        "station_id": ["1"] * n,
        "seconds": ["60"] * n,
    }
    pq.write_table(pa.table(listens), data / "listens.parquet", row_group_size=1)
    for _ in range(8):  # threads finish in another order each time
        with pytest.raises(InputError) as problem:
            open_tables(data, workspace=tmp_path)
        shown = [line for line in str(problem.value).splitlines() if "started_at" in line]
        assert [line.split(": ")[0] for line in shown] == [f"listens.parquet row {row}" for row in bad]
        assert all(value in line for line, value in zip(shown, bad.values(), strict=True))


def test_further_columns_are_numbers_where_every_value_is_one(tmp_path: Path) -> None:
    data = made_tables.tables(tmp_path / "data", [], [LISTEN])
    header = (*made_tables.REGISTRATIONS, "device", "visits")
    rows = [("7", GOOD[1], "", "", "", "", "phone", "3"), ("8", GOOD[1], "", "", "", "", "4", "")]
    made_tables.write(data, "registrations", header, rows)
    found = open_tables(data, workspace=tmp_path, extra=("device", "visits"))
    assert found.extra == {"device": "text", "visits": "number"}
    kept = found.connection.sql(f"SELECT device, visits FROM registrations ORDER BY {ROW}").fetchall()
    assert kept == [("phone", 3.0), ("4", None)]


def test_a_further_column_of_a_bundle_stays_what_it_was_and_may_be_absent(tmp_path: Path) -> None:
    """Training requires the columns that it is told to use."""
    asked = made_tables.write(tmp_path, "new", (*made_tables.REGISTRATIONS, "visits"), [(*GOOD, "many")])
    with pytest.raises(InputError, match=r"new\.csv row 1: visits 'many' is not a number"):
        read_registrations(asked, workspace=tmp_path, extra={"visits": "number"})
    assert read_registrations(asked, workspace=tmp_path, extra={"device": "text"}).absent == ("device",)
    with pytest.raises(InputError, match=r"new\.csv has no column Visits, but visits: use it with --map Visits=visits"):
        read_registrations(asked, workspace=tmp_path, extra={"Visits": "number"})
    with pytest.raises(InputError, match=r"new\.csv has no column apparat \(device\)"):
        read_registrations(asked, workspace=tmp_path, extra={"device": "text"}, mapping=column_map("device=apparat"))
    data = made_tables.tables(tmp_path / "data", [GOOD], [LISTEN])
    with pytest.raises(InputError, match=r"registrations\.csv has no column device"):
        open_tables(data, workspace=tmp_path, extra=("device",))


def with_stations(tmp_path: Path, *rows: tuple[object, ...]) -> Path:
    """Tables of which the stations tell more."""
    data = made_tables.tables(tmp_path / "data", [GOOD], [LISTEN])
    made_tables.write(data, "stations", (*made_tables.STATIONS, "market", "available", "popularity"), rows)
    return data


def test_a_station_that_is_not_available_is_not_offered_and_markets_are_read(tmp_path: Path) -> None:
    data = with_stations(
        tmp_path,
        ("1", "Rock FM", "Rock", "SE|no", "true", 5),
        ("2", "Jazz FM", "Jazz", "", "FALSE", 9),
        ("3", "Folk FM", "Folk", " | ", "", ""),
    )
    found = open_tables(data, workspace=tmp_path)
    assert station_popularity(found) == [(Station("1", "Rock FM", "Rock"), 5.0), (Station("3", "Folk FM", "Folk"), 0.0)]
    assert station_markets(found) == {"1": ("SE", "no")}
    assert found.genres == ("Folk", "Jazz", "Rock")  # who listened to it before still did
    (tmp_path / "other").mkdir()
    plain = open_tables(made_tables.tables(tmp_path / "plain", [GOOD], [LISTEN]), workspace=tmp_path / "other")
    assert [(station.station_id, heard) for station, heard in station_popularity(plain)] == [("1", 900.0), ("2", 0.0)]
    assert station_markets(plain) == {}


def test_availability_is_yes_or_no(tmp_path: Path) -> None:
    data = with_stations(tmp_path, ("1", "Rock FM", "Rock", "", "soon", 5))
    with pytest.raises(InputError, match=r"stations\.csv row 1: available 'soon' is not true or false"):
        open_tables(data, workspace=tmp_path)


ATTACK = (
    "market\" AS zz, row FROM received; COPY (SELECT 1 AS found) TO 'PATH' (FORMAT csv); "
    'CREATE OR REPLACE TABLE stations AS SELECT *, "popularity'
)


def test_a_column_name_is_never_run_as_sql(tmp_path: Path) -> None:
    stolen = tmp_path / "stolen.csv"
    name = ATTACK.replace("PATH", str(stolen))
    data = made_tables.tables(tmp_path / "data", [GOOD], [LISTEN])
    made_tables.write(data, "stations", (*made_tables.STATIONS, name), [("1", "Rock FM", "Rock", "x")])
    open_tables(data, workspace=tmp_path)
    made_tables.write(data, "registrations", (*made_tables.REGISTRATIONS, name), [(*GOOD, "x")])
    (tmp_path / "other").mkdir()
    open_tables(data, workspace=tmp_path / "other")
    with pytest.raises(InputError, match="further column"):
        open_tables(data, workspace=tmp_path / "other", extra=(name,))
    assert not stolen.exists()
