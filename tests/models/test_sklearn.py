"""The estimator passes scikit-learn's own checks, and agrees with the models that `train` packs."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import duckdb
import made_people
import msgspec
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from sklearn.base import clone
from sklearn.metrics import make_scorer, top_k_accuracy_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

from firstspin.models import registry
from firstspin.models.sklearn import GenreClassifier

PEOPLE = made_people.examples(200)
X = pd.DataFrame(msgspec.to_builtins(PEOPLE.registrations)).drop(columns="listens")
Y = np.array(PEOPLE.genres)[PEOPLE.tops]


@parametrize_with_checks([GenreClassifier("logistic")])
def test_the_estimator_passes_the_checks_of_scikit_learn(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)


@pytest.fixture(scope="module")
def fitted() -> GenreClassifier:
    return GenreClassifier("logistic").fit(X, Y)


def test_probabilities_are_those_of_the_model_by_name(fitted: GenreClassifier) -> None:
    task = registry.prepare(PEOPLE, made_people.GENRES)
    expected = registry.fit("logistic", replace(task, shares=np.eye(4)[PEOPLE.tops]))
    assert list(fitted.classes_) == list(PEOPLE.genres)
    assert np.array_equal(fitted.predict_proba(X), expected.probabilities(PEOPLE.registrations))


def test_an_ensemble_and_its_copy_answer_the_same() -> None:
    estimator = clone(GenreClassifier("auto", random_state=3)).fit(X, Y)
    copy = pickle.loads(pickle.dumps(estimator))
    assert np.array_equal(copy.predict_proba(X), estimator.predict_proba(X))
    assert (estimator.predict(X) == Y).mean() > 0.6


TABLES: dict[str, Callable[[], Any]] = {
    "nullable": lambda: X.convert_dtypes(),
    "categories": lambda: X.assign(country=X["country"].astype("category")),
    "Polars": lambda: pl.DataFrame(X.to_dict("records")),
    "Arrow": lambda: pa.Table.from_pylist(X.to_dict("records")),
    "DuckDB": lambda: duckdb.from_arrow(pa.Table.from_pylist(X.to_dict("records"))),
    "named index": lambda: X.set_index(pd.Index(range(len(X)), name="number")),
    "ids ignored": lambda: X.assign(user_id="7", registered_at=None),
    "text": lambda: X.assign(age=X["age"].map("{:.0f}".format), genres=X["genres"].map("|".join)),
}


@pytest.mark.parametrize("library", TABLES)
def test_tables_of_any_library_give_the_same_model(fitted: GenreClassifier, library: str) -> None:
    table = TABLES[library]()
    again = GenreClassifier("logistic").fit(table, Y)
    assert np.array_equal(again.predict_proba(table), fitted.predict_proba(X))


def test_a_pipeline_is_searched_and_cross_validated_by_hit_at_3() -> None:
    without_gender = FunctionTransformer(lambda table: table.drop(columns="gender"))
    pipeline = make_pipeline(without_gender, GenreClassifier("logistic"))
    search = GridSearchCV(pipeline, {"genreclassifier__model": ["popularity", "logistic"]}, cv=2, error_score="raise")
    assert search.fit(X, Y).best_params_ == {"genreclassifier__model": "logistic"}
    hit_at_3 = make_scorer(top_k_accuracy_score, k=3, response_method="predict_proba")
    assert cross_val_score(GenreClassifier("logistic"), X, Y, scoring=hit_at_3, cv=2, error_score="raise").min() > 0.8


@pytest.mark.parametrize(
    "labels",
    [
        pd.Series(Y),
        pd.Series(Y, dtype="category"),
        pd.Series(Y, dtype="string"),
        pl.Series(Y),
        pa.chunked_array([Y]),
        list(Y),
    ],
    ids=lambda labels: type(labels).__module__,
)
def test_labels_of_any_library_are_the_same_classes(fitted: GenreClassifier, labels: Any) -> None:
    again = GenreClassifier("logistic").fit(X, labels)
    assert list(again.predict(X)) == list(fitted.predict(X))


def test_further_columns_are_numbers_or_categories() -> None:
    table = pd.DataFrame(
        {"device": np.where(Y == "Jazz", "car", "phone"), "visits": np.where(Y == "Rock", 9.0, np.nan)}
    )
    estimator = GenreClassifier("logistic").fit(table, Y)
    assert set(estimator.predict(pd.DataFrame({"device": ["car", "phone"], "visits": [np.nan, 9]}))) == {"Jazz", "Rock"}
    assert estimator.feature_names_in_.tolist() == ["device", "visits"]


WRONG: dict[str, tuple[Callable[[], Any], Callable[[], Any], str]] = {
    "a bad age": (lambda: X.assign(age=300), lambda: Y, "registrations row 1: age '300' is not between 0 and 120"),
    "the label as a feature": (lambda: X.assign(top_genre=Y), lambda: Y, "further column top_genre: the labels have"),
    "durations": (
        lambda: X.assign(age2=pd.Timedelta("1s")),
        lambda: Y,
        r"X: age2 is duration\[.s\], where text or numbers",
    ),
    "no label": (lambda: X, lambda: [*Y[:-1], None], "y row 200 is missing"),
    "other lengths": (lambda: X, lambda: Y[:-1], "inconsistent numbers of samples"),
    "one class": (lambda: X, lambda: np.full(200, "Rock"), "y has only 1 class"),
    "no rows": (lambda: X.iloc[:0], lambda: Y[:0], "y has only 0 class|0 sample"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_input_is_a_value_error_that_says_what_is_wrong(wrong: str) -> None:
    table, labels, message = WRONG[wrong]
    with pytest.raises(ValueError, match=message):
        GenreClassifier("logistic").fit(table(), labels())


def test_a_model_of_a_table_refuses_an_array_and_an_unknown_model_is_named(fitted: GenreClassifier) -> None:
    with pytest.warns(UserWarning, match="feature names"), pytest.raises(ValueError, match="X is an array"):
        fitted.predict(np.zeros((2, 4)))
    with pytest.raises(ValueError, match="no model is called 'xgboost'"):
        GenreClassifier("xgboost").fit(X, Y)
