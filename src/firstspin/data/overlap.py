"""The overlap of two sets of users, from a sketch of one of them that tells of no single user.

The sketch is a Bloom filter with one hash function and about half of its bits set: the bit of an absent user is set in
about half of all cases, so it identifies no one; of many users the share of set bits gives the overlap (a test against
the binomial distribution of an absent set). Of many users a part is hashed, so the size is bounded.
"""

from __future__ import annotations

import hashlib
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from math import sqrt
from typing import Final

import msgspec
import numpy as np

MAX_BITS: Final = 2**16
MIN_BITS: Final = 8
STANDARD_ERRORS: Final = 4.0
"""An overlap within so many standard errors of none counts as none: by chance, once in 30,000 evaluations."""


class UserSketch(msgspec.Struct, frozen=True):
    """The bits (base64), and the part of the users that are hashed: one in `one_in`."""

    bits: str
    one_in: int


def sketch(user_ids: Iterable[str], users: int) -> UserSketch:
    """The sketch of so many users."""
    one_in = -(-users // MAX_BITS)
    size = max(MIN_BITS, 1 << max(users // one_in - 1, 0).bit_length()) if users else MIN_BITS
    bits = np.zeros(size, dtype=np.uint8)
    bits[list(_places(user_ids, one_in or 1, size))] = 1
    return UserSketch(b64encode(np.packbits(bits).tobytes()).decode(), one_in or 1)


def overlap(of: UserSketch, user_ids: Iterable[str]) -> float:
    """The estimated share of these users that are among those of the sketch; 0 where it may be chance."""
    bits = np.unpackbits(np.frombuffer(b64decode(of.bits), dtype=np.uint8))
    hits = bits[list(_places(user_ids, of.one_in, len(bits)))]
    by_chance = float(bits.mean())
    error = sqrt(by_chance * (1 - by_chance) / max(len(hits), 1))
    excess = float(hits.mean()) - by_chance if len(hits) else 0.0
    return min(excess / (1 - by_chance), 1.0) if excess > STANDARD_ERRORS * error > 0 else 0.0


def _places(user_ids: Iterable[str], one_in: int, size: int) -> Iterator[int]:
    """The bit of each user that is hashed."""
    for user_id in user_ids:
        number = int.from_bytes(hashlib.blake2b(user_id.encode(), digest_size=8).digest())
        if number % one_in == 0:
            yield number // one_in % size
