"""`firstspin experiment analyse` over a table of outcomes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fuzz import commands, files, values
from fuzz.files import Form, Table
from fuzz.inputs import Broken, Check, Input

ROWS = 24
OUTCOMES = Table(
    ("user_id", "arm", "clicked", "seconds", "sessions", "day", "age"),
    tuple(
        (
            f"{i:03}",
            ("rule", "model")[i % 2],
            str(int(i % 5 < 2 + i % 2)),
            str(60.5 * (i % 7)),
            str(1 + i % 3),
            f"2026-01-{1 + i % 14:02}T00:00:00Z",
            "" if i % 6 == 0 else str(20 + i),
        )
        for i in range(ROWS)
    ),
    numbers=("clicked", "seconds", "sessions", "age"),
    moments=("day",),
)
METRICS = ("clicked:binary", "seconds:continuous", "seconds:ratio=sessions", "clicked", "seconds:cap=p99")
EVERYTHING = [
    *("--arm", "arm", "--control", "rule", "--metric", "clicked:binary", "--metric", "seconds:ratio=sessions"),
    *("--day", "day", "--covariate", "age", "--json"),
]


@contextmanager
def opened(folder: Path) -> Iterator[Check]:  # noqa: ARG001
    before: list[object] = []

    def check(made: Input) -> str:
        data = made.new_folder("data")
        form = files.write(made, data, "outcomes", OUTCOMES, plain=0.2)
        (given,) = data.iterdir()
        options = EVERYTHING if form is not Form.damaged and made.chance(0.5) else _options(made)
        done = commands.run(made, ["experiment", "analyse", "--outcomes", str(given), *options])
        if "--json" in options and done.status == 0:
            verdict = json.loads(done.out, parse_constant=_no_number)
            if options is EVERYTHING:
                verdict.pop("source", None)
                before.append(verdict) if not before else None
                if not _alike(verdict, before[0]):
                    raise Broken(f"another verdict than on the same outcomes before: {verdict} instead of {before[0]}")
        elif form is Form.plain and options is EVERYTHING:
            raise Broken("good outcomes are refused")
        return f"{form.name} {done.status}"

    yield check


def _no_number(name: str) -> None:
    raise Broken(f"{name} in JSON")


def _alike(one: object, other: object) -> bool:
    """Equal, numbers to nine digits: a column of float32 is summed as such."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)
    return one == other


def _options(made: Input) -> list[str]:
    words = ["--arm", values.name(made) if made.chance(0.1) else "arm"]
    words += ["--control", values.cell(made) if made.chance(0.1) else made.pick(("rule", "model"))]
    for _ in range(made.number(1, 2)):
        words += ["--metric", _metric(made)]
    if made.chance(0.3):
        words += [f"--covariate={made.pick((values.name(made), 'age', 'seconds', 'user_id', 'arm'))}"]
    if made.chance(0.3):
        words += [f"--unit={made.pick(('user_id', 'user_id', 'day', 'arm', values.name(made)))}"]
    if made.chance(0.3):
        words += [f"--day={made.pick(('day', 'day', 'age', values.name(made)))}"]
    if made.chance(0.2):
        words += [
            f"--weights={made.pick(('rule=1,model=1', 'A=1,B=1', values.cell(made), 'rule=0,model=-1', 'rule=nan'))}"
        ]
    if made.chance(0.5):
        words.append("--json")
    return words


def _metric(made: Input) -> str:
    if made.chance(0.7):
        return made.pick(METRICS)
    column = made.pick((*OUTCOMES.columns, values.name(made)))
    kind = made.pick((":binary", ":continuous", "", ":ratio=", f":ratio={values.name(made)}", ":ratio=sessions", ":x"))
    more = made.pick(("", "", ":cap=p99", ":cap=p0", ":cap=px", ":margin=0.05", ":margin=nan", ":margin=-1", ":"))
    return column + kind + more
