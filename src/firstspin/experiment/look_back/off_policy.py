"""Off-policy evaluation: the estimated reward of a policy from the log of another one, with confidence intervals.

An experiment shows each user the candidate of one arm, with a known probability (the propensity). Users who were shown
what the new policy would choose are weighted by its inverse. The estimators (IPS, self-normalised IPS, doubly robust)
are those of Dudík, Erhan, Langford and Li, Doubly Robust Policy Evaluation and Optimization, Statistical Science 29
(2014).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.special import ndtri

from firstspin.experiment.stats.lift import Estimate
from firstspin.records import InputError

Numbers = NDArray[np.float64]
Items = NDArray[np.int64]
Mask = NDArray[np.bool_]

ASSUMPTIONS: Final = (
    "Arms were assigned at random by the plan's weights, and each arm's candidates were logged.",
    "A click depends on what is shown to this user, not on which policy chose it or on what others are shown.",
    "Estimates are for users to whom some arm would have shown the policy's choice, not for all users.",
    "Inverse propensity and self-normalised: right if the logged propensities are right.",
    "Doubly robust: right if the propensities or the model of click rates are right.",
)
"""The assumptions of the estimates, printed with them."""

NOT_ENOUGH: Final = "fewer than two users were shown the policy's choice"
NO_SPREAD: Final = "all users who were shown the policy's choice had the same reward, as none clicked: no interval"
_CERTAIN: Final = 1e-12
FOLDS, STRENGTH = 5, 20.0


@dataclass(frozen=True, slots=True)
class Log:
    """The logged data of n users: item shown (n,), its propensity (n,), and reward (n,)."""

    shown: Items
    propensity: Numbers
    reward: Numbers


class Value(msgspec.Struct, frozen=True):
    """The policy's mean reward per user, and its difference to the mean reward that the same users had.

    Without an interval where all who were shown the policy's choice had the same reward.
    """

    value: Estimate
    above_shown: Estimate


class Lookback(msgspec.Struct, frozen=True):
    """Off-policy estimates for the supported users: those whom the log could have shown the policy's item.

    `support` is their share of all users; no log of this experiment has information about the others. `matched` users
    were shown that item. `effective_users` is the effective sample size (Kish): the number of equally weighted users
    with as much information.
    """

    users: int
    support: float
    matched: int
    effective_users: float
    shown: Estimate
    ips: Value
    self_normalised: Value
    doubly_robust: Value | None


class PolicyReport(msgspec.Struct, frozen=True):
    """A policy's estimates in clicks per user, and the assumptions they rest on."""

    experiment: str
    policy: str
    estimates: Lookback
    assumptions: tuple[str, ...] = ASSUMPTIONS


def look_back(
    log: Log, chosen: Items, supported: Mask, *, expected: Numbers | None = None, alpha: float = 0.05
) -> Lookback:
    """Evaluate a policy that chooses the items `chosen` (n,), among the users `supported` (n,).

    `expected` (n,) are the rewards that a model predicts for the chosen items, fitted without the user itself
    (`crossfit_rewards`). They add the doubly robust estimate, which is consistent where the propensities or the model
    are right. Formulas: Dudík and others, Statistical Science 29 (2014); delta method for the interval of the
    self-normalised estimate. Raises InputError for a propensity that is not above 0 and at most 1.
    """
    if not ((log.propensity > 0) & (log.propensity <= 1 + _CERTAIN)).all():
        raise InputError("every logged propensity must be above 0 and at most 1")
    reward = log.reward[supported]
    weight = ((log.shown == chosen) / log.propensity)[supported]
    robust = None
    if expected is not None:
        model = expected[supported]
        robust = _value(model + weight * (reward - model), reward, weight, alpha)
    total = float(weight.sum())
    return Lookback(
        users=len(log.reward),
        support=float(supported.mean()) if len(supported) else 0.0,
        matched=int((weight > 0).sum()),
        effective_users=total**2 / float((weight**2).sum()) if total else 0.0,
        shown=_estimate(reward, alpha),
        ips=_value(weight * reward, reward, weight, alpha),
        self_normalised=_value(_self_normalised(weight, reward), reward, weight, alpha),
        doubly_robust=robust,
    )


def evaluate_policy(
    attributed: pa.Table,
    shares: Mapping[str, float],
    chosen: Sequence[str],
    rng: np.random.Generator,
    *,
    genres: Mapping[str, str] | None = None,
) -> tuple[Lookback, Mask]:
    """All three estimates for a policy that would have shown the stations `chosen`, and the users (n,) they are about.

    The reward model's segments are what the first arm of `shares` would have shown. For the other parameters see
    `read_log`; `rng` splits the users for cross-fitting.
    """
    log, items, supported = read_log(attributed, shares, chosen, genres=genres)
    baseline = first_candidates(attributed, next(iter(shares)))
    if genres is not None:
        baseline = [genres.get(station, station) for station in baseline]
    segments = np.unique(np.array(baseline, dtype=str), return_inverse=True)[1].astype(np.int64)
    expected = crossfit_rewards(log, items, segments, rng)
    return look_back(log, items, supported, expected=expected), supported


