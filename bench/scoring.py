"""Claim: `firstspin score`, from file to file, costs about a fiftieth of the CPU time of `lgb.predict` alone.

Run as `python bench/scoring.py [ROWS ...] [--runs N] [--work FOLDER]`, by default 200,000 and 1,000,000 registrations.
The model is the large one of `http_stacks.py` (3,225 trees of 31 leaves, 25 genres); training it takes minutes, and
`--work` keeps it. Beside `firstspin score`, Parquet to Parquet: LightGBM on a matrix that is ready, and the same in
pandas (read, encode, predict, first five, write), both on the first 20,000 rows. A process each, in turn; medians.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb
import engines
import http_stacks
import numpy as np
import pyarrow.parquet as pq

from firstspin.data.registrations.coded import coded
from firstspin.models.coded_rows import CodedRows

SLOW_ROWS = 20_000
REGISTRATIONS = """SELECT 'u' || lpad(i::VARCHAR, 9, '0') AS user_id,
    TIMESTAMP '2025-01-01' + to_seconds((random() * 200 * 86400)::BIGINT) AS registered_at,
    CASE WHEN random() < 0.9 THEN (13 + random() * 70)::INT END AS age,
    ['male', 'female', 'other', NULL][1 + floor(random() * 4)::INT] AS gender,
    CASE WHEN random() < 0.9 THEN
        ['BR', 'DE', 'FR', 'GB', 'IN', 'JP', 'MX', 'SE', 'US', 'CH'][1 + floor(random() * 10)::INT] END AS country,
    list_distinct(list_transform(range(floor(random() * 7)::INT),
        lambda x: 'genre ' || lpad(floor(random() * 25)::INT::VARCHAR, 2, '0'))) AS genres
    FROM range({rows}) t(i)"""

BARE = """import lightgbm, numpy
booster = lightgbm.Booster(model_file="model.txt")
booster.predict(numpy.load("matrix.npy"), num_threads=1)
"""

PANDAS = """import lightgbm, numpy as np, pandas as pd
booster = lightgbm.Booster(model_file="model.txt")
people = pd.read_parquet("some.parquet")
known = {"gender": ["female", "male"], "country": ["BR", "DE", "FR", "GB", "IN", "JP", "MX", "SE", "US"]}
columns = [people.age.to_numpy(float)[:, None]]
for name, values in known.items():
    flags = [people[name].eq(value) for value in values]
    there = people[name].notna()
    columns.append(np.column_stack([*flags, there & ~people[name].isin(values), ~there]))
picks = people.genres.explode().dropna()
place = picks.groupby(level=0).cumcount() + 1
genre = picks.str.slice(6).astype(int)
picked, rank = np.zeros((len(people), 25)), np.zeros((len(people), 25))
picked[picks.index, genre] = 1.0
rank[picks.index, genre] = 1.0 / place
rows = np.column_stack([*columns, picked, rank, picked.sum(axis=1)])
chances = booster.predict(rows, num_threads=1)
best = np.argsort(-chances, axis=1, kind="stable")[:, :5]
names = np.array([f"genre {i:02}" for i in range(25)])
values = np.take_along_axis(chances, best, axis=1).round(6)
answers = {"user_id": people.user_id, "genres": names[best].tolist(), "probabilities": values.tolist()}
pd.DataFrame(answers).to_parquet("pandas.parquet")
"""

SCORE = "-m firstspin score --bundle bundle --registrations {file} --out {out}"
OURS, MATRIX, TABLE = "firstspin score", "lgb.predict, matrix ready", "pandas and lgb.predict"


def make(folder: Path, rows: list[int]) -> None:
    """The bundle, its LightGBM text and the tables, unless they are there."""
    if not (folder / "model.txt").exists():
        _, text = http_stacks.make_bundle(folder / "bundle")
        (folder / "model.txt").write_text(text)
    for n in rows:
        if not (folder / f"{n}.parquet").exists():
            duckdb.sql(f"SELECT setseed(0.1); COPY ({REGISTRATIONS.format(rows=n)}) TO '{folder / str(n)}.parquet'")
    some = pq.read_table(folder / f"{rows[0]}.parquet").slice(0, SLOW_ROWS)
    pq.write_table(some, folder / "some.parquet")
    [batch] = some.combine_chunks().to_batches()
    matrix, _ = CodedRows(engines.ENCODER, coded(batch)).matched(0, len(batch))
    np.save(folder / "matrix.npy", np.ascontiguousarray(matrix[:, engines.COLUMNS]))


def measured(arguments: list[str], folder: Path) -> tuple[float, float]:
    """CPU seconds and peak GiB of a Python process that succeeds."""
    process = subprocess.Popen([sys.executable, *arguments], cwd=folder, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise RuntimeError(f"{arguments} failed")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 2**20


def check(folder: Path) -> None:
    """The answers of pandas are ours, but for roundings."""
    ours, theirs = (pq.read_table(folder / name).to_pylist() for name in ("ours.parquet", "pandas.parquet"))
    same = sum(a["genres"] == b["genres"] for a, b in zip(ours, theirs, strict=True))
    assert same > 0.999 * len(ours), f"{same} of {len(ours)} answers are the same"


def compare(folder: Path, rows: list[int], runs: int) -> None:
    """Print a line a way and size: CPU µs a registration, the start apart from it, and registrations a second."""
    ways = {(OURS, n): SCORE.format(file=f"{n}.parquet", out=f"{n}.answers.parquet").split() for n in rows}
    ways[(MATRIX, SLOW_ROWS)], ways[(TABLE, SLOW_ROWS)] = ["-c", BARE], ["-c", PANDAS]
    ways[(OURS, SLOW_ROWS)] = SCORE.format(file="some.parquet", out="ours.parquet").split()
    seen: dict[tuple[str, int], list[tuple[float, float]]] = {way: [] for way in ways}
    for _ in range(runs):
        for way, arguments in ways.items():
            seen[way].append(measured(arguments, folder))
    check(folder)
    medians = {way: [statistics.median(column) for column in zip(*of, strict=True)] for way, of in seen.items()}
    print("| registrations | | CPU s | CPU µs each | per second per core | peak GiB |\n|---|---|---|---|---|---|")
    for (way, n), (cpu, memory) in medians.items():
        print(f"| {n:,} | {way} | {cpu:.1f} | {cpu / n * 1e6:.1f} | {n / cpu:,.0f} | {memory:.2f} |")
    first, last = (medians[(OURS, n)][0] for n in (rows[0], rows[-1]))
    if rows[-1] > rows[0]:
        each = (last - first) / (rows[-1] - rows[0])
        print(f"firstspin score, without the start: {each * 1e6:.1f} CPU µs each, {1 / each:,.0f} per second per core")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("rows", type=int, nargs="*", default=[200_000, 1_000_000])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--work", type=Path)
    arguments = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.work or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        make(folder, arguments.rows)
        compare(folder, arguments.rows, arguments.runs)
    print(f"{time.perf_counter() - began:.0f} s, load {os.getloadavg()[0]:.0f}")


if __name__ == "__main__":
    main()
