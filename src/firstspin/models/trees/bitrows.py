"""Bit rows: the raw scores of a LightGBM model, to the last bit, without LightGBM and many times faster.

After QuickScorer (Lucchese et al., SIGIR 2015), fully tabulated. The leaves of a tree are numbered from left to right,
a bit each. Where a row turns right, the leaves below the left child are out of reach; of those still open after all
right turns, the lowest is where the row ends. For every interval between a column's thresholds the turns in all trees
are computed beforehand: they are one row of masks. So scoring is the AND of the few rows of masks that the values of a
registration select, the lowest bit per tree, and a sum of leaf values in LightGBM's own order. A value that never turns
right (an absent flag, most often) costs nothing.

Scoring needs numpy alone; `_bitrows.c` does the same steps where it was compiled at install.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from firstspin.models.compiled import CompiledScorer
from firstspin.models.trees.lightgbm_text import MISSING_NAN, MISSING_ZERO, ParsedTrees, read_trees
from firstspin.records import InputError

Masks = NDArray[np.unsignedinteger]
Tables = dict[str, NDArray[np.generic]]
Engine = Literal["auto", "c", "numpy"]

MAX_LEAVES: Final = 64
MAX_CELLS: Final = 2**28  # masks in the tables: 1 GiB, a hundred times the need of registrations
NEAR_ZERO: Final = float(np.float32(1e-35))  # LightGBM takes what is not larger for 0,
BELOW_ZERO: Final = float(np.nextafter(-NEAR_ZERO, -1.0))  # and so this for the next number below it


def tables(model_text: str) -> Tables:
    """The tables that score a model of t trees, c columns, k scores and at most m ≤ 64 leaves per tree.

    `cuts` holds each column's thresholds, sorted; column j's are cuts[starts[j]:starts[j+1]] (`starts` is (c+1,)).
    `rows` names, column by column, the row of `masks` for each interval between the cuts (a cut belongs to the interval
    below it) and last for NaN; -1 where nothing is masked. `masks` (r, t) is uint32, or uint64 where a tree has more
    than 32 leaves; equal rows are stored once. `leaves` (t/k, k, m) are the leaf values from left to right.

    Raises InputError where the text is not such a model, or the model is too large to be tabulated.
    """
    trees = read_trees(model_text)
    t, m = trees.leaf_values.shape
    if m > MAX_LEAVES:
        raise InputError(f"model text: a tree has {m} leaves; bit rows take at most {MAX_LEAVES}")
    masks, leaves = _left_to_right(trees)
    splits = [_splits_on(column, trees, masks) for column in range(trees.n_columns)]
    cuts = [_cuts(split) for split in splits]
    starts = np.cumsum([0, *map(len, cuts)], dtype=np.int64)
    if t * (starts[-1] + 2 * trees.n_columns) > MAX_CELLS:
        raise InputError(f"model text: {starts[-1]} thresholds in {t} trees are too many for bit rows")
    distinct, rows = _shared(masks.dtype, t, (_masked(*column, t) for column in zip(splits, cuts, strict=True)))
    return {
        "masks": distinct,
        "rows": rows,
        "cuts": np.concatenate(cuts),
        "starts": starts,
        "leaves": leaves.reshape(-1, trees.n_scores, m),
    }


def _left_to_right(trees: ParsedTrees) -> tuple[Masks, NDArray[np.float64]]:
    """The mask (t, m-1) of a right turn at each node: all bits but those below its left child; and the leaf values.

    Inside, node j and leaf v have the places m + j and m - 1 - v, so that a link + m finds either.
    """
    t, m = trees.leaf_values.shape
    every = np.arange(t)
    size = np.ones((t, 2 * m - 1), np.int64)  # leaves at or below
    for j in reversed(range(m - 1)):
        size[:, m + j] = size[every, trees.left[:, j] + m] + size[every, trees.right[:, j] + m]
    first = np.zeros((t, 2 * m - 1), np.int64)  # the leftmost of them
    for j in range(m - 1):
        at = np.flatnonzero(trees.n_leaves > j + 1)
        left, right = trees.left[at, j] + m, trees.right[at, j] + m
        first[at, left] = first[at, m + j]
        first[at, right] = first[at, m + j] + size[at, left]
    leaves = np.zeros((t, m))
    tree, leaf = np.nonzero(np.arange(m) < trees.n_leaves[:, None])
    leaves[tree, first[tree, m - 1 - leaf]] = trees.leaf_values[tree, leaf]
    leaves += 0.0  # no -0.0: LightGBM's sums start from 0.0, those in numpy with the first leaf
    word = np.uint32 if m <= 32 else np.uint64
    below_left = size[every[:, None], trees.left + m].clip(max=m - 1).astype(word)
    return ~(((word(1) << below_left) - word(1)) << first[:, m:].astype(word)), leaves


@dataclass(frozen=True, slots=True)
class _Splits:
    """The n nodes that split on one column; every array is (n,), `masks` those of a right turn."""

    trees: NDArray[np.intp]
    thresholds: NDArray[np.float64]
    missing: NDArray[np.int64]
    default_left: NDArray[np.bool_]
    masks: Masks


def _splits_on(column: int, trees: ParsedTrees, masks: Masks) -> _Splits:
    here = trees.nodes & (trees.columns == column)
    return _Splits(
        trees=np.nonzero(here)[0],
        thresholds=_apart_from_zero(trees.thresholds[here]),
        missing=trees.missing[here],
        default_left=trees.default_left[here],
        masks=masks[here],
    )


def _apart_from_zero(thresholds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Thresholds that split raw values as LightGBM does, which first rounds the smallest values to 0."""
    near = np.where(thresholds < 0, BELOW_ZERO, NEAR_ZERO)
    return np.where(np.abs(thresholds) <= NEAR_ZERO, near, thresholds)


