"""Claim: listens cost an answer less than 5 microseconds, up to the 200 that a request may have.

`python bench/listens.py BUNDLE` compares requests with 0, 1, 5, 20 and 200 listens to stations of several genres: the
answer (`decide` and its bytes), and reading the JSON body. Beside the C code, the same in Python. Best of many short
runs, in turn, in microseconds of this thread's CPU time.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

from firstspin.models.evidence import scoring
from firstspin.records import Listen, Registration
from firstspin.serving import bundle
from firstspin.serving.bodies.encodings import Encoding
from firstspin.serving.bodies.wire import BodyReader
from firstspin.serving.policy import DEFAULTS, decide
from firstspin.serving.responses import Responses

NUMBERS = (0, 1, 5, 20, 200)
RUNS, REPEATS = 400, 20


def best(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    """The least microseconds of a call, each measured in turn."""
    found = dict.fromkeys(calls, float("inf"))
    for _ in range(RUNS):
        for name, call in calls.items():
            began = time.thread_time_ns()
            for _ in range(REPEATS):
                call()
            found[name] = min(found[name], (time.thread_time_ns() - began) / REPEATS / 1000)
    return found


def main() -> None:
    loaded = bundle.load(Path(sys.argv[1]))
    evidence = replace(loaded.evidence, settings=scoring.EvidenceSettings(picked=0.5))
    compiled, scoring.CompiledMoves = scoring.CompiledMoves, None  # type: ignore[misc]
    by_python = replace(loaded, evidence=replace(evidence))
    scoring.CompiledMoves = compiled  # type: ignore[misc]
    by_c, responses, reader = replace(loaded, evidence=replace(evidence)), Responses(loaded), BodyReader()
    rng = np.random.default_rng(0)
    stations = rng.choice(sorted(evidence.stations), max(NUMBERS))
    listens = tuple(Listen(str(one), float(rng.integers(1, 900))) for one in stations)
    calls: dict[str, Callable[[], object]] = {}
    for n in NUMBERS:
        one = Registration(
            age=31, gender="female", country="US", genres=loaded.predictor.genres[:2], listens=listens[:n]
        )
        body = msgspec.json.encode(one)
        calls[f"C {n}"] = lambda one=one: responses.json(one, decide(one, None, by_c, None, DEFAULTS))
        calls[f"Python {n}"] = lambda one=one: responses.json(one, decide(one, None, by_python, None, DEFAULTS))
        calls[f"reading {n}"] = lambda body=body: reader.read(body, Encoding.json)
    gc.freeze()
    found = best(calls)
    print(
        f"{len(loaded.predictor.genres)} genres, {len(evidence.stations)} stations; microseconds, and more than without"
    )
    print(f"{'listens':>8}{'answer, Python':>24}{'answer, C':>24}{'reading the body':>24}")
    for n in NUMBERS:
        cells = [
            (found[f"{what} {n}"], found[f"{what} {n}"] - found[f"{what} 0"]) for what in ("Python", "C", "reading")
        ]
        print(f"{n:>8}" + "".join(f"{whole:>14.1f} {more:>+8.1f} " for whole, more in cells))


if __name__ == "__main__":
    main()
