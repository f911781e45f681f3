from __future__ import annotations

import json
import math
from functools import partial

import msgspec
import numpy as np
import pytest
import tea_tasting
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats import proportion
from tea_tasting.aggr import Aggregates

from firstspin.experiment.stats.lift import (
    NO_SPREAD,
    NO_USERS,
    ONE_USER,
    ZERO_CONTROL,
    ClickRates,
    Clicks,
    Lift,
    Means,
    lift,
    non_inferiority,
    significant,
)
from firstspin.experiment.stats.means import Mean, fieller

# The known case: 1,000 of 20,000 against 1,087 of 20,000, +8.7%, just not significant. It tells methods apart.
CONTROL, MODEL, N = 1_000, 1_087, 20_000
KNOWN = ClickRates(Clicks(N, CONTROL), Clicks(N, MODEL))
Z = float(stats.norm.isf(0.025))


def as_mean(clicked: int, n: int, *, unbiased: bool = True) -> Mean:
    rate = clicked / n
    return Mean(n, rate, rate * (1 - rate) / (n - unbiased))


def assert_printed(rows: dict[str, float]) -> None:
    """Each value is the one printed in the reference table, to the last digit printed."""
    for printed, value in rows.items():
        digits, percent = printed.split(" ")[0].rstrip("%"), "%" in printed
        half = 0.5 * 10.0 ** -len(digits.split(".")[1])
        assert value * (100 if percent else 1) == pytest.approx(float(digits), abs=half * 1.0001), printed


def test_the_known_case_comes_out_with_the_score_test() -> None:
    known = lift(KNOWN)
    assert known.relative.value == pytest.approx(0.087, abs=1e-12)
    assert not significant(known)
    assert_printed({"0.050455": known.p_value, "-0.0165%": known.relative.low, "18.177%": known.relative.high})
    assert known.difference.low < 0 < known.difference.high


def test_the_known_case_comes_out_with_welch_and_fieller() -> None:
    known = lift(Means(as_mean(CONTROL, N), as_mean(MODEL, N)))
    ends = fieller(as_mean(MODEL, N, unbiased=False), as_mean(CONTROL, N, unbiased=False), Z)
    assert ends is not None
    assert_printed({"0.050454": known.p_value, "-0.0160%": ends[0] - 1, "18.212%": ends[1] - 1})


def test_the_libraries_rows_of_the_reference_table_still_come_out() -> None:
    square = [[MODEL, N - MODEL], [CONTROL, N - CONTROL]]
    two = partial(proportion.test_proportions_2indep, MODEL, N, CONTROL, N)
    ends = partial(proportion.confint_proportions_2indep, MODEL, N, CONTROL, N)
    wald, log, score = (ends(method=m, compare=c) for m, c in (("wald", "diff"), ("log", "ratio"), ("score", "ratio")))
    katz = stats.contingency.relative_risk(MODEL, N, CONTROL, N).confidence_interval(0.95)
    assert_printed(
        {
            "0.050452 pooled": proportion.proportions_ztest([MODEL, CONTROL], [N, N])[1],
            "0.050441 unpooled": two(method="wald", compare="diff").pvalue,
            "0.050530 log ratio": two(method="log", compare="ratio").pvalue,
            "0.050455 ratio score": two(method="score", compare="ratio").pvalue,
            "0.05314 Fisher": stats.fisher_exact(square).pvalue,
            "0.05316 Yates": stats.chi2_contingency(square).pvalue,
            "-0.0000084 Wald": wald[0],
            "0.0087084 Wald": wald[1],
            "-0.0192% log": log[0] - 1,
            "18.180% log": log[1] - 1,
            "-0.0192% Katz": katz.low - 1,
            "18.180% Katz": katz.high - 1,
            "-0.0165% score": score[0] - 1,
            "18.177% score": score[1] - 1,
        }
    )


