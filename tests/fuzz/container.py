"""`firstspin-container train`: hyperparameters of any names and values, over a channel without tables."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from firstspin.cli import container
from fuzz import commands, values
from fuzz.inputs import Broken, Check, Input

GOOD = {
    "model": ("auto", "popularity", "logistic", "lightgbm", "forest", "network"),
    "extra": ("", "device", "device,market"),
    "skip_bad_rows": ("yes", "no", "true", "0"),
    "gap_days": ("30", "0"),
    "window_days": ("30", "1"),
    "least_seconds": ("600", "0.5"),
    "data_ends": ("", "2026-01-31", "2026-01-31T12:00:00Z"),
    "without": ("", "age", "age,gender"),
    "seed": ("0", "7"),
    "tune": ("0", "1.5"),
    "trials": ("0", "3"),
    "sagemaker_program": ("x",),
    "_tuning_objective_metric": ("valid_hit1",),
}


@contextmanager
def opened(folder: Path) -> Iterator[Check]:  # noqa: ARG001
    with patch.object(os, "_exit", sys.exit):  # what waits for SIGTERM ends its thread with it instead of the process
        yield check


def check(made: Input) -> str:
    base = made.new_folder("ml")
    config = base / "input" / "config"
    config.mkdir(parents=True)
    content = _content(made)
    made.note("hyperparameters", content)
    (config / "hyperparameters.json").write_bytes(content)
    threads = set(threading.enumerate())
    done = commands.called(made, lambda: container.train(base))
    if done.status != 1:
        raise Broken(f"status {done.status}: there is nothing to learn from")
    reason = (base / "output" / "failure").read_text(encoding="utf-8")
    if not reason.strip() or reason[:1000].strip() not in done.err or "this is our mistake" in reason:
        raise Broken(f"output/failure says {reason!r}")
    for waiting in set(threading.enumerate()) - threads:
        signal.pthread_kill(waiting.ident or 0, signal.SIGTERM)
        waiting.join()
    return "tables" if "training" in reason else "refused"


def _content(made: Input) -> bytes:
    if made.chance(0.1):
        return values.as_json(made, values.json_value(made))
    told: dict[str, object] = {}
    for name, good in GOOD.items():
        if made.chance(0.25):
            told[name] = made.pick(good)
    for _ in range(made.number(1, 2) if made.chance(0.8) else 0):
        name = made.pick((*GOOD, values.name(made)))
        told[name] = made.pick(
            (values.cell(made), values.cell(made), f'"{made.pick(GOOD.get(name, ("x",)))}"', values.json_value(made, 1))
        )
    content = values.as_json(made, told)
    return values.mutated(made, content) if made.chance(0.1) else content
