"""`firstspin experiment look-back` on a store whose clicks are known: the estimates can be worked out by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from command_line import failed, firstspin
from made_events import SECRET, click, shown
from made_experiments import PLAN

from firstspin.events.database import write
from firstspin.events.store import open_database
from firstspin.experiment.plan import experiment_key, freeze

USERS = 400
KEY = experiment_key(PLAN)
LookBack = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half of the users were shown the rule's station 9, and 20 of them clicked; half the model's 17, and 100 did."""
    place: Path = tmp_path_factory.mktemp("experiment")
    freeze(PLAN, place / "experiment.toml")
    (place / "events.secret").write_text(bytes(range(32)).hex())
    exposures = [
        shown(f"u{i}", KEY, arm="model" if i % 2 else "rule", station_id="17" if i % 2 else "9") for i in range(USERS)
    ]
    clicked = [i for i in range(USERS) if i % (4 if i % 2 else 20) in (0, 1)]
    events = [click(f"click {i}", f"u{i}", minutes=5) for i in clicked]
    with closing(open_database(f"sqlite:///{place / 'events.sqlite'}", SECRET)) as database:
        database.open()
        database.transact(lambda session: write(session, exposures, events))
    return place


@pytest.fixture
def store(folder: Path) -> tuple[str, ...]:
    where = ("--events", f"sqlite:///{folder / 'events.sqlite'}", "--events-secret", str(folder / "events.secret"))
    return ("experiment", "look-back", "--plan", str(folder / "experiment.toml"), *where)


@pytest.fixture
def look_back(store: tuple[str, ...]) -> LookBack:
    def run(*words: object) -> dict[str, Any]:
        done = firstspin(*store, *words, "--json")
        assert done.returncode == 0, done.stderr
        report: dict[str, Any] = json.loads(done.stdout)
        return report

    return run


def test_one_station_for_everyone_earns_what_those_who_saw_it_did(look_back: LookBack) -> None:
    report = look_back("--station", 17)
    found = report["estimates"]
    assert (report["experiment"], report["policy"]) == (KEY, "station 17 for everyone")
    assert (found["users"], found["support"], found["matched"]) == (USERS, 1.0, USERS // 2)
    assert found["shown"]["value"] == pytest.approx(120 / 400)
    assert found["ips"]["value"]["value"] == pytest.approx(100 / 0.5 / 400)
    assert found["ips"]["above_shown"]["value"] == pytest.approx(0.2)
    for estimate in ("ips", "self_normalised", "doubly_robust"):
        value = found[estimate]["value"]
        assert value["low"] < 0.5 < value["high"]
    assert len(report["assumptions"]) == 5


def test_an_arm_for_everyone_and_the_same_choices_in_a_table_are_one_policy(
    look_back: LookBack, tmp_path: Path
) -> None:
    table = tmp_path / "policy.csv"
    table.write_text("user_id,station_id\n" + "".join(f"u{i},9\n" for i in range(USERS)))
    by_arm, by_table = look_back("--arm", "rule"), look_back("--policy", table)
    assert by_arm["estimates"] == by_table["estimates"]
    assert by_arm["estimates"]["ips"]["value"]["value"] == pytest.approx(20 / 0.5 / 400)
    assert by_table["policy"] == "policy of policy.csv"


def test_users_without_a_choice_or_with_one_that_no_arm_proposed_are_not_judged(
    look_back: LookBack, tmp_path: Path
) -> None:
    table = tmp_path / "policy.csv"
    chosen = [f"u{i},{17 if i < 100 else 99}\n" for i in range(200)]
    table.write_text("user_id,station_id\n" + "".join(chosen) + "stranger,17\n")
    assert look_back("--policy", table)["estimates"]["support"] == pytest.approx(100 / 400)


def test_with_genres_stations_of_one_genre_are_one_choice(look_back: LookBack, tmp_path: Path) -> None:
    (tmp_path / "stations.csv").write_text("station_id,name,genre\n17,S17,Rock\n4,S4,Rock\n9,S9,Jazz\n")
    genres = ("--stations", tmp_path / "stations.csv")
    assert look_back("--station", 4)["estimates"]["support"] == 0.0
    assert look_back("--station", 4, *genres)["estimates"] == look_back("--station", 17, *genres)["estimates"]


def test_an_export_is_read_by_its_keys_or_by_user_ids_and_the_secret(
    look_back: LookBack, store: tuple[str, ...], folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "exported"
    done = firstspin("events", "export", "--plan", folder / "experiment.toml", "--out", out, *store[4:])
    assert done.returncode == 0, done.stderr
    table = tmp_path / "policy.csv"
    table.write_text("user_id,station_id\n" + "".join(f"u{i},17\n" for i in range(USERS)))
    words = (*store[:4], "--exported", str(out), "--policy", str(table))
    assert "--events-secret is needed" in failed(*words)
    done = firstspin(*words, "--events-secret", folder / "events.secret", "--json")
    assert json.loads(done.stdout)["estimates"] == look_back("--station", 17)["estimates"]


def test_the_terminal_shows_estimates_and_assumptions(store: tuple[str, ...]) -> None:
    done = firstspin(*store, "--station", 17)
    assert "100% of 400 users have support in the log; 200 were shown the policy's choice" in done.stdout
    assert "doubly robust" in done.stdout
    assert "- Arms were assigned at random" in done.stdout


def test_what_can_not_be_judged_is_one_clear_line(store: tuple[str, ...], tmp_path: Path) -> None:
    assert firstspin(*store).returncode == 2
    assert firstspin(*store, "--station", 17, "--arm", "rule").returncode == 2
    assert "there is no arm 'other'; its arms are rule, model" in failed(*store, "--arm", "other")
    table = tmp_path / "policy.csv"
    for text, why in {
        "user,station_id\nu1,17\n": "has no column user_key or user_id",
        "user_id,genre\nu1,Rock\n": "has no column station_id",
        "user_id,station_id\nstranger,17\n": "has none of the 400 users",
        "user_id,station_id\nu1,17\nu1,9\n": "gives two values of station_id for one user_id",
    }.items():
        table.write_text(text)
        assert why in failed(*store, "--policy", table)
