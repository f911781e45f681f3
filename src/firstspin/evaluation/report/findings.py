"""What may be stated of several groups at once: simultaneous intervals, ties, and a min group size.

Of many groups one is far from the rest by chance. So a title names a group only where it has `MIN_NAMED` users and its
simultaneous interval excludes zero, and names all groups that share the largest value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

from firstspin.evaluation.bootstrap import Figure

Array = NDArray[np.float64]

MIN_NAMED: Final = 50
"""Users of the smallest group that a title or a sentence names."""
LEVEL: Final = 0.95
SIMULTANEOUS: Final = "simultaneous 95% intervals (Bonferroni)"


def simultaneous(figures: Sequence[Figure]) -> list[Figure]:
    """The figures with intervals that hold together: all contain their true value with a probability of 95%."""
    return [among(figure, len(figures)) for figure in figures]


def among(figure: Figure, comparisons: int) -> Figure:
    """A figure chosen among several, with an interval that allows for the choice.

    Bonferroni's correction: the 95% interval is widened by the ratio of the two normal quantiles (Dunn, Multiple
    comparisons among means, JASA 56, 1961).
    """
    factor = _z(LEVEL, comparisons) / _z(LEVEL)
    low, high = figure.value - figure.low, figure.high - figure.value
    return Figure(figure.value, figure.value - low * factor, figure.value + high * factor)


def is_clear(figure: Figure) -> bool:
    """Whether the interval excludes zero."""
    return figure.low > 0 or figure.high < 0


def difference(those: Array, others: Array) -> Figure:
    """Mean of `those` (n,) minus mean of `others` (m,), with a normal 95% interval of the pooled variance.

    Pooled, since a small group in which nobody played a rare genre has no variance of its own.
    """
    value = float(those.mean() - others.mean())
    variance = float(np.concatenate([those, others]).var(ddof=1))
    half = _z(LEVEL) * float(np.sqrt(variance * (1 / len(those) + 1 / len(others))))
    return Figure(value, value - half, value + half)


def apart(a: Figure, b: Figure) -> Figure:
    """The difference of two figures of different users, whose intervals are independent."""
    value = a.value - b.value
    low, high = np.hypot(a.value - a.low, b.high - b.value), np.hypot(a.high - a.value, b.value - b.low)
    return Figure(value, value - float(low), value + float(high))


def leaders(values: Mapping[str, float], digits: int) -> list[str]:
    """The names with the largest value: several where they are equal to `digits` decimals.

    >>> leaders({"a": 1.0, "b": 2.04, "c": 2.02}, 1)
    ['b', 'c']
    """
    shown = {name: round(value, digits) for name, value in values.items()}
    return [name for name, value in shown.items() if value == max(shown.values())]


def listed(names: Sequence[str], limit: int = 3) -> str:
    """Names in a sentence.

    >>> listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c", "d", "e"])
    ('a', 'a and b', 'a, b, c and 2 more')
    """
    if len(names) > limit:
        return f"{', '.join(names[:limit])} and {len(names) - limit} more"
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else "".join(names)


def _z(level: float, comparisons: int = 1) -> float:
    return NormalDist().inv_cdf(1 - (1 - level) / 2 / max(comparisons, 1))
