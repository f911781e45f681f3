"""The stopping rule of a canary: a hidden harm stops it early, chance seldom, and a sound challenger is promoted."""

from __future__ import annotations

import math
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.stats import norm

from firstspin.experiment.analyse import analyse
from firstspin.experiment.canary import TUNED_AT, harms
from firstspin.experiment.outcomes import LeftOut, Outcomes
from firstspin.experiment.rules import Metric, Rules, checked_rules
from firstspin.experiment.stats.proportions import ratio_z, table
from firstspin.experiment.stats.sequential import one_sided_log_e
from firstspin.experiment.verdict import Verdict, verdict_lines
from firstspin.records import InputError

sys.path.append(str(Path(__file__).parent.parent.parent / "bench"))
from canary import Canary, simulate

START = date(2026, 2, 2)
END = datetime(2026, 2, 17, tzinfo=UTC)
ARMS = ("model", "challenger")
DAYS = 14


def rules(*metrics: Metric, **fields: object) -> Rules:
    fields = {"weights": {"model": 95.0, "challenger": 5.0}, "harm_margin": 0.1, "tuned_for": 28_000} | fields
    return Rules(
        control="model",
        metrics=metrics or (Metric("clicked", "binary"),),
        peeking="always-valid",
        starts_on=START,
        days=DAYS,
        reads_at=END,
        **fields,  # type: ignore[arg-type]
    )


