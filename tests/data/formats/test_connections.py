"""Connections of one workspace share an instance of DuckDB, and nothing else."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from firstspin.data.formats import connections
from firstspin.data.formats.connections import MAX_INSTANCES, Wall, connect, in_our_words
from firstspin.data.formats.opening import open_table
from firstspin.data.sql import literal
from firstspin.files import workspace
from firstspin.installation.machine import machine_memory
from firstspin.records import InputError

NUMBERED = "CREATE TABLE numbered AS SELECT i, md5(i::VARCHAR) AS text FROM range(600_000) AS t(i)"


@pytest.fixture(autouse=True)
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The workspaces for which an instance was opened; none is open from an earlier test."""
    monkeypatch.setattr(connections, "_instances", {})
    seen: list[Path] = []
    real = connections._opened

    def recorded(wall: Wall) -> duckdb.DuckDBPyConnection:
        seen.append(wall.workspace)
        return real(wall)

    monkeypatch.setattr(connections, "_opened", recorded)
    return seen


def test_the_next_connection_has_the_instance_but_not_the_tables(tmp_path: Path, opened: list[Path]) -> None:
    for number in range(3):
        with connect(tmp_path) as connection:
            connection.execute(f"CREATE TABLE numbers AS SELECT {number} AS number")
            connection.execute(f"CREATE TYPE genres AS ENUM ('{number}')")
            assert connection.execute("SELECT number, enum_range(NULL::genres) FROM numbers").fetchall() == [
                (number, [str(number)])
            ]
    assert opened == [tmp_path]


def test_a_link_to_another_file_needs_another_instance(tmp_path: Path, opened: list[Path]) -> None:
    folder = tmp_path / "w"
    folder.mkdir()
    for name in ("a", "b", "a"):
        path = tmp_path / f"{name}.csv"
        path.write_text(f"key\n{name}\n")
        source = open_table(path, "table", ["key"], workspace=folder)
        with connect(folder, [source]) as connection:
            assert connection.execute(f"FROM read_csv({literal(source.link)})").fetchall() == [(name,)]
    assert opened == [folder, folder]


def test_two_connections_at_once_see_their_own_tables(tmp_path: Path) -> None:
    with connect(tmp_path) as one, connect(tmp_path) as other:
        one.execute("CREATE TABLE numbers AS SELECT 1 AS number")
        other.execute("CREATE TABLE numbers AS SELECT 2 AS number")
        assert [c.execute("FROM numbers").fetchall() for c in (one, other)] == [[(1,)], [(2,)]]


def test_tables_end_with_their_connection(tmp_path: Path) -> None:
    connection = connect(tmp_path)
    connection.execute("CREATE TABLE numbers AS SELECT 1 AS number")
    del connection
    with connect(tmp_path) as after:
        shown = "SELECT database_name FROM duckdb_databases() WHERE NOT internal AND database_name <> 'memory'"
        assert len(after.execute(shown).fetchall()) == 1
        assert after.execute("SELECT count(*) FROM duckdb_tables()").fetchall() == [(0,)]


def test_an_instance_spills_to_a_workspace_that_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MEMORY_LIMIT", 20)
    folder = tmp_path / "w"
    for _ in range(2):
        folder.mkdir()
        with connect(folder) as connection:
            connection.execute(NUMBERED)
            assert any((folder / "spill").iterdir())
            assert connection.execute("SELECT count(DISTINCT text) FROM numbered").fetchall() == [(600_000,)]
        shutil.rmtree(folder)


