"""Listens in a table of a DuckDB database are read in place, as those of a file."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest
from made_listens import edge_cases

from firstspin import learn
from firstspin.data.column_map import column_map
from firstspin.data.dataset import Reading
from firstspin.records import InputError

MAPPING = column_map("listens.user_id=u 1,listens.seconds=duration")


def stored(data: Path) -> Path:
    """A database with the listens of a folder in a table of a schema and in a view; its log is not written back."""
    path = data / "plays.duckdb"
    connection = duckdb.connect(path, config={"checkpoint_threshold": "1GB"})
    connection.execute("PRAGMA disable_checkpoint_on_shutdown")
    connection.execute("CREATE SCHEMA analytics")
    connection.execute(f"""CREATE TABLE analytics."my plays" AS
        SELECT user_id AS "u 1", 'x' AS device, started_at, station_id, seconds AS duration
        FROM read_parquet('{data}/listens.parquet')""")
    connection.execute(f"""CREATE VIEW elsewhere AS FROM read_parquet('{data}/listens.parquet')""")
    connection.close()
    assert path.with_suffix(".duckdb.wal").exists()
    return path


@pytest.mark.parametrize("kind", ["typed", "zoned", "text"])
def test_labels_census_and_bad_rows_are_those_of_the_file(kind: str, tmp_path: Path) -> None:
    data = edge_cases(tmp_path, kind)
    before = stored(data).read_bytes()
    reading = Reading(skip_bad_rows=True, mapping=MAPPING)
    address = f"duckdb://{data}/plays.duckdb"
    out, table = tmp_path / "theirs.parquet", "analytics.my plays"
    theirs = learn.label(data, out, reading, listens=address, listens_table=table)
    ours = learn.label(data, tmp_path / "ours.parquet", Reading(skip_bad_rows=True))
    assert pq.read_table(out).equals(pq.read_table(tmp_path / "ours.parquet"))
    assert repr(theirs[0]).replace("plays.duckdb", "listens.parquet") == repr(ours[0])
    assert list(theirs[1].values()) == list(ours[1].values())
    assert (data / "plays.duckdb").read_bytes() == before


def test_texts_are_equal_by_their_bytes_whatever_the_collation_of_the_database(tmp_path: Path) -> None:
    data = edge_cases(tmp_path, "typed")
    ours = learn.label(data, tmp_path / "ours.parquet", Reading(skip_bad_rows=True))[0]
    users = pq.read_table(tmp_path / "ours.parquet")["user_id"].to_pylist()
    assert "twice" in users
    with duckdb.connect(data / "plays.duckdb") as connection:
        connection.execute("""CREATE TABLE listens (
            user_id VARCHAR COLLATE NOCASE, started_at TIMESTAMP, station_id VARCHAR COLLATE NOCASE, seconds DOUBLE)""")
        connection.execute(f"""INSERT INTO listens
            SELECT replace(user_id, 'twice', 'TWICE'), started_at, station_id, seconds
            FROM read_parquet('{data}/listens.parquet')""")
    out = tmp_path / "theirs.parquet"
    theirs = learn.label(data, out, Reading(skip_bad_rows=True), listens=f"duckdb://{data}/plays.duckdb")[0]
    assert theirs.labelled == ours.labelled - 1
    assert pq.read_table(out)["user_id"].to_pylist() == [user for user in users if user != "twice"]


def test_labels_never_replace_the_database_that_is_read(tmp_path: Path) -> None:
    data = edge_cases(tmp_path, "typed")
    path = stored(data).rename(tmp_path / "plays.parquet")
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"plays\.parquet is the database of the listens; name another file"):
        learn.label(data, path, Reading(), listens=f"duckdb://{path}", listens_table="elsewhere")
    assert path.read_bytes() == before


def test_mistakes_are_named(tmp_path: Path) -> None:
    data = edge_cases(tmp_path, "typed")
    path = stored(data)
    (tmp_path / "text.db").write_text("listens")
    for address, table, message in (
        (f"duckdb://{tmp_path}/none.db", "listens", "none.db is not a file"),
        (f"duckdb://{tmp_path}/text.db", "listens", "text.db can't be read as a DuckDB database: damaged or cut off"),
        (f"duckdb://{path}", "", "--listens-table is empty"),
        (f"duckdb://{path}", "none", "plays.duckdb has no table 'none'"),
        (f"duckdb://{path}", "analytics.my plays", "plays.duckdb has no column user_id, seconds (it has u 1, device"),
        (f"duckdb://{path}", "elsewhere", "a view of it reads another file: name a table"),
    ):
        with pytest.raises(InputError) as problem:
            learn.label(data, tmp_path / "l.parquet", listens=address, listens_table=table)
        assert message in str(problem.value)
    assert not (tmp_path / "l.parquet").exists()