def _cuts(splits: _Splits) -> NDArray[np.float64]:
    """The sorted thresholds of a column; where zero counts as missing, cuts on both sides give it an interval alone."""
    around_zero = [BELOW_ZERO, NEAR_ZERO] if (splits.missing == MISSING_ZERO).any() else []
    return np.unique(np.concatenate([splits.thresholds, around_zero]))


def _masked(splits: _Splits, cuts: NDArray[np.float64], t: int) -> Masks:
    """The masks (len(cuts) + 2, t) of a column's intervals, and of NaN last.

    LightGBM: a value goes left where it is at most the threshold, NaN counting as 0; but zeros and NaN, or NaN alone,
    go to the default side where the node says that they are what is missing.
    """
    table = np.full((len(cuts) + 2, t), -1, np.int64).astype(splits.masks.dtype)
    at = np.searchsorted(cuts, splits.thresholds)
    zero = np.searchsorted(cuts, 0.0)
    zero_right = np.where(splits.missing == MISSING_ZERO, ~splits.default_left, zero > at)
    nan_right = np.where(splits.missing == MISSING_NAN, ~splits.default_left, zero_right)
    np.bitwise_and.at(table, (at + 1, splits.trees), splits.masks)
    np.bitwise_and.accumulate(table[:-1], axis=0, out=table[:-1])
    for row, right in ((zero, zero_right), (len(cuts) + 1, nan_right)):
        table[row] = ~table.dtype.type(0)
        np.bitwise_and.at(table[row], splits.trees[right], splits.masks[right])
    return table


def _shared(word: np.dtype[np.unsignedinteger], t: int, columns: Iterable[Masks]) -> tuple[Masks, NDArray[np.int32]]:
    """The distinct rows of masks (r, t) among all columns, and which of them each row was; -1: it masks nothing."""
    seen = {np.full(t, ~word.type(0)).tobytes(): -1}
    rows = [seen.setdefault(row.tobytes(), len(seen) - 1) for table in columns for row in table]
    distinct = np.frombuffer(b"".join(list(seen)[1:]), word).reshape(-1, t)
    return distinct, np.array(rows, np.int32)


