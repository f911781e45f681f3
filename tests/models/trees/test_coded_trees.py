"""Trees score registrations in columns with the bits that they give to their rows."""

from __future__ import annotations

import math
from dataclasses import replace

import lightgbm as lgb
import numpy as np
import pyarrow as pa
import pytest
from compiled import where_it_compiles
from made_columns import TYPES
from random_trees import random_model

from firstspin.data.registrations.coded import coded
from firstspin.models.coded_rows import CodedRows
from firstspin.models.features import Category, Encoder, Number, Picks
from firstspin.models.scorers import RuleScorer, TreeScorer
from firstspin.models.trees.bitrows import BitRows, CompiledScorer, Engine, tables
from firstspin.models.trees.coded_trees import MAX_DISTINCT, coded_trees

ENGINES = ["numpy", pytest.param("c", marks=where_it_compiles(CompiledScorer))]
GENRES = ("Folk, World", "Hip Hop", "Jazz", "R&B", "Rock", "rock")
ENCODER = Encoder(
    [
        Number("age", [18, 30.5, 60]),
        Category("gender", ["female", "male"]),
        Picks("genres", GENRES),
        Category("device", ["1.5", "phone"]),
        Number("visits", [0, 2]),
    ]
)
WORDS = (None, "female", " FEMALE ", "male", "other", "", "1.5", "PHONE")
VISITS = (None, 0.0, -0.0, 1.5, -3.0, math.nan, math.inf, -math.inf)


def table(n: int, seed: int = 0) -> pa.RecordBatch:
    """Registrations with odd answers."""
    rng = np.random.default_rng(seed)
    picks = (*GENRES, "ROCK", " Jazz", "Polka", "")
    answers = {
        "age": [None if age > 90 else int(age) for age in rng.integers(0, 101, n)],
        "genres": [[picks[i] for i in rng.integers(0, len(picks), rng.integers(0, 9))] for _ in range(n)],
        "visits": [VISITS[i] for i in rng.integers(0, len(VISITS), n)],
    }
    words = {name: [WORDS[i] for i in rng.integers(0, len(WORDS), n)] for name in ("gender", "country", "device")}
    return pa.record_batch({name: pa.array(of, TYPES[name]) for name, of in (answers | words).items()})


def encoded(n: int, seed: int = 0) -> CodedRows:
    return CodedRows(ENCODER, coded(table(n, seed), ("device", "visits")))


def trees_of(text: str, engine: Engine, columns: np.ndarray) -> TreeScorer:
    scorer = TreeScorer.of(columns, text, tables(text))
    return replace(scorer, rows=BitRows(scorer.tables, engine))


def trained(engine: Engine) -> TreeScorer:
    """A model of all columns but the first, in another order than the encoder's."""
    rows, _ = encoded(600, seed=1).matched(0, 600)
    columns = np.arange(len(ENCODER.columns))[:0:-1].copy()
    favourites = np.where(rows[:, ENCODER.columns.index("picked=Jazz")] > 0, 1, np.arange(600) % 3)
    settings = {"objective": "multiclass", "num_class": 3, "num_leaves": 15, "min_data_in_leaf": 5, "verbosity": -1}
    booster = lgb.train({**settings, "num_threads": 1}, lgb.Dataset(rows[:, columns], favourites), 6)
    return trees_of(booster.model_to_string(), engine, columns)


@pytest.mark.parametrize("engine", ENGINES)
def test_scores_and_known_are_those_of_the_rows(engine: Engine) -> None:
    scorer, some = trained(engine), encoded(700)
    rows, known = some.matched(0, 700)
    trees = coded_trees(scorer, some)
    assert trees is not None
    assert trees.known.tolist() == known.tolist()
    for start, stop in ((0, 700), (0, 0), (3, 4), (512, 700)):
        assert trees.scores(start, stop).tobytes() == scorer.scores(rows[start:stop]).tobytes()
    which = np.arange(700) % 3 == 0
    third = trees.take(which)
    assert third.scores(0, which.sum()).tobytes() == scorer.scores(rows[which]).tobytes()
    assert third.known.tolist() == known[which].tolist()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("seed", range(6))
def test_any_trees_score_the_same_or_are_left_to_rows(seed: int, engine: Engine) -> None:
    rng, width = np.random.default_rng(seed), len(ENCODER.columns)
    text = random_model(rng, n_scores=2, n_rounds=4, n_columns=width, max_leaves=6, missing=[0, 1, 2])
    scorer, some = trees_of(text, engine, np.arange(width)), encoded(60, seed)
    trees = coded_trees(scorer, some)
    if trees is not None:
        assert trees.scores(0, 60).tobytes() == scorer.scores(some.matched(0, 60)[0]).tobytes()


def test_no_registrations() -> None:
    trees = coded_trees(trained("numpy"), encoded(0))
    assert trees is not None
    assert trees.scores(0, 0).shape == (0, 3)


def test_other_scorers_and_numbers_of_many_values_are_left_to_rows() -> None:
    rule = RuleScorer(np.zeros(2), np.array([-1, -1]), 0.0)
    assert coded_trees(rule, encoded(5)) is None
    people = table(MAX_DISTINCT + 1)
    visits = pa.array(np.arange(len(people), dtype=np.float64))
    people = people.set_column(people.schema.get_field_index("visits"), "visits", visits)
    assert coded_trees(trained("numpy"), CodedRows(ENCODER, coded(people, ("device", "visits")))) is None


@where_it_compiles(CompiledScorer)
def test_the_compiled_scorer_refuses_indices_that_lead_out_of_an_array() -> None:
    whole = tables(
        random_model(np.random.default_rng(0), n_scores=1, n_rounds=3, n_columns=2, max_leaves=4, missing=[0])
    )
    scorer, masks = CompiledScorer(**whole), whole["masks"]
    named, out = np.zeros(2, np.int32), np.zeros((1, 1))
    scorer.scores_of(masks, np.array([0, 2]), named, out)
    for wrong in (
        (masks, np.array([0, 3]), named, out),
        (masks, np.array([-1, 2]), named, out),
        (masks, np.array([1, 0]), named, out),
        (masks, np.array([0, 2]), named - 1, out),
        (masks, np.array([0, 2]), named + len(masks), out),
        (masks[:, :2], np.array([0, 2]), named, out),
        (masks.astype(np.uint64), np.array([0, 2]), named, out),
        (masks, np.array([0, 1, 2]), named, out),
        (masks, np.array([0, 2]), named.astype(np.int64), out),
    ):
        with pytest.raises((ValueError, BufferError)):
            scorer.scores_of(*wrong)
    with pytest.raises(TypeError):
        scorer.scores_of(masks)
