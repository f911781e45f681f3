"""Several arms against one control: Holm's correction (Scandinavian Journal of Statistics 6, 1979)."""

from __future__ import annotations

from collections.abc import Sequence


def holm_p_values(p_values: Sequence[float]) -> list[float]:
    """Each p as corrected: at most `alpha` exactly where Holm's procedure at `alpha` rejects."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(_smallest_first(p_values)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def holm_levels(p_values: Sequence[float], alpha: float) -> list[float]:
    """The level at which Holm's procedure decides each p: its step's, or that of the first step that failed.

    An interval at this level leaves out "no difference" exactly where the procedure rejects.
    """
    levels, failed_at = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(_smallest_first(p_values)):
        level = failed_at or alpha / (len(p_values) - rank)
        levels[i] = level
        if p_values[i] > level:
            failed_at = level
    return levels


def _smallest_first(p_values: Sequence[float]) -> list[int]:
    return sorted(range(len(p_values)), key=lambda i: p_values[i])
