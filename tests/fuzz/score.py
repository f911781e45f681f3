"""`firstspin score` over one table of registrations."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
from made_bundles import pack, pack_with_further_fields

from fuzz import commands, files, values
from fuzz.files import Form, Table
from fuzz.inputs import Broken, Check, Input
from fuzz.label import REGISTRATIONS

FURTHER = Table(
    (*REGISTRATIONS.columns, "device", "visits"),
    tuple((*row, ("phone", "car")[i % 2], str(i)) for i, row in enumerate(REGISTRATIONS.rows)),
    numbers=("age", "visits"),
    moments=("registered_at",),
    lists=("genres",),
)
ANSWERED = re.compile(r"^([\d,]+) registrations? answered in ", re.MULTILINE)
FORMULA = re.compile("[=+@\t\r-]")


@contextmanager
def opened(folder: Path) -> Iterator[Check]:
    plain, further = folder / "plain", folder / "further"
    pack(plain)
    pack_with_further_fields(further)
    answers: dict[Path, list[tuple[str, ...]]] = {}

    def check(made: Input) -> str:
        bundle, table = (plain, REGISTRATIONS) if made.chance(0.7) else (further, FURTHER)
        data = made.new_folder("data")
        form = files.write(made, data, "registrations", table, plain=0.1)
        (given,) = data.iterdir()
        out, existed = commands.place(made, made.pick(("scores.csv", "scores.parquet")))
        options = _options(made)
        words = ["score", "--bundle", str(bundle), "--registrations", str(given), "--out", str(out), *options]
        done = commands.run(made, words)
        commands.check_out(out, done, existed)
        if done.status == 0:
            _check_rows(out, done.out)
            if form is not Form.damaged and set(options) <= {"--skip-bad-rows"}:
                found = _rows(out)
                if found != answers.setdefault(bundle, found) or [row[0] for row in found] != [
                    r[0] for r in table.rows
                ]:
                    raise Broken(f"other answers than the same registrations got before: {found}")
        elif form is Form.plain and not options:
            raise Broken("good registrations are refused")
        return f"{form.name} {done.status}"

    yield check


def _rows(out: Path) -> list[tuple[str, ...]]:
    """User, genres and probabilities as CSV has them."""
    if out.suffix == ".csv":
        with out.open(encoding="utf-8", newline="") as file:
            return [tuple(row) for row in csv.reader(file, strict=True)][1:]
    rows = pq.ParquetFile(out).read(use_threads=False).to_pylist()
    return [(r["user_id"], "|".join(r["genres"]), "|".join(map(repr, r["probabilities"]))) for r in rows]


def _check_rows(out: Path, said: str) -> None:
    rows = _rows(out)
    told = ANSWERED.search(said)
    if told is None or int(told[1].replace(",", "")) != len(rows):
        raise Broken(f"{len(rows)} rows are written, and it says {said!r}")
    if any(len(row) != 3 for row in rows):
        raise Broken("a row has not three cells")
    for _, genres, probabilities in rows:
        chances = [float(one) for one in probabilities.split("|")]
        if len(chances) != len(genres.split("|")) or not all(0 <= one <= 1 for one in chances):
            raise Broken(f"genres {genres!r} with probabilities {probabilities!r}")
    if out.suffix == ".csv" and any(FORMULA.match(cell) for row in rows for cell in row):
        raise Broken("a cell begins a formula")


def _options(made: Input) -> list[str]:
    if made.chance(0.6):
        return []
    if made.chance(0.6):
        return ["--skip-bad-rows"]
    return [f"{made.pick(('--top', '--least-age', '--nothing'))}={values.cell(made)}"]
