"""Drift is found within weeks, and at most once a year where there is none, however small the training sample is."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import pytest
from made_bundles import pack

from firstspin.events.answer_counts import AnswerCell, AnswerSum, DayCounts, InputCounts
from firstspin.models.input_reference import InputReference
from firstspin.watch.drift import WEEKS_A_YEAR, InputWeek, bundle_drift, differences, drift, input_weeks, statistic

Array = np.ndarray
AGE = np.array([0.1, 0.25, 0.25, 0.15, 0.1, 0.1, 0.05])  # the last is missing
GENDER = np.array([0.45, 0.4, 0.05, 0.1])
COUNTRY = np.array([0.3, 0.2, 0.1, 0.1, 0.05, 0.05, 0.05, 0.05, 0.03, 0.02, 0.03, 0.02])
NUMBER = np.array([0.1, 0.2, 0.3, 0.3, 0.1])
FIRST = np.array([0.2, 0.02, 0.15, 0.05, 0.1, 0.08, 0.1, 0.03, 0.12, 0.15])
PICKS = np.array([0.4, 0.02, 0.3, 0.05, 0.24, 0.1, 0.2, 0.03, 0.12, 0.3])  # each picked or not
COLUMNS = 7  # and the first genre of the answers
THRESHOLD = np.log(WEEKS_A_YEAR * COLUMNS)


def drawn(shares: Array, n: int, shape: tuple[int, ...], rng: np.random.Generator, *, several: bool) -> Array:
    if several:
        return rng.binomial(n, shares, size=(*shape, len(shares))).astype(float)
    return rng.multinomial(n, shares, size=shape).astype(float)


def rounded_off(counts: Array, times: int, rng: np.random.Generator) -> Array:
    """What `times` workers report whose last counts are rounded to 0 or 10."""
    for _ in range(times):
        rest = rng.integers(0, 10, size=counts.shape)
        counts = np.maximum(0, counts - rest + 10.0 * (rng.random(counts.shape) * 10 < rest))
    return counts


def years(
    before: Array,
    after: Array,
    known: int,
    a_week: int,
    n: int,
    rng: np.random.Generator,
    *,
    since: int,
    rounded: int = 0,
    several: bool = False,
) -> Array:
    """(n, 52) a column's statistic in n years, whose shares change in week `since`; training knew `known` users."""
    reference = drawn(before, known, (n,), rng, several=several)
    weeks = [
        drawn(before, a_week, (n, since), rng, several=several),
        drawn(after, a_week, (n, 52 - since), rng, several=several),
    ]
    counts = rounded_off(np.concatenate(weeks, axis=1), rounded, rng)
    totals = np.full((n, 52), float(a_week)) if several else counts.sum(axis=-1)
    often = np.full((n, 52), float(rounded))
    return statistic(differences(counts, totals, reference, known, often, several=several))


def false_alarms(known: int, a_week: int, rounded: int, n: int) -> float:
    """False alarms a year over all columns, in n simulated years."""
    rng = np.random.default_rng([known, a_week, rounded])
    alarms = 0
    for shares in (AGE, GENDER, COUNTRY, NUMBER, FIRST, PICKS, FIRST):
        walks = years(shares, shares, known, a_week, n, rng, since=52, rounded=rounded, several=shares is PICKS)
        alarms += int((walks.max(axis=1) >= THRESHOLD).sum())
    return alarms / n


def test_a_stable_service_has_at_most_one_false_alarm_a_year() -> None:
    assert 0 < false_alarms(20_000, 2_000, 0, 200) < 1


def test_repeated_requests_are_drift_unless_each_user_counts_once() -> None:
    """Users ask three times on average, geometrically distributed; nothing else changes in 100 years."""
    rng, n = np.random.default_rng(3), 100
    reference = drawn(COUNTRY, 20_000, (n,), rng, several=False)
    users = drawn(COUNTRY, 1_000, (n, 52), rng, several=False)
    requests = users + rng.negative_binomial(np.maximum(users, 1), 1 / 3)
    alarms = [
        (
            statistic(differences(counts, counts.sum(axis=-1), reference, 20_000, np.zeros((n, 52)))).max(axis=1)
            >= THRESHOLD
        ).mean()
        for counts in (requests, users)
    ]
    assert alarms == [1, 0.05]  # a column may have 1 / COLUMNS a year


