"""Claim: a day of new listens costs less CPU time than labels from all listens, and gives the same file.

Run as `python bench/incremental.py [--world USERS] [--tables USERS] [--runs N] [--folder FOLDER]`: the simulated
service with 200,000 users, then the tables of `bench/labels.py` with 2,000,000. The state has all listens before the
measured day, four fifths into the history. The ways take turns; a process each; medians.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

import duckdb
import labels

LABEL = [sys.executable, "-m", "firstspin", "label", "--out", "labels.parquet", "--data"]
SMALL = ("registrations", "stations")
PARTS = {
    "history": "started_at < {day} - INTERVAL 1 DAY",
    "day before": "started_at >= {day} - INTERVAL 1 DAY AND started_at < {day}",
    "day": "started_at >= {day} AND started_at < {day} + INTERVAL 1 DAY",
    "all": "started_at < {day} + INTERVAL 1 DAY",
}


MEMORY = 8.0
"""GiB that a command gets."""


def measured(command: list[str], folder: Path) -> tuple[float, float, float]:
    """CPU seconds, seconds and peak GiB of a command that succeeds."""
    used = labels.measured(command, folder, MEMORY)
    if used is None:
        raise RuntimeError(f"{command} failed")
    return used


def split(tables: Path, folder: Path) -> dict[str, int]:
    """Write a folder of tables for each part of the listens; the number of listens of each."""
    listens = f"'{tables / 'listens.parquet'}'"
    span = f"SELECT (min(started_at) + 0.8 * (max(started_at) - min(started_at)))::DATE FROM {listens}"
    ((day,),) = duckdb.sql(span).fetchall()
    numbers = {}
    for part, condition in PARTS.items():
        (folder / part).mkdir(parents=True)
        for name in SMALL:
            (folder / part / f"{name}.parquet").symlink_to((tables / f"{name}.parquet").resolve())
        rows = f"FROM {listens} WHERE {condition.format(day=f'TIMESTAMP {str(day)!r}')}"
        duckdb.sql(f"COPY ({rows}) TO '{folder / part / 'listens.parquet'}'")
        ((numbers[part],),) = duckdb.sql(f"SELECT count(*) {rows}").fetchall()
    return numbers


def compare(what: str, tables: Path, folder: Path, runs: int) -> None:
    """Print a line per way."""
    numbers = split(tables, folder)
    for part in ("history", "day before"):
        begun = measured([*LABEL, part, "--state", "state"], folder)
        if part == "history":
            show(what, "the state begun", numbers[part], begun, float("nan"))
    kept = folder / "state kept"
    shutil.copytree(folder / "state", kept)
    rows: dict[str, list[tuple[float, float, float]]] = {"all": [], "day": []}
    for _ in range(runs):
        rows["all"].append(measured([*LABEL, "all"], folder))
        full = (folder / "labels.parquet").read_bytes()
        shutil.rmtree(folder / "state")
        shutil.copytree(kept, folder / "state")
        rows["day"].append(measured([*LABEL, "day", "--state", "state"], folder))
        if (folder / "labels.parquet").read_bytes() != full:
            raise RuntimeError("the labels differ")
    medians = {part: [statistics.median(column) for column in zip(*of, strict=True)] for part, of in rows.items()}
    for part, way in (("all", "all listens at once"), ("day", "a day to the state")):
        show(what, way, numbers[part], medians[part], medians[part][0] / medians["all"][0])
    sizes = {path.stem: path.stat().st_size / 1e6 for path in (folder / "state").iterdir()}
    print(f"state (MB): {', '.join(f'{name} {size:.1f}' for name, size in sorted(sizes.items()))}", file=sys.stderr)


def show(what: str, way: str, listens: int, used: tuple[float, ...] | list[float], ratio: float) -> None:
    cpu, seconds, memory = used
    print(f"| {what} | {way} | {listens:,} | {cpu:.1f} | {ratio:.2f} | {seconds:.1f} | {memory:.2f} |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--world", type=int, default=200_000)
    parser.add_argument("--tables", type=int, default=2_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    print("| users | | listens | CPU s | × all at once | s | peak GiB |\n|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        if arguments.world:
            world = folder / f"world {arguments.world}"
            if not world.exists():
                measured(
                    [sys.executable, "-m", "firstspin", "world", str(world), "--users", str(arguments.world)], folder
                )
            compare(f"{arguments.world:,} (simulated)", world, Path(temporary) / "world", arguments.runs)
        if arguments.tables:
            tables = folder / f"tables {arguments.tables}"
            labels.make(tables, arguments.tables)
            compare(f"{arguments.tables:,}", tables, Path(temporary) / "tables", arguments.runs)


if __name__ == "__main__":
    main()
