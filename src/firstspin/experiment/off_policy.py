"""What a policy never shown would have earned, from the log of one that was: off-policy estimates, with intervals.

An experiment shows each user one of its arms' candidates, with a known probability. Users to whom it happened to show
what the new policy would have shown stand for all the others like them. The three estimates are those of Dudík, Erhan,
Langford and Li, Doubly Robust Policy Evaluation and Optimization, Statistical Science 29 (2014); the self-normalised
one's interval is by the delta method.
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

NOT_ENOUGH: Final = "fewer than two users were shown what the policy would have shown"
_CERTAIN: Final = 1e-12


@dataclass(frozen=True, slots=True)
class Log:
    """What n users were shown and did: the item's number, how likely it was to be shown to them, and the reward."""

    shown: Items
    propensity: Numbers
    reward: Numbers


class Value(msgspec.Struct, frozen=True):
    """The policy's mean reward a user, and how much that is above what was shown to the same users."""

    value: Estimate
    above_shown: Estimate


class Lookback(msgspec.Struct, frozen=True):
    """Off-policy estimates for the users to whom the log could have shown the policy's item.

    `support` is their share of all users: the rest can't be judged by any log of this experiment. `matched` is how many
    were shown that very item; `effective_users` is how many equally weighted users carry as much information.
    """

    users: int
    support: float
    matched: int
    effective_users: float
    shown: Estimate
    ips: Value
    self_normalised: Value
    doubly_robust: Value | None


def look_back(
    log: Log, chosen: Items, supported: Mask, *, expected: Numbers | None = None, alpha: float = 0.05
) -> Lookback:
    """Judge a policy that would have shown the items `chosen` (n,), among users `supported` (n,).

    `expected` are the rewards (n,) that a model predicts for showing what is chosen, a model that has not seen that
    user (`crossfit_rewards`); with them comes the doubly robust estimate, which holds where either the propensities
    or the model are right. Raises InputError for a propensity that is none.
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


def propensity_of(items: Items, candidates: Items, shares: Numbers) -> Numbers:
    """How likely each user was to be shown this item (n,), where arm j shows `candidates[:, j]` by chance `shares[j]`.

    Two arms with the same candidate make it certain. 0: the log can't judge this item for this user.
    """
    return np.asarray((candidates == items[:, None]) @ shares, dtype=np.float64)


def read_log(
    attributed: pa.Table, shares: Mapping[str, float], chosen: Sequence[str], *, genres: Mapping[str, str] | None = None
) -> tuple[Log, Items, Mask]:
    """What `look_back` asks for, from attributed exposures with each arm's `candidates_ARM`, best first.

    `chosen` are the stations the policy would have shown, a user's in each row. `shares` are the arms' weights. With
    `genres` (station -> genre) a station stands for its genre: more users match, if clicks depend on the genre alone.
    Not supported, and so left out, are users without an answer yet, and those shown something that no arm proposed.
    """
    total = math.fsum(shares.values())
    proposed = [[next(iter(best), "") for best in attributed[f"candidates_{arm}"].to_pylist()] for arm in shares]
    names = [*proposed, attributed["station_id"].to_pylist(), list(chosen)]
    if genres is not None:
        names = [[genres.get(station, station) for station in stations] for stations in names]
    items = np.unique(np.array(names, dtype=str), return_inverse=True)[1].reshape(len(names), -1)
    candidates, (shown, wanted) = items[:-2].T, items[-2:]
    chance = np.array([weight / total for weight in shares.values()])
    propensity = propensity_of(shown, candidates, chance)
    reward = attributed["clicked"].cast(pa.float64()).to_numpy(zero_copy_only=False)
    supported = (propensity_of(wanted, candidates, chance) > 0) & (propensity > 0) & ~np.isnan(reward)
    log = Log(shown, np.where(propensity > 0, propensity, 1.0), np.nan_to_num(reward))
    return log, wanted, supported


def crossfit_rewards(
    log: Log, chosen: Items, segments: Items, rng: np.random.Generator, *, folds: int = 5, strength: float = 20.0
) -> Numbers:
    """The reward expected of showing what is chosen (n,), by segment and item, learnt from other users only.

    A rate seen on few people is pulled towards the item's, as if `strength` more people had had that one, and the
    item's towards everybody's in the same way. Segments are numbers from 0 of what was known before the exposure.
    """
    fold = rng.permutation(len(log.reward)) % folds
    items = int(max(log.shown.max(initial=0), chosen.max(initial=0))) + 1
    cells = items * (int(segments.max(initial=0)) + 1)
    expected = np.empty_like(log.reward)
    for out in range(folds):
        seen, asked = fold != out, fold == out
        shown, reward = log.shown[seen], log.reward[seen]
        overall = float(reward.mean()) if len(reward) else 0.0
        by_item = _rates(shown, reward, np.full(items, overall), strength)
        by_cell = _rates(segments[seen] * items + shown, reward, np.tile(by_item, cells // items), strength)
        expected[asked] = by_cell[segments[asked] * items + chosen[asked]]
    return expected


def _rates(codes: Items, rewards: Numbers, towards: Numbers, strength: float) -> Numbers:
    counts = np.bincount(codes, minlength=len(towards))
    sums = np.bincount(codes, rewards, minlength=len(towards))
    return np.asarray((sums + strength * towards) / (counts + strength))


def _self_normalised(weight: Numbers, reward: Numbers) -> Numbers:
    """Values a user whose mean is the weighted mean of rewards, and whose spread is that mean's to first order."""
    total = weight.sum()
    if not total:
        return np.zeros_like(reward)
    value = (weight * reward).sum() / total
    return np.asarray(value + weight * (reward - value) * len(weight) / total)


def _value(a_user: Numbers, reward: Numbers, weight: Numbers, alpha: float) -> Value:
    if (weight > 0).sum() < 2:
        return Value(Estimate(reason=NOT_ENOUGH), Estimate(reason=NOT_ENOUGH))
    return Value(_estimate(a_user, alpha), _estimate(a_user - reward, alpha))


def _estimate(a_user: Numbers, alpha: float) -> Estimate:
    if len(a_user) < 2:
        return Estimate(reason=NOT_ENOUGH)
    mean = float(a_user.mean())
    half = -float(ndtri(alpha / 2)) * math.sqrt(float(a_user.var(ddof=1)) / len(a_user))
    return Estimate(mean, mean - half, mean + half)
