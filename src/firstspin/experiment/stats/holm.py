"""Holm's correction for all pairs of several arms (Scandinavian Journal of Statistics 6, 1979)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Final

MAX_PAIRED: Final = 10
"""Up to this number of arms all pairs are compared, above it each arm with the control only."""


def pairs(arms: Sequence[str]) -> list[tuple[str, str]]:
    """The comparisons that share the error, those with the control, which is the first of the arms, before the others.

    >>> pairs(["control", "blue", "green"])
    [('control', 'blue'), ('control', 'green'), ('blue', 'green')]
    """
    return list(combinations(arms, 2)) if len(arms) <= MAX_PAIRED else [(arms[0], arm) for arm in arms[1:]]


def holm_p_values(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (1979): at most `alpha` exactly where his procedure at `alpha` rejects."""
    adjusted, running_max = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(_ascending(p_values)):
        running_max = max(running_max, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = running_max
    return adjusted


def holm_levels(p_values: Sequence[float], alpha: float) -> list[float]:
    """The level at which Holm's procedure (1979) tests each p: that of its step, or of the first step that failed.

    A confidence interval at this level excludes "no difference" exactly where the procedure rejects.
    """
    levels, failed_at = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(_ascending(p_values)):
        level = failed_at or alpha / (len(p_values) - rank)
        levels[i] = level
        if p_values[i] > level:
            failed_at = level
    return levels


def _ascending(p_values: Sequence[float]) -> list[int]:
    return sorted(range(len(p_values)), key=lambda i: p_values[i])
