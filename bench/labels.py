"""Claim: labels of 50 million listens cost 1.5 times the CPU time of one hand-written query, in under 1 GiB.

Run as `python bench/labels.py [USERS ...] [--runs N] [--tables FOLDER] [--memory GIB]`; 25 listens per user, by default
of 200,000 and 2,000,000 users. Beside `firstspin label` (checks, labels, shares, census, a file): a scan of the
columns, and the top genre alone in DuckDB, Polars and pandas (where they are installed). The ways take turns; a process
each, of at most so much memory; medians. A way that fails in any run is shown without figures.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import duckdb

LISTENS_PER_USER = 25

TABLES = {
    "registrations": """SELECT 'u' || i AS user_id,
        TIMESTAMP '2025-01-01' + to_seconds((random() * 200 * 86400)::BIGINT) AS registered_at,
        (13 + random() * 60)::INT AS age, ['male', 'female', NULL][1 + floor(random() * 3)::INT] AS gender,
        'US' AS country, list_distinct(['g' || floor(random() * 24)::INT, 'g' || floor(random() * 24)::INT]) AS genres
        FROM range({users}) t(i)""",
    "stations": "SELECT 's' || i AS station_id, 'S' || i AS name, 'g' || (i % 24) AS genre FROM range(1200) t(i)",
    "listens": """SELECT 'u' || floor(random() * {users})::INT AS user_id,
        TIMESTAMP '2025-01-01' + to_seconds((random() * 300 * 86400)::BIGINT) AS started_at,
        's' || floor(pow(random(), 2) * 1200)::INT AS station_id, (30 + random() * 3000)::INT AS seconds
        FROM range({users} * {listens_per_user})""",
}

SCAN = """import duckdb
columns = "sum(seconds), min(started_at), count(DISTINCT station_id), max(user_id)"
print(duckdb.sql(f"SELECT {columns} FROM 'listens.parquet'"))
"""

SQL = """import duckdb
print(duckdb.sql('''WITH heard AS (
    SELECT user_id, genre, sum(seconds) AS seconds
    FROM 'listens.parquet' JOIN 'registrations.parquet' r USING (user_id) JOIN 'stations.parquet' USING (station_id)
    WHERE started_at >= registered_at + INTERVAL 30 DAY AND started_at < registered_at + INTERVAL 60 DAY GROUP BY ALL)
SELECT count(*), min(top) FROM (
    SELECT arg_max(genre, (seconds, genre)) AS top FROM heard GROUP BY user_id HAVING sum(seconds) >= 600)'''))
"""

POLARS = """import polars as pl
listens, registrations, stations = (pl.scan_parquet(f"{of}.parquet") for of in ("listens", "registrations", "stations"))
after = pl.col("started_at") - pl.col("registered_at")
heard = listens.join(registrations.select("user_id", "registered_at"), on="user_id")
heard = heard.filter(after >= pl.duration(days=30), after < pl.duration(days=60))
heard = heard.join(stations.select("station_id", "genre"), on="station_id")
heard = heard.group_by("user_id", "genre").agg(pl.col("seconds").sum()).sort("seconds", "genre")
users = heard.group_by("user_id").agg(pl.col("genre").last(), pl.col("seconds").sum())
print(users.filter(pl.col("seconds") >= 600).collect(engine="streaming").height)
"""

PANDAS = """import pandas as pd
people = pd.read_parquet("registrations.parquet", columns=["user_id", "registered_at"])
stations = pd.read_parquet("stations.parquet", columns=["station_id", "genre"])
heard = pd.read_parquet("listens.parquet").merge(people, on="user_id")
after = heard.started_at - heard.registered_at
heard = heard[(after >= pd.Timedelta(days=30)) & (after < pd.Timedelta(days=60))].merge(stations, on="station_id")
heard = heard.groupby(["user_id", "genre"]).seconds.sum().reset_index().sort_values(["seconds", "genre"])
users = heard.groupby("user_id").agg({"genre": "last", "seconds": "sum"})
print((users.seconds >= 600).sum())
"""

LABEL = [sys.executable, "-m", "firstspin", "label", "--data", ".", "--out", "labels.parquet"]
WAYS = {
    "scan of the columns": [sys.executable, "-c", SCAN],
    "hand-written SQL": [sys.executable, "-c", SQL],
    **({"Polars": [sys.executable, "-c", POLARS]} if find_spec("polars") else {}),
    **({"pandas": [sys.executable, "-c", PANDAS]} if find_spec("pandas") else {}),
    "firstspin label": LABEL,
}


def make(folder: Path, users: int) -> None:
    """Write the three tables, unless they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, query in TABLES.items():
        if not (folder / f"{name}.parquet").exists():
            made = query.format(users=users, listens_per_user=LISTENS_PER_USER)
            duckdb.sql(f"COPY ({made}) TO '{folder / name}.parquet'")


def measured(command: list[str], folder: Path, memory: float) -> tuple[float, float, float] | None:
    """CPU seconds, seconds and peak GiB of a command that gets `memory` GiB; None where it fails."""
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    limit = round(memory * 2**30)
    resource.prlimit(process.pid, resource.RLIMIT_DATA, (limit, limit))
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if os.waitstatus_to_exitcode(status):
        return None
    return used.ru_utime + used.ru_stime, seconds, used.ru_maxrss / 2**20


def compare(folder: Path, users: int, runs: int, memory: float) -> None:
    """Print a line per way for so many users."""
    make(folder, users)
    rows: dict[str, list[tuple[float, float, float]]] = {way: [] for way in WAYS}
    for _ in range(runs):
        for way, command in WAYS.items():
            if one := measured(command, folder, memory):
                rows[way].append(one)
    whole = {way: of if len(of) == runs else [] for way, of in rows.items()}
    medians = {way: [statistics.median(column) for column in zip(*of, strict=True)] for way, of in whole.items()}
    size, base = f"{users * LISTENS_PER_USER / 1e6:.0f} million", (medians["hand-written SQL"] or [float("nan")])[0]
    for way, of in medians.items():
        shown = f"fails with {memory:g} GiB | | |"
        if of:
            cpu, seconds, peak = of
            shown = f"{cpu:.1f} | {cpu / base:.2f} | {seconds:.1f} | {peak:.2f}"
        print(f"| {size} | {way} | {shown} |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("users", type=int, nargs="*", default=[200_000, 2_000_000])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--tables", type=Path)
    parser.add_argument("--memory", type=float, default=16)
    arguments = parser.parse_args()
    print("| listens | | CPU s | × SQL | s | peak GiB |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        for users in arguments.users:
            compare((arguments.tables or Path(temporary)) / str(users), users, arguments.runs, arguments.memory)


if __name__ == "__main__":
    main()
