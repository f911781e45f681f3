from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import pytest
from compiled import where_it_compiles
from numpy.typing import NDArray
from random_trees import random_model, rows_near, text_of

from firstspin.models.trees import bitrows
from firstspin.models.trees.bitrows import BitRows, CompiledScorer, NumpyScorer, tables
from firstspin.records import InputError

compiled = where_it_compiles(CompiledScorer)
ENGINES = ["numpy", pytest.param("c", marks=compiled)]
SCORERS = [NumpyScorer, pytest.param(CompiledScorer, marks=compiled)]

FEMALE, MALE = 1, 2  # columns of a registration, after its age: two genders, four countries, then genres
COUNTRIES, GENRES = range(3, 7), range(7, 19)


def assert_same_bits(got: NDArray[np.float64], want: NDArray[np.float64]) -> None:
    np.testing.assert_array_equal(got.view(np.uint64), want.reshape(got.shape).view(np.uint64))


def lightgbm_scores(text: str, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(lgb.Booster(model_str=text).predict(rows, raw_score=True, num_threads=1))


def registrations(rng: np.random.Generator, n: int, given: tuple[bool, bool, bool, bool]) -> NDArray[np.float64]:
    """Rows of n newcomers who told us (or not) their age, gender, country and genres."""
    rows = np.zeros((n, 19))
    rows[:, 0] = rng.integers(0, 121, n) if given[0] else np.nan
    everyone = np.arange(n)
    if given[1]:
        rows[everyone, rng.integers(FEMALE, MALE + 1, n)] = 1
    if given[2]:
        rows[everyone, rng.choice(COUNTRIES, n)] = 1
    if given[3]:
        rows[:, GENRES] = rng.random((n, len(GENRES))) < 0.2
    return rows


def trained_on_registrations(n_rounds: int, n_leaves: int = 31, n_a_mask: int = 250) -> str:
    rng = np.random.default_rng(4)
    rows = np.concatenate([registrations(rng, n_a_mask, mask) for mask in itertools.product([True, False], repeat=4)])
    taste = np.nan_to_num(rows, nan=30.0) @ rng.normal(size=(19, 25)) / [4.0] + rng.gumbel(size=(len(rows), 25))
    settings = {"objective": "multiclass", "num_class": 25, "num_leaves": n_leaves, "verbosity": -1, "num_threads": 1}
    return lgb.train(settings, lgb.Dataset(rows, taste.argmax(axis=1)), n_rounds).model_to_string()


# ---- the same bits as LightGBM ----


@cache
def random_case(seed: int) -> tuple[dict[str, NDArray[Any]], NDArray[np.float64], NDArray[np.float64]]:
    """A model's tables, rows near its thresholds, and the scores that LightGBM gives them."""
    rng = np.random.default_rng(seed)
    shape = {
        "n_scores": int(rng.choice([1, 2, 3, 7, 25])),
        "n_rounds": int(rng.integers(1, 60)),
        "n_columns": int(rng.choice([1, 2, 9, 30])),
        "max_leaves": int(rng.choice([1, 2, 5, 31, 32, 33, 64])),
    }
    text = random_model(rng, **shape, missing=[[0], [1], [2], [0, 1, 2]][seed % 4])
    found = tables(text)
    rows = rows_near(rng, found["cuts"], 150, shape["n_columns"])
    return found, rows, lightgbm_scores(text, rows)


@pytest.mark.parametrize("seed", [*range(16), *(pytest.param(more, marks=pytest.mark.soak) for more in range(16, 40))])
@pytest.mark.parametrize("engine", ENGINES)
def test_any_tree_any_value_scores_to_the_last_bit_as_lightgbm(seed: int, engine: bitrows.Engine):
    found, rows, want = random_case(seed)
    scorer = BitRows(found, engine)
    assert_same_bits(scorer.scores(rows), want)
    assert_same_bits(np.concatenate([scorer.scores(rows[i : i + 1]) for i in range(len(rows))]), want)


@compiled
@pytest.mark.parametrize(("n_scores", "n_rounds"), [(300, 2), (256, 3), (25, 30), (1, 700)])
@pytest.mark.parametrize("max_leaves", [31, 64])
def test_more_scores_trees_and_rows_than_a_tile_has(n_scores: int, n_rounds: int, max_leaves: int) -> None:
    rng = np.random.default_rng(n_scores)
    text = random_model(
        rng, n_scores=n_scores, n_rounds=n_rounds, n_columns=12, max_leaves=max_leaves, missing=[0, 1, 2]
    )
    found = tables(text)
    rows = rows_near(rng, found["cuts"], 600, 12)
    scorer = BitRows(found, "c")
    got = scorer.scores(rows)
    assert_same_bits(got, lightgbm_scores(text, rows))
    assert_same_bits(got[-3:], scorer.scores(rows[-3:]))


TRAINED = {
    "multiclass": {"objective": "multiclass", "num_class": 4},
    "64 leaves": {"objective": "multiclass", "num_class": 3, "num_leaves": 64, "min_data_in_leaf": 2},
    "one against all": {"objective": "multiclassova", "num_class": 3},
    "binary": {"objective": "binary"},
    "regression": {"objective": "regression"},
    "random forest": {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5, "num_class": 3},
    "dart": {"boosting": "dart", "num_class": 3},
    "zero as missing": {"zero_as_missing": True, "num_class": 3},
    "missing values not used": {"use_missing": False, "num_class": 3},
    "stumps of depth one": {"num_leaves": 2, "num_class": 5},
    "shallow and regularised": {
        "max_depth": 3,
        "lambda_l2": 5.0,
        "path_smooth": 2.0,
        "extra_trees": True,
        "num_class": 3,
    },
    "a monotone column": {"objective": "regression", "monotone_constraints": [1, 0, 0, 0, 0, 0]},
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("settings", TRAINED.values(), ids=TRAINED)
def test_a_trained_model_scores_to_the_last_bit_as_lightgbm(settings: dict[str, object], engine: bitrows.Engine):
    rng = np.random.default_rng(5)
    rows = np.column_stack([rng.normal(size=(900, 3)), rng.integers(0, 2, (900, 2)), rng.integers(-3, 90, 900)])
    rows[rng.random(rows.shape) < 0.15] = np.nan
    k = settings.get("num_class", 2)
    defaults = {"objective": "multiclass" if k > 2 else None, "verbosity": -1, "num_threads": 1}
    labels = rng.integers(0, k, 900)
    booster = lgb.train({**defaults, **settings}, lgb.Dataset(rows, labels), 12)
    near = rows_near(rng, rows[np.isfinite(rows)][:300], 300, 6)
    every = np.concatenate([rows, near])
    scorer = BitRows(tables(booster.model_to_string()), engine)
    assert_same_bits(scorer.scores(every), np.asarray(booster.predict(every, raw_score=True)))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_model_stopped_early_scores_as_its_best_round(engine: bitrows.Engine):
    rng = np.random.default_rng(6)
    rows, labels = rng.normal(size=(600, 4)), rng.integers(0, 3, 600)
    settings = {"objective": "multiclass", "num_class": 3, "verbosity": -1, "num_threads": 1, "metric": "multi_logloss"}
    held_out = lgb.Dataset(rows[400:], labels[400:])
    stop = [lgb.early_stopping(3, verbose=False)]
    booster = lgb.train(settings, lgb.Dataset(rows[:400], labels[:400]), 50, valid_sets=[held_out], callbacks=stop)
    assert booster.best_iteration < 50
    scores = BitRows(tables(booster.model_to_string()), engine).scores(rows)
    assert_same_bits(scores, np.asarray(booster.predict(rows, raw_score=True)))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_model_without_splits_scores_all_rows_the_same(engine: bitrows.Engine):
    settings = {"objective": "multiclass", "num_class": 3, "verbosity": -1, "num_threads": 1}
    booster = lgb.train(settings, lgb.Dataset(np.zeros((60, 2)), np.repeat([0, 0, 2], 20)), 4)
    rows = np.array([[0.0, 1.0], [np.nan, -5.0]])
    scores = BitRows(tables(booster.model_to_string()), engine).scores(rows)
    assert_same_bits(scores, np.asarray(booster.predict(rows, raw_score=True)))
    assert scores[0].tolist() == scores[1].tolist()


@pytest.mark.parametrize("engine", ENGINES)
def test_leaves_of_negative_zero_sum_to_plain_zero_as_in_lightgbm(engine: bitrows.Engine):
    nothing = {name: [] for name in ("split_feature", "threshold", "decision_type", "left_child", "right_child")}
    text = text_of([{**nothing, "leaf_value": [-0.0]}] * 4, n_scores=2, n_columns=1)
    assert_same_bits(BitRows(tables(text), engine).scores(np.zeros((1, 1))), lightgbm_scores(text, np.zeros((1, 1))))


@pytest.mark.parametrize("engine", ENGINES)
def test_every_mask_of_missing_fields_scores_to_the_last_bit_as_lightgbm(engine: bitrows.Engine):
    check_every_mask(trained_on_registrations(n_rounds=5), engine, n_a_mask=400)


@pytest.mark.soak
@pytest.mark.parametrize("engine", ENGINES)
def test_a_hundred_thousand_registrations_score_to_the_last_bit_as_lightgbm(engine: bitrows.Engine):
    check_every_mask(trained_on_registrations(n_rounds=129, n_a_mask=2500), engine, n_a_mask=6250)


def check_every_mask(text: str, engine: bitrows.Engine, n_a_mask: int) -> None:
    rng = np.random.default_rng(7)
    scorer = BitRows(tables(text), engine)
    for given in itertools.product([True, False], repeat=4):
        rows = registrations(rng, n_a_mask, given)
        assert_same_bits(scorer.scores(rows), lightgbm_scores(text, rows))


# ---- the tables ----

# Age at most 30 ends in leaf 0; above, Jazz leads to leaf 1 and no Jazz to leaf 2: from left to right 0, 2, 1.
BY_HAND = text_of(
    [
        {
            "split_feature": [0, 1],
            "threshold": [30.0, 0.5],
            "decision_type": [10, 0],
            "left_child": [-1, -3],
            "right_child": [1, -2],
            "leaf_value": [10.0, 20.0, 30.0],
        }
    ],
    n_scores=1,
    n_columns=2,
)


def test_a_tree_by_hand_has_the_tables_it_should():
    found = tables(BY_HAND)
    ones = 0xFFFFFFFF
    assert found["cuts"].tolist() == [30.0, 0.5]
    assert found["starts"].tolist() == [0, 1, 2]
    assert found["rows"].tolist() == [
        -1,
        0,
        -1,
        -1,
        1,
        -1,
    ]  # age: young, old, NaN (left by default); Jazz: no, yes, NaN
    assert found["masks"].tolist() == [[ones - 0b001], [ones - 0b010]]
    assert found["leaves"].tolist() == [[[10.0, 30.0, 20.0]]]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_tree_by_hand_ends_where_it_should(engine: bitrows.Engine):
    scorer = BitRows(tables(BY_HAND), engine)
    rows = np.array([[30.0, 1.0], [31.0, 0.0], [31.0, 1.0], [np.nan, 1.0], [31.0, np.nan]])
    assert scorer.scores(rows).tolist() == [[10.0], [30.0], [20.0], [10.0], [30.0]]


def test_masks_are_wide_only_where_a_tree_has_more_than_32_leaves():
    for max_leaves in (31, 64):
        text = random_model(
            np.random.default_rng(8), n_scores=1, n_rounds=40, n_columns=3, max_leaves=max_leaves, missing=[0]
        )
        assert tables(text)["masks"].dtype == (np.uint32 if max_leaves == 31 else np.uint64)


def test_an_absent_flag_costs_nothing_and_equal_rows_are_stored_once():
    found = tables(trained_on_registrations(n_rounds=2))
    absent = [found["rows"][found["starts"][column] + 2 * column] for column in GENRES]
    assert absent == [-1] * len(GENRES)
    assert len(np.unique(found["masks"], axis=0)) == len(found["masks"])


@pytest.mark.parametrize("engine", ENGINES)
def test_tables_can_be_maps_of_read_only_files(tmp_path: Path, engine: bitrows.Engine):
    text = trained_on_registrations(n_rounds=3)
    for name, array in tables(text).items():
        np.save(tmp_path / f"{name}.npy", array, allow_pickle=False)
    mapped = {path.stem: np.load(path, mmap_mode="r") for path in tmp_path.iterdir()}
    rows = registrations(np.random.default_rng(9), 50, (True, True, True, True))
    assert_same_bits(BitRows(mapped, engine).scores(rows), lightgbm_scores(text, rows))


def test_a_tree_of_more_than_64_leaves_is_refused():
    text = random_model(np.random.default_rng(10), n_scores=1, n_rounds=9, n_columns=3, max_leaves=90, missing=[0])
    with pytest.raises(InputError, match="bit rows take at most 64"):
        tables(text)


def test_a_model_too_large_to_be_tabulated_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bitrows, "MAX_CELLS", 5)
    with pytest.raises(InputError, match="2 thresholds in 1 trees are too many"):
        tables(BY_HAND)


# ---- the door ----


@pytest.mark.parametrize("engine", ENGINES)
def test_rows_of_another_width_are_refused(engine: bitrows.Engine):
    with pytest.raises(ValueError, match="rows"):
        BitRows(tables(BY_HAND), engine).scores(np.zeros((4, 3)))


@pytest.mark.parametrize("engine", ENGINES)
def test_rows_may_lie_anyhow_in_memory_and_none_may_come(engine: bitrows.Engine):
    scorer = BitRows(tables(BY_HAND), engine)
    assert scorer.scores(np.asfortranarray([[31, 0], [31, 1]])).tolist() == [[30.0], [20.0]]
    assert scorer.scores(np.array([[31.0, 9.0, 0.0]])[:, ::2]).tolist() == [[30.0]]
    assert scorer.scores(np.zeros((0, 2))).shape == (0, 1)


def test_the_engine_is_the_fastest_there_is_unless_named(monkeypatch: pytest.MonkeyPatch):
    assert BitRows(tables(BY_HAND), "numpy").engine == "numpy"
    assert BitRows(tables(BY_HAND)).engine == ("numpy" if CompiledScorer is None else "c")
    monkeypatch.setattr(bitrows, "CompiledScorer", None)
    assert BitRows(tables(BY_HAND)).engine == "numpy"
    with pytest.raises(InputError, match="'c' was not compiled"):
        BitRows(tables(BY_HAND), "c")


@compiled
def test_several_threads_share_one_scorer():
    text = trained_on_registrations(n_rounds=3)
    scorer = BitRows(tables(text), "c")
    rows = registrations(np.random.default_rng(11), 3000, (True, True, True, True))
    want = scorer.scores(rows)
    with ThreadPoolExecutor(4) as threads:
        for got in threads.map(lambda _: scorer.scores(rows), range(12)):
            assert_same_bits(got, want)


def test_scoring_imports_numpy_and_no_more():
    code = "import sys, firstspin.models.trees.bitrows; print({'lightgbm', 'pandas', 'scipy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# ---- arrays that are no tables ----


def with_third(value: int) -> Callable[[NDArray[np.int64]], NDArray[np.int64]]:
    return lambda starts: np.where(np.arange(len(starts)) == 3, value, starts)


BREAKS = [
    ("masks", lambda masks: masks[:, 1:]),
    ("masks", lambda masks: masks[:0]),
    ("masks", lambda masks: masks.ravel()),
    ("masks", lambda masks: masks.astype(np.int32)),
    ("masks", lambda masks: masks.astype(np.uint16)),
    ("masks", lambda masks: masks.astype(">u4")),
    ("rows", lambda rows: rows[1:]),
    ("rows", lambda rows: rows - 1),
    ("rows", lambda rows: rows + 1),
    ("rows", lambda rows: np.full_like(rows, 2**31 - 1)),
    ("rows", lambda rows: np.full_like(rows, -(2**31))),
    ("rows", lambda rows: rows.astype(np.int64)),
    ("cuts", lambda cuts: cuts[1:]),
    ("cuts", lambda cuts: cuts[:0]),
    ("cuts", lambda cuts: np.append(cuts, 1.0)),
    ("cuts", lambda cuts: cuts.view(np.int64)),
    ("starts", lambda starts: starts[::-1]),
    ("starts", lambda starts: starts[1:]),
    ("starts", lambda starts: starts[:0]),
    ("starts", lambda starts: starts[:1]),
    ("starts", lambda starts: starts + 1),
    ("starts", lambda starts: starts - 1),
    ("starts", lambda starts: starts * 2**40),
    ("starts", with_third(2**62)),
    ("starts", with_third(-(2**62))),
    ("leaves", lambda leaves: leaves[:, 1:]),
    ("leaves", lambda leaves: leaves[:0]),
    ("leaves", lambda leaves: leaves[:, :, :0]),
    ("leaves", lambda leaves: np.zeros((*leaves.shape[:2], 33))),
    ("leaves", lambda leaves: leaves.astype(np.float32)),
    ("leaves", lambda leaves: leaves[0]),
]


@pytest.mark.parametrize(("name", "change"), BREAKS)
def test_arrays_that_are_no_tables_are_refused(name: str, change: Callable[[NDArray[Any]], NDArray[Any]]):
    rng = np.random.default_rng(13)
    broken = tables(random_model(rng, n_scores=2, n_rounds=9, n_columns=5, max_leaves=9, missing=[0, 2]))
    broken[name] = np.ascontiguousarray(change(broken[name]))
    with pytest.raises(InputError, match="bit rows"):
        BitRows(broken)
    if CompiledScorer is not None:
        with pytest.raises(ValueError, match=r"^(masks|rows|cuts|starts|leaves): "):
            CompiledScorer(**broken)


def test_a_missing_array_is_named():
    whole = tables(BY_HAND)
    del whole["cuts"]
    with pytest.raises(InputError, match="no array cuts"):
        BitRows(whole)


@compiled
def test_the_compiled_scorer_refuses_what_it_can_not_read():
    scorer, whole = CompiledScorer(**tables(BY_HAND)), tables(BY_HAND)
    rows, out = np.zeros((4, 2)), np.zeros((4, 1))
    readonly = out.copy()
    readonly.flags.writeable = False
    for args in [
        (rows[:, :1], out),
        (rows[::2], out),
        (rows, out[:3]),
        (rows, readonly),
        (rows.astype(np.float32), out),
    ]:
        with pytest.raises(ValueError, match=r"rows|out|array|contiguous|read-only"):
            scorer.scores(*args)
    for args in [(rows,), (rows, out, out), (None, out), (rows, "x")]:
        with pytest.raises((TypeError, BufferError)):
            scorer.scores(*args)
    unaligned = np.frombuffer(bytearray(1 + whole["masks"].nbytes), np.uint8)[1:].view(np.uint32).reshape(2, 1)
    with pytest.raises(ValueError, match="masks"):
        CompiledScorer(**{**whole, "masks": unaligned})


@pytest.mark.parametrize("scorer", SCORERS)
@pytest.mark.parametrize("max_leaves", [5, 32, 64])
def test_whatever_the_masks_hold_a_score_is_made_of_the_trees_own_leaves(scorer: type[NumpyScorer], max_leaves: int):
    rng = np.random.default_rng(max_leaves)
    text = random_model(rng, n_scores=2, n_rounds=30, n_columns=4, max_leaves=max_leaves, missing=[0, 2])
    whole = tables(text)
    rows = rows_near(rng, whole["cuts"], 40, 4)
    whole["leaves"] = np.where(np.arange(2)[:, None] == 0, 1.0, 1000.0) + np.zeros(whole["leaves"].shape)
    for masks in (np.zeros_like(whole["masks"]), rng.bytes(whole["masks"].nbytes)):
        whole["masks"] = np.frombuffer(masks, whole["masks"].dtype).reshape(whole["masks"].shape)
        out = np.empty((40, 2))
        scorer(**whole).scores(rows, out)
        assert (out == [30.0, 30_000.0]).all()


@compiled
def test_any_indices_that_pass_the_door_score_alike_in_c_and_numpy():
    rng = np.random.default_rng(12)
    whole = tables(trained_on_registrations(n_rounds=2, n_leaves=6))
    rows = np.concatenate([registrations(rng, 20, mask) for mask in itertools.product([True, False], repeat=4)])
    refused = 0
    for _ in range(300):
        mutated = {name: array.copy() for name, array in whole.items()}
        name = str(rng.choice(["masks", "rows", "starts"]))
        flat = mutated[name].reshape(-1)
        flat[rng.integers(0, len(flat), 3)] += rng.integers(-3, 4, 3).astype(flat.dtype)
        try:
            scorers = [BitRows(mutated, engine) for engine in ("c", "numpy")]
        except InputError:
            refused += 1
            continue
        assert scorers[0].scores(rows).shape == (len(rows), 25)
        if name == "masks":  # with other cuts than `tables` makes, rising a column, each search finds its own place
            assert_same_bits(scorers[0].scores(rows), scorers[1].scores(rows))
    assert 0 < refused < 300
