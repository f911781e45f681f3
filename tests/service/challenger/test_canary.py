"""A challenger answers its arm of a canary, never hurts a user, and answers nobody after a stop."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from made_app import NOW, Broken, ask, new_app
from made_bundles import pack, pack_with_further_fields
from made_experiments import CANARY, SECRET, START, log
from small_disk import BALLAST, fill_up, small_disk

from firstspin.events.store import EventStore, open_store
from firstspin.experiment.assign import assign
from firstspin.experiment.monitor import monitor
from firstspin.experiment.plan import experiment_key
from firstspin.records import InputError
from firstspin.service.app import App
from firstspin.service.challenger.canary import CanaryStop, read_stop, stop, stop_as_decided, stop_file
from firstspin.service.exposures import ExposureLog
from firstspin.service.metrics import SharedMetrics
from firstspin.service.notices import causes
from firstspin.service.pages.analysis import write_pages
from firstspin.service.process.worker import load
from firstspin.service.served_model import ServedModel
from firstspin.serving.bundle import load as load_bundle
from firstspin.serving.experiment import running
from firstspin.serving.policy import DEFAULTS, PolicySettings

RUNNING = running(CANARY)
ARMS = {user: arm.arm for user in map(str, range(40)) if (arm := assign(RUNNING.split, user))}
AGED_45 = {"age": 45, "country": "US", "genres": ["Rock"]}


@pytest.fixture(scope="module")
def challenger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("canary") / "challenger"
    pack(made, seed=1)
    return made


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EventStore]:
    opened = open_store(f"sqlite:///{tmp_path / 'events.sqlite'}", SECRET)
    yield opened
    opened.close()


def canary(folder: Path, store: EventStore, **options: Any) -> App:
    app = new_app(ledger=ExposureLog(store, SECRET, lambda: NOW, RUNNING), **options)
    app.serve(load(folder))
    return app


def together(app: App) -> dict[str, dict[str, Any]]:
    """The answers to all users in one request, which are those to each alone."""
    asked = [{"user_id": user, **AGED_45} for user in ARMS]
    reply = ask(app, "POST", "/v1/recommendations", json.dumps({"instances": asked}).encode())
    answers = dict(zip(ARMS, json.loads(reply.body)["predictions"], strict=True))
    for one in asked[:8]:
        assert (
            json.loads(ask(app, "POST", "/v1/recommendations", json.dumps(one).encode()).body)
            == answers[one["user_id"]]
        )
    return answers


def in_service(folder: Path) -> dict[str, Any]:
    app = new_app()
    app.serve(load(folder))
    return json.loads(ask(app, "POST", "/invocations", json.dumps(AGED_45).encode()).body)  # type: ignore[no-any-return]


def exposures(store: EventStore, tmp_path: Path) -> list[dict[str, Any]]:
    store.close()
    with closing(sqlite3.connect(tmp_path / "events.sqlite")) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute("select * from exposures")]


@pytest.mark.parametrize("policy", [DEFAULTS, PolicySettings(calibrated_rows=True, listens_from_events=True)])
def test_each_arm_is_answered_by_its_bundle_as_if_that_were_in_service(
    folder: Path, challenger: Path, store: EventStore, tmp_path: Path, policy: PolicySettings
) -> None:
    app = canary(folder, store, policy=policy)
    app.challenge(load(challenger))
    bodies = {"model": in_service(folder), "challenger": in_service(challenger)}
    assert bodies["model"]["genres"] != bodies["challenger"]["genres"]
    assert together(app) == {user: bodies[arm] for user, arm in ARMS.items()}
    assert json.loads(ask(app, "POST", "/invocations", json.dumps(AGED_45).encode()).body) == bodies["model"]
    shown = exposures(store, tmp_path)
    assert len(shown) == len(ARMS)
    for row in shown:
        answer, candidates = bodies[row["arm"]], json.loads(row["candidates"])
        assert (row["model"], row["source"]) == (answer["model"], "model")
        assert candidates[row["arm"]] == [station["station_id"] for station in answer["stations"]]
        assert candidates["model"] == [station["station_id"] for station in bodies["model"]["stations"]]
        assert candidates["challenger"] or row["arm"] == "model"  # it is not asked for users of the other arm


@pytest.mark.parametrize("trouble", ["not loaded", "fails", "has no content"])
def test_a_challenger_that_does_not_answer_hurts_nobody(
    folder: Path, challenger: Path, store: EventStore, tmp_path: Path, trouble: str
) -> None:
    app = canary(folder, store)
    if trouble == "fails":
        bundle = load_bundle(challenger)
        app.challenge(ServedModel.of(replace(bundle, predictor=Broken(bundle.predictor.encoder))))  # type: ignore[arg-type]
    elif trouble == "has no content":
        app.challenge(replace(load(challenger), responses=None))  # type: ignore[arg-type]
    by_champion = in_service(folder)
    for user, answer in together(app).items():
        assert answer == by_champion | ({"source": "champion"} if ARMS[user] == "challenger" else {})
    in_arm = {(row["arm"], row["source"], row["model"]) for row in exposures(store, tmp_path)}
    assert in_arm == {("model", "model", by_champion["model"]), ("challenger", "champion", by_champion["model"])}
    asked = [*ARMS.values(), *list(ARMS.values())[:8]]  # by `together`
    by_source = f'firstspin_answers_total{{source="champion"}} {asked.count("challenger")}.0\n'
    assert by_source.encode() in ask(app, "GET", "/metrics").body


def test_further_fields_that_the_bundle_in_service_does_not_read_are_not_given_to_the_challenger(
    folder: Path, store: EventStore, tmp_path: Path
) -> None:
    pack_with_further_fields(tmp_path / "more")
    app = canary(folder, store)
    app.challenge(load(tmp_path / "more"))
    bodies = {"model": in_service(folder), "challenger": in_service(tmp_path / "more")}
    assert together(app) == {user: bodies[arm] for user, arm in ARMS.items()}


def test_under_the_minimum_age_nobody_takes_part(
    folder: Path, challenger: Path, store: EventStore, tmp_path: Path
) -> None:
    app = canary(folder, store)
    app.challenge(load(challenger))
    for user in ARMS:
        asked = json.dumps({"user_id": user, "age": 12, "genres": ["Rock"]}).encode()
        answer = json.loads(ask(app, "POST", "/v1/recommendations", asked).body)
        assert (answer["source"], answer["model"]) == ("under-age", in_service(folder)["model"])
    assert exposures(store, tmp_path) == []


def test_after_a_stop_the_bundle_in_service_answers_everyone_and_no_exposure_is_kept(
    folder: Path, challenger: Path, store: EventStore, tmp_path: Path
) -> None:
    file = stop_file(tmp_path, RUNNING.key)
    app = canary(folder, store, canary_stop=file)
    app.challenge(load(challenger))
    app.refresh()
    assert {answer["model"] for answer in together(app).values()} == {
        load(path).responses.model for path in (folder, challenger)
    }
    stop(file, "harm", NOW)
    app.refresh()
    assert list(together(app).values()) == [in_service(folder)] * len(ARMS)
    app.challenge(load(challenger))  # a later reload of the challenger changes nothing
    assert list(together(app).values()) == [in_service(folder)] * len(ARMS)
    assert len(exposures(store, tmp_path)) == len(ARMS)


class StopsMeanwhile:
    """Listens that come after the canary is stopped."""

    def __init__(self) -> None:
        self.stop: Callable[[], object] = object

    async def get(self, _: str) -> tuple[None, str]:
        self.stop()
        return None, "none"


def test_an_answer_that_waits_while_the_canary_is_stopped_is_that_of_the_bundle_in_service(
    folder: Path, challenger: Path, store: EventStore, tmp_path: Path
) -> None:
    file, listens = stop_file(tmp_path, RUNNING.key), StopsMeanwhile()
    policy = PolicySettings(listens_from_events=True)
    user = next(user for user, arm in ARMS.items() if arm == "challenger")
    app = canary(folder, store, canary_stop=file, listens=listens, policy=policy)
    app.challenge(load(challenger))
    listens.stop = lambda: (stop(file, "harm", NOW), app.refresh())
    asked = json.dumps({"user_id": user, **AGED_45}).encode()
    answer = json.loads(ask(app, "POST", "/v1/recommendations", asked).body)
    assert file.is_file()
    assert {name: answer[name] for name in ("model", "stations")} == {
        name: in_service(folder)[name] for name in ("model", "stations")
    }
    assert exposures(store, tmp_path) == []


def test_where_the_folder_of_the_stop_is_none_the_canary_is_stopped_in_the_file_and_in_the_workers(
    folder: Path, challenger: Path, store: EventStore, tmp_path: Path
) -> None:
    file = stop_file(tmp_path, RUNNING.key)
    file.parent.write_text("a file where a folder should be")
    assert read_stop(file)
    app = canary(folder, store, canary_stop=file)
    app.challenge(load(challenger))
    app.refresh()
    assert {answer["model"] for answer in together(app).values()} == {in_service(folder)["model"]}


def test_the_first_stop_stands_and_an_unreadable_file_is_a_stop(tmp_path: Path) -> None:
    file = stop_file(tmp_path, RUNNING.key)
    assert read_stop(file) is None
    at = datetime(2026, 2, 1, tzinfo=UTC)
    assert stop(file, "harm", at) == stop(file, "again", NOW) == read_stop(file) == CanaryStop(RUNNING.key, "harm", at)
    file.write_text("{")
    stopped = read_stop(file)
    assert stopped
    assert (stopped.experiment, "can't be read" in stopped.reason) == (RUNNING.key, True)


def test_a_stop_that_can_not_be_written_stops_the_workers_and_is_written_later(
    folder: Path, challenger: Path, store: EventStore, tmp_path: Path
) -> None:
    (tmp_path / "log").mkdir()
    users = log(tmp_path / "log", CANARY, 3, clickers={"model": 60, "challenger": 10})
    progress = monitor(users, CANARY, START + timedelta(days=5))
    assert progress.status == "stop the canary"
    tallies = SharedMetrics(2)
    of_analysis = tallies.row(1)
    with small_disk(tmp_path / "disk", 1) as disk:
        file = stop_file(disk, progress.experiment)
        app = canary(folder, store, canary_stop=file, tallies=tallies)
        app.challenge(load(challenger))
        fill_up(disk)
        stop_as_decided(stop_file(disk, "other@00000000"), progress, of_analysis)
        app.refresh()
        assert len({answer["model"] for answer in together(app).values()}) == 2
        stop_as_decided(file, progress, of_analysis)
        assert not file.exists()
        app.refresh()
        assert {answer["model"] for answer in together(app).values()} == {in_service(folder)["model"]}
        assert b"firstspin_canary_stopped 2.0" in ask(app, "GET", "/metrics").body
        (disk / BALLAST).unlink()
        stop_as_decided(file, progress, of_analysis)
        assert read_stop(file) == CanaryStop(progress.experiment, progress.sentence, progress.as_of)


def test_a_canary_that_was_stopped_by_hand_says_so_and_waits_for_no_exposures(tmp_path: Path) -> None:
    for name in ("log", "experiments"):
        (tmp_path / name).mkdir()
    users = log(tmp_path / "log", CANARY, 1, clickers={"model": 30, "challenger": 30})
    later = START + timedelta(days=4)
    pages = tmp_path / "experiments"
    assert [kind for kind, _, _ in causes(write_pages(users, CANARY, pages, now=later))] == ["experiment.no_data"]
    stop(stop_file(tmp_path, experiment_key(CANARY)), "Stop: complaints.", later)
    state = write_pages(users, CANARY, pages, now=later)
    assert (state.status, state.sentence) == ("stop the canary", "Stop the canary: Stop: complaints.")
    assert [kind for kind, _, _ in causes(state)] == ["experiment.canary_stopped"]
    assert "complaints" in (pages / "canary.html").read_text()


@pytest.mark.parametrize(
    "fields",
    [
        {"harm_margin": None},
        {"control": "challenger"},
        {"control": "rule", "arms": {"rule": 1.0, "challenger": 1.0}},
        {"control": "model", "arms": {"model": 1.0, "rule": 1.0}},
    ],
)
def test_a_challenger_is_served_beside_the_model_with_a_margin_only(fields: dict[str, object]) -> None:
    with pytest.raises(InputError, match="--arms model=95,challenger=5"):
        running(msgspec.structs.replace(CANARY, **fields))  # type: ignore[arg-type]
