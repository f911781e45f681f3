"""Sums of the listens in label windows, by user and genre and by user, in NumPy.

`expressions` defines the sums. An engine computes them with two hash tables that have nearly as many groups as there
are listens; one sort of integers costs a third of that, and gives the groups in order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from firstspin.data.labels.expressions import ROUNDED

Number = TypeVar("Number", bound=np.generic)

_BITS: Final = 64
_MIXERS: Final = tuple(map(np.uint64, (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9)))
"""Odd constants of xxHash: their products spread over all bits."""

_RANGE: Final = 2_000_000
"""Rows of users whose listens are sorted together."""

_BLOCK: Final = 100_000
"""Listens that are summed at once: for larger arrays the system clears new memory each time."""


class HeardListens(NamedTuple):
    """n listens of `expressions.in_windows`; arrays (n,).

    `rows` of the registrations, -1 for an unregistered user; numbers of the `stations`; starts (`started`,
    microseconds); `seconds`.
    """

    rows: NDArray[np.int32]
    stations: NDArray[np.int32]
    started: NDArray[np.int64]
    seconds: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Groups:
    """The groups of listens: `code_of_station` (s,) has the genre of each station, by its number; rows of users."""

    code_of_station: NDArray[np.uint64]
    max_row: int

    @property
    def genre_bits(self) -> int:
        """The bits of a code."""
        return int(self.code_of_station.max(initial=0)).bit_length()

    @property
    def row_bits(self) -> int:
        """The bits of a row."""
        return max(self.max_row.bit_length(), 1)

    @property
    def bits(self) -> int:
        """The bits of a group: of row and code."""
        return self.row_bits + self.genre_bits


@dataclass(frozen=True, slots=True)
class WindowListens:
    """l listens of registered users in their label windows.

    Arrays (l,): `keys`, with the group in the highest bits and below it a hash of the rest, so that exact copies have
    equal keys; numbers of the `stations`; starts (`started`, microseconds); `seconds`.
    """

    groups: Groups
    keys: NDArray[np.uint64]
    stations: NDArray[np.uint32]
    started: NDArray[np.int64]
    seconds: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Parts:
    """The columns of WindowListens, in parts."""

    keys: list[NDArray[np.uint64]] = field(default_factory=lambda: [np.zeros(0, np.uint64)])
    stations: list[NDArray[np.uint32]] = field(default_factory=lambda: [np.zeros(0, np.uint32)])
    started: list[NDArray[np.int64]] = field(default_factory=lambda: [np.zeros(0, np.int64)])
    seconds: list[NDArray[np.float64]] = field(default_factory=lambda: [np.zeros(0)])

    def whole(self, groups: Groups) -> WindowListens:
        """The listens of the parts, which are empty afterwards."""
        keys, stations = _joined(self.keys), _joined(self.stations)
        return WindowListens(groups, keys, stations, _joined(self.started), _joined(self.seconds))


@dataclass(frozen=True, slots=True)
class CollectedListens:
    """Listens of registered users in parts by ranges of rows, and the number of listens of unregistered users."""

    groups: Groups
    ranges: list[_Parts]
    unregistered: int


@dataclass(frozen=True, slots=True)
class GenreSums:
    """Sums of g pairs of user and genre, by row and then code; arrays (g,).

    `rows` of the registrations, `codes` of the genres, `seconds`, the number of listens `counted`, and of their copies.
    """

    rows: NDArray[np.int32]
    codes: NDArray[np.int32]
    seconds: NDArray[np.float64]
    counted: NDArray[np.int32]
    copies: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class UserSums:
    """Sums of u users who have any, by row; arrays (u,).

    `rows` of the registrations, the number of `genres`, `seconds` of all of them, code of the top genre (`tops`).
    """

    rows: NDArray[np.int32]
    genres: NDArray[np.int64]
    seconds: NDArray[np.float64]
    tops: NDArray[np.int32]


def collect(parts: Iterable[HeardListens], groups: Groups) -> CollectedListens:
    """The listens of all parts."""
    ranges = [_Parts() for _ in range(groups.max_row // _RANGE + 1)]
    unregistered = 0
    for heard in parts:
        stations = heard.stations.view(np.uint32)
        for number, of_range in enumerate(ranges):
            ours = (heard.rows >= number * _RANGE) & (heard.rows < (number + 1) * _RANGE)
            of_range.stations.append(stations[ours])
            of_range.started.append(heard.started[ours])
            of_range.seconds.append(heard.seconds[ours] + 0.0)  # -0.0 equals 0.0
            columns = (of_range.stations[-1], of_range.started[-1], of_range.seconds[-1])
            of_range.keys.append(_keys(groups, heard.rows[ours], *columns))
        unregistered += int(np.count_nonzero(heard.rows < 0))
    return CollectedListens(groups, ranges, unregistered)


def _keys(
    groups: Groups,
    rows: NDArray[np.int32],
    stations: NDArray[np.uint32],
    started: NDArray[np.int64],
    seconds: NDArray[np.float64],
) -> NDArray[np.uint64]:
    keys = started.view(np.uint64) * _MIXERS[0]
    keys ^= stations * _MIXERS[1]
    keys ^= seconds.view(np.uint64) * _MIXERS[2]
    keys ^= keys >> np.uint64(32)
    keys *= _MIXERS[0]
    keys >>= np.uint64(groups.bits)
    group = (rows.astype(np.uint64) << np.uint64(groups.genre_bits)) | groups.code_of_station[stations]
    keys |= group << np.uint64(_BITS - groups.bits)
    return keys


def _joined(parts: list[NDArray[Number]]) -> NDArray[Number]:
    """One array of the parts, which it empties: all columns twice would be the peak of the memory."""
    whole = np.concatenate(parts)
    parts.clear()
    return whole


def sums_by_genre(heard: CollectedListens) -> GenreSums:
    """The result of `expressions.seconds_by_genre` for registered users: each listen counts once.

    The listens are taken out range by range, so that their memory goes as that of the sums comes.
    """
    columns: tuple[list[NDArray[Any]], ...] = ([], [], [], [], [])
    while heard.ranges:
        listens = heard.ranges.pop(0).whole(heard.groups)
        for order, keys in _blocks(listens):
            for parts, part in zip(columns, _of_block(listens, order, keys), strict=True):
                parts.append(part)
    return GenreSums(*map(_joined, columns))


def _blocks(heard: WindowListens) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint64]]]:
    """The places of the listens in the order of their keys, and their keys, in blocks of whole users; at least one.

    The keys of the listens are overwritten.

    NumPy sorts integers five times as fast as it finds their order. So places replace the lowest bits, of the hash.
    """
    keys, of_places = heard.keys, np.uint64(len(heard.keys).bit_length())
    if heard.groups.bits + int(of_places) > _BITS:
        order = np.argsort(keys)
        yield order, keys[order]
        return
    mask = (np.uint64(1) << of_places) - np.uint64(1)
    for begin in range(0, len(keys), _BLOCK):
        part = keys[begin : begin + _BLOCK]
        part >>= of_places
        part <<= of_places
        part |= np.arange(begin, begin + len(part), dtype=np.uint64)
    keys.sort()
    of_row = np.uint64(_BITS - heard.groups.row_bits)
    next_rows = (keys[_BLOCK::_BLOCK] >> of_row) + np.uint64(1)
    next_rows = next_rows[next_rows <= heard.groups.max_row]
    ends = np.unique(np.searchsorted(keys, next_rows << of_row)).tolist()
    for begin, end in pairwise([0, *ends, len(keys)]):
        yield (keys[begin:end] & mask).view(np.int64), keys[begin:end] & ~mask


def _of_block(heard: WindowListens, order: NDArray[np.int64], keys: NDArray[np.uint64]) -> tuple[NDArray[Any], ...]:
    """The columns of GenreSums for some listens of whole users: their `order`, and their keys in it."""
    group = keys >> np.uint64(_BITS - heard.groups.bits)
    starts = _starts(group)
    seconds = heard.seconds[order]
    copied = _copies(heard, order, keys)
    seconds[copied] = 0.0
    copies = np.bincount(np.searchsorted(starts, copied, side="right") - 1, minlength=len(starts)).astype(np.int32)
    counted = np.diff(starts, append=len(group)).astype(np.int32) - copies
    group = group[starts]
    codes = (group & np.uint64((1 << heard.groups.genre_bits) - 1)).astype(np.int32)
    rows = (group >> np.uint64(heard.groups.genre_bits)).astype(np.int32)
    return rows, codes, _totals(seconds, starts), counted, copies


def _copies(heard: WindowListens, order: NDArray[np.int64], keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The positions in the order of the exact copies of earlier listens, ascending."""
    alike = keys[1:] == keys[:-1]
    suspects = np.flatnonzero(np.append(alike, False) | np.append(False, alike))
    places = order[suspects]
    of_row = np.uint64(_BITS - heard.groups.row_bits)
    columns: list[NDArray[Any]] = [
        heard.seconds[places],
        heard.started[places],
        heard.stations[places],
        keys[suspects] >> of_row,
    ]
    exact = np.lexsort(columns)
    same = np.logical_and.reduce([of[exact][1:] == of[exact][:-1] for of in columns])
    return np.sort(suspects[exact[1:][same]])