def first_candidates(attributed: pa.Table, arm: str) -> list[str]:
    """The station that this arm would have shown, by user; "" where it had none."""
    return [next(iter(best), "") for best in attributed[f"candidates_{arm}"].to_pylist()]


def propensity_of(items: Items, candidates: Items, shares: Numbers) -> Numbers:
    """Probability (n,) that each user was shown the item, where arm j shows `candidates[:, j]` with share `shares[j]`.

    Arms with the same candidate add up. At 0 the log has no information about the item for this user.
    """
    return np.asarray((candidates == items[:, None]) @ shares, dtype=np.float64)


def read_log(
    attributed: pa.Table, shares: Mapping[str, float], chosen: Sequence[str], *, genres: Mapping[str, str] | None = None
) -> tuple[Log, Items, Mask]:
    """The arguments of `look_back` (log, chosen items (n,), supported (n,)) from attributed exposures.

    The exposures have each arm's `candidates_ARM`, best first. `chosen` are the policy's stations, one per row;
    `shares` are the arms' weights. With `genres` (station -> genre) items are genres: more users match, valid where
    clicks depend on the genre alone. Users without a reward yet, and users shown an item that no arm proposed, are not
    supported.
    """
    total = math.fsum(shares.values())
    names = [*(first_candidates(attributed, arm) for arm in shares), attributed["station_id"].to_pylist(), list(chosen)]
    if genres is not None:
        names = [[genres.get(station, station) for station in stations] for stations in names]
    items = np.unique(np.array(names, dtype=str), return_inverse=True)[1].reshape(len(names), -1)
    candidates, (shown, wanted) = items[:-2].T, items[-2:]
    probability = np.array([weight / total for weight in shares.values()])
    propensity = propensity_of(shown, candidates, probability)
    reward = attributed["clicked"].cast(pa.float64()).to_numpy(zero_copy_only=False)
    supported = (propensity_of(wanted, candidates, probability) > 0) & (propensity > 0) & ~np.isnan(reward)
    log = Log(shown, np.where(propensity > 0, propensity, 1.0), np.nan_to_num(reward))
    return log, wanted, supported


def crossfit_rewards(log: Log, chosen: Items, segments: Items, rng: np.random.Generator) -> Numbers:
    """Cross-fitted expected reward (n,) of the chosen items (n,), by segment and item, learned from other folds only.

    The rate of a segment and item is shrunk towards the item's rate with the weight of STRENGTH users, and the item's
    rate likewise towards the overall rate. `segments` (n,) are numbers from 0 of what was known before the exposure.
    """
    fold = rng.permutation(len(log.reward)) % FOLDS
    items = int(max(log.shown.max(initial=0), chosen.max(initial=0))) + 1
    cells = items * (int(segments.max(initial=0)) + 1)
    expected = np.empty_like(log.reward)
    for out in range(FOLDS):
        train, held_out = fold != out, fold == out
        shown, reward = log.shown[train], log.reward[train]
        overall = float(reward.mean()) if len(reward) else 0.0
        by_item = _rates(shown, reward, np.full(items, overall))
        by_cell = _rates(segments[train] * items + shown, reward, np.tile(by_item, cells // items))
        expected[held_out] = by_cell[segments[held_out] * items + chosen[held_out]]
    return expected


def _rates(codes: Items, rewards: Numbers, towards: Numbers) -> Numbers:
    counts = np.bincount(codes, minlength=len(towards))
    sums = np.bincount(codes, rewards, minlength=len(towards))
    return np.asarray((sums + STRENGTH * towards) / (counts + STRENGTH))


def _self_normalised(weight: Numbers, reward: Numbers) -> Numbers:
    """Linearised values per user: mean of the weighted mean of rewards, variance of the delta method."""
    total = weight.sum()
    if not total:
        return np.zeros_like(reward)
    value = (weight * reward).sum() / total
    return np.asarray(value + weight * (reward - value) * len(weight) / total)


def _value(per_user: Numbers, reward: Numbers, weight: Numbers, alpha: float) -> Value:
    if (weight > 0).sum() < 2:
        return Value(Estimate(reason=NOT_ENOUGH), Estimate(reason=NOT_ENOUGH))
    if np.ptp(reward[weight > 0]) == 0:  # a variance of zero would make the estimate look certain
        means = float(per_user.mean()), float((per_user - reward).mean())
        return Value(*(Estimate(mean, reason=NO_SPREAD) for mean in means))
    return Value(_estimate(per_user, alpha), _estimate(per_user - reward, alpha))


def _estimate(per_user: Numbers, alpha: float) -> Estimate:
    if len(per_user) < 2:
        return Estimate(reason=NOT_ENOUGH)
    mean = float(per_user.mean())
    half = -float(ndtri(alpha / 2)) * math.sqrt(float(per_user.var(ddof=1)) / len(per_user))
    return Estimate(mean, mean - half, mean + half)
