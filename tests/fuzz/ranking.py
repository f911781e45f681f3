"""Scores to rankings in C (`_ranking.c`): any scores, and arguments that are none."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from firstspin.models.predictor import compiled_ranked, compiled_ranked_into
from fuzz.inputs import Broken, Check, Input
from fuzz.scorer import changed, odd

SCORES = (0.0, -0.0, 1.0, -1.0, 1e308, -1e308, 5e-324, 700.0, -745.0, math.nan, math.inf, -math.inf)


@contextmanager
def opened(folder: Path) -> Iterator[Check]:  # noqa: ARG001
    if compiled_ranked is None:
        raise RuntimeError("the ranking in C was not compiled")

    def check(made: Input) -> str:
        scores, genres = _arguments(made)
        made.note("arguments", (scores, genres))
        try:
            found = compiled_ranked(scores, genres)
        except (ValueError, TypeError, BufferError):
            return "refused"
        for names, chances in found:
            if sorted(names, key=id) != sorted(genres, key=id) or len(chances) != len(genres):
                raise Broken(f"{names} of {genres}")
        if isinstance(scores, np.ndarray) and np.isfinite(scores).all() and not _in_order(found):
            raise Broken(f"probabilities that fall no further: {found}")
        _check_places(made, scores, genres, found)
        return "ranked"

    yield check


def _check_places(made: Input, scores: Any, genres: Any, found: Any) -> None:
    """The first places and probabilities are those of the ranking, or the arrays for them are refused."""
    n, k = len(found) + made.pick((0, 0, 0, 1)), made.number(0, len(genres) + 1)
    places, chances = np.full((n, k), -1, np.int32), np.zeros((n, k))
    try:
        compiled_ranked_into(scores, places, chances)
    except ValueError:
        if n == len(found) and 0 < k <= len(genres):
            raise
        return
    for (names, values), place, chance in zip(found, places.tolist(), chances.tolist(), strict=True):
        if (names[:k], values[:k]) != (tuple(genres[i] for i in place), tuple(chance)):
            raise Broken(f"{place} and {chance} are not the first {k} of {names} and {values}")


def _in_order(found: Any) -> bool:
    return all(
        math.isclose(sum(chances), 1, abs_tol=1e-4) and list(chances) == sorted(chances, reverse=True)
        for _, chances in found
        if chances
    )


def _arguments(made: Input) -> tuple[Any, Any]:
    n, k = made.pick((0, 1, 1, 2, 40)), made.pick((0, 1, 2, 4, 25, 63, 64, 65, 300))
    rng = np.random.default_rng(made.number(0, 2**32))
    scores: Any = rng.normal(size=(n, k)) * made.pick((1.0, 1e-3, 300.0))
    if made.chance(0.5) and scores.size:
        for _ in range(made.number(1, 5)):
            scores.reshape(-1)[made.number(0, scores.size - 1)] = made.pick(SCORES)
    genres: Any = tuple(f"g{i}" for i in range(k))
    if made.chance(0.1):
        scores = changed(made, scores)
    if made.chance(0.05):
        genres = made.pick((list(genres), genres[1:], (*genres, "more"), None, (None,) * k, ((),) * k))
    if made.chance(0.03):
        scores = odd(made)
    return scores, genres
