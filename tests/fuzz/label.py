"""`firstspin label` over three tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq

from fuzz import commands, files, values
from fuzz.files import Form, Table
from fuzz.inputs import Broken, Check, Input

REGISTRATIONS = Table(
    ("user_id", "registered_at", "age", "gender", "country", "genres"),
    (
        ("007", "2026-01-01T00:00:00Z", "31", "female", "US", "Rock|Jazz"),
        ("008", "2026-01-02T06:30:00Z", "", "male", "", ""),
        ("009", "2026-01-03T12:00:00Z", "44", "", "DE", "Jazz"),
        ("NA", "2026-01-04T00:00:00Z", "18", "other", "US", "Pop"),
        ("010", "2026-01-05T00:00:00Z", "60", "", "", "Rock"),
        ("011", "2026-04-05T00:00:00Z", "20", "", "SE", ""),
    ),
    numbers=("age",),
    moments=("registered_at",),
    lists=("genres",),
)
LISTENS = Table(
    ("user_id", "started_at", "station_id", "seconds"),
    (
        ("007", "2026-02-05T00:00:00Z", "1", "900"),
        ("007", "2026-02-06T00:00:00Z", "2", "600"),
        ("008", "2026-02-05T10:00:00Z", "2", "1000"),
        ("009", "2026-02-10T00:00:00Z", "03", "700.5"),
        ("NA", "2026-02-10T00:00:00Z", "1", "60"),
        ("NA", "2026-01-05T00:00:00Z", "2", "5000"),
        ("011", "2026-04-20T00:00:00Z", "1", "900"),
    ),
    numbers=("seconds",),
    moments=("started_at",),
)
STATIONS = Table(
    ("station_id", "name", "genre"),
    (("1", "Rock FM", "Rock"), ("2", "Jazz FM", "Jazz"), ("03", "Pop FM", "Pop")),
)
TABLES = {"registrations": REGISTRATIONS, "listens": LISTENS, "stations": STATIONS}
LABELS = {"007": "Rock", "008": "Jazz", "009": "Pop"}
"""NA has listened too little, 010 not at all, and the window of 011 is not over."""

TOTALS = re.compile(r"^([\d,]+) of ([\d,]+) registrations have a label$", re.MULTILINE)
DROPPED = re.compile(r"^ *dropped ([\d,]+):", re.MULTILINE)


@contextmanager
def opened(folder: Path) -> Iterator[Check]:  # noqa: ARG001
    yield check


def check(made: Input) -> str:
    data = made.new_folder("data")
    forms = [files.write(made, data, name, table) for name, table in TABLES.items()]
    out, existed = commands.place(made, "labels.parquet")
    options = _options(made)
    written = sorted(path.name for path in data.iterdir())
    done = commands.run(made, ["label", "--data", str(data), "--out", str(out), *options])
    commands.check_out(out, done, existed)
    if sorted(path.name for path in data.iterdir()) != written:
        raise Broken("the folder of the tables was changed")
    worst = max(forms)
    if done.status == 0:
        labels = _labels(out)
        _check_totals(done.out, len(labels))
        if worst is not Form.damaged and set(options) <= {"--skip-bad-rows"} and dict(labels) != LABELS:
            raise Broken(f"other labels than the tables hold: {labels}")
    elif worst is Form.plain and not options:
        raise Broken("good tables are refused")
    return f"{worst.name} {done.status}"


def _labels(out: Path) -> list[tuple[str, str]]:
    table = pq.ParquetFile(out).read(use_threads=False)
    return list(zip(table["user_id"].to_pylist(), table["top_genre"].to_pylist(), strict=True))


def _check_totals(said: str, labelled: int) -> None:
    totals = TOTALS.search(said)
    if not totals:
        raise Broken("it does not say how many registrations have a label")
    have, registered = (int(number.replace(",", "")) for number in totals.groups())
    dropped = sum(int(number.replace(",", "")) for number in DROPPED.findall(said))
    if have != labelled or have + dropped != registered:
        raise Broken(f"{have} labelled and {dropped} dropped of {registered}, with {labelled} rows written")


def _options(made: Input) -> list[str]:
    if made.chance(0.6):
        return []
    kind = made.number(0, 9)
    if kind < 3:
        return ["--skip-bad-rows"]
    if kind < 6:
        return ["--extra", ",".join(values.name(made) for _ in range(made.number(1, 2))), *_maybe_skip(made)]
    name = made.pick(
        ("--gap-days", "--window-days", "--least-seconds", "--data-ends", "--engine", "--erased", "--nothing")
    )
    return [f"{name}={values.cell(made)}"]


def _maybe_skip(made: Input) -> list[str]:
    return ["--skip-bad-rows"] if made.chance(0.5) else []
