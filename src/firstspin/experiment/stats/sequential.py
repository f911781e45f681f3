"""Sequential testing: the level of each interim analysis at which the family-wise error stays at `alpha`.

Two rules for two-sided tests. O'Brien-Fleming spending (Lan and DeMets, Biometrika 70, 1983) needs a fixed number of
days and costs hardly any power. The asymptotic confidence sequence (always-valid inference; Waudby-Smith and others,
Annals of Statistics 52, 2024) allows any number of interim analyses without an end, and costs considerable power. For
one-sided tests there is an e-process (`one_sided_log_e`), which is always valid too.
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
from scipy.special import log_ndtr, ndtr, ndtri, roots_legendre

Numbers = NDArray[np.float64]

_MAX_Z: Final = 37.0  # the largest z whose tail probability is above 0 in double precision
_MAX_SPREAD: Final = 8.0  # standard errors that contain all paths, to fifteen digits
_BLOCKS: Final = 16  # of neighbouring scores; many analyses make short steps, and most of a block's sources are too far
_MIN_GROWTH: Final = 1 / 400  # analyses closer together count as this far apart, which is conservative


def spent(fraction: float, alpha: float) -> float:
    """Alpha-spending function: how much of `alpha` may be spent at this fraction of the planned days.

    Lan and DeMets' O'Brien-Fleming-type function (Biometrika 70, 1983) with half of `alpha` on each side.
    """
    return 4 * float(ndtr(ndtri(alpha / 4) / math.sqrt(min(fraction, 1.0))))


def spending_alphas(fractions: Sequence[float], users: Sequence[float], alpha: float) -> list[float]:
    """Two-sided level of each interim analysis under O'Brien-Fleming spending (Lan and DeMets, Biometrika 70, 1983).

    With equal arms, any analysis is significant with probability `alpha`. `fractions` of the planned days (rising,
    above 0) set the error spent so far; `users` so far (rising, above 0) set the correlation between analyses.
    """
    walk, used, levels = _start(users), 0.0, []
    for fraction, n in zip(fractions, users, strict=True):
        bound = _bound(walk, n, spent(fraction, alpha) - used)
        walk, used = _step(walk, n, bound), spent(fraction, alpha)
        levels.append(2 * float(ndtr(-bound)))
    return levels


def crossing_probability(bounds: Sequence[float], users: Sequence[float], *, drift: float = 0.0) -> float:
    """The probability that |z| exceeds its bound at any interim analysis; `drift` is the mean of z at the last one.

    Computed by recursive numerical integration (Armitage, McPherson and Rowe, JRSS A 132, 1969).
    """
    walk = _start(users)
    for n, bound in zip(users, bounds, strict=True):
        walk = _step(walk, n, bound, drift / math.sqrt(users[-1]))
    return 1 - float(walk.mass.sum())


def always_valid_alpha(users: float, alpha: float, *, tuned_for: float) -> float:
    """Two-sided level of an always-valid analysis at `users` users, with total error `alpha` over unlimited analyses.

    The level is that of the asymptotic confidence sequence of Waudby-Smith and others (Annals of Statistics 52, 2024).
    `tuned_for` is the number of users at which the sequence is narrowest, fixed beforehand (their equation 24).
    """
    rho2 = _mixture_variance(alpha, tuned_for)
    squared_z = 2 * (users * rho2 + 1) / (users * rho2) * math.log(math.sqrt(users * rho2 + 1) / alpha)
    return 2 * float(ndtr(-min(math.sqrt(squared_z), _MAX_Z)))


def one_sided_log_e(z: Numbers, users: Numbers, alpha: float, *, tuned_for: float) -> Numbers:
    """Natural logarithm of the evidence against "the mean of z is at most 0", of looks (m,) at `users` users.

    The half-normal mixture of likelihood ratios (Robbins, Annals of Mathematical Statistics 41, 1970), of sums that are
    asymptotically normal (Waudby-Smith and others 2024). Under the hypothesis the probability that it ever exceeds
    log(1 / alpha), over unlimited looks, is at most alpha (Ville's inequality). It grows fastest at `tuned_for` users.
    """
    spread = users * _mixture_variance(2 * alpha, tuned_for)
    shrunk = z * np.sqrt(spread / (1 + spread))
    return np.asarray(math.log(2) - np.log1p(spread) / 2 + shrunk**2 / 2 + log_ndtr(shrunk))


def _mixture_variance(alpha: float, tuned_for: float) -> float:
    """The variance of the mixture that is narrowest at `tuned_for` users (Waudby-Smith and others, equation 24)."""
    return (-2 * math.log(alpha) + math.log(1 - 2 * math.log(alpha))) / tuned_for


@dataclass(frozen=True, slots=True)
class _Walk:
    """Distribution of the paths that never crossed a bound: score `at` (z x sqrt(users)) and probability `mass`."""

    users: float
    at: Numbers
    mass: Numbers
    nodes: int


def _start(users: Sequence[float]) -> _Walk:
    growth = [max(1 - before / n, _MIN_GROWTH) for before, n in zip((0.0, *users), users, strict=False)]
    # Neighbouring nodes half a standard error of the smallest step apart: Gauss-Legendre is then exact to many digits.
    needed = 4 * _MAX_SPREAD * math.pi / 2 / math.sqrt(min(growth))
    return _Walk(0.0, np.zeros(1), np.ones(1), 1 << math.ceil(math.log2(needed)))


def _spread(walk: _Walk, users: float) -> float:
    return math.sqrt(max(users - walk.users, users * _MIN_GROWTH))


def _bound(walk: _Walk, users: float, share: float) -> float:
    """The bound on |z| that a `share` of all paths crosses for the first time at this analysis."""
    spread = _spread(walk, users)

    def excess(z: float) -> float:
        edge = z * math.sqrt(users)
        crossing = ndtr((walk.at - edge) / spread) + ndtr((-walk.at - edge) / spread)
        return float((walk.mass * crossing).sum()) - share

    return float(brentq(excess, 0.0, _MAX_Z, xtol=1e-10)) if excess(_MAX_Z) < 0 else _MAX_Z


def _step(walk: _Walk, users: float, bound: float, drift: float = 0.0) -> _Walk:
    """The paths still inside `bound` after this analysis; each user adds `drift` to the score on average."""
    spread, moved = _spread(walk, users), drift * (users - walk.users)
    nodes, weights = _quadrature(walk.nodes)
    middle, half = drift * users, _MAX_SPREAD * math.sqrt(users)
    low, high = max(-bound * math.sqrt(users), middle - half), min(bound * math.sqrt(users), middle + half)
    at = low + (high - low) * (nodes + 1) / 2
    blocks = np.array_split(at, _BLOCKS)
    density = np.concatenate([_arrivals(walk, block - moved, spread) for block in blocks])
    density /= spread * math.sqrt(2 * math.pi)
    return _Walk(users, at, density * weights * (high - low) / 2, walk.nodes)


def _arrivals(walk: _Walk, at: Numbers, spread: float) -> Numbers:
    """The mass that reaches each score of a block, from the scores near enough to count."""
    low, high = np.searchsorted(walk.at, (at[0] - _MAX_SPREAD * spread, at[-1] + _MAX_SPREAD * spread))
    near = at[:, None] - walk.at[low:high]  # in place from here: the distance, then the density without its factor
    near /= spread
    near *= near
    near *= -0.5
    return np.asarray(np.exp(near, out=near) @ walk.mass[low:high])


@lru_cache(maxsize=4)
def _quadrature(nodes: int) -> tuple[Numbers, Numbers]:
    at, weights = roots_legendre(nodes)
    return np.asarray(at), np.asarray(weights)
