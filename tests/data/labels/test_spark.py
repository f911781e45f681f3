"""Labels, census and rejected rows on local Spark equal those of DuckDB, row for row. Run by `make test-spark`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import made_spark
import made_tables
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_listens import BAD, LISTENS, START, TOPS, columns, edge_cases

from firstspin import api
from firstspin.data.dataset import Reading
from firstspin.data.labels import spark
from firstspin.files import is_partial
from firstspin.records import InputError
from firstspin.simulation.world import write_world

pytest.importorskip("pyspark", reason="make test-spark installs Spark in an environment of its own")
pytestmark = made_spark.LEFT_SOCKETS

USERS = 200_000


def same(data: api.TableSet, theirs: api.TableSet, spark_session: Any, **options: Any) -> api.Labels:
    """The labels of Spark, which are those of DuckDB."""
    ours, labels = api.label(data, **options), api.label(theirs, session=spark_session, **options)
    assert labels.table.equals(ours.table)
    assert (labels.census, labels.ignored) == (ours.census, ours.ignored)
    return labels


@pytest.mark.parametrize("kind", ["typed", "zoned", "text", "csv"])
def test_edge_cases_have_the_same_labels_census_and_bad_rows(kind: str, spark_session: Any, tmp_path: Path) -> None:
    data = edge_cases(tmp_path, kind)
    labels = same(data, data, spark_session, skip_bad_rows=True)
    tops = zip(labels.table["user_id"].to_pylist(), labels.table["top_genre"].to_pylist(), strict=True)
    assert dict(tops) == TOPS
    assert sum(labels.ignored.values()) == len(BAD) + {"text": 3, "csv": 4}.get(kind, 0)
    repeated = [mismatch.count for mismatch in labels.census.mismatches if "copies" in mismatch.what]
    assert repeated == [2]
    assert spark_session.conf.get("spark.sql.session.timeZone") == made_spark.ZONE
    assert spark_session.catalog.listTables() == []


def test_tables_may_be_dataframes_of_the_session(spark_session: Any, tmp_path: Path) -> None:
    data = edge_cases(tmp_path, "typed")
    frames = {
        "listens": spark_session.read.parquet(f"{data}/listens.parquet").repartition(5),
        "registrations": spark_session.read.csv(f"{data}/registrations.csv", header=True),
        "stations": data / "stations.csv",
    }
    same(data, frames, spark_session, skip_bad_rows=True, columns={"country": "country"})


def test_bad_rows_are_refused_with_their_values(spark_session: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        api.label(edge_cases(tmp_path, "typed"), session=spark_session)
    lines = str(refused.value).splitlines()
    assert lines[0] == "listens.parquet: user_id '' is missing"
    assert "listens.parquet: seconds '-3.0' is not more than 0" in lines


def test_ids_of_another_spelling_are_refused_as_by_duckdb(spark_session: Any, tmp_path: Path) -> None:
    data = edge_cases(tmp_path, "typed")
    ids = pa.array([f"{int(user):03}" for user in range(5)])
    at = pa.array([START + timedelta(days=31)] * 5, pa.timestamp("us"))
    rows = {"user_id": ids, "started_at": at, "station_id": ["1"] * 5, "seconds": [900] * 5}
    pq.write_table(pa.table(rows), data / "listens.parquet")
    people = [(str(user), f"{START.isoformat()}Z", "", "", "", "") for user in range(5)]
    made_tables.write(data, "registrations", made_tables.REGISTRATIONS, people)
    messages = []
    for chosen in (None, spark_session):
        with pytest.raises(InputError) as refused:
            api.label(data, session=chosen)
        messages.append(str(refused.value))
    assert messages[0] == messages[1]
    assert "they differ in zeros" in messages[0]


def test_names_of_folders_are_no_values(spark_session: Any, tmp_path: Path) -> None:
    """Spark itself would read each time as the midnight of its folder: the listen before the window would count."""
    data, rows = edge_cases(tmp_path, "typed"), pa.table(columns(LISTENS))
    (data / "listens.parquet").unlink()
    for n, part in enumerate((rows.slice(0, 4), rows.slice(4))):
        for folder in (f"started_at=2026-03-0{n + 3}", f"_started_at=2026-03-0{n + 3}"):  # the second one is hidden
            (data / "listens" / folder).mkdir(parents=True)
            pq.write_table(part, data / "listens" / folder / "part-0.parquet")
    labels = same(data, data, spark_session)
    tops = zip(labels.table["user_id"].to_pylist(), labels.table["top_genre"].to_pylist(), strict=True)
    assert dict(tops) == TOPS


@pytest.mark.parametrize("wrong", ["lacks", "other case", "damaged"])
def test_each_file_of_a_folder_is_checked_as_by_duckdb(wrong: str, spark_session: Any, tmp_path: Path) -> None:
    data, rows = edge_cases(tmp_path, "typed"), pa.table(columns(LISTENS))
    (data / "listens.parquet").unlink()
    (data / "listens").mkdir()
    pq.write_table(rows, data / "listens" / "a.parquet")
    other = rows.drop_columns(["seconds"]) if wrong == "lacks" else rows.rename_columns({"seconds": "Seconds"})
    pq.write_table(other, data / "listens" / "b.parquet")
    if wrong == "damaged":
        (data / "listens" / "b.parquet").write_bytes(b"PAR1" + b"x" * 100)
    tolerant = spark_session.newSession()
    tolerant.conf.set("spark.sql.files.ignoreCorruptFiles", "true")
    messages = []
    for chosen in (None, tolerant):
        with pytest.raises(InputError) as refused:
            api.label(data, session=chosen, skip_bad_rows=True)
        messages.append(str(refused.value))
    assert messages[0] == messages[1]


@pytest.mark.parametrize("kind", ["typed", "csv"])
def test_times_without_a_zone_are_utc_in_any_session(kind: str, spark_session: Any, tmp_path: Path) -> None:
    session = spark_session.newSession()
    session.conf.set("spark.sql.parquet.inferTimestampNTZ.enabled", "false")
    data = edge_cases(tmp_path, kind)
    same(data, data, session, skip_bad_rows=True)
    assert session.conf.get("spark.sql.parquet.inferTimestampNTZ.enabled") == "false"
    assert session.catalog.listTables() == []


def test_what_spark_cannot_read_or_leave_out_is_refused(spark_session: Any, tmp_path: Path) -> None:
    data = edge_cases(tmp_path, "typed")
    with pytest.raises(InputError, match="does not leave out erased users"):
        spark.write_labels(data, tmp_path / "o.parquet", Reading(erased=lambda users: users), spark_session)
    rows = pq.read_table(data / "listens.parquet")
    nanoseconds = rows.set_column(1, "started_at", rows["started_at"].cast(pa.timestamp("ns"), safe=False))
    pq.write_table(nanoseconds, data / "listens.parquet")
    with pytest.raises(InputError, match=r"can't be made on Spark: .*NANOS"):
        api.label(data, session=spark_session)
    (data / "listens.parquet").write_bytes(b"PAR1" + b"x" * 100)
    with pytest.raises(InputError, match="damaged or cut off"):
        api.label(data, session=spark_session)


@pytest.mark.timeout(600)
def test_simulated_users_have_the_same_labels(
    spark_session: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spark, "REGISTRATIONS_AT_ONCE", USERS // 3)  # several parts
    write_world(tmp_path / "world", USERS, 0)
    labels = same(tmp_path / "world", tmp_path / "world", spark_session)
    assert len(labels) > USERS / 2


def test_the_command_labels_in_a_session_of_its_own(tmp_path: Path) -> None:
    data = edge_cases(tmp_path / "data", "typed")
    command = [sys.executable, "-m", "firstspin", "label", "--data", data, "--skip-bad-rows"]
    out = {}
    for engine in ("duckdb", "spark"):
        out[engine] = tmp_path / "here" / f"{engine}.parquet"
        out[engine].parent.mkdir(exist_ok=True)
        words = map(str, [*command, "--engine", engine, "--out", out[engine]])
        subprocess.run(list(words), check=True, capture_output=True, timeout=200, cwd=tmp_path / "here")
    assert pq.read_table(out["spark"]).equals(pq.read_table(out["duckdb"]))
    assert sorted(path.name for path in (tmp_path / "here").iterdir()) == ["duckdb.parquet", "spark.parquet"]


def test_a_killed_run_leaves_no_labels(tmp_path: Path) -> None:
    data, temporary, out = edge_cases(tmp_path / "data", "typed"), tmp_path / "tmp", tmp_path / "out" / "labels.parquet"
    temporary.mkdir()
    out.parent.mkdir()
    words = ("label", "--data", data, "--skip-bad-rows", "--engine", "spark", "--out", out)
    command = [sys.executable, "-m", "firstspin", *map(str, words)]
    with subprocess.Popen(command, env=os.environ | {"TMPDIR": str(temporary)}, stderr=subprocess.DEVNULL) as run:
        until = time.monotonic() + 200
        while not list(temporary.glob("firstspin-label-*/columns/*")):  # Spark has started and the tables are read
            assert run.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)
        run.kill()
    assert [path.name for path in out.parent.iterdir() if not is_partial(path)] == []
