"""The label windows in C (`_windows.c`): ids, times and tables, whole, damaged or of any other array."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from firstspin.data.labels.windows import CompiledWindows
from fuzz.inputs import Broken, Check, Input
from fuzz.scorer import changed, odd

TIMES = (0, 1, -1, 5, 2**63 - 1, -(2**63), 2**62)
LENGTHS = (0, 1, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 200)
KEYS = (bytes(32), bytes(range(32)), b"\xff" * 32)


@contextmanager
def opened(folder: Path) -> Iterator[Check]:  # noqa: ARG001
    if CompiledWindows is None:
        raise RuntimeError("the label windows in C were not compiled")

    def check(made: Input) -> str:
        people = _people(made)
        ids = [*people, *(_id(made) for _ in range(made.number(0, 5)))]
        parts, whole = _parts(made, people)
        made.note("parts", parts)
        try:
            table = CompiledWindows(made.pick(KEYS), parts)
        except (ValueError, TypeError, BufferError):
            if whole:
                raise
            return "refused"
        for _ in range(2):
            _look_up(made, table, people if whole else None, [made.pick(ids or [b""]) for _ in range(_number(made))])
        return "whole" if whole else "taken"

    yield check


def _number(made: Input) -> int:
    return made.pick((0, 1, 2, 127, 128, 129, 300))


def _id(made: Input) -> bytes:
    of = made.pick((b"a", b"\0", b"ab"))
    return (of * made.pick(LENGTHS))[: made.pick(LENGTHS)]


def _people(made: Input) -> dict[bytes, tuple[int, int]]:
    """Ids with their row and opening."""
    people = {_id(made) + str(i).encode() * made.number(0, 1): (i, made.pick(TIMES)) for i in range(_number(made))}
    return people if made.chance(0.9) else {}


def _texts(made: Input, ids: list[bytes]) -> tuple[Any, Any]:
    """Offsets and text; some bytes before the first."""
    before = made.number(0, 2)
    offsets = before + np.concatenate([[0], np.cumsum([len(id_) for id_ in ids])])
    text = np.frombuffer(bytes(before) + b"".join(ids), np.uint8).copy()  # with nothing after it, unlike `bytes`
    return offsets.astype(made.pick((np.int32, np.int64))), text


def _damaged(made: Input, arrays: list[Any], chance: float) -> bool:
    """Whether the arrays are as they were, and not one of them another."""
    if not made.chance(chance):
        return True
    at = made.number(0, len(arrays) - 1)
    if isinstance(arrays[at], np.ndarray) and made.chance(0.8):
        arrays[at] = changed(made, arrays[at])
    else:
        arrays[at] = odd(made)
    return False


def _parts(made: Input, people: dict[bytes, tuple[int, int]]) -> tuple[Any, bool]:
    """The parts of a table, and whether they are whole."""
    cut = made.number(0, len(people))
    parts, whole = [], True
    for ids in (list(people)[:cut], list(people)[cut:]):
        numbers = np.array([people[id_] for id_ in ids], np.int64).reshape(-1, 2)
        arrays = [*_texts(made, ids), numbers[:, 0].astype(np.int32), numbers[:, 1].copy()]
        whole &= _damaged(made, arrays, 0.15)
        parts.append(tuple(arrays))
    if made.chance(0.03):
        return made.pick((list(parts), (*parts, parts[0]), parts[0], None, (None,), ((),))), False
    return tuple(parts), whole


def _look_up(made: Input, table: Any, people: dict[bytes, tuple[int, int]] | None, ids: list[bytes]) -> None:
    """Look ids up in both ways; the listens found are those that a dict of the `people` has."""
    started = np.array([made.pick(TIMES) for _ in ids], np.int64)
    window = made.pick((0, 1, 6, 2**63 - 1))
    places, rows = np.full(len(ids), -7, np.int32), np.full(len(ids), -7, np.int32)
    arrays = [*_texts(made, ids), started, window, places, rows]
    whole = _damaged(made, arrays, 0.3)
    made.note("listens", arrays)
    try:
        n = table.inside(*arrays)
    except (ValueError, TypeError, BufferError, OverflowError):
        if whole:
            raise
        return
    if whole and people is not None:
        found = list(zip(places[:n].tolist(), rows[:n].tolist(), strict=True))
        of = [people.get(id_, (-1, at)) for id_, at in zip(ids, started.tolist(), strict=True)]
        expected = [
            (place, row)
            for place, ((row, opens), at) in enumerate(zip(of, started.tolist(), strict=True))
            if row < 0 or opens <= at < opens + window
        ]
        if found != expected:
            raise Broken(f"{found} in windows, where {expected} are")
    some = places[:n].copy()
    arrays = [*arrays[:2], some, np.empty(n, np.int32)]
    whole &= _damaged(made, arrays, 0.3)
    try:
        table.rows(*arrays)
    except (ValueError, TypeError, BufferError):
        if whole:
            raise
        return
    if whole and people is not None and arrays[3].tolist() != [people.get(ids[i], (-1, 0))[0] for i in some]:
        raise Broken(f"other rows: {arrays[3]}")
