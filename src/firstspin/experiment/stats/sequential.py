"""Looking every day without fooling oneself: how strict each look must be so that all together err as often as one.

Two rules. O'Brien-Fleming spending (Lan and DeMets, Biometrika 70, 1983) fixes the number of days beforehand and costs
next to no power. The asymptotic confidence sequence (Waudby-Smith and others, Annals of Statistics 52, 2024) allows any
number of looks, for ever, and costs a good deal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri, roots_legendre

Numbers = NDArray[np.float64]

_STRICTEST: Final = 37.0  # the largest z whose tail is a number yet
_WIDEST: Final = 8.0  # standard errors within which all paths run, to fifteen digits
_LEAST_GROWTH: Final = 1 / 400  # looks closer together are taken to be this far apart, which errs on the strict side


def spent(fraction: float, alpha: float) -> float:
    """How much of `alpha` may have been used up when this fraction of the planned days is over: little at first.

    Lan and DeMets' function for half of `alpha` on each side.
    """
    return 4 * float(ndtr(ndtri(alpha / 4) / math.sqrt(min(fraction, 1.0))))


def spending_alphas(fractions: Sequence[float], users: Sequence[float], alpha: float) -> list[float]:
    """The two-sided level of each look, so that alike arms ever differ significantly with probability `alpha`.

    `fractions` of the planned days over at each look (rising, above 0) say how much error may have been spent by then;
    `users` so far (rising, above 0) say how much of one look is already in the next.
    """
    walk, used, levels = _start(users), 0.0, []
    for fraction, n in zip(fractions, users, strict=True):
        bound = _bound(walk, n, spent(fraction, alpha) - used)
        walk, used = _step(walk, n, bound), spent(fraction, alpha)
        levels.append(2 * float(ndtr(-bound)))
    return levels


def crossing_probability(bounds: Sequence[float], users: Sequence[float], *, drift: float = 0.0) -> float:
    """The chance that |z| exceeds its bound at some look; `drift` is the mean of z at the last look."""
    walk = _start(users)
    for n, bound in zip(users, bounds, strict=True):
        walk = _step(walk, n, bound, drift / math.sqrt(users[-1]))
    return 1 - float(walk.mass.sum())


def always_valid_alpha(users: float, alpha: float, *, tuned_for: float) -> float:
    """The two-sided level of a look at so many users, so that looking for ever errs with probability `alpha`.

    `tuned_for` is the number of users at which the rule is sharpest, fixed beforehand (equation 24 of the paper).
    """
    rho2 = (-2 * math.log(alpha) + math.log(1 - 2 * math.log(alpha))) / tuned_for
    squared_z = 2 * (users * rho2 + 1) / (users * rho2) * math.log(math.sqrt(users * rho2 + 1) / alpha)
    return 2 * float(ndtr(-min(math.sqrt(squared_z), _STRICTEST)))


@dataclass(frozen=True, slots=True)
class _Walk:
    """Where the paths that never crossed are: score `at` (z times root of users) and how many, as shares of all."""

    users: float
    at: Numbers
    mass: Numbers
    nodes: int


def _start(users: Sequence[float]) -> _Walk:
    growth = [max(1 - before / n, _LEAST_GROWTH) for before, n in zip((0.0, *users), users, strict=False)]
    # Half a standard error of the smallest step between neighbours: Gauss's quadrature is then exact to many digits.
    needed = 4 * _WIDEST * math.pi / 2 / math.sqrt(min(growth))
    return _Walk(0.0, np.zeros(1), np.ones(1), 1 << math.ceil(math.log2(needed)))


def _spread(walk: _Walk, users: float) -> float:
    return math.sqrt(max(users - walk.users, users * _LEAST_GROWTH))


def _bound(walk: _Walk, users: float, share: float) -> float:
    """The z that this share of all paths crosses now, for the first time."""
    spread = _spread(walk, users)

    def excess(z: float) -> float:
        edge = z * math.sqrt(users)
        crossing = ndtr((walk.at - edge) / spread) + ndtr((-walk.at - edge) / spread)
        return float((walk.mass * crossing).sum()) - share

    return float(brentq(excess, 0.0, _STRICTEST, xtol=1e-10)) if excess(_STRICTEST) < 0 else _STRICTEST


def _step(walk: _Walk, users: float, bound: float, drift: float = 0.0) -> _Walk:
    """The paths still inside `bound` after this look; each user moves the score by `drift` on average."""
    spread, moved = _spread(walk, users), drift * (users - walk.users)
    nodes, weights = _quadrature(walk.nodes)
    middle, half = drift * users, _WIDEST * math.sqrt(users)
    low, high = max(-bound * math.sqrt(users), middle - half), min(bound * math.sqrt(users), middle + half)
    at = low + (high - low) * (nodes + 1) / 2
    distance = (at[:, None] - walk.at - moved) / spread
    density = (np.exp(-(distance**2) / 2) * walk.mass).sum(axis=1) / (spread * math.sqrt(2 * math.pi))
    return _Walk(users, at, density * weights * (high - low) / 2, walk.nodes)


@lru_cache(maxsize=4)
def _quadrature(nodes: int) -> tuple[Numbers, Numbers]:
    at, weights = roots_legendre(nodes)
    return np.asarray(at), np.asarray(weights)
