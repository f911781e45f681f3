"""The scorer in C (`_bitrows.c`): tables and rows, whole, damaged or of any other array."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from random_trees import random_model, rows_near

from firstspin.models.trees.bitrows import CompiledScorer, NumpyScorer, tables
from fuzz.inputs import Broken, Check, Input

NAMES = ("masks", "rows", "cuts", "starts", "leaves")
DTYPES = (
    "f8",
    "f4",
    "f2",
    "i8",
    "i4",
    "i2",
    "i1",
    "u8",
    "u4",
    "u2",
    "u1",
    "?",
    "c16",
    ">f8",
    ">u4",
    ">i8",
    "S8",
    "U2",
    "O",
    "M8[s]",
    "V8",
)
NUMBERS = (0, 1, -1, 2, 63, 64, 65, 2**31 - 1, -(2**31), 2**32 - 1, 2**40, 2**62, -(2**62), 2**63 - 1, -(2**63))
MODELS = 60
"""So many models are made; inputs share them."""


@contextmanager
def opened(folder: Path) -> Iterator[Check]:  # noqa: ARG001
    if CompiledScorer is None:
        raise RuntimeError("the scorer in C was not compiled")

    def check(made: Input) -> str:
        whole = _model(made.number(0, MODELS - 1))
        damaged = _damaged(made, whole)
        made.note("tables", damaged)
        scorer = _made(damaged)
        for _ in range(2):
            rows, out = _rows(made, whole), _out(made, whole)
            made.note("rows and out", (rows, out))
            scored = scorer is not None and _taken(scorer.scores, rows, out)
            if scored and damaged is whole and not _equal(out, _expected(whole, rows)):
                raise Broken("other scores than in numpy")
            of_masks, out = _of_masks(made, whole), _out(made, whole)
            made.note("masks, offsets, named and out", (*of_masks, out))
            scored = scorer is not None and _taken(scorer.scores_of, *of_masks, out)
            if scored and damaged is whole and not _equal(out, _expected_of(whole, *of_masks)):
                raise Broken("other scores of masks than in numpy")
        return "refused" if scorer is None else "whole" if damaged is whole else "taken"

    yield check


@cache
def _model(number: int) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(number)
    shape = {
        "n_scores": int(rng.choice([1, 2, 3, 25])),
        "n_rounds": int(rng.integers(1, 8)),
        "n_columns": int(rng.choice([1, 2, 9, 30])),
        "max_leaves": int(rng.choice([1, 2, 5, 31, 32, 33, 64])),
    }
    if number == 0:
        shape = {"n_scores": 2, "n_rounds": 600, "n_columns": 3, "max_leaves": 4}  # several tiles of trees
    text = random_model(rng, **shape, missing=[0, 1, 2])
    return tables(text)


def _made(arrays: dict[str, Any]) -> Any:
    """The scorer, or None where the tables are refused in one of the ways they may be."""
    try:
        scorer = CompiledScorer(**arrays)
    except (ValueError, TypeError, BufferError):
        return None
    for reborn in (copy.copy, pickle.dumps, type(scorer).__new__):
        try:
            reborn(scorer)  # type: ignore[operator]
        except TypeError:
            continue
        raise Broken("a scorer was made without tables")
    return scorer


def _taken(call: Callable[..., None], *arrays: object) -> bool:
    try:
        call(*arrays)
    except (ValueError, TypeError, BufferError):
        return False
    return True


def _expected(whole: dict[str, NDArray[Any]], rows: Any) -> NDArray[np.float64]:
    out = np.empty((len(rows), whole["leaves"].shape[1]))
    NumpyScorer(**whole).scores(np.asarray(rows), out)
    return out


def _expected_of(whole: dict[str, NDArray[Any]], masks: Any, offsets: Any, named: Any) -> NDArray[np.float64]:
    out = np.empty((len(offsets) - 1, whole["leaves"].shape[1]))
    NumpyScorer(**whole).scores_of(np.asarray(masks), np.asarray(offsets), np.asarray(named), out)
    return out


def _equal(one: Any, other: NDArray[np.float64]) -> bool:
    return np.asarray(one).tobytes() == other.tobytes()


def _damaged(made: Input, whole: dict[str, NDArray[Any]]) -> dict[str, Any]:
    if made.chance(0.3):
        return whole
    arrays: dict[str, Any] = {name: array.copy() for name, array in whole.items()}
    for _ in range(made.number(1, 2)):
        name = made.pick(NAMES)
        if isinstance(arrays[name], np.ndarray):
            arrays[name] = changed(made, arrays[name])
    if made.chance(0.05):
        arrays.pop(made.pick(NAMES))
    if made.chance(0.05):
        arrays[made.pick(("more", *NAMES))] = odd(made)
    return arrays


def changed(made: Input, array: NDArray[Any]) -> Any:
    """The array with other values, another shape, type or layout."""
    kind = made.number(0, 9 if array.ndim else 5)
    if kind < 4 and array.size:
        with np.errstate(all="ignore"):
            flat = array.reshape(-1)
            for _ in range(made.number(1, 4)):
                at = made.number(0, array.size - 1)
                flat[at] = _number(made, array.dtype, flat[at])
        return array
    if kind == 4:
        return _cut(made, array)
    if kind == 5:
        with np.errstate(all="ignore"):
            return _cast(array, made.pick(DTYPES))
    if kind == 6:
        return made.pick(
            (np.asfortranarray, np.transpose, np.ravel, np.ascontiguousarray, lambda a: a[::-1], lambda a: a[..., ::2])
        )(array)
    if kind == 7:
        return array.reshape(made.pick(((-1, 1), (1, -1), (-1,), (1, 1, -1), (1, *array.shape), (*array.shape, 1))))
    if kind == 8:
        shape = [made.pick((0, 1, 2, 65)) for _ in range(made.number(0, 4))]
        return np.zeros(shape, array.dtype)
    return _unaligned(array)


def _number(made: Input, dtype: np.dtype[Any], before: Any) -> Any:
    if dtype.kind == "f":
        return made.pick((np.nan, np.inf, -np.inf, 0.0, -0.0, 1e308, 5e-324, float(made.number(-3, 99))))
    if dtype.kind not in "iu":
        return before
    value = made.pick(NUMBERS) if made.chance(0.5) else int(before) + made.number(-3, 3)
    limits = np.iinfo(dtype)
    return min(max(value, limits.min), limits.max)


def _cut(made: Input, array: NDArray[Any]) -> NDArray[Any]:
    """Fewer of something, or more."""
    if not array.ndim:
        return array
    axis = made.number(0, array.ndim - 1)
    if made.chance(0.5):
        return np.ascontiguousarray(np.take(array, range(made.number(0, array.shape[axis])), axis))
    return np.repeat(array, made.pick((0, 2, 3)), axis)


def _cast(array: NDArray[Any], dtype: str) -> NDArray[Any]:
    try:
        return array.astype(dtype)
    except (TypeError, ValueError, OverflowError):
        return np.zeros(array.shape, dtype)


def _unaligned(array: NDArray[Any]) -> NDArray[Any]:
    room = np.zeros(array.nbytes + 1, np.uint8)[1:]
    if array.dtype.hasobject or not array.nbytes:
        return array
    return np.frombuffer(room, array.dtype).reshape(array.shape)


def odd(made: Input) -> object:
    """What is no such array at all."""
    return made.pick(
        (
            None,
            "x",
            b"12345678",
            bytearray(16),
            5,
            [],
            [1.0],
            memoryview(b"12345678"),
            np.float64(1.0),
            np.zeros(()),
            object(),
        )
    )


def _rows(made: Input, whole: dict[str, NDArray[Any]]) -> Any:
    if made.chance(0.03):
        return odd(made)
    n = made.pick((0, 1, 1, 2, 8, 9, 31, 33, 70))
    rng = np.random.default_rng(made.number(0, 2**32))
    rows = rows_near(rng, whole["cuts"], n, len(whole["starts"]) - 1)
    return changed(made, rows) if made.chance(0.15) else rows


def _of_masks(made: Input, whole: dict[str, NDArray[Any]]) -> tuple[Any, Any, Any]:
    """Masks, offsets and names of rows of them, as `scores_of` takes them, or one of them changed."""
    rng = np.random.default_rng(made.number(0, 2**32))
    masks, t = whole["masks"], whole["masks"].shape[1]
    masks = rng.integers(np.iinfo(masks.dtype).max, size=(made.number(1, 9), t), dtype=masks.dtype, endpoint=True)
    lengths = rng.integers(0, 12, size=made.pick((0, 1, 1, 2, 8, 9, 31, 33, 70)))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    arrays = [masks, offsets, rng.integers(len(masks), size=offsets[-1], dtype=np.int32)]
    if made.chance(0.3):
        at = made.number(0, 2)
        arrays[at] = changed(made, arrays[at])
    if made.chance(0.03):
        arrays[made.number(0, 2)] = odd(made)  # type: ignore[call-overload]
    return arrays[0], arrays[1], arrays[2]


def _out(made: Input, whole: dict[str, NDArray[Any]]) -> Any:
    if made.chance(0.03):
        return odd(made)
    out = np.full((made.pick((0, 1, 1, 2, 8, 9, 31, 33, 70)), whole["leaves"].shape[1]), np.nan)
    out.flags.writeable = made.chance(0.95)
    return changed(made, out.copy()) if made.chance(0.15) else out
