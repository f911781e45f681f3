"""Assignment of users to arms: a pure hash of (salt, user id), the same on every host and in every process.

The hash is GrowthBook's version 2 (https://docs.growthbook.io/lib/build-your-own, "Hashing"), so that another team's
SDK can reproduce the assignments. Only the user id enters the hash: under-age users, refusals and timeouts are split
like all other users.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from firstspin.records import InputError

BUCKETS: Final = 10_000
MAX_ARMS: Final = 100

_FNV_OFFSET: Final = 0x811C9DC5
_FNV_PRIME: Final = 0x01000193
_NOT_IN: Final = 255
_UTF16: Final = "utf-16-le" if sys.byteorder == "little" else "utf-16-be"


@dataclass(frozen=True, slots=True)
class Assignment:
    """An arm and its propensity: the arm's share of the buckets that take part."""

    arm: str
    propensity: float


@dataclass(frozen=True, slots=True)
class ArmSplit:
    """The buckets of an experiment and their arms: built once by `split`, read for each user by `assign`."""

    salt: str
    salted: int  # state of the hash after the salt
    assignments: tuple[Assignment, ...]
    arm_of: bytes  # bucket -> position in `assignments`, or 255 outside the coverage


def split(salt: str, weights: Mapping[str, float], *, coverage: float = 1.0) -> ArmSplit:
    """Divide the buckets among the arms in proportion to their weights; `coverage` is the share of users included.

    A larger coverage adds users and moves none to another arm. Raises InputError for an empty salt, fewer than 2 or
    more than 100 arms, a weight that is not a finite number above 0, and a coverage outside [0, 1].
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
    """The user's arm, deterministic; None for a user outside the experiment's coverage."""
    arm = split.arm_of[_bucket(split.salted, user)]
    return None if arm == _NOT_IN else split.assignments[arm]


def bucket(salt: str, user: str) -> int:
    """The user's bucket of the salt's 10,000, from 0.

    >>> bucket("seed", "a")
    505
    """
    return _bucket(_fnv1a(salt, _FNV_OFFSET), user)


def _bucket(salted: int, user: str) -> int:
    # Hashed twice: after one round of FNV-1a, ids that differ in one letter are close together under every salt.
    return _fnv1a(str(_fnv1a(user, salted)), _FNV_OFFSET) % BUCKETS


def _fnv1a(text: str, state: int) -> int:
    """32-bit FNV-1a over UTF-16 code units (a string in the JavaScript SDKs), continued from `state`."""
    units = text.encode() if text.isascii() else memoryview(text.encode(_UTF16, "surrogatepass")).cast("H")
    for unit in units:
        state = ((state ^ unit) * _FNV_PRIME) & 0xFFFFFFFF
    return state


def _check(salt: str, weights: Mapping[str, float], coverage: float) -> None:
    if not salt:
        raise InputError("an experiment needs a salt of its own, so that experiments are independent")
    if not 2 <= len(weights) <= MAX_ARMS:
        raise InputError(f"an experiment needs from 2 to {MAX_ARMS} arms, not {len(weights)}")
    for arm, weight in weights.items():
        if not (math.isfinite(weight) and weight > 0):
            raise InputError(f"arm {arm!r}: invalid weight {weight!r}; expected a number above 0")
    if not 0 <= coverage <= 1:
        raise InputError(f"invalid coverage {coverage!r}; expected a share from 0 to 1")