def sums_by_user(of: GenreSums) -> UserSums:
    """The sums of each user, and the genre with most seconds: the first one of a tie."""
    starts = _starts(of.rows)
    genres = np.diff(starts, append=len(of.rows))
    is_top = of.seconds == np.repeat(np.maximum.reduceat(of.seconds, starts), genres)
    tops = np.flatnonzero(is_top)
    tops = tops[_starts(of.rows[tops])]
    return UserSums(of.rows[starts], genres, _totals(of.seconds, starts), of.codes[tops])


def _totals(seconds: NDArray[np.float64], starts: NDArray[np.int64]) -> NDArray[np.float64]:
    """The sum of each slice, to the microsecond, half up, as in `expressions`."""
    with np.errstate(over="ignore"):  # then it is infinite
        sums = np.add.reduceat(seconds, starts)
    parts = np.flatnonzero((sums != np.floor(sums)) & (sums >= ROUNDED[0]) & (sums <= ROUNDED[1]))
    if len(parts):
        scaled = sums[parts] * 1e6
        whole = np.floor(scaled)
        sums[parts] = (whole + (scaled - whole >= 0.5)) / 1e6
    return sums


def _starts(groups: NDArray[np.integer]) -> NDArray[np.int64]:
    """The positions at which sorted values change, the first included."""
    return np.flatnonzero(np.concatenate([np.ones(min(len(groups), 1), np.bool_), groups[1:] != groups[:-1]]))
