"""Who gets which arm: a pure hash of (salt, user), so every host, restart and process count agrees without asking.

The hash is GrowthBook's version 2 (https://docs.growthbook.io/lib/build-your-own, "Hashing"), so that another team's
SDK can reproduce our assignments. Nothing about the person enters but the id: the under-aged, the refusing and the
timed out are split like everyone else.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from firstspin.records import InputError

BUCKETS: Final = 10_000
MOST_ARMS: Final = 100

_FNV_OFFSET: Final = 0x811C9DC5
_FNV_PRIME: Final = 0x01000193
_NOT_IN: Final = 255
_UTF16: Final = "utf-16-le" if sys.byteorder == "little" else "utf-16-be"


@dataclass(frozen=True, slots=True)
class Assignment:
    """An arm, and how likely it was: its share of the buckets that take part (what off-policy estimates divide by)."""

    arm: str
    propensity: float


@dataclass(frozen=True, slots=True)
class ArmSplit:
    """An experiment's users divided among its arms; made once by `split`, asked for each user by `assign`."""

    salt: str
    salted: int  # the hash after the salt, where every user's hash starts
    assignments: tuple[Assignment, ...]
    arm_of: bytes  # bucket -> position in `assignments`, or 255 outside the coverage


def split(salt: str, weights: Mapping[str, float], *, coverage: float = 1.0) -> ArmSplit:
    """Divide users among the arms in proportion to their weights; `coverage` is the share of all users who take part.

    A user who takes part at a small coverage keeps the arm when it grows. Raises InputError for weights or a coverage
    that can't be read that way.
    """
    _check(salt, weights, coverage)
    total = math.fsum(weights.values())
    arm_of = bytearray([_NOT_IN]) * BUCKETS
    start = 0.0
    for arm, weight in enumerate(weights.values()):
        share = weight / total
        for bucket in range(math.floor(start * BUCKETS), BUCKETS):
            if start <= bucket / BUCKETS < start + coverage * share:
                arm_of[bucket] = arm
        start += share
    taking_part = BUCKETS - arm_of.count(_NOT_IN)
    assignments = [
        Assignment(name, arm_of.count(arm) / taking_part if taking_part else 0.0) for arm, name in enumerate(weights)
    ]
    return ArmSplit(salt, _fnv1a(salt, _FNV_OFFSET), tuple(assignments), bytes(arm_of))


def assign(split: ArmSplit, user: str) -> Assignment | None:
    """The user's arm, always the same one; None when the user is outside the experiment's coverage."""
    arm = split.arm_of[_bucket(split.salted, user)]
    return None if arm == _NOT_IN else split.assignments[arm]


def bucket(salt: str, user: str) -> int:
    """Where the user lies among the 10,000 buckets of this salt.

    >>> bucket("seed", "a")
    505
    """
    return _bucket(_fnv1a(salt, _FNV_OFFSET), user)


def _bucket(salted: int, user: str) -> int:
    # Hashed twice: one round of FNV leaves ids that differ in a letter close together, across salts too.
    return _fnv1a(str(_fnv1a(user, salted)), _FNV_OFFSET) % BUCKETS


def _fnv1a(text: str, state: int) -> int:
    """FNV-1a in 32 bits over UTF-16 code units, as the SDKs in JavaScript see a string, going on from `state`."""
    units = text.encode() if text.isascii() else memoryview(text.encode(_UTF16, "surrogatepass")).cast("H")
    for unit in units:
        state = ((state ^ unit) * _FNV_PRIME) & 0xFFFFFFFF
    return state


def _check(salt: str, weights: Mapping[str, float], coverage: float) -> None:
    if not salt:
        raise InputError("an experiment needs a salt of its own, so that experiments are independent")
    if not 2 <= len(weights) <= MOST_ARMS:
        raise InputError(f"an experiment needs from 2 to {MOST_ARMS} arms, not {len(weights)}")
    for arm, weight in weights.items():
        if not (math.isfinite(weight) and weight > 0):
            raise InputError(f"arm {arm!r}: a weight is a number above 0, not {weight!r}")
    if not 0 <= coverage <= 1:
        raise InputError(f"coverage is a share from 0 to 1, not {coverage!r}")
