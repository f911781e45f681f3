"""Scorers: trained models at serving time, as frozen arrays and numpy code, without the libraries that trained them.

`load(kind, scorer.state())` gives the same scorer again, to the last bit of every score.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableSequence, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import ClassVar, Final, cast

import numpy as np
from numpy.typing import NDArray

from firstspin.models.predictor import Array, Scorer, State
from firstspin.models.trees.bitrows import BitRows
from firstspin.records import InputError

Indexes = NDArray[np.int64]
JUST_ABOVE: Final = 1e-6
MAX_NUMBER: Final = 1e30
"""Upper bound of every parameter: sums of products of such numbers are still finite."""


@dataclass(frozen=True, slots=True)
class RuleScorer:
    """The business rule: picks first, by overall popularity, then the other genres by popularity.

    A score is the log of the popularity, `log_popularity` (k,). Picks are lifted by `lift`, or by more where the least
    popular pick would otherwise rank below another genre. `columns` (k,): the column of a row that is 1 where the genre
    was picked, -1 for none.
    """

    log_popularity: Array
    columns: Indexes
    lift: float
    only_one: bool = False  # lift only the most popular pick
    _sorted: tuple[list[int], list[float], dict[int, int]] | None = field(
        init=False, repr=False, compare=False, default=None
    )
    kind: ClassVar[str] = "rule"

    def scores(self, rows: Array) -> Array:
        """(n, k) scores of rows (n, c): log popularity, plus the lift of the picks."""
        picked = np.zeros((len(rows), len(self.columns)), dtype=bool)
        picked[:, self.columns >= 0] = rows.take(self.columns[self.columns >= 0], axis=1) > 0
        if self.only_one:
            best = np.where(picked, self.log_popularity, -np.inf).argmax(axis=1)
            picked &= np.arange(len(self.columns)) == best[:, None]
        lowest = np.where(picked, self.log_popularity, np.inf).min(axis=1)
        highest = np.where(picked, -np.inf, self.log_popularity).max(axis=1)
        lift = np.maximum(self.lift, highest - lowest + JUST_ABOVE)
        return np.where(picked, self.log_popularity + lift[:, None], self.log_popularity)

    def scores_of_picks(self, picked: Sequence[Sequence[int]]) -> Array:
        """(n, k) `scores`, the same bits, of registrations of which only the columns of the picks are not 0.

        In numbers of Python: for a few picks the calls into numpy take longer than the computation.
        """
        places, best_first, ranks = self._sorted or self._sort()
        scores = np.empty((len(picked), len(places)))
        scores[:] = self.log_popularity
        cells = cast("MutableSequence[float]", memoryview(scores.reshape(-1).data))
        for start, picks in zip(range(0, scores.size, len(places)), picked, strict=True):
            own = [ranks[pick] for pick in picks if pick in ranks]
            if self.only_one and own:
                own = [min(own)]
            if not own:
                continue
            first = 0  # of the genres that are not picked
            while first in own:
                first += 1
            highest = best_first[first] if first < len(places) else -inf
            lift = max(self.lift, highest - best_first[max(own)] + JUST_ABOVE)
            for rank in own:
                cells[start + places[rank]] = best_first[rank] + lift
        return scores

    def _sort(self) -> tuple[list[int], list[float], dict[int, int]]:
        """The places of the genres by popularity, the logs of it, and the rank of each column; sorted once."""
        popularity, columns = self.log_popularity.tolist(), self.columns.tolist()
        places = sorted(range(len(popularity)), key=popularity.__getitem__, reverse=True)
        ranks = {columns[place]: rank for rank, place in enumerate(places)}
        made = places, [popularity[place] for place in places], ranks
        object.__setattr__(self, "_sorted", made)
        return made

    def state(self) -> dict[str, NDArray[np.generic] | str]:
        """The fields by name: arrays (k,), and scalars as arrays of no dimension."""
        return {
            "log_popularity": self.log_popularity,
            "columns": self.columns,
            "lift": np.array(self.lift),
            "only_one": np.array(self.only_one),
        }

    def check(self, columns: int, genres: int) -> None:
        """Raises InputError where an array does not fit `genres` (k), or names a column that is not there."""
        _check_numbers("log_popularity", self.log_popularity, (genres,))
        _check_numbers("lift", np.array(self.lift), ())
        _check_places("columns", self.columns, (genres,), columns, low=-1)

    @staticmethod
    def from_state(state: State) -> RuleScorer:
        """The scorer of a `state()`. Raises InputError where an array is missing or of another type."""
        lift, only_one = float(_single(state, "lift", "f")), bool(_single(state, "only_one", "b"))
        return RuleScorer(_array(state, "log_popularity"), _places(state, "columns"), lift, only_one)


@dataclass(frozen=True, slots=True)
class Linear:
    """A linear model: `bias` (k,) plus each value of `columns` (m,) times its row of `weights` (m, k)."""

    columns: Indexes
    weights: Array
    bias: Array
    kind: ClassVar[str] = "linear"

    def scores(self, rows: Array) -> Array:
        """(n, k) scores of rows (n, c): `bias` + values @ `weights`."""
        return weighted_sum(rows.take(self.columns, axis=1), self.weights, self.bias)

    def state(self) -> dict[str, NDArray[np.generic] | str]:
        """The fields by name: `columns` (m,), `weights` (m, k), `bias` (k,)."""
        return {"columns": self.columns, "weights": self.weights, "bias": self.bias}

    def check(self, columns: int, genres: int) -> None:
        """Raises InputError where an array does not fit `columns` (c) and `genres` (k), or is not finite."""
        _check_places("columns", self.columns, (self.columns.size,), columns)
        _check_numbers("weights", self.weights, (self.columns.size, genres))
        _check_numbers("bias", self.bias, (genres,))

    @staticmethod
    def from_state(state: State) -> Linear:
        """The scorer of a `state()`. Raises InputError where an array is missing or of another type."""
        return Linear(_places(state, "columns"), _array(state, "weights"), _array(state, "bias"))


@dataclass(frozen=True, slots=True)
class Cells:
    """Scores by age band and gender.

    `age`: the column of the age, -1 for none; `edges` (b - 1,): lower bounds of the age bands from the second on;
    `genders` (g,): the columns of the genders; `table` (b + 1, g + 1, k): scores, the last row and column for not
    given.
    """

    age: int
    edges: Array
    genders: Indexes
    table: Array
    kind: ClassVar[str] = "cells"

    def scores(self, rows: Array) -> Array:
        """(n, k) scores of rows (n, c): the cell of each row."""
        band, gender = self.places(rows)
        return self.table[band, gender]

    def places(self, rows: Array) -> tuple[Indexes, Indexes]:
        """(n,) the band and (n,) the gender of each row, as positions in the table."""
        bands = len(self.edges) + 1
        ages = rows[:, self.age] if self.age >= 0 else np.full(len(rows), np.nan)
        band = np.where(np.isnan(ages), bands, np.searchsorted(self.edges, ages, side="right"))
        flags = np.pad(rows.take(self.genders, axis=1), ((0, 0), (0, 1)), constant_values=0.5)
        return band, flags.argmax(axis=1)

    def state(self) -> dict[str, NDArray[np.generic] | str]:
        """The fields by name, such as `table` (b + 1, g + 1, k)."""
        return {"age": np.array(self.age), "edges": self.edges, "genders": self.genders, "table": self.table}

    def check(self, columns: int, genres: int) -> None:
        """Raises InputError where an array does not fit, is not finite, or `edges` do not rise."""
        _check_places("age", np.array(self.age), (), columns, low=-1)
        _check_numbers("edges", self.edges, (self.edges.size,))
        if (self.edges[1:] <= self.edges[:-1]).any():
            raise InputError("edges do not rise")
        _check_places("genders", self.genders, (self.genders.size,), columns)
        _check_numbers("table", self.table, (self.edges.size + 2, self.genders.size + 1, genres))

    @staticmethod
    def from_state(state: State) -> Cells:
        """The scorer of a `state()`. Raises InputError where an array is missing or of another type."""
        age, genders = int(_single(state, "age", "i")), _places(state, "genders")
        return Cells(age, _array(state, "edges"), genders, _array(state, "table"))


@dataclass(frozen=True, slots=True)
class TreeScorer:
    """LightGBM's trees, scored by bit rows over the values of `columns` (m,).

    `text` is the model as LightGBM wrote it; scoring needs only the `tables`, whose shapes `bitrows.tables` lists.
    """

    columns: Indexes
    text: str
    tables: Mapping[str, NDArray[np.generic]]
    rows: BitRows
    kind: ClassVar[str] = "trees"

    def scores(self, rows: Array) -> Array:
        """(n, k) raw scores of rows (n, c)."""
        return self.rows.scores(np.ascontiguousarray(rows.take(self.columns, axis=1)))

    def state(self) -> dict[str, NDArray[np.generic] | str]:
        """The columns (m,), the model text and the tables."""
        own: dict[str, NDArray[np.generic] | str] = {"columns": self.columns, "model": self.text}
        return own | {f"bits.{name}": table for name, table in self.tables.items()}

    def check(self, columns: int, genres: int) -> None:
        """Raises InputError where the tables do not fit `columns` (c) and `genres` (k)."""
        leaves = self.tables["leaves"]
        _check_places("columns", self.columns, (self.tables["starts"].size - 1,), columns)
        _check_numbers("leaves", leaves, (leaves.shape[0], genres, leaves.shape[2]))

    @staticmethod
    def of(columns: Indexes, text: str, tables: Mapping[str, NDArray[np.generic]]) -> TreeScorer:
        """The scorer of a model text and its tables, over the values of `columns` (m,)."""
        return TreeScorer(columns, text, tables, BitRows(tables))

    @staticmethod
    def from_state(state: State) -> TreeScorer:
        """The scorer of a `state()`. Raises InputError where an array is missing or of another type."""
        tables = {name.removeprefix("bits."): _array(state, name) for name in state if name.startswith("bits.")}
        return TreeScorer.of(_places(state, "columns"), _text(state, "model"), tables)


@dataclass(frozen=True, slots=True)
class Forest:
    """A random forest: the log of mean listening shares. `floor` (k,) is added so that none is zero."""

    trees: TreeScorer
    floor: Array
    kind: ClassVar[str] = "forest"

    def scores(self, rows: Array) -> Array:
        """(n, k) scores of rows (n, c): the log of each share plus `floor`."""
        shares = np.maximum(self.trees.scores(rows), 0.0)
        shares += self.floor
        return np.log(shares, out=shares)

    def state(self) -> dict[str, NDArray[np.generic] | str]:
        """The state of the trees; `floor` (k,) is called "least"."""
        return self.trees.state() | {"least": self.floor}

    def check(self, columns: int, genres: int) -> None:
        """Raises InputError where the trees do not fit, or `floor` is not above 0."""
        self.trees.check(columns, genres)
        _check_numbers("least", self.floor, (genres,))
        if (self.floor <= 0).any():
            raise InputError("least holds a number that is not above 0")

    @staticmethod
    def from_state(state: State) -> Forest:
        """The scorer of a `state()`. Raises InputError where an array is missing or of another type."""
        return Forest(TreeScorer.from_state(state), _array(state, "least"))


@dataclass(frozen=True, slots=True)
class Network:
    """A feed-forward network: one hidden layer of h ReLU units with a skip connection.

    Input: the values of `columns` (m,). Hidden layer: `inward` (m, h) and `bias_inward` (h,). Output: `outward` (h, k)
    and `bias` (k,). Skip connection: `skip` (m, k).
    """

    columns: Indexes
    inward: Array
    bias_inward: Array
    outward: Array
    bias: Array
    skip: Array
    kind: ClassVar[str] = "network"

    def scores(self, rows: Array) -> Array:
        """(n, k) scores of rows (n, c): ReLU(values @ `inward`) @ `outward` + values @ `skip` + `bias`."""
        values = rows.take(self.columns, axis=1)
        active = np.maximum(weighted_sum(values, self.inward, self.bias_inward), 0.0)
        return weighted_sum(active, self.outward, weighted_sum(values, self.skip, self.bias))

    def state(self) -> dict[str, NDArray[np.generic] | str]:
        """The fields by name, such as `inward` (m, h); the skip weights (m, k) are called "straight"."""
        return {
            "columns": self.columns,
            "inward": self.inward,
            "bias_inward": self.bias_inward,
            "outward": self.outward,
            "bias": self.bias,
            "straight": self.skip,
        }

    def check(self, columns: int, genres: int) -> None:
        """Raises InputError where the layers do not fit each other, or are not finite."""
        m, hidden = self.columns.size, self.bias_inward.size
        _check_places("columns", self.columns, (m,), columns)
        _check_numbers("inward", self.inward, (m, hidden))
        _check_numbers("bias_inward", self.bias_inward, (hidden,))
        _check_numbers("outward", self.outward, (hidden, genres))
        _check_numbers("bias", self.bias, (genres,))
        _check_numbers("straight", self.skip, (m, genres))

    @staticmethod
    def from_state(state: State) -> Network:
        """The scorer of a `state()`. Raises InputError where an array is missing or of another type."""
        layers = [_array(state, name) for name in ("inward", "bias_inward", "outward", "bias", "straight")]
        return Network(_places(state, "columns"), *layers)


@dataclass(frozen=True, slots=True)
class Blend:
    """An ensemble: a weighted sum of the members' scores, that is a logarithmic opinion pool of their probabilities.

    With a single member the weight is an inverse temperature: over 1 it sharpens the probabilities, under 1 it flattens
    them. Genest and Zidek, Combining probability distributions, Statistical Science 1, 1986. `soft_label_weight` is the
    target of the members, for training them again; it is not stored.
    """

    members: tuple[Scorer, ...]
    weights: tuple[float, ...]
    soft_label_weight: float | None = field(default=None, compare=False)
    kind: ClassVar[str] = "blend"

    def scores(self, rows: Array) -> Array:
        """(n, k) scores of rows (n, c): the weighted sum of the members' scores."""
        total = self.members[0].scores(rows) * self.weights[0]
        for member, weight in zip(self.members[1:], self.weights[1:], strict=True):
            total += member.scores(rows) * weight
        return total

    def state(self) -> dict[str, NDArray[np.generic] | str]:
        """The weights (number of members,), and the state of each member under its number."""
        state: dict[str, NDArray[np.generic] | str] = {"weights": np.array(self.weights)}
        for i, member in enumerate(self.members):
            state[f"{i}.kind"] = member.kind
            state |= {f"{i}.{name}": value for name, value in member.state().items()}
        return state

    def check(self, columns: int, genres: int) -> None:
        """Raises InputError where a weight is not finite or a member does not fit."""
        _check_numbers("weights", np.array(self.weights), (len(self.members),))
        for member in self.members:
            member.check(columns, genres)

    @staticmethod
    def from_state(state: State) -> Blend:
        """The scorer of a `state()`. Raises InputError where it has no members, or an array is missing."""
        weights = tuple(_array(state, "weights").ravel().tolist())
        if not weights:
            raise InputError("a blend has no members")
        return Blend(tuple(_member(state, f"{i}.") for i in range(len(weights))), weights)


