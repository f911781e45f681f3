"""Labels, census and rejected rows of listens in a real PostgreSQL equal those of DuckDB, row for row."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import failed, firstspin
from made_listens import BAD, LISTENS, START, TOPS, columns, edge_cases
from private_postgres import cluster, missing

from firstspin.data.column_map import column_map
from firstspin.data.dataset import Reading, write_labels
from firstspin.data.labels import postgres
from firstspin.records import Census, InputError
from firstspin.simulation.world import write_world

psycopg = pytest.importorskip("psycopg", reason="needs the extra 'postgres'")
if missing():
    pytest.skip(missing(), allow_module_level=True)

COLUMNS = "user_id text, started_at timestamp, station_id text, seconds float8"
SKIPPING = Reading(skip_bad_rows=True)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with cluster() as server:
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("ALTER DATABASE postgres SET TimeZone = 'America/New_York'")
            connection.execute("ALTER DATABASE postgres SET DateStyle = 'German'")
        yield server.url


def fill(url: str, table: str, definition: str, rows: pa.Table) -> None:
    """A new table with these rows."""
    with psycopg.connect(url) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(f"DROP TABLE IF EXISTS {table}")
        connection.execute(f"CREATE TABLE {table} ({definition})")
        with connection.cursor().copy(f"COPY {table} FROM STDIN") as copy:
            for row in zip(*(column.to_pylist() for column in rows.columns), strict=True):
                copy.write_row(row)


def label(data: Path, url: str, out: Path, reading: Reading = SKIPPING, table: str = "listens") -> Any:
    """The labels, the census and the counts of ignored rows."""
    census, ignored = postgres.write_labels(data, out, reading, url, table)
    return pq.read_table(out), census, ignored


def as_file(census: Census, ignored: dict[str, int]) -> tuple[str, dict[str, int]]:
    """What is said of listens.parquet as it is said of the table."""
    named = repr(census).replace("listens.parquet", "listens")
    return named, {why.replace("listens.parquet", "listens"): n for why, n in ignored.items()}


def same(data: Path, url: str, reading: Reading = SKIPPING) -> Any:
    """The labels of PostgreSQL, which are those of DuckDB."""
    table, census, ignored = label(data, url, data / "theirs.parquet", reading)
    ours = write_labels(data, data / "ours.parquet", reading)
    assert table.equals(pq.read_table(data / "ours.parquet"))
    assert as_file(census, ignored) == as_file(*ours)
    return table, census, ignored


@pytest.mark.parametrize("time", ["timestamp", "timestamptz"])
def test_edge_cases_have_the_same_labels_census_and_bad_rows(time: str, url: str, tmp_path: Path) -> None:
    data = edge_cases(tmp_path, "typed")
    fill(url, "listens", COLUMNS.replace("timestamp", time), pa.table(columns(LISTENS + BAD)))
    table, census, ignored = same(data, url)
    assert dict(zip(table["user_id"].to_pylist(), table["top_genre"].to_pylist(), strict=True)) == TOPS
    assert sum(ignored.values()) == len(BAD)
    assert [one.count for one in census.mismatches if "copies" in one.what] == [2]


def test_bad_rows_are_shown_as_those_of_a_file_without_their_numbers(url: str, tmp_path: Path) -> None:
    data = edge_cases(tmp_path, "typed")
    fill(url, "listens", COLUMNS, pa.table(columns(LISTENS + BAD)))
    with pytest.raises(InputError) as theirs:
        label(data, url, tmp_path / "out.parquet", Reading())
    with pytest.raises(InputError) as ours:
        write_labels(data, tmp_path / "ours.parquet", Reading())
    lines = [line.partition(": ")[2] for line in str(ours.value).splitlines()]
    assert sorted({line.partition(": ")[2] for line in str(theirs.value).splitlines()}) <= sorted({*lines})
    assert "listens: seconds '-3.0' is not more than 0" in str(theirs.value)
    assert "listens: and 1 more bad rows" in str(theirs.value)


def test_a_simulated_service_has_the_same_labels(url: str, tmp_path: Path) -> None:
    write_world(tmp_path, 1_000, 5)
    rows = pq.read_table(tmp_path / "listens.parquet")
    times = rows["started_at"].cast(pa.timestamp("us"))
    fill(url, "listens", COLUMNS, rows.set_column(rows.column_names.index("started_at"), "started_at", times))
    table, *_ = same(tmp_path, url, Reading())
    assert len(table) > 500


def test_columns_and_table_have_other_names_and_types(url: str, tmp_path: Path) -> None:
    """Numbers as ids, exact numbers, a date; names with quotes and percent signs."""
    data = edge_cases(tmp_path, "typed")
    (data / "listens.parquet").unlink()  # not read
    times = [START + timedelta(days=days) for days in (35, 36, 90)]
    given = pa.table({"u%s": [7, 7, 7], 'when "exactly"': times, "station": ["05", "1", "1"]})
    given = given.append_column("s", pa.array(["800.25", "1e400", "3"])).append_column("device", pa.array(["x"] * 3))
    definition = '"u%s" bigint, "when ""exactly""" date, station varchar(20), s numeric, device text'
    with psycopg.connect(url) as connection:
        connection.execute('DROP SCHEMA IF EXISTS "my plays" CASCADE')
        connection.execute('CREATE SCHEMA "my plays"')
    fill(url, '"my plays"."p%s"', definition, given)
    people = (data / "registrations.csv").read_text().replace("007", "7")
    (data / "registrations.csv").write_text(people)
    mapping = column_map(
        'listens.user_id=u%s,"listens.started_at=when ""exactly""",listens.station_id=station,listens.seconds=s'
    )
    table, _, ignored = label(
        data, url, tmp_path / "out.parquet", Reading(skip_bad_rows=True, mapping=mapping), "my plays.p%s"
    )
    assert (table["user_id"].to_pylist(), table["top_genre"].to_pylist()) == (["7"], ["Pop"])
    assert table["seconds"].to_pylist() == [800.25]
    assert ignored == {"listens: s (seconds) is not a number": 1}


