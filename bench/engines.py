"""Claim: one row of a model of about 3,000 trees costs a fortieth of `lgb.predict` in C, a sixth in numpy, same bits.

The engines take turns on the same rows, one thread each. The ratios are medians over the turns. The batch at the end is
100,000 registrations with every mask of missing fields; there the answers of all rows are compared.
"""

from __future__ import annotations

import ctypes
import itertools
import statistics
import time
from collections.abc import Callable

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from firstspin.models.features import CATEGORY, COUNT, NUMBER, PICKED, RANK, Category, Encoder, Number, Picks
from firstspin.models.trees.bitrows import BitRows, CompiledScorer, tables
from firstspin.records import Registration

GENRES = [f"genre {i:02}" for i in range(25)]
COUNTRIES = ["br", "de", "fr", "gb", "in", "jp", "mx", "se", "us"]
ENCODER = Encoder(
    [
        Number("age", [30]),
        Category("gender", ["female", "male"]),
        Category("country", COUNTRIES),
        Picks("genres", GENRES),
    ]
)
COLUMNS = ENCODER.of_kind(NUMBER, CATEGORY, PICKED, RANK, COUNT)
SETTINGS = {
    "objective": "multiclass",
    "num_class": len(GENRES),
    "num_leaves": 31,
    "learning_rate": 0.05,
    "verbosity": -1,
}
ROUNDS, TURNS, ROWS_A_TURN, BATCH = 129, 15, 200, 100_000

Rows = NDArray[np.float64]
Engine = Callable[[Rows], Rows]


def registrations(rng: np.random.Generator, n: int) -> list[Registration]:
    """n make-believe newcomers; every mask of the four fields equally often."""
    masks = itertools.cycle(itertools.product([True, False], repeat=4))
    return [
        Registration(
            age=int(rng.integers(13, 90)) if age else None,
            gender=str(rng.choice(["female", "male", "other"])) if gender else None,
            country=str(rng.choice([*COUNTRIES, "elsewhere"])) if country else None,
            genres=tuple(rng.permutation(GENRES)[: rng.integers(1, 9)].tolist()) if genres else (),
        )
        for age, gender, country, genres in itertools.islice(masks, n)
    ]


def encoded(newcomers: list[Registration]) -> Rows:
    return np.ascontiguousarray(ENCODER.matrix(newcomers)[:, COLUMNS])


def train(rng: np.random.Generator) -> lgb.Booster:
    """A model of 25 classes whose tastes depend on every column a little."""
    rows = encoded(registrations(rng, 40_000))
    scaled = np.nan_to_num(rows, nan=40.0) / np.array([30.0] + [1.0] * (rows.shape[1] - 1))
    taste = scaled @ rng.normal(size=(rows.shape[1], len(GENRES))) + rng.gumbel(size=(len(rows), len(GENRES)))
    return lgb.train(SETTINGS, lgb.Dataset(rows, taste.argmax(axis=1)), ROUNDS)


def single_row_fast(booster: lgb.Booster, n_columns: int) -> Engine:
    """LightGBM's quickest door: a prepared call for one row, straight through its C API."""
    library, config = lgb.basic._LIB, ctypes.c_void_p()
    raw_score, float64 = 1, 1
    library.LGBM_BoosterPredictForMatSingleRowFastInit(
        booster._handle, raw_score, 0, -1, float64, n_columns, b"num_threads=1", ctypes.byref(config)
    )
    length = ctypes.c_int64()

    def score(rows: Rows) -> Rows:
        out = np.empty((len(rows), len(GENRES)))
        for row, scores in zip(rows, out, strict=True):
            library.LGBM_BoosterPredictForMatSingleRowFast(
                config, ctypes.c_void_p(row.ctypes.data), ctypes.byref(length), ctypes.c_void_p(scores.ctypes.data)
            )
        return out

    return score


def one_by_one(engine: Engine, rows: Rows) -> list[float]:
    """Microseconds of each row, asked alone."""
    times = []
    for i in range(len(rows)):
        began = time.perf_counter()
        engine(rows[i : i + 1])
        times.append((time.perf_counter() - began) * 1e6)
    return times


def take_turns(engines: dict[str, Engine], rows: Rows) -> dict[str, list[list[float]]]:
    """For every engine its turns, each the times of the same rows."""
    turns: dict[str, list[list[float]]] = {name: [] for name in engines}
    for turn in range(TURNS):
        for name, engine in engines.items():
            turns[name].append(one_by_one(engine, rows[turn * ROWS_A_TURN : (turn + 1) * ROWS_A_TURN]))
    return turns


def print_single(turns: dict[str, list[list[float]]]) -> None:
    print(f"\none row, microseconds, {TURNS} turns of {ROWS_A_TURN} rows")
    print(f"{'engine':34}{'p50':>8}{'p99':>8}{'times faster':>14}")
    plain = [statistics.median(turn) for turn in next(iter(turns.values()))]
    for name, mine in turns.items():
        p50, p99 = np.quantile(np.concatenate(mine), [0.5, 0.99])
        ratio = statistics.median(a / statistics.median(b) for a, b in zip(plain, mine, strict=True))
        print(f"{name:34}{p50:8.1f}{p99:8.1f}{ratio:14.1f}")


def print_batch(engines: dict[str, Engine], rows: Rows) -> None:
    print(f"\n{len(rows):,} rows at once")
    print(f"{'engine':34}{'seconds':>8}{'times faster':>14}{'largest difference':>20}{'rows that differ':>18}")
    want, first = None, 0.0
    for name, engine in engines.items():
        began = time.perf_counter()
        got = engine(rows)
        seconds = time.perf_counter() - began
        want, first = (got, seconds) if want is None else (want, first)
        differ = int((got.view(np.uint64) != want.view(np.uint64)).any(axis=1).sum())
        print(f"{name:34}{seconds:8.2f}{first / seconds:14.1f}{np.abs(got - want).max():20.1g}{differ:18}")


def main() -> None:
    rng = np.random.default_rng(0)
    booster = train(rng)
    began = time.perf_counter()
    built = tables(booster.model_to_string())
    seconds, size = time.perf_counter() - began, sum(array.nbytes for array in built.values())
    print(
        f"{booster.num_trees():,} trees, {len(COLUMNS)} columns; tables built in {seconds:.1f} s, {size / 1e6:.1f} MB"
    )
    rows = encoded(registrations(rng, BATCH))
    engines: dict[str, Engine] = {
        "lgb.Booster.predict": lambda rows: np.asarray(booster.predict(rows, raw_score=True, num_threads=1)),
        "LightGBM C API, fast single row": single_row_fast(booster, len(COLUMNS)),
        "bit rows, numpy": BitRows(built, "numpy").scores,
    }
    if CompiledScorer is None:
        print("bit rows in C: not compiled at install, left out")
    else:
        engines["bit rows, C"] = BitRows(built, "c").scores
    print_single(take_turns(engines, rows))
    print_batch(engines, rows)


if __name__ == "__main__":
    main()