KINDS: Final[dict[str, Callable[[State], Scorer]]] = {
    RuleScorer.kind: RuleScorer.from_state,
    Linear.kind: Linear.from_state,
    Cells.kind: Cells.from_state,
    TreeScorer.kind: TreeScorer.from_state,
    Forest.kind: Forest.from_state,
    Network.kind: Network.from_state,
    Blend.kind: Blend.from_state,
}


def load(kind: str, state: State) -> Scorer:
    """The scorer of a `state()`; its `check` validates the arrays.

    Raises ValueError where no scorer is of this kind, InputError where `state` is not that of such a scorer.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind of scorer: {kind!r}")
    scorer = KINDS[kind](state)
    if unused := sorted(state.keys() - scorer.state().keys()):
        raise InputError(f"a scorer of kind {kind!r} has no {unused[0]!r}")
    return scorer


def weighted_sum(values: Array, weights: Array, bias: Array) -> Array:
    """(n, k) `values` (n, m) @ `weights` (m, k) + `bias` (k,), added in the order of the columns for every n."""
    if len(values) == 1 and weights.shape[1] > 1:  # the same additions in the same order, in one numpy call
        used = np.flatnonzero(values[0])
        terms = weights.take(used, axis=0)
        terms *= values[0].take(used)[:, None]
        return np.add.reduce(terms, axis=0, keepdims=True) + bias
    total = np.zeros((len(values), weights.shape[1]))
    for column, weight in zip(values.T, weights, strict=True):
        rows = np.flatnonzero(column)  # adding zero changes no bit
        if 2 * len(rows) > len(values):
            total += column[:, None] * weight
        elif len(rows):
            total[rows] += column[rows, None] * weight
    total += bias
    return total


def _member(state: State, prefix: str) -> Scorer:
    own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    kind = _text(own, "kind")
    del own["kind"]
    return load(kind, own)


def _array(state: State, name: str) -> Array:
    value = state.get(name)
    if not isinstance(value, np.ndarray):
        raise InputError(f"no array {name!r}")
    return cast("Array", value)


def _text(state: State, name: str) -> str:
    value = state.get(name)
    if not isinstance(value, str):
        raise InputError(f"no text {name!r}")
    return value


def _places(state: State, name: str) -> Indexes:
    places = _array(state, name)
    if places.dtype.kind != "i":
        raise InputError(f"{name} is of {places.dtype}, not of whole numbers")
    return places.astype(np.int64)


def _single(state: State, name: str, kind: str) -> Array:
    value = _array(state, name)
    if value.shape or value.dtype.kind != kind:
        raise InputError(f"{name} has the shape {value.shape} of {value.dtype}")
    return value


def _check_numbers(name: str, array: NDArray[np.generic], shape: tuple[int, ...]) -> None:
    if array.dtype != np.float64 or array.shape != shape:
        raise InputError(f"{name} is {array.shape} of {array.dtype}, not {shape} of float64")
    if array.size and not (array.min() >= -MAX_NUMBER and array.max() <= MAX_NUMBER):  # also where one is not a number
        raise InputError(f"{name} holds a number that is not finite, or over {MAX_NUMBER:g}")


def _check_places(name: str, places: Indexes, shape: tuple[int, ...], end: int, *, low: int = 0) -> None:
    if places.shape != shape:
        raise InputError(f"{name} is {places.shape}, not {shape}")
    if places.size and not (places.min() >= low and places.max() < end):
        raise InputError(f"{name} names a column that is not there")
