"""Expected hits are right on average, their intervals cover, and a broken calibration is flagged, not noise."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import made_people
import msgspec
import numpy as np
import pytest
from made_answers import MODEL, Pool, pool
from made_bundles import pack

from firstspin import learn
from firstspin.events.answer_counts import AnswerCell, AnswerSum, DayCounts
from firstspin.models.calibration import CalibrationBin, HoldOutCalibration
from firstspin.records import Examples, LabelRule, Registration
from firstspin.serving import bundle
from firstspin.serving.bundle import Bundle
from firstspin.serving.policy import DEFAULTS, decide_many
from firstspin.simulation.world import make_world, newcomers, write_world
from firstspin.watch.quality import ALPHA, CohortQuality, HitRate, Quality, expected_hits, label_answers, quality

RULE = LabelRule(gap_days=30, window_days=30)
NOW = datetime(2026, 4, 1, tzinfo=UTC)
FIRST = date(2026, 1, 5)  # a Monday


def covered(users: Pool, held_out: int, answered: int, times: int, rng: np.random.Generator) -> np.ndarray:
    """(times, 3) whether the interval of hit@1, 3 and 5 has the observed share, each time of new users and outcomes."""
    inside = np.zeros((times, 3), dtype=bool)
    for i in range(times):
        some = rng.permutation(len(users.picks))[: held_out + answered]
        new = some[held_out:]
        kinds = {MODEL: users.calibration(some[:held_out], rng).by_kind()}
        for j, top in enumerate((1, 3, 5)):
            figure = expected_hits(users.sums(top, new), kinds).figure()
            assert figure is not None
            inside[i, j] = figure.low <= users.hits(top, new, rng).mean() <= figure.high
    return inside


@pytest.fixture(scope="module")
def simulated() -> Pool:
    return pool(12_000, 3)


def test_the_expected_hits_are_the_mean_probability_without_the_excess_of_the_hold_out() -> None:
    """100 held-out users at 0.62 had 52 hits, so 200 answers at 0.64 are expected to have 0.54."""
    kinds = {"a": HoldOutCalibration((CalibrationBin("model", "1", 1, 0, 100, 62_000_000, 52),)).by_kind()}
    cell = AnswerCell("a", "model", "model", "1", 1, 12)
    expected = expected_hits([AnswerSum(cell, 200, 128_000_000)], kinds)
    figure = expected.figure()
    assert figure is not None
    share = 53 / 102
    deviation = (0.54 * 0.46 / 200 + share * (1 - share) / 100) ** 0.5
    assert (figure.value, figure.low) == (0.54, pytest.approx(0.54 - 1.959964 * deviation, abs=1e-6))


def test_answers_of_an_unknown_bundle_and_after_listens_have_no_expected_hits(simulated: Pool) -> None:
    kinds = {MODEL: simulated.calibration(np.arange(500), np.random.default_rng(0)).by_kind()}
    sums = [
        AnswerSum(AnswerCell("other", "model", "model", "1", 1, 3), 10, 1_500_000),
        AnswerSum(AnswerCell(MODEL, "model", "listens", "1", 1, 3), 7, 1_500_000),
    ]
    expected = expected_hits(sums, kinds)
    assert (expected.answers, expected.uncalibrated, expected.figure()) == (0, 17, None)


def test_over_confident_answers_are_corrected_and_the_intervals_cover(simulated: Pool) -> None:
    inside = covered(simulated, 2_000, 1_500, 120, np.random.default_rng(5))
    assert 0.91 <= inside.mean() <= 0.99  # 360 of them; the soak test has 94 to 96%
    probability = simulated.millionths[1].mean() / 1e6
    assert probability - simulated.true[1].mean() > 0.1  # what is corrected


@pytest.mark.soak
@pytest.mark.timeout(3_600)
def test_95_percent_intervals_cover_94_to_96_percent() -> None:
    rng = np.random.default_rng(7)
    for held_out, answered in ((2_000, 1_000), (4_000, 2_000)):
        worlds = [covered(pool(30_000, seed), held_out, answered, 250, rng) for seed in range(16)]
        shares = np.concatenate(worlds).mean(axis=0)
        assert (shares >= 0.94).all(), shares
        assert (shares <= 0.96).all(), shares


def labelled_newcomers(seed: int, week: int) -> Examples:
    """600 users of a simulated service who register on a day, with the favourites that they will have."""
    world = make_world(seed)
    people = newcomers(world, 600, np.random.default_rng([seed, week]))
    at = np.full(600, np.datetime64(FIRST.isoformat(), "s"))
    ids = tuple(f"n{i}" for i in range(600))
    return Examples(ids, people.registrations, at, world.genres, people.favourite, np.zeros((600, len(world.genres))))


@pytest.mark.soak
@pytest.mark.timeout(3_600)
def test_the_intervals_of_trained_bundles_cover_the_hits_of_later_newcomers(tmp_path: Path) -> None:
    """The bundle is trained on all users, and its calibration is that of the model without the hold-out."""
    inside, errors = [], []
    for seed in range(30):
        folder = tmp_path / str(seed)
        write_world(folder / "world", 4_000, seed)
        trained, _, _ = learn.train(folder / "world", folder / "bundle", "logistic")
        assert trained.manifest.calibration is not None
        kinds = {trained.id: trained.manifest.calibration.by_kind()}
        for week in range(6):
            users = labelled_newcomers(seed, week)
            answered = label_answers(counts_of(trained, users), [trained], users, DEFAULTS)
            [(monday, sums)] = answered.sums.items()
            for top in (1, 3, 5):
                expected = expected_hits([one for one in sums.values() if one.cell.top == top], kinds)
                hits = sum(n for cell, n in answered.hits[monday].items() if cell.top == top)
                figure = expected.figure()
                assert figure is not None
                inside.append(figure.low <= hits / 600 <= figure.high)
                errors.append((hits - expected.hits) / expected.deviation())
    assert 0.92 <= np.mean(inside) <= 0.98  # weeks of a bundle share its calibration's error: as if of 30 to 100
    assert 0.85 <= np.std(errors) <= 1.15


# ------------------------------------------------------------------------------------------- beside labels


def counts_of(model: Bundle, users: Examples) -> list[DayCounts]:
    """What the service stores of its answers to these users, each on the day of the registration."""
    from firstspin.watch.tally import AnswerTally

    days: dict[str, AnswerTally] = {}
    decisions = decide_many(users.registrations, None, model, DEFAULTS)
    for registration, at, decision in zip(users.registrations, users.registered_at, decisions, strict=True):
        noon = at.astype("datetime64[s]").astype(datetime)
        tally = days.setdefault(str(noon.date()), AnswerTally(lambda noon=noon: noon, random.Random(0)))
        tally.add([registration], [decision])
    reports = [tally.due(closing=True) for tally in days.values()]
    return [report for report in reports if report]


def registered_within(users: Examples, days: int) -> Examples:
    at = np.datetime64(FIRST.isoformat(), "s") + (np.arange(len(users)) % days) * np.timedelta64(1, "D")
    return replace(users, registered_at=at)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A model of 400 people, with its calibration on 2,000 others."""
    from firstspin.evaluation.cross_validation import answer
    from firstspin.watch.calibration import hold_out_calibration

    folder = tmp_path_factory.mktemp("watched") / "b"
    packed = pack(folder, people=made_people.examples(400))
    others = made_people.examples(2_000, seed=1)
    calibration = hold_out_calibration(
        {"model": answer(packed.predictor, others), "rule": answer(packed.rule, others)}, others
    )
    manifest = msgspec.structs.replace(packed.manifest, calibration=calibration)
    (folder / bundle.MANIFEST).write_bytes(msgspec.json.encode(manifest))
    return bundle.load(folder)


