"""The overlap of two sets of users is estimated from a sketch that tells of no single one."""

from __future__ import annotations

from base64 import b64decode

import numpy as np
import pytest

from firstspin.data import overlap
from firstspin.data.overlap import sketch


def users(first: int, n: int) -> list[str]:
    return [f"{number:08d}" for number in range(first, first + n)]


@pytest.mark.parametrize("n", [200, 700, 5_000, 200_000])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_share_of_known_users_is_estimated(n: int, share: float) -> None:
    known = int(400 * share)
    asked = users(0, known) + users(10**6, 400 - known)
    if n < 400:
        asked = users(0, int(n * share)) + users(10**6, n - int(n * share))
    elif n > 100_000:
        asked = users(0, int(40_000 * share)) + users(10**6, 40_000 - int(40_000 * share))
    assert overlap.overlap(sketch(users(0, n), n), asked) == pytest.approx(share, abs=0.15)


def test_of_few_users_only_a_large_overlap_is_no_chance() -> None:
    of = sketch(users(0, 60), 60)
    assert overlap.overlap(of, users(0, 60)) == 1.0
    assert overlap.overlap(of, users(0, 30) + users(10**6, 30)) == 0.0


def test_other_users_are_never_taken_for_known_ones() -> None:
    of = sketch(users(0, 1_000), 1_000)
    assert [overlap.overlap(of, users(10_000 * i, n)) for i in range(1, 40) for n in (1, 20, 500)] == [0.0] * 117


def test_a_bit_tells_of_no_single_user() -> None:
    """About half of the bits are set, whatever the number of users; an absent one has a set bit as often."""
    for n in (100, 129, 1_000, 1_025, 65_536, 65_537, 300_000):
        of = sketch(users(0, n), n)
        bits = np.unpackbits(np.frombuffer(b64decode(of.bits), dtype=np.uint8))
        assert 0.3 < bits.mean() < 0.7
        assert len(bits) <= overlap.MAX_BITS
    assert overlap.overlap(of, users(0, 1)) == overlap.overlap(of, []) == 0.0


def test_no_users_have_no_overlap() -> None:
    assert overlap.overlap(sketch([], 0), users(0, 100)) == 0.0
