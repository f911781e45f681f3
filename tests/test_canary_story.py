"""A canary from the plan to its stop, with real processes: users of the challenger click less, and it is taken away."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from made_bundles import DAMAGE, pack
from made_experiments import CANARY
from made_service import Service, admin, counted, serving, until
from small_disk import small_disk

from firstspin.experiment.assign import assign
from firstspin.experiment.plan import Plan, experiment_key, freeze, plan_split
from firstspin.service.process.clock import set_clock

START = datetime(2026, 1, 26, 12, tzinfo=UTC)
USERS = [f"user-{number}" for number in range(1_500)]
CLICKERS = {"model": 30, "challenger": 4}
"""Of a hundred users of each arm."""


def arms(plan: Plan, users: Sequence[str]) -> dict[str, str]:
    split = plan_split(plan)
    return {user: arm.arm for user in users if (arm := assign(split, user))}


def answers(service: Service, users: Sequence[str]) -> dict[str, dict[str, Any]]:
    asked = [{"user_id": user, "age": 45, "genres": ["Rock"]} for user in users]
    status, _, body = service.ask("POST", "/v1/recommendations", json.dumps({"instances": asked}).encode())
    assert status == 200, body
    return dict(zip(users, json.loads(body)["predictions"], strict=True))


def click(service: Service, users: Sequence[str], at: datetime) -> None:
    events = [
        {"event_id": user, "type": "click", "user_id": user, "station_id": "1", "at": at.isoformat()} for user in users
    ]
    status, _, body = service.ask("POST", "/v1/events", json.dumps({"events": events}).encode())
    assert status == 202, body
    assert {result["status"] for result in json.loads(body)["results"]} == {"stored"}


def options(folder: Path) -> list[str]:
    files = {"experiment": "canary.toml", "challenger": "challenger", "state": "state", "clock": "clock"}
    named = [part for name, file in files.items() for part in (f"--{name}", str(folder / file))]
    return [*named, "--events", f"sqlite:///{folder / 'events.sqlite'}", "--admin-port", "0", "--drain-delay", "0"]


@pytest.fixture
def story(folder: Path, tmp_path: Path) -> Path:
    """A sealed canary at its first day, a champion and another bundle."""
    shutil.copytree(folder, tmp_path / "champion")
    pack(tmp_path / "challenger", seed=1)
    freeze(CANARY, tmp_path / "canary.toml")
    set_clock(tmp_path / "clock", START)
    return tmp_path


def answered_and_clicked(service: Service, story: Path) -> dict[str, str]:
    """The model of each arm, after its users were answered and clicked, and the windows of all clicks are closed."""
    of_arm = arms(CANARY, USERS)
    first = answers(service, USERS)
    models = {of_arm[user]: answer["model"] for user, answer in first.items()}
    assert {(of_arm[user], answer["model"]) for user, answer in first.items()} == set(models.items())
    assert len(set(models.values())) == 2
    until(lambda: counted(service, "firstspin_exposures_stored_total") == len(USERS))
    set_clock(story / "clock", START + timedelta(hours=1))
    for arm, of in CLICKERS.items():
        users = [user for user in USERS if of_arm[user] == arm]
        click(service, users[: len(users) * of // 100], START + timedelta(minutes=30))
    set_clock(story / "clock", START + timedelta(days=2))
    return models


CORE = min(os.sched_getaffinity(0))
BUSY = f'(taskset -c {CORE} nice -n 5 sh -c "while :; do :; done" &); exec "$0" "$@"'
"""Beside the service, in its session, whose processes share their time by nice values (man 7 sched: autogroups)."""


def test_a_worse_challenger_is_stopped_for_good_and_while_the_host_is_busy(story: Path) -> None:
    with serving(story / "champion", *options(story), through=("sh", "-c", BUSY)) as service:
        models = answered_and_clicked(service, story)
        os.sched_setaffinity(service.process.pid, {CORE})  # of the supervisor, which forks the analysis
        service.ask("GET", "/experiments/canary")  # its figures are wanted
        until(lambda: "canary_stop" in admin(service, "GET", "/state")[1], seconds=120)
        stop = admin(service, "GET", "/state")[1]["canary_stop"]
        assert "challenger loses more than 0.1 of model's clicked" in stop["reason"]  # type: ignore[index]
        until(lambda: {one["model"] for one in answers(service, USERS[:40]).values()} == {models["model"]})
        until(lambda: b"stop the canary" in service.ask("GET", "/experiments/canary")[2])
    with serving(story / "champion", *options(story)) as service:
        again = answers(service, USERS)
        assert {(one["model"], one["source"]) for one in again.values()} == {(models["model"], "model")}
        assert admin(service, "GET", "/state")[1]["canary_stop"] == stop


def test_a_worse_challenger_is_stopped_though_the_state_folder_is_read_only(story: Path) -> None:
    with (
        small_disk(story / "state", 8) as disk,
        serving(story / "champion", *options(story)) as service,
    ):
        models = answered_and_clicked(service, story)
        service.process.send_signal(signal.SIGSTOP)
        service.ask("GET", "/experiments/canary")  # a worker writes that its figures are wanted
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        service.process.send_signal(signal.SIGCONT)
        until(lambda: counted(service, "firstspin_canary_stopped") == 2, seconds=120)  # analysis and worker
        assert {one["model"] for one in answers(service, USERS[:40]).values()} == {models["model"]}
        assert counted(service, "firstspin_exposures_stored_total") == len(USERS)
        assert "file is missing" in admin(service, "GET", "/state")[1]["canary_stop"]["reason"]  # type: ignore[index]
        assert "canary can't be written" in service.log.read_text()


def test_a_challenger_is_loaded_anew_and_a_damaged_one_changes_no_answer_of_the_arm(story: Path) -> None:
    of_arm = arms(CANARY, USERS[:40])
    with serving(story / "champion", *options(story)) as service:
        before = answers(service, USERS[:40])
        pack(story / "fresh", seed=2)
        fresh = json.loads((story / "fresh" / "manifest.json").read_bytes())
        assert fresh
        shutil.rmtree(story / "challenger")
        (story / "fresh").rename(story / "challenger")

        def changed() -> bool:
            now = answers(service, USERS[:40])
            return all((now[user] != before[user]) == (of_arm[user] == "challenger") for user in now)

        until(changed, seconds=60)
        now = answers(service, USERS[:40])
        DAMAGE["SHA-256 differs"](story / "challenger")
        (story / "challenger" / "manifest.json").touch()
        until(lambda: "SHA-256" in admin(service, "GET", "/state")[1]["challenger"]["refusal"], seconds=60)  # type: ignore[index]
        assert answers(service, USERS[:40]) == now


def test_the_challenger_of_an_earlier_canary_answers_nobody_where_the_next_one_can_not_be_loaded(story: Path) -> None:
    second = msgspec.structs.replace(CANARY, name="second")
    of_arm = arms(second, USERS[:40])
    with serving(story / "champion", *options(story)):
        [first] = (story / "state" / "challenger").iterdir()
        assert (first / "current.json").is_file()
    DAMAGE["SHA-256 differs"](story / "challenger")
    (story / "canary.toml").unlink()
    freeze(second, story / "canary.toml")
    with serving(story / "champion", *options(story)) as service:
        found = answers(service, USERS[:40])
        assert len({answer["model"] for answer in found.values()}) == 1
        assert {of_arm[user] for user, answer in found.items() if answer["source"] == "champion"} == {"challenger"}
        assert [path.name for path in (story / "state" / "challenger").iterdir()] == [experiment_key(second)]


def test_a_challenger_that_can_not_be_loaded_leaves_its_users_to_the_champion(story: Path) -> None:
    DAMAGE["SHA-256 differs"](story / "challenger")
    of_arm = arms(CANARY, USERS[:40])
    with serving(story / "champion", *options(story)) as service:
        found = answers(service, USERS[:40])
        assert len({answer["model"] for answer in found.values()}) == 1
        assert {(of_arm[user], answer["source"]) for user, answer in found.items()} == {
            ("model", "model"),
            ("challenger", "champion"),
        }
        assert counted(service, 'firstspin_answers_total{source="champion"}') == list(of_arm.values()).count(
            "challenger"
        )
        assert "SHA-256" in admin(service, "GET", "/state")[1]["challenger"]["refusal"]  # type: ignore[index]