@pytest.mark.parametrize(("a_week", "rounded"), [(1_000, 8), (2_000, 16)])
@pytest.mark.parametrize("known", [0, 20_000])
def test_rounding_errors_of_a_total_are_no_drift(known: int, a_week: int, rounded: int) -> None:
    """Half of the users have one category, and few each of 19 others, whose sums have 19 rounding errors per worker."""
    rng, n = np.random.default_rng(1), 200
    shares = np.array([0.5, *[0.5 / 19] * 19])
    of_workers = rng.multinomial(a_week // rounded, shares, size=(n, 52, rounded))
    rest = of_workers % 10
    counts = (of_workers - rest + 10.0 * (rng.random(rest.shape) * 10 < rest)).sum(axis=2)
    reference = rng.multinomial(known, shares, size=n).astype(float)
    z = differences(counts, counts.sum(axis=-1), reference, known, np.full((n, 52), float(rounded)))
    assert 0.7 < z[:, 1:, 0].std() < 1  # 1.5 where the total counts as free of errors
    assert (statistic(z).max(axis=1) >= THRESHOLD).mean() <= 1 / COLUMNS


@pytest.mark.soak
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("known", [500, 2_000, 50_000])
@pytest.mark.parametrize(("a_week", "rounded"), [(200, 0), (500, 2), (2_000, 4), (50_000, 8)])
def test_a_thousand_simulated_years_have_at_most_a_thousand_false_alarms(known: int, a_week: int, rounded: int) -> None:
    assert false_alarms(known, a_week, rounded, 1_000) <= 1


def with_share(shares: Array, position: int, share: float) -> Array:
    changed = shares * (1 - share) / (1 - shares[position])
    changed[position] = share
    return changed


SHIFTS: dict[str, tuple[Array, Array, dict[int, int]]] = {
    "a country doubles, from 5%": (COUNTRY, with_share(COUNTRY, 4, 0.1), {300: 4, 1_000: 2, 5_000: 1}),
    "age is missing for 20%, not 5%": (AGE, with_share(AGE, 6, 0.2), {300: 2, 1_000: 1, 5_000: 1}),
    "a genre is picked by 29%, not 24%": (PICKS, np.where(PICKS == 0.24, 0.29, PICKS), {300: 12, 1_000: 4, 5_000: 1}),
    "picks come in alphabetical order": (FIRST, np.sort(FIRST)[::-1].copy(), {300: 1, 1_000: 1, 5_000: 1}),
}


@pytest.mark.parametrize("shift", SHIFTS)
def test_a_shift_in_the_tenth_week_is_found_within_these_weeks(shift: str) -> None:
    before, after, expected = SHIFTS[shift]
    for a_week, weeks in expected.items():
        walks = years(before, after, 20_000, a_week, 100, np.random.default_rng(9), since=10, several=before is PICKS)
        found = np.where(walks >= THRESHOLD, np.arange(52), 52).min(axis=1) - 9
        assert np.quantile(found[found > 0], 0.9) <= weeks, a_week


# ------------------------------------------------------------------------------------- the columns of a bundle


REFERENCE = InputReference(
    {
        "registrations": {"all": 5_000, "other": 0},
        "country": {"us": 3_000, "de": 2_000, "other": 0},
        "picks": {"rock": 2_500, "jazz": 1_000, "other": 0},
        "first genre": {"Jazz": 0, "Rock": 0},
    }
)


def week(i: int, **columns: dict[str, int]) -> InputWeek:
    usual = {
        "registrations": {"all": 1_000},
        "country": {"us": 600, "de": 400},
        "picks": {"rock": 500, "jazz": 200},
        "first genre": {"Jazz": 300, "Rock": 700},
    }
    return InputWeek(f"2026-W{i:02}", usual | {name.replace("_", " "): of for name, of in columns.items()}, 0)


def states(weeks: list[InputWeek]) -> dict[str, str | None]:
    return {one.column: one.since for one in drift(REFERENCE, weeks)}


def test_a_bundle_of_unchanged_inputs_has_no_drift() -> None:
    assert states([week(i) for i in range(20)]) == {"country": None, "picks": None, "first genre": None}
    assert states([]) == {"country": None, "picks": None, "first genre": None}


def test_the_column_that_changes_is_named_with_its_category_and_stays() -> None:
    changed = week(5, country={"us": 600, "de": 250, "other": 150})
    [country, *others] = drift(REFERENCE, [*(week(i) for i in range(5)), changed, *(week(i) for i in range(6, 12))])
    assert (country.since, country.category, country.before, country.after) == ("2026-W05", "other", 0.0, 0.15)
    assert country.threshold == 52 * 3
    assert {one.since for one in others} == {None}


def test_a_service_that_differs_from_training_from_its_first_day_is_found() -> None:
    assert states([week(0, country={"us": 400, "de": 600})])["country"] == "2026-W00"
    assert states([week(0, picks={"rock": 1_000, "jazz": 200})])["picks"] == "2026-W00"


def test_first_genres_are_compared_with_earlier_weeks_as_training_has_none() -> None:
    assert states([week(0, first_genre={"Rock": 1_000})])["first genre"] is None
    assert states([week(0), week(1, first_genre={"Rock": 1_000})])["first genre"] == "2026-W01"


def test_other_picks_of_which_a_user_has_several_are_no_drift() -> None:
    """A third of the users pick two rare genres: their number varies twice as much as that of such users."""
    rng = np.random.default_rng(4)
    usual = {"rock": 2_500, "jazz": 1_000, "other": 3_000}
    known = InputReference({**REFERENCE.columns, "picks": usual})
    alarms = 0
    for _ in range(20):
        weeks = [
            week(i, picks={"rock": 500, "jazz": 200, "other": 2 * int(rng.binomial(1_000, 0.3))}) for i in range(52)
        ]
        alarms += sum(one.since is not None for one in drift(known, weeks))
    assert alarms == 0
    all_rare = InputReference({**REFERENCE.columns, "picks": {"other": 3_000}})
    assert [one.value for one in drift(all_rare, weeks) if one.column == "picks"] == [0.0]


def test_the_order_of_categories_does_not_matter() -> None:
    turned = InputReference({name: dict(reversed(of.items())) for name, of in REFERENCE.columns.items()})
    weeks = [week(0), week(1, country={"us": 500, "de": 500})]
    assert drift(turned, weeks) == drift(REFERENCE, weeks)


def test_days_and_workers_are_added_up_to_weeks_by_bundle() -> None:
    def day(at: str, model: str, n: int, rounded: int = 0) -> DayCounts:
        return DayCounts(at, (), (InputCounts(model, {"age": {"18-24": n}}, rounded),))

    counts = [
        day("2026-01-04", "a", 10),
        day("2026-01-05", "a", 20),
        day("2026-01-11", "a", 30, 2),
        day("2026-01-07", "b", 40),
    ]
    assert input_weeks(counts, "a") == [
        InputWeek("2025-12-29", {"age": {"18-24": 10}}, 0),
        InputWeek("2026-01-05", {"age": {"18-24": 50}}, 2),
    ]


def test_a_week_counts_where_the_bundle_answered_from_the_sunday_before_on(tmp_path: Path) -> None:
    """Users of a weekend are others than those of working days, so half a week would be drift."""
    packed = pack(tmp_path / "b")
    bundle = replace(packed, manifest=msgspec.structs.replace(packed.manifest, inputs=REFERENCE))

    def day(at: date, model: str) -> DayCounts:
        inputs = {"registrations": {"all": 500}, "country": {"us": 100, "de": 400}}  # those of a weekend
        cell = AnswerCell(model, "model", "model", "1", 1, 3)
        return DayCounts(at.isoformat(), (AnswerSum(cell, 500, 1),), (InputCounts(model, inputs),))

    def since(first: date, days: int, model: str = bundle.id) -> tuple[int, str | None]:
        counts = [day(first + timedelta(days=i), model) for i in range(days)]
        [one] = bundle_drift(counts, [bundle], datetime(2026, 2, 1, tzinfo=UTC))
        return one.weeks, next(column.since for column in one.columns if column.column == "country")

    sunday = date(2026, 1, 4)
    assert since(sunday, 8) == (1, "2026-01-05")
    assert since(sunday, 7) == since(sunday + timedelta(days=1), 7) == since(sunday - timedelta(days=2), 4) == (0, None)
    assert since(sunday, 8, "other") == (0, None)
