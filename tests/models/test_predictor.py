"""Scores become rankings: best first, equal scores in the order of the genres, probabilities that sum to one."""

from __future__ import annotations

import numpy as np
import pytest
from compiled import where_it_compiles
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from firstspin.models import predictor
from firstspin.models.predictor import compiled_ranked, ranked, ranked_by_numpy

SCORES = st.integers(1, 90).flatmap(
    lambda k: arrays(np.float64, st.tuples(st.integers(0, 5), st.just(k)), elements=st.floats(-50, 50, width=16))
)


def test_the_best_comes_first_and_equal_scores_keep_the_order_of_the_genres() -> None:
    [(genres, chances)] = ranked(np.log([[0.1, 0.4, 0.1, 0.4]]), ("a", "b", "c", "d"))
    assert genres == ("b", "d", "a", "c")
    assert chances == (0.4, 0.4, 0.1, 0.1)


def test_probabilities_have_six_decimals() -> None:
    [(_, chances)] = ranked(np.array([[0.0, 0.0, 0.0]]), ("a", "b", "c"))
    assert chances == (0.333333, 0.333333, 0.333333)


@where_it_compiles(compiled_ranked)
@given(scores=SCORES)
def test_compiled_and_in_numpy_it_comes_out_alike(scores: np.ndarray) -> None:
    genres = tuple(f"genre {i}" for i in range(scores.shape[1]))
    for (names, chances), (own_names, own_chances) in zip(
        ranked(scores, genres), ranked_by_numpy(scores, genres), strict=True
    ):
        assert names == own_names
        assert chances == pytest.approx(own_chances, abs=1.1e-6)


@given(scores=SCORES, data=st.data())
def test_the_first_places_are_those_of_the_ranking(scores: np.ndarray, data: st.DataObject) -> None:
    genres, k = tuple(map(str, range(scores.shape[1]))), data.draw(st.integers(1, scores.shape[1]))
    with pytest.MonkeyPatch.context() as patch:
        if data.draw(st.booleans(), label="in numpy"):
            patch.setattr(predictor, "compiled_ranked", None)
            patch.setattr(predictor, "compiled_ranked_into", None)
        places, chances = predictor.ranked_places(scores, k)
        for (names, values), place, chance in zip(
            predictor.ranked(scores, genres), places.tolist(), chances.tolist(), strict=True
        ):
            assert (names[:k], values[:k]) == (tuple(map(str, place)), tuple(chance))


def test_equal_scores_keep_their_order_among_the_first_places_too() -> None:
    places, _ = predictor.ranked_places(np.array([[1.0, 2.0, 2.0, 0.0, 2.0, 3.0, 1.0]]), 4)
    assert places.tolist() == [[5, 1, 2, 4]]


@where_it_compiles(compiled_ranked)
def test_places_are_written_into_arrays_that_fit() -> None:
    scores, into = np.zeros((2, 3)), predictor.compiled_ranked_into
    assert into is not None
    for places, chances in (
        (np.zeros((2, 4), np.int32), np.zeros((2, 4))),
        (np.zeros((2, 0), np.int32), np.zeros((2, 0))),
        (np.zeros((1, 3), np.int32), np.zeros((2, 3))),
        (np.zeros((2, 3), np.int32), np.zeros((2, 2))),
        (np.zeros((2, 3), np.int64), np.zeros((2, 3))),
        (np.zeros((2, 3), np.int32), np.zeros((2, 3), np.float32)),
    ):
        with pytest.raises(ValueError, match=r"places|probabilities"):
            into(scores, places, chances)
    with pytest.raises(ValueError, match="not finite"):
        into(np.array([[0.0, np.nan]]), np.zeros((1, 1), np.int32), np.zeros((1, 1)))


@where_it_compiles(compiled_ranked)
def test_arrays_of_another_kind_are_refused() -> None:
    for scores, genres in (
        (np.zeros((1, 3), np.float32), ("a", "b", "c")),
        (np.zeros(3), ("a", "b", "c")),
        (np.zeros((1, 3)), ("a", "b")),
    ):
        with pytest.raises(ValueError, match="scores"):
            ranked(scores, genres)
    with pytest.raises(TypeError, match="tuple of genres"):
        ranked(np.zeros((1, 2)), ["a", "b"])  # type: ignore[arg-type]
    with pytest.raises((ValueError, BufferError)):
        ranked(np.zeros((3, 2)).T, ("a", "b", "c"))


def test_a_score_that_is_not_finite_is_no_answer() -> None:
    for scores in ([[0.0, np.nan]], [[np.inf, 0.0]], [[0.0, -np.inf]]):
        for rank in (ranked, ranked_by_numpy):
            with pytest.raises(ValueError, match="not finite"):
                rank(np.array(scores), ("a", "b"))
