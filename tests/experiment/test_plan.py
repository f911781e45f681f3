from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import msgspec
import pytest

from firstspin.experiment.assign import assign
from firstspin.experiment.plan import Plan, experiment_key, freeze, plan_hash, plan_rules, plan_split, read_plan
from firstspin.experiment.rules import Metric
from firstspin.experiment.stats.sizing import plan_sizing
from firstspin.records import InputError

PLAN = Plan(
    name="first-message",
    starts_on=date(2026, 2, 2),
    control="rule",
    arms={"rule": 1.0, "model": 1.0},
    metrics=(Metric("clicked", "binary"), Metric("seconds", "continuous", cap="p99", margin=0.05)),
    registrations_a_day=20_000,
    baseline=0.05,
    minimum_effect=0.087,
)


def changed(**fields: object) -> Plan:
    return msgspec.structs.replace(PLAN, **fields)


def test_a_sealed_plan_reads_back_as_it_was_written(tmp_path: Path) -> None:
    odd = changed(
        arms={"rule": 0.5, 'the "new" model': 1.5, "größe": 1.0},
        covariates=("age", "a|b"),
        peeking="obrien-fleming",
        coverage=0.1,
        metrics=(Metric("s", "ratio", per="n"), Metric("clicked", "binary", margin=0.01)),
        baseline=3.0,
        deviation=7.25,
    )
    for number, plan in enumerate((PLAN, odd)):
        path = tmp_path / f"{number}.toml"
        assert freeze(plan, path) == experiment_key(plan)
        assert read_plan(path) == plan


def test_the_file_is_plain_enough_for_a_product_manager(tmp_path: Path) -> None:
    freeze(PLAN, tmp_path / "experiment.toml")
    assert (
        (tmp_path / "experiment.toml").read_text()
        == f"""\
name = "first-message"
starts_on = 2026-02-02
control = "rule"
registrations_a_day = 20000
baseline = 0.05
minimum_effect = 0.087
days = 14
coverage = 1.0
alpha = 0.05
power = 0.8
peeking = "none"
click_within_hours = 24
listen_within_days = 7
name_arm = false
hash = "{plan_hash(PLAN)}"

[arms]
rule = 1.0
model = 1.0

[[metrics]]
column = "clicked"
kind = "binary"

[[metrics]]
column = "seconds"
kind = "continuous"
cap = "p99"
margin = 0.05
"""
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("days = 14", "days = 28"),
        ("model = 1.0", "model = 2.0"),
        ('cap = "p99"', 'cap = "p95"'),
        ('"clicked"', '"liked"'),
    ],
)
def test_a_plan_changed_after_it_was_sealed_is_refused(tmp_path: Path, before: str, after: str) -> None:
    path = tmp_path / "experiment.toml"
    freeze(PLAN, path)
    path.write_text(path.read_text().replace(before, after))
    with pytest.raises(InputError, match="a changed plan is a new experiment"):
        read_plan(path)


def test_a_sealed_file_is_never_written_over(tmp_path: Path) -> None:
    freeze(PLAN, tmp_path / "experiment.toml")
    with pytest.raises(InputError, match="sealed"):
        freeze(changed(days=28), tmp_path / "experiment.toml")
    assert read_plan(tmp_path / "experiment.toml") == PLAN


def test_a_changed_plan_is_a_new_experiment_with_users_of_its_own() -> None:
    other = changed(days=28)
    assert experiment_key(other) != experiment_key(PLAN)
    one, two = plan_split(PLAN), plan_split(other)
    users = [f"u{i}" for i in range(4_000)]
    alike = sum(assign(one, user) == assign(two, user) for user in users)
    assert 1_850 < alike < 2_150


def test_the_key_of_a_plan_does_not_depend_on_the_version_that_wrote_it() -> None:
    # fields at their default don't count, so a version with one more leaves this experiment's key, and users, alone
    assert plan_hash(changed(power=float("0.8"), covariates=())) == plan_hash(PLAN)
    assert experiment_key(PLAN) == "first-message@b0b06801"


def test_whole_numbers_written_without_a_point_are_the_same_plan(tmp_path: Path) -> None:
    whole = changed(arms={"rule": 1, "model": 1}, coverage=1)
    assert plan_hash(whole) == plan_hash(PLAN)
    assert freeze(whole, tmp_path / "experiment.toml") == experiment_key(PLAN)
    assert read_plan(tmp_path / "experiment.toml") == PLAN


def test_the_order_of_the_arms_is_part_of_the_plan() -> None:
    assert plan_hash(changed(arms={"model": 1.0, "rule": 1.0})) != plan_hash(PLAN)


def test_the_plan_says_how_its_results_are_read() -> None:
    rules = plan_rules(PLAN)
    assert rules.reads_at == datetime(2026, 2, 23, tzinfo=UTC)  # fourteen days, and seven more of listening
    assert (rules.control, rules.days, rules.metrics, rules.weights) == ("rule", 14, PLAN.metrics, PLAN.arms)


def test_the_plan_says_what_it_needs() -> None:
    needs = plan_sizing(changed(registrations_a_day=5_000))
    assert needs.users == {"rule": 41_024, "model": 41_024}
    assert (needs.days_needed, needs.weeks_needed) == (17, 3)
    assert 0.7 < needs.power_at_days < 0.8


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "First Message!"}, "lower-case letters"),
        ({"control": "none"}, "control 'none' is not among the arms"),
        ({"arms": {"rule": 1.0}}, "only arm is .rule."),
        ({"arms": {"rule": 1.0, "model": 0.0}}, "arm 'model'"),
        ({"metrics": ()}, "a metric is missing"),
        ({"metrics": (Metric("clicked"),)}, "binary, continuous or ratio"),
        ({"metrics": (Metric("seconds", "continuous"),)}, "deviation"),
        ({"deviation": 3.0}, "deviation"),
        ({"baseline": 1.5}, "baseline 1.5"),
        ({"baseline": 0.95}, "100%"),
        ({"minimum_effect": 0.0}, "minimum_effect 0.0"),
        ({"minimum_effect": float("nan")}, "minimum_effect nan"),
        ({"coverage": 1.5}, "coverage"),
        ({"days": 0}, "days 0"),
        ({"alpha": 0.7}, "alpha"),
        ({"alpha": 5e-324}, "alpha"),
        ({"days": 10**13}, "days 10000000000000"),
        ({"starts_on": date(9999, 12, 31)}, "starts_on 9999-12-31"),
        ({"starts_on": date(1, 1, 1)}, "starts_on 0001-01-01"),
        ({"registrations_a_day": 10**400}, "registrations_a_day 10000"),
        ({"minimum_effect": 1e-300}, "minimum_effect 1e-300"),
        ({"arms": {"rule": 1e308, "model": 1e308}}, "arm 'rule': invalid weight"),
    ],
)
def test_a_plan_that_can_not_be_carried_out_is_refused(tmp_path: Path, fields: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        freeze(changed(**fields), tmp_path / "experiment.toml")
    assert not (tmp_path / "experiment.toml").exists()


@pytest.mark.parametrize("text", ["", "name = 3", "not toml", 'name = "x"\nwhim = 1\n', "\x00"])
def test_a_file_that_is_no_plan_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "experiment.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"experiment\.toml"):
        read_plan(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.toml can't be read"):
        read_plan(tmp_path / "none.toml")
    with pytest.raises(InputError, match="can't be written"):
        freeze(PLAN, tmp_path / "no folder" / "experiment.toml")