def report(model: Bundle, users: Examples, labels: Examples | None) -> Quality:
    return quality(counts_of(model, users), [model], RULE, NOW, labels)


def everyone(made: Quality, week: int = 0) -> CohortQuality:
    return made.weeks[week].cohorts[0]


def hit1(made: Quality, week: int = 0) -> HitRate:
    return everyone(made, week).hits["hit@1"]


def test_two_weeks_have_their_own_expected_hits_and_the_day_of_their_labels(model: Bundle) -> None:
    made = report(model, registered_within(made_people.examples(1_000, seed=2), 14), None)
    assert [week.week for week in made.weeks] == ["2026-01-05", "2026-01-12", "all"]
    assert [week.labels_complete.date() for week in made.weeks[:2]] == [date(2026, 3, 13), date(2026, 3, 20)]
    assert [week.complete for week in made.weeks] == [True, True, True]
    assert sum(everyone(made, week).answers for week in (0, 1)) == everyone(made, 2).answers == 1_000
    assert {(one.by, one.name) for one in made.weeks[2].cohorts} == {
        ("all", "all"),
        ("source", "model"),
        ("model", model.id),
        ("picks", "0"),
        ("picks", "1"),
        ("picks", "2"),
        ("picks", "3-5"),
    }


def test_a_week_is_complete_when_the_last_window_has_ended(model: Bundle) -> None:
    counts = counts_of(model, registered_within(made_people.examples(100, seed=2), 7))
    end = datetime(2026, 3, 13, tzinfo=UTC)
    states = [quality(counts, [model], RULE, now).weeks[0].complete for now in (end - timedelta(seconds=1), end, NOW)]
    assert states == [False, True, True]