def test_settings_of_the_role_or_the_address_change_no_label(url: str, tmp_path: Path) -> None:
    """Doubles are written with all digits, texts in UTF-8."""
    data = edge_cases(tmp_path, "typed")
    people = (data / "registrations.csv").read_text().replace("007", "é7")
    (data / "registrations.csv").write_text(people)
    rows = [("é7" if user == "007" else user, at, station, seconds) for user, at, station, seconds in LISTENS]
    rows = [(user, at, station, 800.123457 if seconds == 800 else seconds) for user, at, station, seconds in rows]
    pq.write_table(pa.table(columns(rows)), data / "listens.parquet")
    fill(url, "listens", COLUMNS, pa.table(columns(rows)))
    options = "client_encoding=latin1&options=-cextra_float_digits%3D-12%20-cTimeZone%3DAsia/Tokyo"
    table, *_ = same(data, f"{url}{'&' if '?' in url else '?'}{options}")
    assert "é7" in table["user_id"].to_pylist()


def test_the_rows_that_were_dropped_are_counted_where_no_label_is_left(url: str, tmp_path: Path) -> None:
    data = edge_cases(tmp_path, "typed")
    fill(url, "listens", COLUMNS, pa.table(columns([LISTENS[0], *BAD[:3]])))
    with pytest.raises(InputError, match=r"no user gets a label: .*; listens: 3 of 4 rows dropped: user_id is missing"):
        label(data, url, tmp_path / "out.parquet")


def test_the_command_reads_the_listens_where_they_are(url: str, tmp_path: Path) -> None:
    data = edge_cases(tmp_path, "typed")
    fill(url, "plays", COLUMNS, pa.table(columns(LISTENS)))
    words = ["label", "--data", str(data), "--out", str(tmp_path / "l.parquet"), "--listens-table", "plays"]
    done = firstspin(*words, "--listens", url)
    assert (done.returncode, done.stderr) == (0, "")
    assert "6 of 9 registrations have a label" in done.stdout
    assert "--labels" in done.stdout.splitlines()[-1]
    refused = failed(*words, "--listens", url, "--engine", "spark")
    assert refused == "--listens is read by its database: leave out --engine spark"


def test_nothing_can_be_written_in_the_transaction(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (n int)")
    with postgres._connection(url) as connection, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        connection.execute("INSERT INTO kept VALUES (1)")


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        (
            "user_id text, started_at text, station_id text, seconds float8",
            "started_at is text, where a time is n",
        ),
        ("user_id json, started_at date, station_id text, seconds float8", "user_id is json, where text or whole numb"),
        ("user_id text, started_at date, station_id text", "has no column seconds"),
    ],
)
def test_other_columns_are_refused_before_any_row_is_read(
    definition: str, message: str, url: str, tmp_path: Path
) -> None:
    data = edge_cases(tmp_path, "typed")
    fill(url, "odd", definition, pa.table({}))
    with pytest.raises(InputError, match=message):
        label(data, url, tmp_path / "out.parquet", table="odd")


def test_mistakes_are_named_without_the_password(url: str, tmp_path: Path) -> None:
    data = edge_cases(tmp_path, "typed")
    for address, message in {
        "postgresql://me:secret@localhost:1/db": "the listens can't be read in PostgreSQL: ",
        "postgresql://me:secret@host/db?colour=blue": "--listens: PostgreSQL can't parse it",
        "postgresql://me:secret@secret@localhost/db": "--listens: two @ before the host: write %40",
        "bigquery://me:secret@project": "--listens bigquery:…: the label compiles to its SQL but was never run there",
        "secret.parquet": "expected postgresql://USER@HOST/DATABASE",
    }.items():
        with pytest.raises(InputError) as problem:
            label(data, address, tmp_path / "out.parquet")
        assert message in str(problem.value)
        assert "secret" not in str(problem.value)
    with pytest.raises(InputError, match='relation "none" does not exist'):
        label(data, url, tmp_path / "out.parquet", table="none")
    assert not (tmp_path / "out.parquet").exists()


@pytest.mark.parametrize("rows", [[], BAD[:2], [LISTENS[-2]]])
def test_tables_without_a_usable_listen_are_refused_as_a_file_is(rows: Any, url: str, tmp_path: Path) -> None:
    data = edge_cases(tmp_path, "typed")
    given = pa.table(columns(rows)) if rows else pa.table(columns(LISTENS)).slice(0, 0)
    pq.write_table(given, data / "listens.parquet")
    fill(url, "listens", COLUMNS, given)
    with pytest.raises(InputError) as theirs:
        label(data, url, tmp_path / "out.parquet")
    with pytest.raises(InputError) as ours:
        write_labels(data, tmp_path / "ours.parquet", SKIPPING)
    assert str(theirs.value) == str(ours.value).replace("listens.parquet", "listens")


def test_a_text_of_megabytes_is_read(url: str, tmp_path: Path) -> None:
    data = edge_cases(tmp_path, "typed")
    rows = [*LISTENS, ("x" * 3_000_000, LISTENS[0][1], "1", 60.0)]
    pq.write_table(pa.table(columns(rows)), data / "listens.parquet")
    fill(url, "listens", COLUMNS, pa.table(columns(rows)))
    same(data, url)