def test_tea_tasting_gives_its_rows_of_the_reference_table() -> None:
    arms = [
        Aggregates(count_=N, mean_={"x": x / N}, var_={"x": x / N * (1 - x / N) * N / (N - 1)}, cov_={})
        for x in (CONTROL, MODEL)
    ]
    mean = tea_tasting.Mean("x").analyze_aggregates(*arms)
    plain = tea_tasting.Proportion("x", method="norm", correction=False).analyze_aggregates(*arms)
    default = tea_tasting.Proportion("x").analyze_aggregates(*arms)
    assert_printed({"0.050454": mean.pvalue, "0.050452": plain.pvalue, "0.053159": default.pvalue})
    assert_printed({"-0.0197%": mean.rel_effect_size_ci_lower, "18.180%": mean.rel_effect_size_ci_upper})
    assert_printed({"-0.0116%": plain.rel_effect_size_ci_lower, "18.171%": plain.rel_effect_size_ci_upper})
    assert_printed({"-0.112%": default.rel_effect_size_ci_lower, "18.289%": default.rel_effect_size_ci_upper})


SIZES = st.tuples(st.integers(20, 50_000), st.integers(20, 50_000))
SHARES = st.tuples(st.floats(0.05, 0.95), st.floats(0.05, 0.95))


@pytest.mark.parametrize("examples", [50, pytest.param(2_000, marks=pytest.mark.soak)])
def test_any_table_agrees_with_statsmodels_and_scipy(examples: int) -> None:
    settings(max_examples=examples)(given(SIZES, SHARES)(agrees_with_statsmodels_and_scipy))()


def agrees_with_statsmodels_and_scipy(n: tuple[int, int], share: tuple[float, float]) -> None:
    control, model = (round(size * part) for size, part in zip(n, share, strict=True))
    ours = lift(ClickRates(Clicks(n[0], control), Clicks(n[1], model)))
    theirs = proportion.test_proportions_2indep(model, n[1], control, n[0], method="score", compare="ratio")
    ends = proportion.confint_proportions_2indep(model, n[1], control, n[0], method="score", compare="ratio")
    assert ours.p_value == pytest.approx(theirs.pvalue, rel=1e-6, abs=1e-300)
    # theirs solves a cubic by its companion matrix and loses some digits
    assert (ours.relative.low, ours.relative.high) == pytest.approx((ends[0] - 1, ends[1] - 1), rel=1e-4, abs=1e-5)
    total = sum(n)
    chi2 = stats.chi2_contingency([[model, n[1] - model], [control, n[0] - control]], correction=False)
    assert ours.p_value == pytest.approx(stats.chi2.sf(chi2.statistic * (total - 1) / total, 1), rel=1e-6, abs=1e-300)
    welch = lift(Means(as_mean(control, n[0]), as_mean(model, n[1])))
    samples = [np.repeat([0.0, 1.0], [size - x, x]) for size, x in ((n[1], model), (n[0], control))]
    assert welch.p_value == pytest.approx(stats.ttest_ind(*samples, equal_var=False).pvalue, rel=1e-6, abs=1e-300)


arms = st.integers(0, 2_000).flatmap(lambda n: st.builds(Clicks, st.just(n), st.integers(0, n)))
spreads = st.builds(Mean, st.integers(0, 1_000), st.floats(-10, 1e4), st.one_of(st.just(0.0), st.floats(1e-6, 1e4)))


@given(comparison=st.one_of(st.builds(ClickRates, arms, arms), st.builds(Means, spreads, spreads)))
def test_p_and_both_intervals_never_contradict_each_other_and_nothing_is_nan(comparison: ClickRates | Means) -> None:
    seen = lift(comparison)
    json.loads(msgspec.json.encode(seen), parse_constant=pytest.fail)
    for number in msgspec.json.decode(msgspec.json.encode(seen)).values():
        assert number is None or isinstance(number, str | dict) or math.isfinite(number)
    if seen.p_value is None:
        assert seen.difference.reason
        assert seen.relative.reason
        return
    if abs(seen.p_value - 0.05) > 1e-9:
        assert excludes(seen.difference.low, seen.difference.high) == significant(seen)
        if seen.relative.low is not None:
            assert excludes(seen.relative.low, seen.relative.high) == significant(seen)


def excludes(low: float | None, high: float | None) -> bool:
    assert low is not None
    return low > 0 or (high is not None and high < 0)


