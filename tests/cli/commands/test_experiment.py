"""`firstspin experiment`: the known case through the public command, and a plan that can't be edited."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest
from command_line import failed, firstspin

from firstspin.experiment.plan import experiment_key, read_plan


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,000 of 20,000 against 1,087 of 20,000, in no order."""
    rows = [("control", i < 1000) for i in range(20_000)] + [("model", i < 1087) for i in range(20_000)]
    random.Random(5).shuffle(rows)
    path = tmp_path_factory.mktemp("experiment") / "outcomes.csv"
    lines = [f"u{i},{arm},{int(clicked)}" for i, (arm, clicked) in enumerate(rows)]
    path.write_text("\n".join(["user_id,arm,clicked", *lines]) + "\n")
    return path


def test_the_known_case_is_just_not_significant(outcomes: Path) -> None:
    words = ("experiment", "analyse", "--outcomes", outcomes, "--arm", "arm", "--metric", "clicked:binary")
    done = firstspin(*words, "--control", "control", "--json")
    assert done.returncode == 0, done.stderr
    verdict = json.loads(done.stdout)
    assert verdict["winner"] is None
    assert "+8.7%" in verdict["sentence"]
    assert "p = 0.0505" in verdict["sentence"]
    assert failed(*words, "--control", "nobody")


def test_a_sealed_plan_can_not_be_edited_or_overwritten(outcomes: Path, tmp_path: Path) -> None:
    sealed = tmp_path / "experiment.toml"
    words = ("experiment", "plan", "--name", "first-message", "--baseline", 0.05, "--registrations-a-day", 10_000)
    words = (*words, "--arms", "control=1,model=1", "--starts-on", "2030-01-07", "--out", sealed)
    done = firstspin(*words)
    assert done.returncode == 0, done.stderr
    assert "days needed: 9" in done.stdout
    assert "exists and is sealed" in failed(*words)
    sealed.write_text(sealed.read_text().replace("0.05", "0.06"))
    message = failed("experiment", "analyse", "--outcomes", outcomes, "--arm", "arm", "--plan", sealed)
    assert "was changed after it was sealed" in message


def test_counts_and_an_event_log_are_read_by_their_columns(outcomes: Path, tmp_path: Path) -> None:
    counts, log = tmp_path / "counts.csv", tmp_path / "log.csv"
    counts.write_text("variant;users;clicks\ncontrol;20.000;1.000\nmodel;20.000;1.087\nTotal;40.000;2.087\n")
    words = ("experiment", "analyse", "--control", "control", "--json")
    by_counts = json.loads(firstspin(*words, "--outcomes", counts, "--counts", "variant,users,clicks").stdout)
    by_rows = json.loads(firstspin(*words, "--outcomes", outcomes, "--metric", "clicked").stdout)
    assert by_counts["metrics"][0]["beside_control"] == by_rows["metrics"][0]["beside_control"]
    log.write_text("user,arm,event\n" + "".join(f"u{i},{('control', 'model')[i % 2]},visit\n" for i in range(40)))
    named = ("--outcomes", log, "--event-log", "user,event", "--exposure", "visit")
    assert json.loads(firstspin(*words, *named, "--metric", "visit").stdout)["users"] == {"control": 20, "model": 20}
    for wrong in (("--exposure", "visit"), ("--counts", "a,b,c", "--unit", "user")):
        assert firstspin(*words, "--outcomes", log, "--metric", "visit", *wrong).returncode == 2
    log.write_text('arm,x\ncontrol,"1,234"\nmodel,7\n')
    ambiguous = (*words, "--outcomes", log, "--metric", "x:continuous")
    assert "give --decimal comma or --decimal point" in failed(*ambiguous)
    assert firstspin(*ambiguous, "--decimal", "comma").returncode == 0


