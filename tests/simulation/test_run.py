"""A small simulated experiment through the real service: what its store says is what its people truly did."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from command_line import firstspin
from library import Recommender

from firstspin import learn
from firstspin.cli.output import claims
from firstspin.events.schema import KEY_BYTES, Secret, scoped
from firstspin.experiment.assign import assign
from firstspin.experiment.plan import experiment_key, plan_split
from firstspin.experiment.rules import Metric
from firstspin.experiment.verdict import signed_percent
from firstspin.records import InputError, Registration
from firstspin.service.process.clock import read_clock, set_clock
from firstspin.serving import bundle
from firstspin.simulation.run import NEWCOMERS, Setting, Simulated, simulate, simulated_plan
from firstspin.simulation.world import click_probabilities, clicks, make_world, newcomers, write_world

SEED = 3
SETTING = Setting(users=400, days=2, seed=SEED)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("trained")
    write_world(folder / "world", 3_000, SEED)
    learn.train(folder / "world", folder / "bundle", "logistic")
    return folder / "bundle"


@pytest.fixture(scope="module")
def run(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Simulated, Path]:
    folder: Path = tmp_path_factory.mktemp("simulated")
    return simulated(trained, SETTING, folder), folder


def simulated(trained: Path, setting: Setting, folder: Path) -> Simulated:
    return simulate(trained, setting, folder, now=time.perf_counter_ns, progress=lambda *_: None)


def test_every_user_and_event_arrives_once_and_nothing_fails(run: tuple[Simulated, Path]) -> None:
    found, _ = run
    assert found.served.errors == 0
    assert found.served.recommendations == found.counted.exposures == found.counted.users == SETTING.users
    assert found.served.events == found.counted.events == 2 * found.counted.clicks_in_time > 0
    assert found.counted.orphan_events == found.counted.clicks_early == found.counted.clicks_late == 0
    assert found.counted.not_yet_due == 0
    assert found.verdict.sample_ratio.sound
    assert found.served.p99_ms > found.served.p50_ms > 0


def test_the_store_says_of_each_user_what_assignment_model_and_true_taste_say(
    trained: Path, run: tuple[Simulated, Path]
) -> None:
    found, folder = run
    plan, world = simulated_plan(SETTING), make_world(SEED)
    rng = np.random.default_rng([SEED, NEWCOMERS])
    secret, people = Secret(rng.bytes(KEY_BYTES)), newcomers(world, SETTING.users, rng)
    recommender = Recommender(bundle.load(trained))
    rule = recommender.bundle.rule
    told = {row["user_key"]: row for row in pq.read_table(folder / "outcomes.parquet").to_pylist()}
    key, split = experiment_key(plan), plan_split(plan)
    shown, would = [], {"rule": [], "model": []}
    for number, registration in enumerate(people.registrations):
        user = f"simulated-{SEED}-{number:07d}"
        row = told[scoped(secret.user_hash(user), key)]
        given = assign(split, user)
        assert given is not None
        assert (row["arm"], row["propensity"]) == (given.arm, given.propensity)
        by_model = recommender.recommend(registration)
        by_rule = recommender.fill(registration, rule.rank(Registration(genres=registration.genres), "rule"))
        for arm, answer in (("model", by_model), ("rule", by_rule)):
            assert row[f"candidates_{arm}"] == [station.station_id for station in answer.stations]
            would[arm].append(world.genres.index(answer.stations[0].genre))
        shown.append(would[given.arm][-1])
        assert row["station_id"] == row[f"candidates_{given.arm}"][0]
    clicked = clicks(people, np.array(shown))
    users = [f"simulated-{SEED}-{number:07d}" for number in range(SETTING.users)]
    rows = [told[scoped(secret.user_hash(user), key)] for user in users]
    assert [row["clicked"] for row in rows] == clicked.astype(int).tolist()
    assert [row["seconds"] for row in rows] == np.where(clicked, people.seconds, 0).tolist()
    chances = [click_probabilities(people, np.array(would[arm])).mean() for arm in ("rule", "model")]
    assert [found.truth.control, found.truth.treatment] == pytest.approx(chances)
    assert found.truth.lift == pytest.approx(chances[1] / chances[0] - 1)


def test_the_export_read_again_gives_the_same_verdict(run: tuple[Simulated, Path]) -> None:
    found, folder = run
    words = ("experiment", "analyse", "--plan", folder / "experiment.toml", "--json")
    stored = ("--events", f"sqlite:///{folder / 'events.sqlite'}", "--events-secret", folder / "events.secret")
    for source in (("--exported", folder), stored):
        done = firstspin(*words, *source)
        assert done.returncode == 0, done.stderr
        assert msgspec.json.decode(done.stdout) == msgspec.json.decode(msgspec.json.encode(found.verdict))


def test_the_same_seed_finds_the_same_and_both_arms_of_an_a_a_test_are_alike(
    trained: Path, run: tuple[Simulated, Path], tmp_path: Path
) -> None:
    again = simulated(trained, replace(SETTING, workers=2), tmp_path / "again")
    assert (again.verdict, again.truth, again.never_shown) == (run[0].verdict, run[0].truth, run[0].never_shown)
    alike = simulated(trained, replace(SETTING, alike=True), tmp_path / "alike")
    assert list(alike.verdict.users) == ["model-a", "model-b"]
    assert (alike.truth.lift, alike.served.errors, alike.never_shown) == (0, 0, ())


def test_a_bundle_of_another_world_is_refused(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not trained on the simulated service of seed 4"):
        simulated(trained, Setting(users=10, days=1, seed=4), tmp_path)


def test_the_plan_is_that_of_the_articles_test() -> None:
    plan = simulated_plan(Setting())
    assert (plan.days, plan.arms, plan.control) == (10, {"rule": 1.0, "model": 1.0}, "rule")
    assert plan.metrics == (Metric("clicked", "binary"), Metric("seconds", "continuous", cap="p99", margin=0.05))


def test_the_command_tells_everything_and_says_that_it_is_simulated(trained: Path, tmp_path: Path) -> None:
    words = ("experiment", "simulate", "--users", 300, "--days", 1, "--seed", SEED, "--bundle", trained)
    done = firstspin(*words, "--out", tmp_path / "kept")
    assert done.returncode == 0, done.stderr
    for told in (
        "300 simulated users in 1 simulated days",
        "true lift",
        "errors",
        "latency p99",
        "Off-policy evaluation",
    ):
        assert told in done.stdout
    with pytest.raises(InputError, match="exists and is sealed"):
        simulated(trained, Setting(users=300, days=1, seed=SEED), tmp_path / "kept")
    assert msgspec.json.decode(firstspin(*words, "--aa", "--json").stdout)["truth"]["lift"] == 0


def test_the_demos_ledger_sets_the_articles_test_beside_a_simulated_one(run: tuple[Simulated, Path]) -> None:
    clicks, truth, listening, errors = claims.tested(run[0], Path("bundle"))
    lift = run[0].verdict.metrics[0].beside_control[0].lift.relative
    assert lift.value is not None
    assert clicks.here.startswith(f"{signed_percent(lift.value)} (")
    assert truth.here == signed_percent(run[0].truth.lift)
    assert (clicks.article, listening.article, errors.here) == ("+8.7%", "as strong", "0")
    assert clicks.command == "firstspin experiment simulate --users 400 --days 2 --seed 3 --bundle bundle"


def test_a_clock_is_what_it_was_set_to(tmp_path: Path) -> None:
    moments = [datetime(2026, 1, 5, hour, tzinfo=UTC) for hour in (0, 13)]
    set_clock(tmp_path / "clock", moments[0])
    now = read_clock(tmp_path / "clock")
    assert now() == moments[0]
    set_clock(tmp_path / "clock", moments[1])
    assert now() == moments[1]
    (tmp_path / "none").write_bytes(b"")
    for bad in ("none", "missing"):
        with pytest.raises(InputError, match="not a clock"):
            read_clock(tmp_path / bad)
