from __future__ import annotations

import csv
import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from event_store_contract import put
from made_events import NOON, SECRET, click, shown
from scipy.special import ndtr
from statsmodels.stats.multitest import multipletests

from firstspin.events.export import export
from firstspin.events.store import open_database
from firstspin.experiment.analyse import analyse
from firstspin.experiment.attribution import attribute
from firstspin.experiment.outcomes import read_outcomes
from firstspin.experiment.rules import Peeking, Rules, parse_metric
from firstspin.experiment.stats.holm import holm_p_values
from firstspin.experiment.stats.lift import ClickRates, Clicks, lift
from firstspin.experiment.stats.proportions import ratio_z, table
from firstspin.experiment.verdict import Verdict, verdict_lines
from firstspin.records import InputError

DATA = Path(__file__).parent.parent.parent.parent / "shared" / "data"
DAYS = [f"2026-02-{day:02}" for day in range(2, 16)]
AFTER = datetime(2026, 2, 17, tzinfo=UTC)


def real(name: str) -> Path:
    folder = DATA / name
    if not folder.exists():
        pytest.skip(f"the real test {name} is not at {folder}")
    return folder


def verdict(
    table: Path | pa.Table, *metrics: str, control: str = "rule", unit: str | None = None, **rules: object
) -> Verdict:
    asked = tuple(parse_metric(text) for text in metrics)
    columns = {} if isinstance(table, Path) else set(table.column_names)
    covariates = rules.get("covariates", ())
    day = "day" if "day" in columns else None
    now = rules.pop("now", None)
    outcomes = read_outcomes(
        table, arm=ARM.get(control, "arm"), metrics=asked, unit=unit, day=day, covariates=covariates
    )
    return analyse(outcomes, Rules(control=control, metrics=asked, **rules), now=now)


ARM = {"gate_30": "version"}


