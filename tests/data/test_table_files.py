"""Tables of many files: partitioned folders and compressed CSV give the rows of one plain file, in its order."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import made_tables
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from made_bundles import pack

from firstspin import api, learn
from firstspin.records import InputError

START = datetime(2026, 1, 1)
PEOPLE = [(f"u{i}", f"{(START + timedelta(days=i)).isoformat()}Z", "30", "", "US", "Rock|Jazz") for i in range(6)]
LISTENS = [
    (f"u{i % 6}", f"{(START + timedelta(days=33 + i // 2)).isoformat()}Z", str(1 + i % 2), 300 + i) for i in range(24)
]
LISTENS.append(("nobody", f"{(START + timedelta(days=90)).isoformat()}Z", "1", 60))


def tables(folder: Path) -> Path:
    return made_tables.tables(folder / "plain", PEOPLE, LISTENS)


def compressed(content: bytes, codec: str) -> bytes:
    if codec == "gz":
        half = len(content) // 2
        return gzip.compress(content[:half], mtime=0) + gzip.compress(content[half:], mtime=0)  # as `cat` joins files
    return pa.compress(content, codec="zstd", asbytes=True)


def in_folders(data: Path, table: str, write: Callable[[pa.Table, Path, int], None], parts: int = 5) -> Path:
    """The table as a folder of partitions, in the order of its rows, beside what Spark writes."""
    rows = pyarrow.csv.read_csv(data / f"{table}.csv")
    (data / f"{table}.csv").unlink()
    size = -(-len(rows) // parts)
    for part in range(parts):
        folder = data / table / f"date=2026-02-0{part + 1}"
        folder.mkdir(parents=True)
        write(rows.slice(part * size, size), folder, part)
        (folder / "._SUCCESS.crc").write_bytes(b"crc")
    (data / table / "_SUCCESS").touch()
    return data


def as_parquet(rows: pa.Table, folder: Path, part: int) -> None:
    """Columns in another order, further ones, and numbers of another type in some files."""
    columns = rows.column_names[::-1] if part % 2 else rows.column_names
    rows = rows.select(columns)
    if "seconds" in columns and part == 3:
        at = columns.index("seconds")
        rows = rows.set_column(at, "seconds", rows["seconds"].cast(pa.float64()))
    if "gender" in columns and part % 2:
        rows = rows.drop_columns(["gender"])
    pq.write_table(rows.append_column("batch", pa.array([part] * len(rows))), folder / "part-0.snappy.parquet")


def as_csv(rows: pa.Table, folder: Path, part: int) -> None:
    codec = ("", "gz", "zst")[part % 3]
    text = pa.BufferOutputStream()
    pyarrow.csv.write_csv(rows, text, pyarrow.csv.WriteOptions(delimiter=";" if part == 2 else ","))
    content = text.getvalue().to_pybytes()
    name = f"part-0.csv{f'.{codec}' if codec else ''}"
    (folder / name).write_bytes(compressed(content, codec) if codec else content)


@pytest.mark.parametrize("write", [as_parquet, as_csv])
def test_partitioned_folders_have_the_labels_of_one_file(
    write: Callable[[pa.Table, Path, int], None], tmp_path: Path
) -> None:
    expected = api.label(tables(tmp_path / "one"))
    data = in_folders(in_folders(tables(tmp_path / "many"), "listens", write), "registrations", write, 3)
    found = api.label(data)
    assert found.table.equals(expected.table)
    names = {"listens.csv": "listens", "registrations.csv": "registrations"}
    whats = [mismatch.what for mismatch in expected.census.mismatches]
    for old, new in names.items():
        whats = [what.replace(old, new) for what in whats]
    assert [mismatch.what for mismatch in found.census.mismatches] == whats
    assert found.dropped == expected.dropped
    given = {name: data / name for name in names.values()} | {"stations": data / "stations.csv"}
    assert api.label(given).table.equals(expected.table)


@pytest.mark.parametrize("codec", ["gz", "zst"])
def test_compressed_csv_has_the_labels_and_answers_of_plain_csv(codec: str, tmp_path: Path) -> None:
    data = tables(tmp_path)
    expected = api.label(data)
    pack(tmp_path / "bundle")
    recommender = api.Recommender(tmp_path / "bundle")
    answers = recommender.score(data / "registrations.csv")
    for table in ("registrations", "listens", "stations"):
        plain = data / f"{table}.csv"
        (data / f"{table}.csv.{codec}").write_bytes(compressed(plain.read_bytes(), codec))
        plain.unlink()
    assert api.label(data).table.equals(expected.table)
    assert recommender.score(data / f"registrations.csv.{codec}").equals(answers)


def test_bad_rows_are_numbered_through_the_files(tmp_path: Path) -> None:
    data = in_folders(tables(tmp_path), "listens", as_csv)
    broken = data / "listens" / "date=2026-02-03" / "part-0.csv.zst"
    broken.write_bytes(
        compressed(b'seconds,user_id,started_at,station_id\n-1,u1,2026-03-01T00:00:00Z,1\n1,"x\n', "zst")
    )
    with pytest.raises(InputError) as refused:
        api.label(data)
    first, second = str(refused.value).splitlines()
    assert first == "listens row 11: seconds '-1' is not more than 0"
    assert second.startswith("listens row 12 has a quote that does not close")
    ignored = api.label(data, skip_bad_rows=True).ignored
    assert ignored == {"listens: rows that are not well-formed": 1, "listens: seconds is not more than 0": 1}


def spoil(data: Path, name: str, content: bytes | pa.Table) -> None:
    (data / "listens").mkdir()
    (data / "listens.csv").rename(data / "listens" / "a.csv")
    if isinstance(content, bytes):
        (data / "listens" / name).write_bytes(content)
    else:
        pq.write_table(content, data / "listens" / name)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("notes.txt", b"", r"listens: notes\.txt is none of \.parquet, \.csv, \.csv\.gz, \.csv\.zst; remove it"),
        (
            "b.csv.gz",
            gzip.compress(b"user_id" * 99, mtime=0)[:-9],
            r"listens: b\.csv\.gz can't be read: damaged or cut",
        ),
        ("b.csv.zst", b"\x28\xb5\x2f\xfd" + bytes(9), r"listens: b\.csv\.zst can't be read: damaged or cut off"),
        ("b.csv", b"user_id,at\n", r"listens: b\.csv has no column started_at, station_id, seconds"),
        (
            "b.parquet",
            pa.table({"user_id": ["u1"], "started_at": [START], "station_id": ["1"], "seconds": [9]}),
            r"b\.parquet: started_at is timestamp\[us\], where a\.csv has string",
        ),
    ],
)
def test_a_file_of_a_folder_that_is_no_part_of_the_table_is_an_error(
    name: str, content: bytes | pa.Table, message: str, tmp_path: Path
) -> None:
    data = tables(tmp_path)
    spoil(data, name, content)
    with pytest.raises(InputError, match=message):
        api.label(data)


def test_two_forms_of_one_table_and_an_output_inside_one_are_errors(tmp_path: Path) -> None:
    data = tables(tmp_path)
    (data / "listens").mkdir()
    with pytest.raises(InputError, match=r"has both listens/ and listens\.csv: remove the one"):
        api.label(data)
    (data / "listens.csv").unlink()
    with pytest.raises(InputError, match=r"listens is a folder without a file of \.parquet, "):
        api.label(data)
    with pytest.raises(InputError, match="would replace or hide a table"):
        learn.label(data, data / "listens" / "labels.parquet")
