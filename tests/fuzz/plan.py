"""`firstspin experiment plan`: options of any text, and `analyse --plan` of any file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fuzz import commands, values
from fuzz.inputs import Check, Input

GOOD = {
    "name": "spring",
    "baseline": "0.05",
    "registrations-a-day": "1000",
    "minimum-effect": "0.087",
    "arms": "rule=1,model=1",
    "metric": "clicked:binary",
    "deviation": "2.5",
    "days": "14",
    "starts-on": "2026-02-02",
    "peeking": "none",
}
NEEDED = ("name", "baseline", "registrations-a-day")
ODD = {
    "baseline": ("0", "1", "-0.1", "1.5", "nan", "inf", "1e-300", "1e300", "0.999999"),
    "registrations-a-day": ("0", "1", "-1", "999999999999999999999", "1.5"),
    "minimum-effect": ("0", "-0.5", "nan", "inf", "1e-12", "1e12"),
    "arms": (
        "rule=1",
        "rule=0,model=1",
        "a=1,a=1",
        "rule=nan,model=1",
        "rule=-1,model=1",
        "=1",
        ",",
        "a=1e308,b=1e308",
    ),
    "metric": ("seconds:continuous", "clicked", "a:ratio=b", "a:cap=p99", "a:margin=0.1", "seconds:continuous:cap=p99"),
    "deviation": ("0", "-1", "nan", "inf", "1e300"),
    "days": ("0", "-1", "1", "15", "100000", "999999999999"),
    "starts-on": ("2026-02-30", "9999-12-31", "0001-01-01", "today", "2026-02-02T00:00:00Z"),
    "peeking": ("obrien-fleming", "always-valid", "None", ""),
}


@contextmanager
def opened(folder: Path) -> Iterator[Check]:  # noqa: ARG001
    yield check


def check(made: Input) -> str:
    out, existed = commands.place(made, "experiment.toml")
    words = ["experiment", "plan", "--out", str(out)]
    for name, good in GOOD.items():
        if name in NEEDED or made.chance(0.3):
            words.append(f"--{name}={_value(made, name, good)}")
    if made.chance(0.3):
        words.append("--json")
    done = commands.run(made, words)
    commands.check_out(out, done, existed)
    if done.status == 0 and made.chance(0.5):
        return f"plan 0, {_read_again(made, out)}"
    return f"plan {done.status}"


def _value(made: Input, name: str, good: str) -> str:
    if made.chance(0.75):
        return good
    return made.pick(ODD[name]) if name in ODD and made.chance(0.7) else values.cell(made)


def _read_again(made: Input, plan: Path) -> str:
    """A sealed plan, whole or damaged, is read with outcomes that are none of its own."""
    if made.chance(0.8):
        plan.write_bytes(values.mutated(made, plan.read_bytes()))
    made.note("plan", plan.read_bytes())
    outcomes = plan.with_name("outcomes.csv")
    outcomes.write_text("user_id,arm,clicked\n1,rule,1\n2,model,0\n3,rule,0\n4,model,1\n")
    done = commands.run(made, ["experiment", "analyse", "--plan", str(plan), "--outcomes", str(outcomes)])
    return f"analyse {done.status}"