class BitRows:
    """A scorer over the arrays of `tables`, such as `masks` (r, t), which may be read-only memory maps.

    `engine` "c" is the compiled scorer, "numpy" the other; "auto" is "c" where it was built. Both give the same bits.
    Raises InputError where "c" was not built, or the arrays are not such tables.
    """

    def __init__(self, tables: Mapping[str, NDArray[np.generic]], engine: Engine = "auto") -> None:
        self._arrays = arrays = _checked(tables)
        if engine == "c" and CompiledScorer is None:
            raise InputError("bit rows: engine 'c' was not compiled at install; 'numpy' needs no compiler")
        self.engine: Engine = "numpy" if CompiledScorer is None or engine == "numpy" else "c"
        self._scorer = (NumpyScorer if self.engine == "numpy" else CompiledScorer)(**arrays)
        self._n_scores = arrays["leaves"].shape[1]

    def scores(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Raw scores (n, k) of rows (n, c), equal to the last bit to LightGBM's `predict(rows, raw_score=True)`.

        As there, the scores of a random forest (boosting rf) are sums, though its probabilities come from the mean.
        """
        rows = np.ascontiguousarray(rows, np.float64)
        out = np.empty((len(rows), self._n_scores))
        self._scorer.scores(rows, out)
        return out

    def masks_of(self, columns: NDArray[np.int64], values: NDArray[np.float64]) -> Masks:
        """What values (v, m) of these columns (m,) mask in all trees: the AND (v, t) of the rows that they select."""
        masks, rows, cuts, starts, _ = self._arrays.values()
        merged = np.full((len(values), masks.shape[1]), ~masks.dtype.type(0))
        for column, of_column in zip(columns.tolist(), values.T, strict=True):
            start, end = starts[column], starts[column + 1]
            below = np.searchsorted(cuts[start:end], of_column)
            selected = rows[start + 2 * column + np.where(np.isnan(of_column), end - start + 1, below)]
            merged[selected >= 0] &= masks[selected[selected >= 0]]
        return merged

    def scores_of(self, masks: Masks, offsets: NDArray[np.int64], named: NDArray[np.int32]) -> NDArray[np.float64]:
        """`scores` (n, k) of n rows that are rows of masks (r, t), as `masks_of` gives them.

        `named` (p,) has their positions in `masks`: those of row i are named[offsets[i]:offsets[i + 1]].
        """
        out = np.empty((len(offsets) - 1, self._n_scores))
        self._scorer.scores_of(masks, offsets, named, out)
        return out


_SHAPES: Final = {"masks": 2, "rows": 1, "cuts": 1, "starts": 1, "leaves": 3}
_TYPES: Final = {"masks": ("uint32", "uint64"), "rows": ("int32",), "starts": ("int64",)}


def _checked(tables: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[Any]]:
    """The arrays by name, as plain arrays. Raises InputError unless every index in them lies in its array."""
    for name, dimensions in _SHAPES.items():
        if name not in tables:
            raise InputError(f"bit rows: no array {name}")
        if tables[name].ndim != dimensions or str(tables[name].dtype) not in _TYPES.get(name, ("float64",)):
            raise InputError(f"bit rows: {name} is a {tables[name].ndim}-dimensional array of {tables[name].dtype}")
    arrays = {name: np.ascontiguousarray(tables[name]) for name in _SHAPES}
    masks, rows, cuts, starts, leaves = arrays.values()
    if len(starts) < 2 or starts[0] != 0 or starts[-1] != len(cuts) or (np.diff(starts) < 0).any():
        raise InputError("bit rows: starts must rise from 0 to the number of cuts")
    if len(rows) != len(cuts) + 2 * (len(starts) - 1) or rows.min() < -1 or rows.max() >= len(masks):
        raise InputError("bit rows: rows must name a row of masks for every interval and for NaN, or -1")
    rises = cuts[1:] > cuts[:-1]
    rises[starts[(starts > 0) & (starts < len(cuts))] - 1] = True  # from one column to the next
    if np.isnan(cuts).any() or not rises.all():
        raise InputError("bit rows: the cuts of a column must rise")
    if 0 in leaves.shape or leaves.shape[2] > 8 * masks.itemsize or masks.shape[1] != leaves.shape[0] * leaves.shape[1]:
        raise InputError("bit rows: masks and leaves must be of the same trees")
    return arrays


class NumpyScorer:
    """The steps of `_bitrows.c` in numpy, for installs without a compiler; same arguments, same bits.

    The arrays are those of `tables`: `masks` (r, t), `rows`, `cuts`, `starts` (c + 1,), `leaves` (t/k, k, m).
    """

    def __init__(
        self,
        masks: Masks,
        rows: NDArray[np.int32],
        cuts: NDArray[np.float64],
        starts: NDArray[np.int64],
        leaves: NDArray[np.float64],
    ) -> None:
        n_cuts = np.diff(starts)
        self._masks, self._rows, self._leaves = masks, rows, leaves
        self._n_columns = len(n_cuts)
        # one more cut a column, at infinity: whatever is not NaN is at most that
        self._cuts = np.insert(cuts, starts[1:], np.inf)
        self._column_of_cut = np.repeat(np.arange(len(n_cuts)), n_cuts + 1)
        self._starts = starts[:-1] + np.arange(len(n_cuts))
        self._of_nan = starts[1:] + 2 * np.arange(len(n_cuts)) + 1
        self._one = masks.dtype.type(1)
        # ends every search for the lowest bit inside the tree's own leaves, whatever the masks hold
        self._guard = self._one << masks.dtype.type(leaves.shape[2] - 1)
        self._before = np.arange(masks.shape[1]) * leaves.shape[2] - 1

    def scores(self, rows: NDArray[np.float64], out: NDArray[np.float64]) -> None:
        """Write the raw scores (n, k) of rows (n, c) into `out`. Raises ValueError where the shapes differ."""
        if rows.shape[1:] != (self._n_columns,) or out.shape != (len(rows), self._leaves.shape[1]):
            raise ValueError(f"rows {rows.shape} and scores {out.shape} do not fit the model")
        for row, scores in zip(rows, out, strict=True):
            self._score(row, scores)

    def scores_of(
        self, masks: Masks, offsets: NDArray[np.int64], named: NDArray[np.int32], out: NDArray[np.float64]
    ) -> None:
        """Write the raw scores (n, k) of n rows, which are named rows of masks (r, t), into `out`."""
        for start, end, scores in zip(offsets[:-1].tolist(), offsets[1:].tolist(), out, strict=True):
            self._add(masks.take(named[start:end], axis=0), scores)

    def _score(self, row: NDArray[np.float64], scores: NDArray[np.float64]) -> None:
        n_at_or_above = np.add.reduceat(row[self._column_of_cut] <= self._cuts, self._starts, dtype=np.int64)
        picked = self._rows[self._of_nan - n_at_or_above]
        self._add(self._masks.take(picked[picked >= 0], axis=0), scores)

    def _add(self, masks: Masks, scores: NDArray[np.float64]) -> None:
        """Write the scores (k,) of a row that selects these rows of masks (r, t)."""
        open_leaves = np.bitwise_and.reduce(masks, axis=0) | self._guard
        lowest = np.bitwise_count(open_leaves ^ (open_leaves - self._one))  # counted from 1
        rounds = self._leaves.take(self._before + lowest).reshape(-1, len(scores))
        if len(scores) > 1:
            np.add.reduce(rounds, axis=0, out=scores)  # across the rows of a matrix numpy adds one after the other,
        else:
            scores[:] = np.add.accumulate(rounds)[-1]  # along its memory in pairs
