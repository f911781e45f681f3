from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest
from growthbook import core as growthbook
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, chisquare

from firstspin.experiment.assign import Assignment, assign, bucket, split
from firstspin.records import InputError

EVEN = {"rule": 1.0, "model": 1.0}
USERS = [f"user-{i}" for i in range(50_000)]


@pytest.mark.parametrize(
    ("salt", "user", "expected"),
    [  # the published vectors of hash version 2
        ("seed", "a", 0.0505),
        ("seed", "b", 0.2696),
        ("foo", "ab", 0.2575),
        ("foo", "def", 0.2019),
        ("89123klj", "8952klfjas09ujkasdf", 0.124),
        ("90850943850283058242805", "123", 0.7516),
        ("()**(%$##$%#$#", '___)((*":&', 0.0128),
    ],
)
def test_the_published_vectors_come_out(salt: str, user: str, expected: float) -> None:
    assert bucket(salt, user) / 10_000 == expected


@given(salt=st.text(min_size=1), user=st.text(st.characters(exclude_categories=())))
def test_any_text_lands_where_the_growthbook_sdk_puts_it(salt: str, user: str) -> None:
    assert bucket(salt, user) / 10_000 == growthbook.gbhash(salt, user, 2)


@given(
    weights=st.lists(st.integers(1, 100), min_size=2, max_size=6),
    coverage=st.floats(0, 1),
    user=st.text(max_size=12),
)
def test_arms_agree_with_the_growthbook_sdk_for_any_weights_and_coverage(
    weights: list[int], coverage: float, user: str
) -> None:
    total = sum(weights)
    ranges = growthbook.getBucketRanges(len(weights), coverage, [w / total for w in weights])
    theirs = growthbook.chooseVariation(growthbook.gbhash("salt", user, 2), ranges)
    ours = assign(split("salt", {str(i): w for i, w in enumerate(weights)}, coverage=coverage), user)
    assert (int(ours.arm) if ours else -1) == theirs


def test_arms_get_their_weights_and_the_propensity_says_so() -> None:
    divided = split("weights", {"rule": 3, "model": 1})
    seen = Counter(assign(divided, user) for user in USERS)
    rule, model = Assignment("rule", 0.75), Assignment("model", 0.25)
    assert set(seen) == {rule, model}
    assert chisquare([seen[rule], seen[model]], [37_500, 12_500]).pvalue > 0.001


def test_a_third_is_the_share_of_buckets_it_really_has() -> None:
    propensities = [a.propensity for a in split("thirds", {"a": 1, "b": 1, "c": 1}).assignments]
    assert propensities == [0.3334, 0.3333, 0.3333]


def test_growing_the_coverage_moves_no_user() -> None:
    tenth, half = split("salt", EVEN, coverage=0.1), split("salt", EVEN, coverage=0.5)
    early = {user: arm for user in USERS if (arm := assign(tenth, user))}
    assert 4_500 < len(early) < 5_500
    assert all(assign(half, user).arm == arm.arm for user, arm in early.items())


def test_no_user_takes_part_at_coverage_zero() -> None:
    nobody = split("salt", EVEN, coverage=0)
    assert {assign(nobody, user) for user in USERS[:1000]} == {None}


@pytest.mark.parametrize("other", ["homf", "homepage-2", "firsu"])
def test_experiments_are_independent_even_when_salts_differ_in_a_letter(other: str) -> None:
    one, two = split("home", EVEN), split(other, EVEN)
    table = Counter((assign(one, user).arm, assign(two, user).arm) for user in USERS)
    counts = [[table[a, b] for b in EVEN] for a in EVEN]
    assert chi2_contingency(counts).pvalue > 0.001


def test_consecutive_ids_are_spread_evenly_over_the_buckets() -> None:
    tenths = Counter(bucket("spread", str(i)) // 1000 for i in range(50_000))
    assert chisquare([tenths[t] for t in range(10)]).pvalue > 0.001


def test_another_process_with_another_hash_seed_agrees() -> None:
    program = (
        "from firstspin.experiment.assign import assign, split\n"
        "s = split('salt', {'rule': 1, 'model': 1}, coverage=0.9)\n"
        "print(''.join((a.arm[0] if (a := assign(s, f'user-{i}')) else '-') for i in range(2000)))"
    )
    answers = set()
    for seed in ("0", "1", "4711"):
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
        answers.add(done.stdout.strip())
    assert len(answers) == 1
    assert set(answers.pop()) == {"r", "m", "-"}


@pytest.mark.parametrize(
    ("salt", "weights", "coverage", "words"),
    [
        ("", EVEN, 1, "salt of its own"),
        ("s", {"alone": 1}, 1, "not 1"),
        ("s", {"a": 1, "b": 0}, 1, "arm 'b'"),
        ("s", {"a": 1, "b": float("nan")}, 1, "arm 'b'"),
        ("s", EVEN, 1.2, "1.2"),
        ("s", EVEN, float("nan"), "nan"),
    ],
)
def test_a_split_that_can_not_be_read_is_refused(
    salt: str, weights: dict[str, float], coverage: float, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        split(salt, weights, coverage=coverage)