def test_observed_hits_of_the_same_users_are_in_the_interval(model: Bundle) -> None:
    users = registered_within(made_people.examples(1_000, seed=2), 14)
    made = report(model, users, users)
    rate = hit1(made, 2)
    assert not made.differs
    assert rate.labelled == 1_000
    assert rate.expected is not None
    assert rate.expected_labelled is not None
    assert rate.expected.value == pytest.approx(rate.expected_labelled.value, abs=1e-4)  # few answers are rounded
    assert rate.expected.low <= (rate.observed or 0) <= rate.expected.high


def test_model_and_rule_are_compared_with_the_same_labelled_users(model: Bundle) -> None:
    """All users play the genre that the rule has among its first three and the model has not, then the reverse."""
    users = registered_within(made_people.examples(300, seed=2), 7)
    ranked = [set(one.ranking.genres[:3]) for one in decide_many(users.registrations, None, model, DEFAULTS)]
    picks = [Registration(genres=one.genres) for one in users.registrations]
    by_rule = [set(one.genres[:3]) for one in model.rule.rankings(picks)]
    for wanted, others, is_below in ((by_rule, ranked, True), (ranked, by_rule, False)):
        alone = [users.genres.index(min(a - b)) if a - b else 0 for a, b in zip(wanted, others, strict=True)]
        differ = sum(a != b for a, b in zip(wanted, others, strict=True))
        [made] = report(model, users, replace(users, tops=np.array(alone))).rule
        assert differ >= 10
        assert (made.model, made.is_below) == (model.id, is_below)
        assert made.users * abs(made.observed - made.by_rule) == pytest.approx(differ, abs=0.01)


def test_a_broken_calibration_is_flagged_in_the_week_in_which_it_breaks(model: Bundle) -> None:
    """In the second week, tastes change: a third of the users play another genre than such users used to."""
    users = registered_within(made_people.examples(2_000, seed=2), 14)
    changed = np.random.default_rng(3).random(2_000) < 1 / 3
    second = users.registered_at >= np.datetime64("2026-01-12")
    tops = np.where(changed & second, (users.tops + 1) % 4, users.tops)
    made = report(model, users, replace(users, tops=tops))
    assert made.differs
    assert not hit1(made, 0).differs
    assert hit1(made, 1).differs


def test_no_more_than_the_stated_share_of_reports_flag_anything_by_chance(model: Bundle) -> None:
    flagged = []
    for seed in range(10, 50):
        users = registered_within(made_people.examples(300, seed=seed), 7)
        flagged.append(report(model, users, users).differs)
    assert sum(flagged) <= 40 * ALPHA + 4


def test_the_order_of_genres_in_labels_and_bundle_does_not_matter(model: Bundle) -> None:
    users = registered_within(made_people.examples(300, seed=2), 7)
    turned = replace(users, genres=(*users.genres[::-1], "Zydeco"), tops=3 - users.tops, shares=np.zeros((300, 5)))
    assert report(model, users, turned) == report(model, users, users)


def test_labelled_users_of_days_without_answers_and_small_cohorts_are_left_out(model: Bundle) -> None:
    users = registered_within(made_people.examples(300, seed=2), 7)
    answered = users.take(np.arange(0, 300, 7))  # those of Monday
    made = report(model, answered, users)
    assert everyone(made).answers == hit1(made).labelled == 43
    assert all(cohort.answers >= 10 for cohort in made.weeks[0].cohorts)
    assert report(model, users.take(np.arange(9)), None).weeks[0].cohorts == ()


def test_an_empty_store_has_no_weeks(model: Bundle) -> None:
    assert quality([], [model], RULE, NOW) == Quality((), (), False)
