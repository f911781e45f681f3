"""The expressions compile for warehouses to the SQL of the golden files, for DuckDB to that of the package.

After an intended change, `python tests/data/labels/test_golden_sql.py` writes the files again: read the
difference, then commit it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import duckdb
import ibis
import pytest

import firstspin.data.sql
from firstspin.data.checks.mismatches import by_day
from firstspin.data.labels.expressions import (
    DAY,
    DROPPED,
    PLAYED_GENRES,
    STATION,
    fates,
    in_windows,
    judged,
    seconds_by_genre,
    sums_by_user,
)
from firstspin.data.labels.labelling import EVERYONE
from firstspin.data.labels.windows import TIMED
from firstspin.data.schema import (
    LISTENS,
    REGISTERED_AT,
    REGISTRATIONS,
    ROW,
    SECONDS,
    STARTED_AT,
    STATION_ID,
    TOP_GENRE,
    USER_ID,
)
from firstspin.data.sql import compiled
from firstspin.records import LabelRule

GOLDEN = Path(__file__).parent / "golden"
DIALECTS = ("bigquery", "databricks", "snowflake", "trino")
STATIONS = {ROW: "int64", "station_id": "string", "genre": "string"}
ENDS = datetime(2025, 6, 1)
PLACES = {
    str(1777 * DAY): "{gap}",
    str(1888 * DAY): "{window}",
    str(1777 + 1888): "{days}",
    "MAKE_TIMESTAMP(2345, 6, 7, 0, 0, 0.0)": "TIMESTAMP '{data_ends}'",
    "12345.25": "{min_seconds}",
}
"""The numbers of a rule, and what they are in the SQL of the package."""


def labels_sql(dialect: str) -> str:
    """One query: a row per registration, with its label or the reason why it has none.

    Times are in UTC without a zone; in BigQuery of the type TIMESTAMP, since it adds no days to its times without one.
    """
    time, ends = ("timestamp('UTC')", ENDS.replace(tzinfo=UTC)) if dialect == "bigquery" else ("timestamp", ENDS)
    registrations = ibis.table({ROW: "int64", "user_id": "string", "registered_at": time}, "registrations")
    listened = {"user_id": "string", "started_at": time, "station_id": "string", "seconds": "float64"}
    rule = LabelRule(data_ends=ends)
    by_genre = seconds_by_genre(registrations, ibis.table(listened, "listens"), ibis.table(STATIONS, "stations"), rule)
    return f"{ibis.to_sql(fates(registrations, sums_by_user(by_genre), rule), dialect=dialect)}\n"


@pytest.mark.parametrize("dialect", DIALECTS)
def test_labels_compile_for_warehouses_as_in_the_golden_files(dialect: str) -> None:
    sql = labels_sql(dialect)
    assert sql == (GOLDEN / f"labels.{dialect}.sql").read_text()
    assert "struct" not in sql.casefold()


def test_the_same_query_gives_the_labels_in_duckdb() -> None:
    connection = duckdb.connect()
    connection.execute(f"""CREATE TABLE registrations AS SELECT * FROM (VALUES
        (0, 'tie', TIMESTAMP '2025-01-01'), (1, 'little', '2025-01-01'), (2, 'none', '2025-01-01'),
        (3, 'late', '2025-05-01')) t("{ROW}", user_id, registered_at)""")
    connection.execute(f"""CREATE TABLE stations AS SELECT * FROM (VALUES
        (0, '1', 'Rock'), (1, '2', 'Jazz')) t("{ROW}", station_id, genre)""")
    connection.execute("""CREATE TABLE listens AS SELECT * FROM (VALUES
        ('tie', TIMESTAMP '2025-02-05', '1', 400.5), ('tie', '2025-02-06', '2', 400.5),
        ('tie', '2025-02-06', '2', 400.5), ('little', '2025-02-05', '1', 599.0),
        ('none', '2025-03-02', '1', 900.0), ('stranger', '2025-02-05', '1', 900.0)
        ) t(user_id, started_at, station_id, seconds)""")
    rows = connection.sql(f'SELECT "{DROPPED}", top_genre, seconds FROM ({labels_sql("duckdb")}) ORDER BY "{ROW}"')
    assert rows.fetchall() == [
        (None, "Jazz", 801.0),  # the listen that is there twice counts once, and a tie goes to the first genre
        ("under the activity rule", "Rock", 599.0),
        ("no listen in the window", None, None),
        ("window not over yet", None, None),
    ]


def compiled_for_duckdb() -> dict[str, str]:
    """The SQL of the package by name: of the expressions that this machine's DuckDB runs."""
    number, text, time = "int64", "string", "timestamp"
    timed = ibis.table({ROW: number, USER_ID: text, REGISTERED_AT: number}, TIMED[REGISTRATIONS])
    listened = {USER_ID: text, STARTED_AT: number, STATION_ID: text, SECONDS: "float64"}
    rule = LabelRule(gap_days=1777, window_days=1888, min_seconds=12345.25, data_ends=datetime(2345, 6, 7))
    heard = in_windows(timed, ibis.table(listened, TIMED[LISTENS]), ibis.table(STATIONS, "stations"), rule)
    read = heard.select(heard[ROW].fill_null(-1).name(ROW), STATION, STARTED_AT, SECONDS)
    sums = {PLAYED_GENRES: number, SECONDS: "float64", TOP_GENRE: number}
    everyone = ibis.table({ROW: "int32", REGISTERED_AT: time, **sums}, EVERYONE)
    days = by_day(ibis.table({STARTED_AT: time, SECONDS: "float64"}, LISTENS))["day", "listens", "last"]
    found = {}
    for name, expression in {"in_windows": read, "judged": judged(everyone, rule), "by_day": days}.items():
        found[name] = f"{ibis.to_sql(expression, dialect='duckdb')}\n"
        for value, place in PLACES.items():
            found[name] = found[name].replace(value, place)
    return found


def test_the_sql_of_the_package_is_that_of_the_expressions() -> None:
    assert {name: compiled(name) for name in compiled_for_duckdb()} == compiled_for_duckdb()


if __name__ == "__main__":
    for name, sql in compiled_for_duckdb().items():
        (Path(firstspin.data.sql.__file__).parent / "compiled" / f"{name}.sql").write_text(sql)
    for dialect in DIALECTS:
        (GOLDEN / f"labels.{dialect}.sql").write_text(labels_sql(dialect))