@settings(max_examples=25)
@given(one=arms, two=arms)
def test_swapping_the_arms_mirrors_the_lift(one: Clicks, two: Clicks) -> None:
    there, back = lift(ClickRates(one, two)), lift(ClickRates(two, one))
    assert there.p_value == pytest.approx(back.p_value) if there.p_value is not None else back.p_value is None
    if there.relative.high is not None and back.relative.high is not None:
        assert (1 + there.relative.low) * (1 + back.relative.high) == pytest.approx(1, rel=1e-6)
        assert (1 + there.relative.high) * (1 + back.relative.low) == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize(
    ("control", "model", "p", "relative"),
    [
        (Clicks(100, 0), Clicks(100, 0), 1.0, (None, -1.0, None)),
        (Clicks(100, 0), Clicks(100, 5), 0.023890, (None, 0.323651, None)),
        (Clicks(100, 5), Clicks(100, 0), 0.023890, (-1.0, -1.0, -0.244514)),
        (Clicks(100, 100), Clicks(100, 100), 1.0, (0.0, -0.037172, 0.038608)),
        (Clicks(1, 0), Clicks(1, 1), 0.317311, (None, -0.739682, None)),
        (Clicks(0, 0), Clicks(100, 5), None, (None, None, None)),
        (Clicks(100, 5), Clicks(0, 0), None, (None, None, None)),
    ],
)
def test_corners_have_defined_answers(
    control: Clicks, model: Clicks, p: float | None, relative: tuple[float | None, ...]
) -> None:
    corner = lift(ClickRates(control, model))
    assert corner.p_value == (None if p is None else pytest.approx(p, abs=1e-6))
    found = corner.relative.value, corner.relative.low, corner.relative.high
    assert [x is None for x in found] == [x is None for x in relative]
    assert [x for x in found if x is not None] == pytest.approx([x for x in relative if x is not None], abs=1e-6)
    assert bool(corner.relative.reason) == (None in relative)


@pytest.mark.parametrize(
    ("control", "model", "reason"),
    [
        (Mean(0, 0.0, 0.0), Mean(10, 5.0, 1.0), NO_USERS),
        (Mean(1, 5.0, 0.0), Mean(10, 5.0, 1.0), ONE_USER),
        (Mean(10, 5.0, 0.0), Mean(10, 5.0, 0.0), NO_SPREAD),
        (Mean(10, 0.5, 1.0), Mean(10, 5.0, 1.0), ZERO_CONTROL),
    ],
)
def test_what_means_can_not_tell_says_why(control: Mean, model: Mean, reason: str) -> None:
    seen: Lift = lift(Means(control, model))
    assert seen.relative.low is None
    assert seen.relative.reason == reason


def test_no_significant_difference_is_not_just_as_good() -> None:
    few = Means(Mean(100, 60.0, 9.0), Mean(100, 60.0, 9.0))
    many = Means(Mean(10_000, 60.0, 0.09), Mean(10_000, 59.9, 0.09))
    assert not significant(lift(few))
    assert not non_inferiority(few, margin=0.05).shown
    shown = non_inferiority(many, margin=0.05)
    assert shown.shown
    assert shown.bound is not None
    assert -0.05 < shown.bound < 0


@settings(max_examples=25)
@given(control=arms, model=arms, margin=st.sampled_from([0.01, 0.05, 0.2]))
def test_non_inferiority_is_shown_exactly_when_the_bound_lies_inside_the_margin(
    control: Clicks, model: Clicks, margin: float
) -> None:
    kept = non_inferiority(ClickRates(control, model), margin=margin)
    if kept.bound is None or kept.p_value is None:
        assert not kept.shown
        assert kept.reason
    elif abs(kept.p_value - 0.05) > 1e-9:
        assert kept.shown == (kept.bound > -margin)


def test_a_true_loss_of_the_whole_margin_is_let_through_one_time_in_twenty() -> None:
    rng = np.random.default_rng(8)
    passed, runs, n = 0, 4_000, 2_000
    for _ in range(runs):
        minutes = rng.gamma(0.5, 40, (2, n))
        average, variance = minutes.mean(axis=1) * [1, 0.95], minutes.var(axis=1, ddof=1) / n * [1, 0.95**2]
        arms = Means(*(Mean(n, float(average[arm]), float(variance[arm])) for arm in (0, 1)))
        passed += non_inferiority(arms, margin=0.05).shown
    assert 0.04 < passed / runs < 0.06