def test_a_doubtful_plan_is_sealed_with_warnings(tmp_path: Path) -> None:
    words = (
        "experiment",
        "plan",
        "--name",
        "odd",
        "--baseline",
        0.05,
        "--registrations-a-day",
        10,
        "--arms",
        "a=1,b=1",
    )
    words = (*words, "--arms", "a=1,b=1", "--minimum-effect", 8.7, "--starts-on", "2020-01-06", "--days", 10, "--out")
    doubts = json.loads(firstspin(*words, tmp_path / "1.toml", "--json").stdout)["warnings"]
    assert [doubt[:28] for doubt in doubts] == [
        "A lift of 870% (from 5.00% t",
        "Too few users: in 10 days th",
        "starts_on 2020-01-06 is in t",
        "10 days are not whole weeks:",
        "a and b: firstspin serves ar",
    ]
    printed = firstspin(*words, tmp_path / "2.toml").stdout
    assert all(f"Warning: {doubt}\n" in printed for doubt in doubts)
    assert "Next: firstspin experiment analyse --plan" in printed


def test_a_small_plan_names_its_days_in_weeks_and_the_lift_it_detects(tmp_path: Path) -> None:
    words = ("experiment", "plan", "--name", "small", "--registrations-a-day", 50, "--starts-on", "2030-01-07")
    words = (*words, "--days", 28, "--out", tmp_path / "small.toml")
    printed = firstspin(*words, "--baseline", "10%", "--minimum-effect", "8.7%").stdout
    assert "days needed: 776 days (111 weeks, rounded up); planned: 28 days\n" in printed
    assert "in 28 days a lift of +" in printed
    assert "% can be detected with 80% power" in printed
    assert "baseline = 0.1\n" in (tmp_path / "small.toml").read_text()
    wrong = firstspin(*words, "--baseline", "ten")
    assert (wrong.returncode, "write 0.1 or 10%" in wrong.stderr) == (2, True)
    kinds = "expected binary, continuous or ratio=COLUMN, as in spend:binary"
    assert kinds in failed(*words, "--baseline", "0.1", "--metric", "spend")


def test_analyse_without_control_or_plan_is_wrong_usage(outcomes: Path) -> None:
    assert firstspin("experiment", "analyse", "--outcomes", outcomes, "--arm", "arm").returncode == 2


def test_a_canary_is_planned_with_a_margin_and_stopped_by_hand(tmp_path: Path) -> None:
    words = ("experiment", "plan", "--name", "canary", "--baseline", "5%", "--registrations-a-day", 30_000)
    words = (*words, "--starts-on", "2030-01-07", "--arms", "model=95,challenger=5", "--out", tmp_path / "canary.toml")
    assert "--harm-margin" in failed(*words)
    assert "two arms" in failed(*words, "--harm-margin", "10%", "--arms", "model=8,challenger=1,rule=1")
    printed = firstspin(*words, "--harm-margin", "10%").stdout
    assert "users for ruling out a loss of 10.0% with 80% power" in printed
    assert "--challenger challenger --state state" in printed
    sealed = (tmp_path / "canary.toml").read_text()
    assert "minimum_effect = 0.1\n" in sealed
    assert 'peeking = "always-valid"\n' in sealed
    large = (*words, "--harm-margin", "10%", "--arms", "model=1,challenger=1", "--out", tmp_path / "large.toml")
    assert "a canary has a small share, such as 5%" in firstspin(*large).stdout
    stop = ("experiment", "stop", "--plan", tmp_path / "canary.toml", "--state", tmp_path)
    assert "is not the folder of `firstspin serve --state`" in failed(*stop)
    (tmp_path / "current.json").write_text("{}")
    assert f"the service of {tmp_path} has not begun canary@" in failed(*stop)  # it would go on after "is stopped"
    (tmp_path / "challenger" / experiment_key(read_plan(tmp_path / "canary.toml"))).mkdir(parents=True)
    assert "too many complaints" in firstspin(*stop, "--reason", "too many complaints").stdout
    assert "too many complaints" in firstspin(*stop).stdout  # the first stop stands
    [file] = (tmp_path / "canary").iterdir()
    file.write_text("{")
    assert "is stopped: the file of the stop can't be read" in firstspin(*stop).stdout
    for reason, shown in (("", "stopped by an operator"), (os.fsdecode(b"caf\xe9"), "caf")):
        file.unlink()
        assert f"UTC: {shown}" in firstspin(*stop, "--reason", reason).stdout