def test_the_memory_limit_grows_with_the_tables_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "SMALL_TABLE", 1_000)
    monkeypatch.setattr(connections, "BYTES_OF_ROW", 10**6)
    for name, rows in (("few", 1_000), ("more", 1_100), ("many", 900_000)):
        pq.write_table(pa.table({"user_id": [*map(str, range(rows))]}), tmp_path / name)
    folder = tmp_path / "folder"
    folder.mkdir()
    row = "u1234567,2026-01-01T00:00:00Z,24,US,Rock\n"
    for name in ("a.csv", "b.csv"):
        (folder / name).write_text("user_id,registered_at,age,country,genres\n" + 600 * row)
    limits = []
    for name in ("few", "more", "folder", "many"):
        source = open_table(tmp_path / name, name, ["user_id"], workspace=tmp_path)
        with connect(tmp_path, [source], in_memory=[source]) as connection:
            limits += connection.execute("SELECT parse_formatted_bytes(current_setting('memory_limit'))").fetchone()
    assert limits[:3] == pytest.approx([1300e6, 1400e6, 1532e6], rel=0.05)
    assert limits[3] == pytest.approx(machine_memory() / 2, rel=0.02)


def test_a_lack_of_space_is_named_while_arrow_reads_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MEMORY_LIMIT", 20)
    first, long = "SELECT i FROM range(400_000) t(i)", "SELECT len(list(md5(i::VARCHAR))) FROM range(1_000_000) t(i)"
    with connect(tmp_path, threads=2) as connection:
        rows = connection.sql(f"{first} UNION ALL {long}")
        with pytest.raises(InputError, match="can't be read: not enough space"), in_our_words("they can't be read"):
            list(rows.to_arrow_reader(1000))


def test_a_lack_of_memory_is_named() -> None:
    with pytest.raises(InputError, match="can't be read: not enough memory"), in_our_words("they can't be read"):
        np.zeros(1 << 60, dtype=np.uint8)


def test_a_file_that_was_removed_meanwhile_is_not_called_damaged(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    with connect(tmp_path) as connection:
        connection.execute(f"CREATE VIEW a AS FROM read_parquet({literal(tmp_path / 'a.parquet')})")
        (tmp_path / "a.parquet").unlink()
        for read in (lambda: connection.execute("FROM a"), lambda: pq.read_table(tmp_path / "a.parquet")):
            with (
                pytest.raises(InputError, match="a file of it, or one in TMPDIR, was removed"),
                in_our_words("a can't be read"),
            ):
                read()


def test_an_instance_that_ended_is_replaced(tmp_path: Path, opened: list[Path]) -> None:
    connect(tmp_path).close()
    connections._instances[Wall(tmp_path, ())].close()
    with connect(tmp_path) as connection:
        assert connection.execute("SELECT 1").fetchall() == [(1,)]
    assert opened == [tmp_path, tmp_path]


def test_few_instances_stay_open(tmp_path: Path, opened: list[Path]) -> None:
    folders = [tmp_path / str(number) for number in range(MAX_INSTANCES + 1)]
    first = connect(folders[0])
    for folder in folders[1:]:
        folder.mkdir()
        connect(folder).close()
    assert list(connections._instances) == [Wall(folder, ()) for folder in folders[1:]]
    assert first.execute("SELECT 1").fetchall() == [(1,)]
    connect(folders[-1]).close()
    assert opened == folders


def test_a_forked_process_opens_its_own_instance_and_ends(tmp_path: Path) -> None:
    with connect(tmp_path) as connection:
        connection.execute("SELECT count(*) FROM range(1_000_000)").fetchall()
    code = (
        "import os, sys; from pathlib import Path; from firstspin.data.formats.connections import connect\n"
        "count = lambda: connect(Path(sys.argv[1])).execute('SELECT count(*) FROM range(1_000_000)').fetchall()\n"
        "count()\n"
        "child = os.fork()\n"
        "sys.exit(count() != [(1_000_000,)] if child == 0 else os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", code, str(tmp_path)]) == 0


def test_the_next_workspace_of_a_command_has_the_same_path_unless_it_is_taken() -> None:
    with workspace("label") as first, workspace("label") as beside, workspace("score") as other:
        assert len({first, beside, other}) == 3
    with workspace("label") as again:
        assert again in (first, beside)
        assert again.is_dir()
    assert not again.exists()
