"""Answers to a DataFrame of local Spark equal those of `score` to the bit. Run by `make test-spark`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import made_people
import made_spark
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_bundles import pack

from firstspin import api
from firstspin.files import is_partial
from firstspin.records import InputError
from firstspin.serving import spark_batch
from firstspin.serving.policy import DEFAULTS

pytest.importorskip("pyspark", reason="make test-spark installs Spark in an environment of its own")

pytestmark = made_spark.LEFT_SOCKETS

USERS = 1_000
BATCH = "spark.sql.execution.arrow.maxRecordsPerBatch"


def registrations(folder: Path) -> Path:
    """Users of every kind: under the minimum age, without an answer, with picks that the bundle does not know."""
    examples = made_people.examples(USERS, 7)
    people = examples.registrations
    rows = {
        "user_id": [f"{number:05}" for number in range(USERS)],
        "age": [9 if number % 50 == 0 else person.age for number, person in enumerate(people)],
        "gender": [person.gender for person in people],
        "country": ["" if number % 7 == 0 else person.country for number, person in enumerate(people)],
        "genres": [[] if number % 5 == 0 else [*person.genres, " unknown "] for number, person in enumerate(people)],
        "shoe": [44] * USERS,
    }
    empty = {"age": None, "gender": None, "country": None, "genres": []}
    table = pa.Table.from_pylist([*pa.table(rows).to_pylist()[1:], {"user_id": "none", "shoe": 1} | empty])
    pq.write_table(table, folder / "registrations.parquet")
    return folder / "registrations.parquet"


@pytest.mark.filterwarnings("ignore:.*picks name no genre")
def test_the_answers_are_those_of_score_whatever_the_partitions(spark_session: Any, tmp_path: Path) -> None:
    bundle, file = tmp_path / "bundle", registrations(tmp_path)
    pack(bundle, knows_silence=False)
    expected = api.Recommender(bundle).score(file, top=3).sort_by("user_id")
    assert set(expected["source"].to_pylist()) == {"model", "popular", "under-age"}
    usual = spark_session.conf.get(BATCH)
    spark_session.conf.set(BATCH, "150")
    frame = spark_session.read.parquet(str(file)).repartition(3)
    answers = api.score_on_spark(frame, bundle, top=3).toArrow().sort_by("user_id")
    spark_session.conf.set(BATCH, usual)
    assert answers.to_pylist() == expected.to_pylist()


def test_what_score_refuses_is_refused(spark_session: Any, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    pack(bundle)
    twice = spark_session.createDataFrame([("u1", 30), ("u1", 31)], "user_id string, age int")
    with pytest.raises(InputError, match="user_id 'u1' appears a second time"):
        api.score_on_spark(twice, bundle)
    with pytest.raises(InputError, match=r"have no column user_id \(there are id, age\)"):
        api.score_on_spark(twice.toDF("id", "age"), bundle)
    for name, lacking in (("Age", "has no column age, but Age"), ("Genres", r"has no column genres \(it has")):
        with pytest.raises(InputError, match=lacking):
            api.score_on_spark(twice.toDF("user_id", name), bundle)
    with pytest.raises(InputError, match="age is bool, where whole numbers are needed"):
        api.score_on_spark(twice.selectExpr("user_id", "age > 3 AS age"), bundle)
    with pytest.raises(Exception, match="age '300' is not between 0 and 120"):
        api.score_on_spark(twice.limit(1).selectExpr("user_id", "300 AS age"), bundle).toArrow()


def score_command(bundle: Path, file: Path, out: Path, engine: str) -> list[str]:
    words = ("score", "--bundle", bundle, "--registrations", file, "--out", out, "--top", 3, "--engine", engine)
    return [sys.executable, "-m", "firstspin", *map(str, words)]


def test_the_command_scores_in_a_session_of_its_own(tmp_path: Path) -> None:
    bundle, file, here = tmp_path / "bundle", registrations(tmp_path), tmp_path / "here"
    here.mkdir()
    pack(bundle, knows_silence=False)
    for engine in ("duckdb", "spark"):
        command = score_command(bundle, file, here / f"{engine}.parquet", engine)
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=200, cwd=here)
        assert f"{USERS:,} registrations answered in" in done.stdout.replace("\n", " ")
    answers = {engine: pq.read_table(here / f"{engine}.parquet") for engine in ("duckdb", "spark")}
    assert answers["spark"].schema == answers["duckdb"].schema
    assert answers["spark"].sort_by("user_id").equals(answers["duckdb"].sort_by("user_id"))
    assert sorted(path.name for path in here.iterdir()) == ["duckdb.parquet", "spark.parquet"]


def test_a_killed_run_leaves_no_answers(tmp_path: Path) -> None:
    bundle, file, temporary, out = (
        tmp_path / "b",
        registrations(tmp_path),
        tmp_path / "tmp",
        tmp_path / "out" / "a.parquet",
    )
    pack(bundle)
    temporary.mkdir()
    out.parent.mkdir()
    command = score_command(bundle, file, out, "spark")
    with subprocess.Popen(command, env=os.environ | {"TMPDIR": str(temporary)}, stderr=subprocess.DEVNULL) as run:
        until = time.monotonic() + 200
        while not list(temporary.glob("firstspin-score-*/answers")):  # the executors write
            assert run.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)
        run.kill()
    assert [path.name for path in out.parent.iterdir() if not is_partial(path)] == []


def test_what_fails_on_spark_leaves_no_file(spark_session: Any, tmp_path: Path) -> None:
    bundle, out = tmp_path / "bundle", tmp_path / "out" / "a.parquet"
    out.parent.mkdir()
    pack(bundle)
    rows = {"user_id": ["u1", "u2"], "age": [31, 300], "genres": [["Rock"], []]}
    pq.write_table(pa.table(rows), tmp_path / "bad.parquet")
    (tmp_path / "people.csv").write_text("user_id\nu1\n")
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1 is not enough")
    for name, problem in (
        ("bad.parquet", "can't be answered on Spark: .*age '300' is not between 0 and 120"),
        ("people.csv", "reads registrations in Parquet, which people.csv is not"),
        ("damaged.parquet", "can't be answered on Spark: "),
    ):
        with pytest.raises(InputError, match=problem):
            spark_batch.write_scores(bundle, tmp_path / name, out, 3, DEFAULTS, spark_session)
    assert list(out.parent.iterdir()) == []