def people(rng: np.random.Generator, n: int = 28_000, *, rate: float = 0.05, gain: float = 0.0) -> pa.Table:
    """n newcomers over fourteen days, half and half; the model's arm clicks more by `gain` and listens alike."""
    model = np.arange(n) % 2 == 1
    return pa.table(
        {
            "user": [f"u{i}" for i in range(n)],
            "arm": np.where(model, "model", "rule"),
            "clicked": (rng.random(n) < rate * (1 + gain * model)).astype(int),
            "seconds": rng.lognormal(4, 1, n) * (rng.random(n) < 0.8),
            "day": np.array(DAYS)[np.arange(n) * 14 // n],
        }
    )


def test_the_known_case_is_read_from_a_shuffled_file(tmp_path: Path) -> None:
    rows = [f"rule,{int(i < 1_000)}" for i in range(20_000)] + [f"model,{int(i < 1_087)}" for i in range(20_000)]
    np.random.default_rng(1).shuffle(rows)
    path = tmp_path / "outcomes.csv"
    path.write_text("arm,clicked\n" + "\n".join(rows) + "\n")
    found = verdict(path, "clicked:binary")
    known = found.metrics[0].beside_control[0].lift
    assert (known.p_value, known.relative.value) == (pytest.approx(0.050455, abs=5e-7), pytest.approx(0.087))
    assert (known.relative.low, known.relative.high) == pytest.approx((-0.000165, 0.181774), abs=5e-7)
    assert found.decision == "no difference shown"


def test_cookie_cats_comes_out_with_its_sample_ratio_alarm() -> None:
    path = real("cookie-cats") / "cookie_cats.csv"
    found = verdict(
        path, "retention_7", "retention_1", "sum_gamerounds:continuous:cap=p99", control="gate_30", unit="userid"
    )
    assert (found.decision, found.winner) == ("sample ratio mismatch", None)
    assert found.users == {"gate_30": 44_700, "gate_40": 45_489}
    assert found.sample_ratio.p_value == pytest.approx(0.0086, abs=5e-5)
    seven, one = (measured.beside_control[0].lift for measured in found.metrics[:2])
    assert (seven.control, seven.treatment) == pytest.approx((0.1902, 0.1820), abs=5e-5)
    assert seven.p_value == pytest.approx(0.0016, abs=5e-5)
    assert (seven.difference.low, seven.difference.high) == pytest.approx((-0.0133, -0.0031), abs=5e-5)
    assert (one.control, one.treatment) == pytest.approx((0.4482, 0.4423), abs=5e-5)
    assert one.p_value == pytest.approx(0.074, abs=5e-4)


def test_udacitys_free_trial_comes_out_as_published() -> None:
    folder = real("udacity-free-trial")
    sums = {}
    for arm in ("control", "experiment"):
        with (folder / f"{arm}_data.csv").open(newline="") as file:
            days = [row for row in csv.DictReader(file) if row["Enrollments"]]
        assert len(days) == 23
        sums[arm] = {name: sum(int(row[name]) for row in days) for name in ("Clicks", "Enrollments", "Payments")}
    for outcome, change, ends in (("Enrollments", -2.06, (-2.91, -1.20)), ("Payments", -0.49, (-1.16, 0.19))):
        arms = (Clicks(sums[arm]["Clicks"], sums[arm][outcome]) for arm in ("control", "experiment"))
        points = lift(ClickRates(*arms)).difference
        assert 100 * points.value == pytest.approx(change, abs=0.0051)
        assert (100 * points.low, 100 * points.high) == pytest.approx(ends, abs=0.0051)


def plan(peeking: Peeking = "none") -> dict[str, object]:
    return {"peeking": peeking, "days": 14, "starts_on": date(2026, 2, 2), "reads_at": AFTER}


def test_the_order_of_the_rows_moves_no_digit() -> None:
    rng = np.random.default_rng(2)
    table = people(rng, 5_000)
    metrics = ("clicked", "seconds:continuous:cap=p99:margin=0.05", "seconds:ratio=clicked")
    first = verdict(table, *metrics, **plan(), now=AFTER)
    again = verdict(table.take(pa.array(rng.permutation(5_000))), *metrics, **plan(), now=AFTER)
    assert msgspec.json.encode(first) == msgspec.json.encode(again)


def test_before_the_planned_time_there_is_no_decision_and_after_it_there_is() -> None:
    table = people(np.random.default_rng(3), gain=0.3)
    early = verdict(table, "clicked", **plan(), now=datetime(2026, 2, 9, tzinfo=UTC))
    assert (early.decision, early.winner) == ("no decision yet", None)
    assert verdict(table, "clicked", **plan(), now=AFTER).winner == "model"
    assert verdict(table, "clicked", **plan()).decision == "no decision yet"


def test_a_daily_rule_may_name_a_winner_early_and_shows_its_days() -> None:
    table = people(np.random.default_rng(4), gain=0.6)
    so_far = table.filter(pa.compute.less(table["day"], "2026-02-10"))
    found = verdict(so_far, "clicked", **plan("obrien-fleming"), now=datetime(2026, 2, 10, tzinfo=UTC))
    assert found.winner == "model"
    assert [look.day.isoformat() for look in found.daily] == DAYS[:8]
    alphas = [look.lifts["model"].alpha for look in found.daily]
    assert alphas == sorted(alphas)
    assert found.metrics[0].beside_control[0].lift.alpha == alphas[-1]


def test_users_who_came_after_the_planned_days_are_left_out() -> None:
    table = people(np.random.default_rng(5), 1_000)
    late = table.slice(0, 10).set_column(4, "day", pa.array(["2026-03-01"] * 10))
    found = verdict(pa.concat_tables([table, late]), "clicked", **plan(), now=AFTER)
    assert sum(found.users.values()) == 1_000
    assert any("10 users came outside" in sentence for sentence in found.warnings)


def test_no_listening_is_listening_of_zero_and_clickers_are_only_described() -> None:
    table = pa.table(
        {"arm": ["rule", "rule", "model", "model"] * 50, "clicked": [1, 0, 1, 1] * 50, "seconds": [8.0, 0, 4, 4] * 50}
    )
    found = verdict(table, "clicked", "seconds:continuous:margin=0.05")
    exposed = found.metrics[1]
    assert [arm.mean for arm in exposed.arms] == [4.0, 4.0]  # per exposed user: alike
    assert [arm.mean for arm in found.clickers[0].arms] == [8.0, 4.0]  # among clickers: as if halved
    assert found.clickers[0].beside_control == ()


def test_three_arms_are_held_to_holm_and_an_arm_that_never_came_to_the_split() -> None:
    rng = np.random.default_rng(6)
    arms = np.array(["rule", "model", "bold"])[np.arange(30_000) % 3]
    clicked = rng.random(30_000) < np.where(arms == "bold", 0.065, 0.05)
    table = pa.table({"arm": arms, "clicked": clicked})
    found = verdict(table, "clicked")
    by_arm = {beside.arm: beside for beside in found.metrics[0].beside_control}
    [between] = found.metrics[0].between_treatments
    assert (between.arm, between.against) == ("model", "bold")
    pairs = [by_arm["bold"], by_arm["model"], between]
    p_values = [pair.lift.p_value for pair in pairs]
    _, holm, _, _ = multipletests(p_values, alpha=0.05, method="holm")
    assert [pair.holm_p_value for pair in pairs] == pytest.approx(list(holm))
    assert [pair.significant for pair in pairs] == [True, False, True]
    assert found.winner == "bold"
    assert found.sentence.startswith(
        "bold wins: bold beats rule; bold beats model; model against rule is undecided. bold's clicked "
    )
    missing = verdict(table, "clicked", weights={"rule": 1, "model": 1, "bold": 1, "ghost": 1})
    assert missing.decision == "sample ratio mismatch"
    assert missing.users["ghost"] == 0


def test_both_arms_beat_the_control_and_are_undecided_between_them() -> None:
    clicks = {"control": 950, "blue": 1_200, "green": 1_230}
    arms = [arm for arm in clicks for _ in range(10_000)]
    table = pa.table({"arm": arms, "clicked": [int(i < n) for n in clicks.values() for i in range(10_000)]})
    found = verdict(table, "clicked", control="control")
    assert (found.decision, found.winner) == ("winner", "green")
    assert found.sentence.startswith(
        "green is ahead: blue and green both beat control; green against blue is undecided. "
        "blue's clicked 9.5% to 12.0%, +26.3% "
    )
    [between] = [section for section in verdict_lines(found) if section.title == "clicked: the other pairs"]
    assert between.rows[0][:3] == ("blue to green", "12.0% to 12.3%", "+2.5%")
    assert between.rows[0][-1] == "undecided"
    assert json.loads(msgspec.json.encode(found))["metrics"][0]["between_treatments"][0]["significant"] is False


def test_secondary_metrics_are_significant_after_holms_correction_only() -> None:
    ones = {"clicked": (100, 100), "buys": (50, 90), "likes": (100, 130), "shares": (100, 129)}
    columns = {name: [int(i < n) for n in counts for i in range(1_000)] for name, counts in ones.items()}
    table = pa.table({"arm": ["rule"] * 1_000 + ["model"] * 1_000, **columns})
    found = verdict(table, "clicked", "likes", "shares", "buys")
    pairs = [measured.beside_control[0] for measured in found.metrics[1:]]
    p_values = [pair.lift.p_value for pair in pairs]
    rejected, holm, _, _ = multipletests(p_values, alpha=0.05, method="holm")
    assert [pair.holm_p_value for pair in pairs] == pytest.approx(list(holm))
    assert max(p_values) < 0.05
    assert [pair.significant for pair in pairs] == list(rejected) == [False, False, True]
    two = verdict(table, "clicked", "likes", "shares:margin=0.05")
    assert [p.metrics[1].beside_control[0].holm_p_value for p in (found, two)] == [pytest.approx(holm[0]), None]
    notes = {section.title: section.rows[1][-1] for section in verdict_lines(found)[1:]}
    assert notes["buys (secondary)"] == "significant"
    guardrail = json.loads(msgspec.json.encode(two))["metrics"][2]["beside_control"][0]
    assert guardrail["significant"] is None
    assert guardrail["non_inferiority"]["shown"] is True
    assert "significant" not in verdict_lines(two)[3].rows[1][-1]  # of a guardrail, its margin is tested


def test_each_interval_has_its_level_where_they_differ() -> None:
    arms = ["rule", "model", "bold"]
    counts = (100, 112, 160)
    table = pa.table(
        {"arm": [a for a in arms for _ in range(1_000)], "clicked": [int(i < n) for n in counts for i in range(1_000)]}
    )
    _, clicked, between, *_ = verdict_lines(verdict(table, "clicked"))
    assert clicked.columns[4] == "CI"
    assert [row[4].partition("(")[2] for row in clicked.rows] == ["", "98.33%)", "95%)"]
    assert between.columns[3] == "97.5% CI"
    assert "(" not in between.rows[0][3]
    both = verdict_lines(verdict(table.slice(0, 2_000), "clicked"))[1]
    assert (both.columns[4], both.rows[1][4]) == ("95% CI", "-13.1% to +44.5%")


def test_more_than_ten_arms_are_compared_with_the_control_only() -> None:
    arms = [f"arm {i:02}" for i in range(12) for _ in range(60)]
    table = pa.table({"arm": arms, "clicked": [int(j < 20 + i) for i in range(12) for j in range(60)]})
    found = verdict(table, "clicked", control="arm 00")
    primary = found.metrics[0]
    assert primary.between_treatments == ()
    _, holm, _, _ = multipletests([pair.lift.p_value for pair in primary.beside_control], method="holm")
    assert [pair.holm_p_value for pair in primary.beside_control] == pytest.approx(list(holm))
    assert found.sentence.count("'s clicked") == 6  # the others are in the table


def test_alike_arms_are_told_apart_in_at_most_five_percent_of_the_tests() -> None:
    rng = np.random.default_rng(11)
    runs, pairs = 20_000, [(0, 1), (0, 2), (1, 2)]
    clicks = rng.binomial(2_000, 0.1, (runs, 3))
    p_values = np.empty((runs, 3))
    for column, (zero, one) in enumerate(pairs):
        p_values[:, column] = 2 * ndtr(-np.abs(ratio_z(table(clicks[:, one], 2_000, clicks[:, zero], 2_000), 1.0)))
    rejected = np.mean([min(holm_p_values(row)) <= 0.05 for row in p_values.tolist()])
    assert 0.035 < rejected <= 0.05  # dependent pairs: below the 5% of Holm's bound
    assert np.mean(p_values.min(axis=1) <= 0.05) > 0.11  # without the correction


def test_the_pairs_of_arms_with_their_names_swapped_are_negated() -> None:
    rng = np.random.default_rng(12)
    arms = np.array(["a", "b", "c"])[np.arange(9_000) % 3]
    seconds = rng.lognormal(3, 1, 9_000) * np.where(arms == "c", 1.1, 1.0)
    swapped = np.where(arms == "b", "c", np.where(arms == "c", "b", "a"))
    one, other = (
        verdict(pa.table({"arm": names, "seconds": seconds}), "seconds:continuous", control="a").metrics[0]
        for names in (arms, swapped)
    )
    [forth], [back] = one.between_treatments, other.between_treatments
    assert forth.lift.difference.value == pytest.approx(-back.lift.difference.value)
    assert (forth.lift.difference.low, forth.lift.p_value) == pytest.approx(
        (-back.lift.difference.high, back.lift.p_value)
    )
    assert 1 + forth.lift.relative.value == pytest.approx(1 / (1 + back.lift.relative.value))
    assert one.beside_control[0].lift == other.beside_control[1].lift


def with_blanks(rng: np.random.Generator, shares: dict[str, float], n: int = 4_000) -> pa.Table:
    """n users, half and half; the model's arm clicks twice as often; `shares` of the arms have no value."""
    arms = np.where(np.arange(n) % 2, "model", "rule")
    clicked = rng.random(n) < np.where(arms == "model", 0.4, 0.2)
    blank = rng.random(n) < np.where(arms == "model", shares["model"], shares["rule"])
    values = [None if missing else int(value) for missing, value in zip(blank, clicked, strict=True)]
    return pa.table({"arm": arms, "clicked": pa.array(values, pa.int64())})


def test_with_unevenly_missing_values_there_is_no_winner() -> None:
    rng = np.random.default_rng(4)
    even = verdict(with_blanks(rng, {"rule": 0.75, "model": 0.75}), "clicked:binary")
    assert even.winner == "model"
    uneven = verdict(with_blanks(rng, {"rule": 0.75, "model": 0.85}), "clicked:binary")
    assert (uneven.decision, uneven.winner) == ("sample ratio mismatch", None)
    assert uneven.sample_ratio.sound
    assert uneven.sentence.startswith("No winner: the share of users without clicked differs between the arms (")
    assert uneven.sentence.endswith("Find the cause first, or write clicked:binary:blank=no where a blank means no.")


def test_equal_shares_of_missing_values_are_rarely_taken_for_uneven() -> None:
    """The test of missing values is at 0.1%: of 40 simulated experiments, two or more would be 0.1% of all runs."""
    rng = np.random.default_rng(5)
    decisions = [
        verdict(with_blanks(rng, {"rule": 0.3, "model": 0.3}, 400), "clicked:binary").decision for _ in range(40)
    ]
    assert decisions.count("sample ratio mismatch") <= 1


def test_a_period_without_users_is_named() -> None:
    table = people(np.random.default_rng(5), 100)
    for peeking in ("none", "obrien-fleming", "always-valid"):
        planned = plan(peeking) | {"starts_on": date(2026, 5, 4)}
        with pytest.raises(InputError, match="none of the 100 users came in the 14 planned days from 2026-05-04"):
            verdict(table, "clicked", **planned, now=AFTER)


def test_what_was_known_at_registration_sharpens_the_lift_and_says_by_how_much() -> None:
    rng = np.random.default_rng(7)
    keen = rng.random(20_000)
    table = people(rng, 20_000).append_column("keen", pa.array(keen)).drop_columns("clicked")
    table = table.append_column("clicked", pa.array(rng.random(20_000) < keen))
    plain = verdict(table, "clicked").metrics[0].beside_control[0]
    sharp = verdict(table, "clicked", covariates=("keen",)).metrics[0].beside_control[0]
    assert plain.variance_reduction is None
    assert sharp.variance_reduction == pytest.approx(1 / 3, abs=0.02)
    width = [beside.lift.relative.high - beside.lift.relative.low for beside in (plain, sharp)]
    assert width[1] / width[0] == pytest.approx((2 / 3) ** 0.5, abs=0.02)


@pytest.mark.parametrize(
    "rows",
    [
        [("rule", 0), ("model", 0)],
        [("rule", 0), ("rule", 0), ("model", 1), ("model", 1)],
        [("rule", 1), ("rule", 1), ("model", 1), ("model", 1)],
        [("rule", 1)],
        [("rule", None), ("model", None)],
    ],
)
@pytest.mark.parametrize("metric", ["clicked:binary", "clicked:continuous:margin=0.05", "clicked:ratio=clicked"])
@pytest.mark.parametrize("peeking", ["none", "obrien-fleming", "always-valid"])
def test_the_smallest_experiments_have_a_verdict_without_nan(
    rows: list[tuple[str, int | None]], metric: str, peeking: Peeking
) -> None:
    arms, clicked = zip(*rows, strict=True)
    table = pa.table({"arm": arms, "clicked": pa.array(clicked, pa.int64()), "day": ["2026-02-02"] * len(rows)})
    found = verdict(table, metric, **plan(peeking), now=AFTER, weights={"rule": 1, "model": 1})
    assert found.winner is None or found.decision == "winner"
    json.loads(msgspec.json.encode(found), parse_constant=pytest.fail)


@pytest.mark.parametrize(
    ("sessions", "why"),
    [
        ([1, 2, 0, 0], "the denominators of an arm add up to 0"),
        ([0, 0, 1, 2], "the denominators of an arm add up to 0"),
        ([1, 2, 3, -4], "the denominators of an arm add up to less than 0"),
        ([1, 2, None, None], "an arm has no users"),
    ],
)
def test_a_ratio_whose_denominators_add_up_to_nothing_says_so(sessions: list[int | None], why: str) -> None:
    table = pa.table({"arm": ["rule", "rule", "model", "model"], "seconds": [5, 6, 7, 8], "sessions": sessions})
    beside = verdict(table, "seconds:ratio=sessions").metrics[0].beside_control[0]
    assert (beside.lift.relative.reason, beside.lift.difference.reason, beside.lift.p_value) == (why, why, None)


def test_daily_interim_analyses_without_days_are_refused() -> None:
    table = people(np.random.default_rng(8), 100).drop_columns("day")
    with pytest.raises(InputError, match="need each user's day"):
        verdict(table, "clicked", **plan("always-valid"))


def test_the_event_store_is_analysed_to_a_verdict(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path}/events.sqlite", SECRET)
    users = [f"u{i}" for i in range(400)]
    exposures = [shown(user, arm="model" if i % 2 else "rule") for i, user in enumerate(users)]
    clicks = [click(f"click of {user}", user, minutes=5) for i, user in enumerate(users) if i % 4 == 1 or i % 10 == 0]
    put(database, exposures, [*clicks, click("click of a stranger", "nobody", minutes=5)])
    export(database, tmp_path / "out", "spring")
    database.close()
    found = attribute(
        tmp_path / "out" / "exposures.parquet",
        tmp_path / "out" / "events.parquet",
        experiment="spring",
        until=NOON + timedelta(days=30),
    )
    assert (found.counted.users, found.counted.clicks_in_time, found.counted.orphan_events) == (400, len(clicks), 1)
    metrics = (parse_metric("clicked:binary"), parse_metric("seconds:continuous"))
    outcomes = read_outcomes(found.table, arm="arm", metrics=metrics, day="day", left_out=found.left_out)
    read = analyse(outcomes, Rules(control="rule", metrics=metrics))
    assert read.winner == "model"
    assert [arm.mean for arm in read.metrics[0].arms] == [40 / 200, 100 / 200]
