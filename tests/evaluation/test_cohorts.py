"""Every user is in one cohort per attribute, and small cohorts are withheld."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstspin.evaluation import cohorts
from firstspin.records import Examples, Registration


def asked(registrations: list[Registration], days_apart: int = 1) -> Examples:
    n = len(registrations)
    at = np.datetime64("2025-01-01", "s") + np.arange(n) * np.timedelta64(days_apart, "D")
    return Examples(
        tuple(map(str, range(n))), tuple(registrations), at, ("Pop",), np.zeros(n, dtype=np.int64), np.ones((n, 1))
    )


def sizes(examples: Examples, by: str) -> dict[str, int]:
    return {group.name: len(group.members) for group in cohorts.cohorts(examples) if group.by == by}


@pytest.mark.parametrize(
    ("picks", "name"),
    [
        ((), "0"),
        (("A",), "1"),
        (("A", " A ", "a"), "1"),
        (("A", "B"), "2"),
        (tuple("ABCDE"), "3-5"),
        (tuple("ABCDEF"), "6+"),
    ],
)
def test_picks_are_counted_once_each(picks: tuple[str, ...], name: str) -> None:
    assert cohorts.picks_of(Registration(genres=picks)) == name


@pytest.mark.parametrize(
    ("age", "name"),
    [(None, "not given"), (0, "under 18"), (17, "under 18"), (18, "18-24"), (24, "18-24"), (25, "25-34"), (120, "55+")],
)
def test_age_bands_begin_at_their_edge(age: int | None, name: str) -> None:
    assert cohorts.age_band(Registration(age=age)) == name


def test_spellings_of_a_country_are_one_and_seldom_ones_are_other() -> None:
    often = ["DE"] * 30 + ["de "] * 5 + [f"C{i}" for i in range(7) for _ in range(20)]
    people = [Registration(country=country) for country in [*often, *["XX"] * 6, *["YY"] * 6, *[None] * 11]]
    assert sizes(asked(people), "country") == {
        "DE": 35,
        **{f"C{i}": 20 for i in range(7)},
        "other": 12,
        "not given": 11,
    }


def test_a_group_of_fewer_than_ten_is_not_shown() -> None:
    people = [Registration(gender="x")] * 9 + [Registration(gender="f")] * 10 + [Registration(gender="m")] * 12
    assert sizes(asked(people), "gender") == {"m": 12, "f": 10}


def test_months_become_years_where_there_are_many() -> None:
    nobody_told_anything = [Registration()] * 60
    assert sizes(asked(nobody_told_anything), "month") == {"2025-01": 31, "2025-02": 28}
    assert sizes(asked(nobody_told_anything, days_apart=20), "year") == {"2025": 19, "2026": 18, "2027": 18}


def test_an_attribute_without_answers_makes_no_cohorts() -> None:
    assert {group.by for group in cohorts.cohorts(asked([Registration()] * 60))} == {"month"}


@given(
    st.lists(st.tuples(st.one_of(st.none(), st.integers(0, 120)), st.sampled_from(["f", "F", "m", None])), max_size=80)
)
def test_no_user_is_in_two_cohorts_of_an_attribute(told: list[tuple[int | None, str | None]]) -> None:
    examples = asked([Registration(age=age, gender=gender) for age, gender in told])
    for by in ("age", "gender", "picks", "month"):
        members = [member for group in cohorts.cohorts(examples) if group.by == by for member in group.members]
        assert len(members) == len(set(members))
