"""Small tables written by hand for tests: a folder with the three files."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

REGISTRATIONS = ("user_id", "registered_at", "age", "gender", "country", "genres")
LISTENS = ("user_id", "started_at", "station_id", "seconds")
STATIONS = ("station_id", "name", "genre")

TWO_STATIONS = [("1", "Rock FM", "Rock"), ("2", "Jazz FM", "Jazz")]


def write(folder: Path, name: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    """One CSV file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def tables(
    folder: Path,
    registrations: Iterable[Sequence[object]],
    listens: Iterable[Sequence[object]],
    stations: Iterable[Sequence[object]] = TWO_STATIONS,
) -> Path:
    """All three."""
    write(folder, "registrations", REGISTRATIONS, registrations)
    write(folder, "listens", LISTENS, listens)
    write(folder, "stations", STATIONS, stations)
    return folder
