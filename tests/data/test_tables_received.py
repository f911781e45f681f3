"""Real-life tables give the labels of clean ones, or a one-sentence error."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from datetime import datetime, timedelta
from pathlib import Path
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hostile_texts import HOSTILE
from hypothesis import given, settings
from hypothesis import strategies as st
from made_bundles import pack_with_further_fields

from firstspin.__main__ import main
from firstspin.data.formats.csv_rewriting import MISQUOTED

LABELS = {"007": "Rock", "008": "Jazz", "009": "Pop"}
CLEAN = {
    "registrations": """user_id,registered_at,age,gender,country,genres
007,2026-01-01T00:00:00Z,30,female,US,Rock|Jazz
008,2026-01-02T00:00:00Z,31,male,DE,Jazz
009,2026-01-03T00:00:00Z,32,,SE,
""",
    "listens": """user_id,started_at,station_id,seconds
007,2026-02-05T00:00:00Z,1,900
008,2026-02-05T00:00:00Z,2,900
009,2026-02-05T00:00:00Z,3,900
009,2026-03-10T00:00:00Z,3,60
""",
    "stations": """station_id,name,genre
1,Rock FM,Rock
2,Jazz FM,Jazz
3,Pop FM,Pop
""",
}
HINT = "--skip-bad-rows drops bad rows and counts them; `firstspin check` lists all problems"
FOREIGN = ("traceback", "duckdb", "binder", "catalog error", "invalid input error", "pyarrow", "arrow", "ibis")


def ran(*words: object) -> tuple[int, str]:
    """The exit status and stderr of a command, run in this process."""
    out, err = io.StringIO(), io.StringIO()
    argv = ["firstspin", *(str(word).replace("\0", "") for word in words)]
    with patch.object(sys, "argv", argv), redirect_stdout(out), redirect_stderr(err):
        try:
            status = main()
        except SystemExit as end:
            status = end.code
    return int(status or 0), err.getvalue().strip()


def written(folder: Path, **changed: str | bytes | pa.Table) -> Path:
    """The clean tables, some of them changed: text or bytes are CSV, an Arrow table is Parquet."""
    data = folder / "data"
    data.mkdir()
    for name, content in (CLEAN | changed).items():
        if isinstance(content, pa.Table):
            pq.write_table(content, data / f"{name}.parquet")
        else:
            (data / f"{name}.csv").write_bytes(content.encode() if isinstance(content, str) else content)
    return data


def labels(folder: Path, *options: str, **changed: str | bytes | pa.Table) -> dict[str, str]:
    out = folder / "labels.parquet"
    done = ran("label", "--data", written(folder, **changed), "--out", out, *options)
    assert done == (0, "")
    found = pq.read_table(out)
    return dict(zip(found["user_id"].to_pylist(), found["top_genre"].to_pylist(), strict=True))


def refused(folder: Path, *options: str, **changed: str | bytes | pa.Table) -> str:
    """The sentences that a label of the changed tables ends in."""
    status, said = ran("label", "--data", written(folder, **changed), "--out", folder / "labels.parquet", *options)
    assert (status, [word for word in FOREIGN if word in said.lower()]) == (1, [])
    assert not (folder / "labels.parquet").exists()
    return said.removesuffix(f"\n{HINT}")


def with_column(table: str, name: str, *values: str) -> str:
    """A clean table with one more column, the first value for all that have none."""
    rows = list(csv.reader(io.StringIO(CLEAN[table])))
    values = (name, *values, *values[:1] * len(rows))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([*row, value] for row, value in zip(rows, values, strict=False))
    return text.getvalue()


def in_parquet(table: str, **changed: pa.Array) -> pa.Table:
    rows = list(csv.DictReader(io.StringIO(CLEAN[table])))
    return pa.table({name: [row[name] for row in rows] for name in rows[0]} | changed)


def with_first_column(rows: pa.Table, name: str) -> pa.Table:
    return pa.table({name: pa.array([2] * len(rows))} | {of: rows[of] for of in rows.column_names})


OUR_NAMES = (
    *("row", "broken", "bad", "dropped", "received", "problem", "row of the file", "column 0", "user_id received"),
    *("number of the rule broken", "top_genre", "played", "file_row_number", "filename"),
)


@pytest.mark.parametrize("name", [*OUR_NAMES, *HOSTILE[:6]], ids=lambda name: name[:20])
def test_a_further_column_changes_nothing_whatever_it_is_called(name: str, tmp_path: Path) -> None:
    (tmp_path / "csv").mkdir()
    (tmp_path / "parquet").mkdir()
    assert labels(tmp_path / "csv", **{table: with_column(table, name, "2") for table in CLEAN}) == LABELS
    first = {table: with_first_column(in_parquet(table), name.replace("\0", "0")) for table in CLEAN}
    assert labels(tmp_path / "parquet", **first) == LABELS


def test_further_columns_named_like_internal_ones_are_separate(tmp_path: Path) -> None:
    data = written(tmp_path, registrations=with_column("registrations", "row", "2", "1", "0"))
    assert ran("label", "--data", data, "--out", tmp_path / "o.parquet", "--extra", "row")[0] == 0
    found = pq.read_table(tmp_path / "o.parquet")
    assert found["top_genre"].to_pylist() == ["Rock", "Jazz", "Pop"]
    assert found["row"].to_pylist() == [2.0, 1.0, 0.0]
    status, said = ran("label", "--data", data, "--out", tmp_path / "o.parquet", "--extra", "top_genre")
    assert status == 1
    advice = "rename the column, or use it as user_top_genre: --map user_top_genre=top_genre --extra user_top_genre"
    assert said == f"further column top_genre: the labels have a column of this name; {advice}"


def test_a_file_written_with_an_index_or_for_excel_is_read(tmp_path: Path) -> None:
    indexed = "".join(f"{i},{line}\n" for i, line in enumerate(CLEAN["listens"].splitlines()))
    mixed = CLEAN["registrations"].replace("\n", "\r\n", 2)
    excel = "sep=;\r\n" + CLEAN["stations"].replace(",", ";").replace("\n", "\r\n")
    assert labels(tmp_path, listens=indexed.replace("0,", ",", 1), registrations=mixed, stations=excel) == LABELS


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin"])
def test_times_of_parquet_give_the_same_labels(unit: str, zone: str | None, tmp_path: Path) -> None:
    start = datetime(2026, 1, 1)
    registered = pa.array([start + timedelta(days=i) for i in range(3)], pa.timestamp("us")).cast(pa.timestamp(unit))
    zoned = registered.cast(pa.timestamp(unit, "UTC")).cast(pa.timestamp(unit, zone)) if zone else registered
    assert labels(tmp_path, registrations=in_parquet("registrations", registered_at=zoned)) == LABELS


def test_types_that_hold_no_such_value_are_one_sentence(tmp_path: Path) -> None:
    quarter = pa.array([timedelta(minutes=15)] * 4)
    assert refused(tmp_path, listens=in_parquet("listens", seconds=quarter)) == (
        "listens.parquet: seconds is duration[us], where numbers are needed"
    )
    (tmp_path / "b").mkdir()
    genres = pa.array([b"Rock", b"Jazz", b"Pop"])
    assert refused(tmp_path / "b", stations=in_parquet("stations", genre=genres)) == (
        "stations.parquet: genre is binary, where text is needed"
    )


def test_a_popularity_with_a_thousands_separator_is_named(tmp_path: Path) -> None:
    said = refused(tmp_path, stations=with_column("stations", "popularity", "1,200", "900", "800"))
    assert said == "stations.csv row 1: popularity '1,200' is not a number"


def test_a_year_of_no_registration_is_named(tmp_path: Path) -> None:
    late = CLEAN["registrations"] + "010,9999-12-31T00:00:00Z,30,,US,\n"
    assert refused(tmp_path, registrations=late) == (
        "registrations.csv row 4: registered_at '9999-12-31T00:00:00Z' is not in the years 1971 to 9899"
    )


def test_times_spelled_as_bigquery_does_are_read(tmp_path: Path) -> None:
    assert labels(tmp_path, listens=CLEAN["listens"].replace("T00:00:00Z", " 00:00:00 UTC")) == LABELS


def test_an_unquoted_comma_is_a_bad_row(tmp_path: Path) -> None:
    comma = CLEAN["registrations"].replace("Jazz\n009", "Jazz,Soul\n009")
    assert refused(tmp_path, registrations=comma) == "registrations.csv row 2 has 7 cells instead of 6"
    data = tmp_path / "data"
    assert ran("label", "--data", data, "--out", tmp_path / "o.parquet", "--skip-bad-rows")[0] == 0
    assert pq.read_table(tmp_path / "o.parquet")["user_id"].to_pylist() == ["007", "009"]


def test_bad_rows_of_both_kinds_are_numbered_alike_and_counted(tmp_path: Path) -> None:
    listens = CLEAN["listens"].replace("\n", "\n\n", 1).replace("\n008", '\nx,y\n008,"2026-02-05T00:00:00Z"x,1,9\n008')
    listens = listens.replace(",3,900", ",3,-1")
    assert refused(tmp_path, listens=listens).splitlines() == [
        "listens.csv row 2 has 2 cells instead of 4",
        f"listens.csv row 3 {MISQUOTED}",
        "listens.csv row 5: seconds '-1' is not more than 0",
    ]


@pytest.mark.parametrize("bare", ["1", "0"])
def test_a_header_that_may_hold_values_of_a_user_is_not_logged(
    bare: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTSPIN_BARE_ERRORS", bare)
    headerless = CLEAN["registrations"].split("\n", 1)[1]
    said = refused(tmp_path, registrations=headerless)
    lacks = "registrations.csv has no column user_id, registered_at, genres"
    has = " (it has 007, 2026-01-01T00:00:00Z, 30, female, US, Rock|Jazz)"
    hint = "; for columns of other names: --map user_id=NAME,registered_at=NAME,genres=NAME"
    assert said == lacks + (has + hint) * (bare == "0")


# ------------------------------------------------------------------------------------------------------------ any input

CELL = st.text(max_size=8) | st.sampled_from(["", "007", "1", "2026-02-05T00:00:00Z", "Rock|Jazz", "nan", "1e999", '"'])
NAME = st.sampled_from(["user_id", "registered_at", "age", "genres", "started_at", "seconds", "row", "", *HOSTILE[:6]])
ROWS = st.lists(st.lists(CELL | NAME, max_size=7), max_size=5)
CSV = st.one_of(
    st.binary(max_size=200),
    ROWS.map(lambda rows: "\n".join(map(",".join, rows)).encode("utf-8", "replace")),
    st.builds(
        lambda table, at, more: CLEAN[table].encode()[:at] + more + CLEAN[table].encode()[at:],
        *(st.sampled_from(sorted(CLEAN)), st.integers(0, 250), st.binary(max_size=6)),
    ),
)
TYPES = st.sampled_from(
    [
        *(pa.string(), pa.large_string(), pa.binary(), pa.int8(), pa.uint64(), pa.float32(), pa.float64()),
        *(pa.timestamp("ns", "UTC"), pa.timestamp("ms"), pa.date32(), pa.duration("us"), pa.time64("ns"), pa.bool_()),
        *(pa.list_(pa.string()), pa.list_(pa.int64()), pa.struct([("a", pa.int8())]), pa.map_(pa.string(), pa.int8())),
        *(pa.dictionary(pa.int8(), pa.string()), pa.decimal128(20, 3), pa.null()),
    ]
)
COLUMNS = ("user_id", "registered_at", "age", "gender", "country", "genres", "started_at", "station_id", "genre")


@st.composite
def parquet(draw: st.DrawFn) -> bytes:
    """Some of our columns, of any type, every other value null, and perhaps a byte changed."""
    n = draw(st.integers(0, 3))
    names = draw(st.lists(st.sampled_from(COLUMNS) | NAME, max_size=10))
    arrays = [pa.nulls(n, draw(TYPES)) if draw(st.booleans()) else pa.array(["1"] * n) for _ in names]
    file = io.BytesIO()
    pq.write_table(pa.table(arrays, names=[name.replace("\0", "0") for name in names]), file)
    content = bytearray(file.getvalue())
    for at, byte in draw(st.lists(st.tuples(st.integers(4, len(content) - 1), st.integers(0, 255)), max_size=2)):
        content[at] = byte
    return bytes(content)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("bundle") / "b"
    pack_with_further_fields(folder)
    return folder


def check(status: int, said: str) -> None:
    assert status in (0, 1)
    assert bool(said) == (status == 1)
    assert not [word for word in FOREIGN if word in said.lower()]
    assert len(said.splitlines()) <= 11


ANY_FILE = st.tuples(st.just("csv"), CSV) | st.tuples(st.just("parquet"), parquet())
few_or_many = pytest.mark.parametrize("examples", [25, pytest.param(600, marks=pytest.mark.soak)])


@few_or_many
def test_label_of_any_file_ends_well_or_in_one_message(emptied: Callable[[], Path], examples: int) -> None:
    @settings(max_examples=examples)
    @given(st.sampled_from(sorted(CLEAN)), ANY_FILE, st.booleans())
    def ends_well(table: str, file: tuple[str, bytes], skip: bool) -> None:
        folder = emptied()
        data = written(folder)
        (data / f"{table}.csv").unlink()
        (data / f"{table}.{file[0]}").write_bytes(file[1])
        check(*ran("label", "--data", data, "--out", folder / "o.parquet", *["--skip-bad-rows"] * skip))
        assert {path.name for path in folder.iterdir()} <= {"data", "o.parquet"}

    ends_well()


@few_or_many
def test_score_of_any_file_ends_well_or_in_one_message(
    emptied: Callable[[], Path], bundle: Path, examples: int
) -> None:
    @settings(max_examples=examples)
    @given(ANY_FILE, st.booleans())
    def ends_well(file: tuple[str, bytes], skip: bool) -> None:
        folder = emptied()
        (folder / f"in.{file[0]}").write_bytes(file[1])
        words = ("score", "--bundle", bundle, "--registrations", folder / f"in.{file[0]}", "--out", folder / "o.csv")
        check(*ran(*words, *["--skip-bad-rows"] * skip))

    ends_well()
