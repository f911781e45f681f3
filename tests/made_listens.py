"""Listens at the edges of the label, and bad ones, with the labels that they give: the same for every engine."""

from __future__ import annotations

import csv
from datetime import datetime, timedelta
from pathlib import Path

import made_tables
import pyarrow as pa
import pyarrow.parquet as pq

START = datetime(2026, 2, 1)
STATIONS = [("1", "", "Rock"), ("2", "", "Jazz"), ("3", "", "Blues"), ("4", "", " Rock"), ("05", "", "Pop")]
PEOPLE = ("edge", "tie", "twice", "split", "zeros", "007", "few", "silent", "late")

LISTENS: list[tuple[str | None, datetime | None, str | None, float | None]] = [
    ("edge", START + timedelta(days=30), "1", 700.0),  # the first moment of the window
    ("edge", START + timedelta(days=60), "2", 9000.0),  # the first moment after it
    ("edge", START + timedelta(days=60, microseconds=-1), "3", 100.0),
    ("edge", START + timedelta(days=30, microseconds=-1), "2", 9000.0),
    ("tie", START + timedelta(days=31), "2", 400.0),
    ("tie", START + timedelta(days=32), "3", 400.0),
    *[("twice", START + timedelta(days=40), "2", 500.0)] * 3,  # one listen
    ("twice", START + timedelta(days=40), "1", 600.5),
    ("split", START + timedelta(days=31), "2", 500.0),
    ("split", START + timedelta(days=31), "1", 300.0),
    ("split", START + timedelta(days=31), "4", 300.0),
    ("zeros", START + timedelta(days=35), "05", 800.0),
    ("007", START + timedelta(days=35), "1", 800.0),
    ("7", START + timedelta(days=35), "2", 9000.0),  # another user, who is not registered
    ("few", START + timedelta(days=35), "1", 599.0),
    ("stranger", START + timedelta(days=1), "1", 60.0),
    ("stranger", START + timedelta(days=90), "1", 700_000.0),  # longer than a week; the end of the data
]
BAD: list[tuple[str | None, datetime | None, str | None, float | None]] = [
    ("", START + timedelta(days=35), "1", 800.0),
    (None, START + timedelta(days=35), "1", 800.0),
    ("few", None, "1", 800.0),
    ("few", datetime(1960, 1, 1), "1", 800.0),
    ("few", START + timedelta(days=35), "5", 800.0),
    ("few", START + timedelta(days=35), None, 800.0),
    ("few", START + timedelta(days=35), "1", 0.0),
    ("few", START + timedelta(days=35), "1", -3.0),
    ("few", START + timedelta(days=35), "1", None),
    ("few", START + timedelta(days=35), "1", float("nan")),
    ("few", START + timedelta(days=35), "1", float("inf")),
]
TOPS = {"edge": "Rock", "tie": "Blues", "twice": "Rock", "split": "Rock", "zeros": "Pop", "007": "Rock"}


def columns(rows: list[tuple[str | None, datetime | None, str | None, float | None]]) -> dict[str, pa.Array]:
    users, times, stations, seconds = zip(*rows, strict=True)
    return {
        "user_id": pa.array(users, pa.string()),
        "started_at": pa.array(times, pa.timestamp("us")),
        "station_id": pa.array(stations, pa.string()),
        "seconds": pa.array(seconds, pa.float64()),
    }


def as_text(rows: pa.Table) -> pa.Table:
    """Times as text, most in UTC and some with another zone, beside texts that are no times; numbers as text."""
    times = [None if at is None else f" {at.isoformat()}Z" for at in rows["started_at"].to_pylist()]
    times[0] = f"{(LISTENS[0][1] or START) + timedelta(hours=5, minutes=30):%Y-%m-%dT%H:%M:%S}+05:30"
    seconds = [None if of is None else str(of) for of in rows["seconds"].to_pylist()]
    text = rows.set_column(1, "started_at", pa.array(times)).set_column(3, "seconds", pa.array(seconds))
    wrong = [("few", "yesterday", "1", "800"), ("few", "2026-03-05T00:00:00", "1", "800"), ("few", "", "1", "1,000")]
    values = zip(*wrong, strict=True)
    return pa.concat_tables([text, pa.table(dict(zip(text.column_names, map(pa.array, values), strict=True)))])


def edge_cases(folder: Path, kind: str) -> Path:
    """The three tables, with the listens in a file of this kind."""
    people = [(user, f"{START.isoformat()}Z", "30", "", "US", "Rock|Jazz") for user in PEOPLE]
    people[-1] = ("late", f"{(START + timedelta(days=31)).isoformat()}Z", "", "", "", "")
    made_tables.write(folder, "registrations", made_tables.REGISTRATIONS, people)
    made_tables.write(folder, "stations", made_tables.STATIONS, STATIONS)
    rows = pa.table(columns(LISTENS + BAD))
    if kind == "zoned":
        zoned = rows["started_at"].cast(pa.timestamp("us", "UTC")).cast(pa.timestamp("us", "Asia/Tokyo"))
        rows = pa.table({"device": ["x"] * len(rows)} | columns(LISTENS + BAD) | {"started_at": zoned})
    if kind in ("text", "csv"):
        rows = as_text(rows)
    if kind == "csv":
        with (folder / "listens.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerows([rows.column_names, *([cell or "" for cell in row.values()] for row in rows.to_pylist())])
            file.write('few,"2026-03-05T00:00:00Z,1,800\n')  # an open quote
    else:
        pq.write_table(rows, folder / "listens.parquet")
    return folder
