"""Champion and challenger on users new to both: the hold-out, each requirement's test, and what the gate decides."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import made_people
import numpy as np
import pytest
from made_bundles import pack
from numpy.typing import NDArray
from scipy.stats import binom, poisson, ttest_rel

from firstspin.data.overlap import sketch
from firstspin.evaluation import promotion
from firstspin.evaluation.metrics import RankingMetric
from firstspin.evaluation.promotion import Paired, Requirement, compare, judged, segments
from firstspin.records import Examples, InputError
from firstspin.serving.bundle import Bundle

HIT, LOSS = RankingMetric.HIT_3, RankingMetric.LOG_LOSS
ENDS = "2025-05-01T00:00:00"
Array = NDArray[np.float64]


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Bundle]:
    """A model that is as bad as the business rule, for it is the rule, and one of 400 users; trained until ENDS."""
    folder = tmp_path_factory.mktemp("promotion")
    people = replace(made_people.examples(400, 1), user_ids=tuple(f"early{i}" for i in range(400)))
    users = sketch(people.user_ids, 400)
    rule = pack(folder / "rule", "popularity", people=people, data={"labels_end": "2025-03-01T00:00:00"})
    return rule, pack(folder / "model", people=people, data={"labels_end": ENDS}, users=users)


def test_the_better_of_two_bundles_is_promoted_and_the_swap_is_not(taught: tuple[Bundle, Bundle]) -> None:
    people = made_people.examples(1200)
    rule, model = taught
    verdict = compare(rule, model, people)
    assert (verdict.decision, verdict.passes) == ("promote", True)
    assert verdict.since == f"{ENDS}Z"
    assert verdict.users == 1200 - 120  # registered a day apart from 2025-01-01 on; the first of May counts
    swapped = compare(model, rule, people)
    assert swapped.decision == "keep"
    there, back = verdict.requirements[0].difference, swapped.requirements[0].difference
    assert (back.value, back.low, back.high) == (-there.value, -there.high, -there.low)
    assert swapped.why.startswith("the challenger fails hit@3, hit@3 over the business rule")


def test_the_same_bundle_is_never_promoted(taught: tuple[Bundle, Bundle]) -> None:
    verdict = compare(taught[1], taught[1], made_people.examples(900))
    assert verdict.decision == "keep"
    assert verdict.requirements[0].difference.value == 0
    assert {one.outcome for one in verdict.requirements if one.margin} == {"holds"}


def test_users_who_registered_before_the_end_of_training_are_no_hold_out(taught: tuple[Bundle, Bundle]) -> None:
    verdict = compare(*taught, made_people.examples(120))  # the last one registered on the 30th of April
    assert (verdict.decision, verdict.users, verdict.needed) == ("not enough users", 0, 100)
    assert verdict.why == f"0 labelled users registered since {ENDS}Z, the end of training; 100 are needed"


def test_a_bundle_that_was_trained_on_the_hold_out_is_refused(taught: tuple[Bundle, Bundle]) -> None:
    people = made_people.examples(900)
    known = replace(people, user_ids=(*people.user_ids[:500], *(f"early{i}" for i in range(400))))
    with pytest.raises(InputError, match=r"about 5\d% of the users who registered since 2025-05-01.* are in the train"):
        compare(*taught, known)


def test_a_bundle_without_the_end_of_its_training_is_refused(taught: tuple[Bundle, Bundle], tmp_path: Path) -> None:
    old = pack(tmp_path / "old")
    for pair in ((old, taught[1]), (taught[1], old)):
        with pytest.raises(InputError, match=f"bundle {old.id} does not record the end of its training data"):
            compare(*pair, made_people.examples(200))


@pytest.mark.parametrize(("margin", "alpha"), [(0, 0.05), (1, 0.05), (0.05, 0), (float("nan"), 0.05)])
def test_a_margin_or_a_level_that_is_no_share_is_refused(
    taught: tuple[Bundle, Bundle], margin: float, alpha: float
) -> None:
    with pytest.raises(InputError, match="must be between 0 and 1"):
        compare(*taught, made_people.examples(200), margin=margin, alpha=alpha)


def test_segments_are_large_or_pooled() -> None:
    people = made_people.examples(1000)
    by = {(by, name): len(members) for by, name, members in segments(people)}
    assert min(by.values()) >= 100
    assert by["age", "not given"] > 100
    assert ("age", "18-24") in by
    assert ("age", "55+") not in by  # 8% of all, and so is the pool
    assert {attribute for attribute, _ in by} == {"picks", "age", "country"}  # no month: it is no kind of user


# ------------------------------------------------------------------------------------------------- the statistics


def of(champion: Array, challenger: Array, margin: float = 0.0, metric: RankingMetric = HIT) -> Requirement:
    (one,) = judged(iter([Paired(metric, margin, champion, challenger)]), len(champion), 0.05)
    return one


def users(both: int, gained: int, lost: int, neither: int) -> tuple[Array, Array]:
    """Hits of champion and challenger by user."""
    counts = (both, gained, lost, neither)
    return np.repeat([1.0, 0, 1, 0], counts), np.repeat([1.0, 1, 0, 0], counts)


def test_the_interval_is_students_of_the_paired_differences() -> None:
    champion, challenger = users(100, 30, 10, 60)
    one = of(champion, challenger)
    interval = ttest_rel(challenger, champion).confidence_interval(0.95)
    assert (one.champion, one.challenger, one.difference.value) == (0.55, 0.65, 0.1)
    assert (one.difference.low, one.difference.high) == (round(interval.low, 6), round(interval.high, 6))
    assert one.outcome == "holds"


def test_a_loss_is_a_gain_where_it_is_lower() -> None:
    champion = np.linspace(1, 2, 200)
    assert of(champion, champion - 0.1, metric=LOSS).outcome == "holds"
    assert of(champion, champion + 0.1, metric=LOSS).outcome == "fails"
    assert of(champion, champion * 1.04, 0.05, LOSS).outcome == "holds"
    assert of(champion, champion * 1.06, 0.05, LOSS).outcome == "fails"
    assert of(champion / 100, champion / 100 * 1.04, 0.05, LOSS).outcome == "holds"  # however small the losses


@pytest.mark.parametrize(
    ("counts", "margin", "outcome"),
    [
        ((300, 10, 10, 80), 0.05, "holds"),  # as good: a loss of 5% of .775 is excluded
        ((300, 10, 10, 80), 0.0, "fails"),  # no better, however many users
        ((300, 30, 20, 50), 0.0, "open"),
        ((300, 30, 40, 30), 0.05, "open"),  # a loss of .025 of .85
        ((200, 10, 90, 100), 0.05, "fails"),  # a loss of .2
        ((90, 0, 0, 9), 0.05, "open"),  # 99 users, the same answers
        ((90, 0, 0, 10), 0.05, "holds"),
        ((0, 0, 0, 100), 0.05, "holds"),  # the same answers, and no hit
    ],
)
def test_a_requirement_holds_fails_or_needs_users(
    counts: tuple[int, int, int, int], margin: float, outcome: str
) -> None:
    one = of(*users(*counts), margin)
    assert one.outcome == outcome
    assert (one.needed > sum(counts)) == (outcome == "open")


def drawn(rng: np.random.Generator, n: int, gain: float, differ: float) -> tuple[Array, Array]:
    """n users of which 60% or so are hits, whose hits differ with a probability, and are gained on average."""
    champion = (rng.random(n) < 0.6).astype(float)
    u = rng.random(n)
    lost, gained = (differ - gain) / 2 / 0.6, (differ + gain) / 2 / 0.4
    return champion, np.where(champion > 0, (u >= lost).astype(float), (u < gained).astype(float))


def test_a_challenger_that_is_no_better_or_a_margin_worse_is_promoted_in_at_most_a_fortieth_of_the_cases() -> None:
    rng = np.random.default_rng(0)
    runs = 2000
    for gain, margin in ((0.0, 0.0), (-0.05 * 0.6, 0.05)):
        holds = sum(of(*drawn(rng, 400, gain, 0.1), margin).outcome == "holds" for _ in range(runs))
        assert holds / runs <= 0.025 + 3 * np.sqrt(0.025 * 0.975 / runs)


def test_with_few_differences_the_level_is_exact_enough() -> None:
    """The probability that superiority holds where the champion is as good, by the mean number of differing users."""
    n = 1000
    for mean in (1, 2, 4, 8, 16, 32):
        level = 0.0
        for differ in range(1, 100):
            gained = np.arange(differ + 1)
            shift = (2 * gained - differ) / n
            error = np.sqrt((differ / n - shift**2) / (n - 1))
            level += poisson.pmf(differ, mean) * binom.pmf(gained, differ, 0.5)[shift > 1.9623 * error].sum()
        assert level <= 0.028


@pytest.mark.parametrize("n", [100, 110, 150, 200, 500, 1000, 3000])
@pytest.mark.parametrize("rate", [0.3, 0.5, 0.7, 0.9])
def test_users_who_only_lose_by_the_margin_seldom_hold(n: int, rate: float) -> None:
    """The exact probability, for a challenger that loses one hit in twenty and gains none."""
    hits = round(n * rate)
    lost = range(hits // 10)
    holds = [of(*users(hits - many, 0, many, n - hits), 0.05).outcome == "holds" for many in lost]
    assert binom.pmf(lost, hits, 0.05)[holds].sum() <= 0.027
    assert holds[0] == (hits * 0.05 >= np.log(40))


def test_a_loss_that_skewness_leaves_open_needs_more_users_and_fails_not() -> None:
    one = of(*users(199, 0, 1, 0), 0.05)  # one loss, where ten are the margin: Student's t is 9
    two = of(*users(147, 0, 3, 0), 0.05)
    assert (one.outcome, two.outcome) == ("holds", "open")
    assert 150 < two.needed < 600


def test_so_many_users_as_are_needed_decide_with_a_power_of_80_percent() -> None:
    rng = np.random.default_rng(1)
    needed = np.median([of(*drawn(rng, 400, 0.03, 0.1)).needed or 400 for _ in range(100)])
    large = of(*drawn(rng, 200_000, 0.03, 0.1))
    expected = (2.8016 * np.sqrt(0.1 - 0.03**2) / 0.03) ** 2  # of the formula for a paired difference
    assert expected == pytest.approx(864, abs=1)
    assert large.outcome == "holds"
    assert 400 <= needed <= 2 * expected
    holds = sum(of(*drawn(rng, round(expected), 0.03, 0.1)).outcome == "holds" for _ in range(1000))
    assert holds / 1000 == pytest.approx(0.8, abs=0.04)


def test_of_many_segments_that_are_a_margin_worse_none_is_refuted_in_39_of_40_cases() -> None:
    rng = np.random.default_rng(2)

    def refutes() -> bool:
        pairs = [Paired(HIT, 0.05, *drawn(rng, 150, -0.03, 0.1), "age", str(i)) for i in range(8)]
        return any(
            promotion.holm_p_values([promotion._below_zero(one.excess()) for one in pairs])[i] <= 0.025
            for i in range(8)
        )

    assert sum(refutes() for _ in range(600)) / 600 <= 0.025 + 3 * np.sqrt(0.025 * 0.975 / 600)


def test_a_segment_that_loses_keeps_the_champion(taught: tuple[Bundle, Bundle]) -> None:
    """The rule is right about everyone in Germany, whose favourite is their first pick: there the model is worse."""
    rule, model = taught
    people = made_people.examples(2000)
    tops = people.tops.copy()
    of_rule = promotion.answer(rule.predictor, people).shown[:, 2]
    of_model = promotion.answer(model.predictor, people).shown[:, :3]
    german = np.array([one.country == "DE" for one in people.registrations])
    lost = german & ~(of_model == of_rule[:, None]).any(axis=1)
    tops[lost] = of_rule[lost]
    verdict = compare(
        rule,
        model,
        Examples(people.user_ids, people.registrations, people.registered_at, people.genres, tops, people.shares),
    )
    failing = [one.name for one in verdict.requirements if one.outcome == "fails"]
    assert verdict.decision == "keep"
    assert "hit@3, country: DE" in failing
    assert "hit@3, country: US" not in failing


def gate(rng: np.random.Generator, gain: float, loss_in_one: float = 0.0) -> bool:
    """Whether all requirements hold for 4 segments of 300 users, with this gain in three of them and a loss in one."""
    gains = [gain, gain, gain, gain - loss_in_one]
    parts = [drawn(rng, 300, one, 0.2) for one in gains]
    everyone = tuple(np.concatenate(side) for side in zip(*parts, strict=True))
    pairs = [Paired(HIT, 0.0, *everyone)]
    pairs += [Paired(HIT, 0.05, *part, "age", str(i)) for i, part in enumerate(parts)]
    return all(one.outcome == "holds" for one in judged(iter(pairs), 1200, 0.05))


@pytest.mark.parametrize(
    ("gain", "loss_in_one", "low", "high"),
    [
        (0.0, 0.0, 0.0, 0.025),  # as good everywhere
        (-0.02, 0.0, 0.0, 0.005),  # worse everywhere
        (0.1, 0.13, 0.0, 0.035),  # better, and in one segment worse by the margin, .05 of .6; 400 runs of 2.5%
        (0.1, 0.0, 0.9, 1.0),  # better everywhere: the power
    ],
)
def test_the_gate_promotes_what_is_better_and_seldom_what_is_not(
    gain: float, loss_in_one: float, low: float, high: float
) -> None:
    rng = np.random.default_rng(7)
    promoted = sum(gate(rng, gain, loss_in_one) for _ in range(400)) / 400
    assert low <= promoted <= high