def outcomes(
    challenger: NDArray[np.bool_], *values: NDArray[np.float64], days: int = DAYS, metrics: tuple[Metric, ...] = ()
) -> Outcomes:
    """Users in order of their registration, evenly over the days."""
    n = len(challenger)
    day = np.datetime64(START, "D") + (np.arange(n) * days // n)
    of = metrics or (Metric("clicked", "binary"),)
    return Outcomes(
        "log", ARMS, challenger.astype(np.int64), of, values, (None,) * len(of), np.empty((n, 0)), day, LeftOut()
    )


def every_twentieth(n: int) -> NDArray[np.bool_]:
    return np.arange(n) % 20 == 0


def clicks(n: int, control: int, challenger: int) -> NDArray[np.float64]:
    """Of every hundred users of the control and of the challenger, so many click, evenly spread."""
    number = np.arange(n)
    is_challenger = every_twentieth(n)
    of_arm = np.where(is_challenger, number // 20, number - number // 20 - 1)
    rate = np.where(is_challenger, challenger, control)
    return ((of_arm + 1) * rate // 100 - of_arm * rate // 100).astype(np.float64)


def verdict(n: int, control: int, challenger: int, *, days: int = DAYS, **how: object) -> Verdict:
    """As known at noon of the day after so many days."""
    now = datetime.combine(START, datetime.min.time(), UTC) + timedelta(days=days, hours=12)
    fallbacks = how.pop("fallbacks", {})
    counted = outcomes(every_twentieth(n), clicks(n, control, challenger), days=days)
    return analyse(counted, rules(**how), now=max(now, END) if days == DAYS else now, fallbacks=fallbacks)  # type: ignore[arg-type]


def test_the_evidence_is_the_mixture_of_likelihood_ratios_that_its_source_defines() -> None:
    """Robbins: the mean over a half-normal drift of exp(drift x sum - drift² x n / 2), integrated numerically."""
    n, z, alpha, tuned = 4_000.0, 2.5, 0.05, 7_000.0
    variance = (-2 * math.log(2 * alpha) + math.log(1 - 2 * math.log(2 * alpha))) / tuned
    score = z * math.sqrt(n)

    def weighed(drift: float) -> float:
        return 2 * norm.pdf(drift, scale=math.sqrt(variance)) * math.exp(drift * score - drift**2 * n / 2)

    mixture, _ = quad(weighed, 0, 20 * math.sqrt(variance), points=[score / n], epsabs=0, epsrel=1e-10)
    log_e = one_sided_log_e(np.asarray(z), np.asarray(n), alpha, tuned_for=tuned)
    assert float(log_e) == pytest.approx(math.log(mixture), rel=1e-8)
    against = one_sided_log_e(np.asarray([-4.0, 0.0, 4.0]), np.full(3, n), alpha, tuned_for=tuned)
    assert against[0] < against[1] < 0 < against[2]


def test_a_harm_stops_the_canary_before_its_planned_end() -> None:
    stopped = verdict(6_000, 30, 12, days=3)
    assert stopped.decision == "stop the canary"
    assert stopped.sentence.startswith("Stop the canary: challenger loses more than 0.1 of model's clicked (evidence ")
    [harm] = stopped.harms
    assert (harm.margin, harm.stops_at, harm.shown) == (0.1, 20, True)
    assert verdict_lines(stopped)[1].rows[0][:2] == ("clicked", "0.1")
    # what the sealed margin allows is no harm: a loss of 10% is on the border
    assert verdict(6_000, 30, 27, days=3).decision == "go on with the canary"


def test_an_equal_challenger_goes_on_and_is_promoted_at_the_planned_end() -> None:
    assert verdict(28_000, 30, 30, days=13).decision == "go on with the canary"
    ended = verdict(28_000, 30, 30)
    assert ended.decision == "promote the challenger"
    assert "the margin is 10%" in ended.sentence
    few = verdict(2_000, 30, 30)
    assert few.decision == "stop the canary"
    assert few.sentence.startswith("Stop the canary: its planned end has come. Clicked: a loss of up to ")


def test_a_stop_is_not_taken_back_by_later_days() -> None:
    """Harm in the first week, none in the second: the evidence is the maximum over the looks."""
    n = 28_000
    bad, good = clicks(n, 30, 5), clicks(n, 30, 40)
    counted = outcomes(every_twentieth(n), np.where(np.arange(n) < n // 2, bad, good))
    [after_a_week] = harms(outcomes(every_twentieth(n // 2), bad[: n // 2], days=7), checked_rules(rules(), ARMS))
    assert after_a_week.shown
    assert analyse(counted, rules(), now=END).decision == "stop the canary"


def test_a_wrong_split_and_a_failing_challenger_stop_it() -> None:
    uneven = outcomes(np.arange(4_000) % 10 == 0, clicks(4_000, 30, 30), days=2)
    stopped = analyse(uneven, rules(), now=datetime(2026, 2, 4, tzinfo=UTC))
    assert stopped.decision == "stop the canary"
    assert "do not match the weights" in stopped.sentence
    failing = verdict(6_000, 30, 30, days=3, fallbacks={"challenger": 0.2})
    assert failing.sentence == (
        "Stop the canary: a fallback answered 20.0% of the users of challenger; the limit is 5%."
    )
    assert verdict(6_000, 30, 30, days=3, fallbacks={"challenger": 0.05}).decision == "go on with the canary"
    # two of the first 40 users are no reason yet
    assert verdict(800, 30, 30, days=3, fallbacks={"challenger": 0.2}).decision == "go on with the canary"


def test_a_guardrail_stops_it_too_and_shares_alpha() -> None:
    metrics = (Metric("clicked", "binary"), Metric("seconds", "continuous", margin=0.2))
    n, rng = 6_000, np.random.default_rng(1)
    seconds = rng.exponential(100, n) * np.where(every_twentieth(n), 0.3, 1)
    counted = outcomes(every_twentieth(n), clicks(n, 30, 30), seconds, days=3, metrics=metrics)
    found = analyse(counted, rules(*metrics), now=datetime(2026, 2, 5, tzinfo=UTC))
    assert [(harm.metric, harm.stops_at, harm.shown) for harm in found.harms] == [
        ("clicked", 40, False),
        ("seconds", 40, True),
    ]
    assert "0.2 of model's seconds" in found.sentence


def test_missing_and_constant_values_are_no_evidence() -> None:
    n = 6_000
    for values in (np.full(n, np.nan), np.zeros(n), np.ones(n)):
        found = analyse(outcomes(every_twentieth(n), values, days=3), rules(), now=datetime(2026, 2, 5, tzinfo=UTC))
        assert found.decision == "go on with the canary"
    seconds = (Metric("seconds", "continuous"),)
    constant = outcomes(every_twentieth(n), np.full(n, 7.0), days=3, metrics=seconds)
    assert analyse(constant, rules(*seconds), now=datetime(2026, 2, 5, tzinfo=UTC)).decision == "go on with the canary"


@pytest.mark.parametrize("fields", [{"weights": {"model": 1.0, "a": 1.0, "b": 1.0}}, {"weights": {"model": 1.0}}])
def test_a_canary_has_two_arms(fields: dict[str, object]) -> None:
    with pytest.raises(InputError, match="two arms"):
        checked_rules(rules(**fields), ())


@pytest.mark.parametrize(("rate", "margin", "loss"), [(0.05, 0.1, 0.0), (0.05, 0.1, 0.1), (0.999, 0.001, 0.001)])
def test_looks_at_sparse_clicks_stop_at_most_one_canary_in_twenty(rate: float, margin: float, loss: float) -> None:
    """2,000 canaries of 2,000 users a day, read every hour; a loss of the margin is the worst case.

    Of a rate of 99.9%, 8% would be stopped with the spread of the hypothesis: 2 of 100 users without a click have a z
    of 4 where 0.2 are expected.
    """
    stops = simulate(Canary(rate, margin, loss, users_a_day=2_000), 2_000, np.random.default_rng(5))
    assert stops.share <= 0.05


def test_the_simulated_evidence_is_that_of_the_analysis() -> None:
    """300 of 5,700 users of the control have no click, 30 of 300 of the challenger."""
    clicked = clicks(6_000, 95, 90)
    [harm] = harms(outcomes(every_twentieth(6_000), clicked, days=1), checked_rules(rules(harm_margin=0.02), ARMS))
    challenger = every_twentieth(6_000)
    counts = clicked[challenger].sum(), 300, clicked[~challenger].sum(), 5_700
    z = -ratio_z(table(*counts), np.asarray(0.98), spread_as_observed=True)
    log_e = one_sided_log_e(z, np.asarray(6_000.0), 0.05, tuned_for=28_000 * TUNED_AT)
    assert harm.e_value == pytest.approx(math.exp(float(log_e)))
    assert z < -ratio_z(table(*counts), np.asarray(0.98))


def test_a_large_harm_is_shown_within_two_days() -> None:
    stops = simulate(Canary(0.05, 0.1, 0.5), 200, np.random.default_rng(5))
    assert np.quantile(stops.hours, 0.95) < 48
    assert np.isfinite(stops.hours).all()


def stopped_by_seconds(loss: float, canaries: int) -> float:
    """The share of canaries of 2,000 users a day that is stopped; most users listen to nothing, a few very long."""
    rng, stopped = np.random.default_rng(5), 0
    metrics = (Metric("seconds", "continuous"),)
    checked = checked_rules(rules(*metrics), ARMS)
    for _ in range(canaries):
        challenger = rng.random(28_000) < 0.05
        seconds = rng.lognormal(0, 1.5, 28_000) * (rng.random(28_000) < 0.2) * np.where(challenger, 1 - loss, 1)
        [harm] = harms(outcomes(challenger, seconds, metrics=metrics), checked)
        stopped += harm.shown
    return stopped / canaries


def test_skewed_seconds_stop_no_equal_canary() -> None:
    """With the variance of the challenger's own users, 19% of these canaries would be stopped."""
    assert stopped_by_seconds(0.0, 60) <= 0.05
    assert stopped_by_seconds(0.9, 5) == 1


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_false_stops_stay_below_alpha_in_many_canaries() -> None:
    for rate, margin in ((0.02, 0.1), (0.05, 0.1), (0.3, 0.1), (0.8, 0.1), (0.99, 0.005), (0.999, 0.001)):
        for loss in (0.0, margin):
            stops = simulate(Canary(rate, margin, loss, users_a_day=2_000), 20_000, np.random.default_rng(7))
            assert stops.share <= 0.05, (rate, loss)
    assert stopped_by_seconds(0.0, 2_000) <= 0.05
    assert stopped_by_seconds(0.1, 2_000) <= 0.05
