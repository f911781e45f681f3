"""The slot as it is served: who is explored, what is shown and recorded, and what happens without a snapshot."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from made_app import NOW, ask, new_app
from made_experiments import HALVES, SECRET
from made_slot import STATIONS, pack_for_slot

from firstspin.events.schema import microseconds
from firstspin.events.slot_log import SLOT
from firstspin.events.store import EventStore, open_store
from firstspin.experiment.assign import assign
from firstspin.records import Listen, Registration
from firstspin.service.app import App
from firstspin.service.exposures import ExposureLog
from firstspin.service.process.worker import load
from firstspin.serving.bundle import Bundle
from firstspin.serving.policy import DEFAULTS, Decision, PolicySettings, decide
from firstspin.serving.slot.carousel import CarouselSlot, read_rates, save_rates
from firstspin.serving.slot.exploration import SlotSettings, StationRates

ANNA = Registration(age=45, genres=("Rock",))


@pytest.fixture(scope="module")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("slot") / "bundle"
    pack_for_slot(out)
    return out


@pytest.fixture(scope="module")
def bundle(bundle_folder: Path) -> Bundle:
    loaded = load(bundle_folder).bundle
    assert loaded
    return loaded


def rates(clicked: str = "") -> StationRates:
    """Each station was shown to 300 users; this one was clicked by a third of them."""
    of = [(station, 300.0, 100.0, 100.0 * (station == clicked)) for station in STATIONS]
    names, shown, relevant, clicks = zip(*of, strict=True)
    return StationRates(names, shown, relevant, clicks, 0, 7)


NOTHING_CLICKED = rates()


class Made:
    """A slot whose snapshot is at `path`, and the outcomes that it counted."""

    def __init__(self, path: Path, carousel: int = 1, **settings: Any) -> None:
        self.outcomes: Counter[str] = Counter()
        self.path = path
        self.slot = CarouselSlot(carousel, SlotSettings(**settings), path, self._count)

    def _count(self, outcome: str) -> None:
        self.outcomes[outcome] += 1

    def with_rates(self, known: StationRates) -> Made:
        save_rates(known, self.path)
        self.slot.refresh(has_store=True)
        return self

    def explored(self, bundle: Bundle, user: str = "anna", told: Registration = ANNA) -> Decision:
        return self.slot.explored(told, user, decide(told, user, bundle, None, DEFAULTS), bundle)


def test_the_carousel_is_led_by_the_best_station_of_all_genres_that_are_nowhere_else(
    bundle: Bundle, tmp_path: Path
) -> None:
    made = Made(tmp_path / "rates.json", budget=0, floor=0).with_rates(rates("News-1"))
    choice = made.explored(bundle).slot
    assert choice is not None
    assert (choice.carousel, choice.station.station_id, choice.greedy) == (1, "News-1", "News-1")
    assert choice.propensity == 1
    assert choice.relevance == 0.25  # the model gives News no probability
    best_of_another_carousel = made.with_rates(rates("Blues-1")).explored(bundle).slot
    assert best_of_another_carousel is not None
    assert best_of_another_carousel.station.genre != "Blues"


def test_the_same_seed_user_and_snapshot_give_the_same_choice_in_every_process(bundle: Bundle, tmp_path: Path) -> None:
    users = [f"u{i}" for i in range(200)]

    def shown(name: str, seed: int = 3, known: StationRates = NOTHING_CLICKED) -> list[Any]:
        made = Made(tmp_path / name, seed=seed, budget=1.0).with_rates(known)
        return [made.explored(bundle, user).slot for user in users]

    first = shown("a")
    assert shown("b") == first
    assert len({choice.station.station_id for choice in first}) > 3
    assert shown("c", seed=4) != first
    assert shown("d", known=msgspec.structs.replace(rates(), version=8)) != first


def test_each_station_is_shown_as_often_as_its_propensity_says(bundle: Bundle, tmp_path: Path) -> None:
    made = Made(tmp_path / "rates.json", budget=0.3, floor=0.02).with_rates(rates("News-1"))
    choices = [made.explored(bundle, f"u{i}").slot for i in range(2000)]
    seen = Counter(choice.station.station_id for choice in choices if choice)
    propensity = {choice.station.station_id: choice.propensity for choice in choices if choice}
    for station, n in seen.items():
        assert abs(n / 2000 - propensity[station]) < 4 * np.sqrt(propensity[station] / 2000)
    assert all(choice and choice.greedy == "News-1" for choice in choices)


def test_who_is_under_age_or_not_ranked_by_the_model_is_not_explored(bundle: Bundle, tmp_path: Path) -> None:
    made = Made(tmp_path / "rates.json").with_rates(rates())
    assert made.explored(bundle, told=Registration(age=12, genres=("Rock",))).slot is None
    by_rule = decide(ANNA, "anna", bundle, None, DEFAULTS, failure="broken")
    assert by_rule.source == "rule"
    assert made.slot.explored(ANNA, "anna", by_rule, bundle) is by_rule
    unasked = replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, knows_silence=False))
    silent = decide(Registration(), "anna", unasked, None, DEFAULTS)  # training saw no registration without answers
    assert (silent.source, silent.by_rule) == ("popular", True)
    assert made.slot.explored(Registration(), "anna", silent, unasked) is silent
    assert made.slot.explored(ANNA, "anna", decide(ANNA, "anna", None, None, DEFAULTS), None).slot is None
    assert made.outcomes == {}
    assert made.explored(bundle, told=Registration()).slot is not None  # no age is none under the minimum
    assert made.outcomes == {"explored": 1}


def test_without_a_snapshot_or_a_store_the_answer_is_that_of_a_service_without_a_slot(
    bundle: Bundle, tmp_path: Path
) -> None:
    made = Made(tmp_path / "rates.json")
    made.slot.refresh(has_store=True)
    assert made.explored(bundle).slot is None
    made.with_rates(rates())
    made.slot.refresh(has_store=False)
    assert made.explored(bundle).slot is None
    made.path.unlink()
    made.slot.refresh(has_store=True)
    assert made.explored(bundle).slot is not None  # by the last snapshot
    for content in (b"", b"{", b'{"station_ids":["a"]}', b"\xff"):
        made.path.write_bytes(content)
        made.slot.refresh(has_store=True)
        assert made.explored(bundle).slot is not None
    assert made.outcomes == {"no-snapshot": 1, "no-store": 1, "explored": 5}


def test_a_slot_beyond_the_carousels_of_the_catalogue_fails_and_the_answer_is_given(
    folder: Path, tmp_path: Path
) -> None:
    bundle = load(folder).bundle  # of four genres
    assert bundle
    made = Made(tmp_path / "rates.json", carousel=5).with_rates(rates())
    assert made.explored(bundle).slot is None
    assert made.outcomes == {"failed": 1}


def test_a_snapshot_is_written_once_and_read_when_it_changes(bundle: Bundle, tmp_path: Path) -> None:
    made = Made(tmp_path / "rates.json", budget=0, floor=0).with_rates(rates("News-1"))
    before = made.path.stat().st_mtime_ns
    save_rates(rates("News-1"), made.path)
    assert made.path.stat().st_mtime_ns == before
    assert read_rates(made.path) == rates("News-1")
    made.with_rates(rates("Talk-2"))
    choice = made.explored(bundle).slot
    assert choice is not None
    assert choice.station.station_id == "Talk-2"


# ------------------------------------------------------------------------------------------------------- in the app


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EventStore]:
    opened = open_store(f"sqlite:///{tmp_path / 'events.sqlite'}", SECRET)
    yield opened
    opened.close()


def an_app(bundle_folder: Path, store: EventStore, made: Made | None, running: Any = None) -> App:
    app = new_app(ledger=ExposureLog(store, SECRET, lambda: NOW, running), slot=made and made.slot)
    app.serve(load(bundle_folder))
    return app


def recommend(app: App, **told: object) -> dict[str, Any]:
    reply = ask(app, "POST", "/v1/recommendations", json.dumps(told).encode())
    assert reply.status == 200, reply.body
    return json.loads(reply.body)  # type: ignore[no-any-return]


def stored(tmp_path: Path, store: EventStore) -> list[dict[str, Any]]:
    store.close()
    with closing(sqlite3.connect(tmp_path / "events.sqlite")) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute("select * from exposures order by seq")]


def test_what_is_shown_is_recorded_and_no_station_is_in_two_carousels(
    bundle_folder: Path, store: EventStore, tmp_path: Path
) -> None:
    made = Made(tmp_path / "rates.json", carousel=2, budget=1.0).with_rates(rates("Talk-2"))
    with_slot, without = an_app(bundle_folder, store, made), an_app(bundle_folder, store, None)
    users = [f"u{i}" for i in range(30)]
    body = {"instances": [{"user_id": user, "age": 45, "genres": ["Rock"]} for user in users]}
    several = ask(with_slot, "POST", "/v1/recommendations", json.dumps(body).encode())
    answers = json.loads(several.body)["predictions"]
    for user, answer in zip(users, answers, strict=True):
        assert recommend(with_slot, user_id=user, age=45, genres=["Rock"]) == answer  # alone as among many
        plain = recommend(without, user_id=user, age=45, genres=["Rock"])
        carousels, usual = answer.pop("carousels"), plain.pop("carousels")
        assert answer == plain  # the rest of the answer
        for other in (0, 2, 3, 4):  # but for the stations of further genres that fill it up
            assert carousels[other]["genre"] == usual[other]["genre"]
            assert carousels[other]["station_ids"][:3] == usual[other]["station_ids"][:3]
        tiles = [station for carousel in carousels for station in carousel["station_ids"]]
        assert len(tiles) == len(set(tiles))
        answer["led by"] = carousels[1]["station_ids"][0]
    rows = stored(tmp_path, store)
    assert len(rows) == 30
    assert [row["station_id"] for row in rows] == [answer["led by"] for answer in answers]
    assert {(row["experiment"], row["arm"], row["carousel"]) for row in rows} == {(SLOT, SLOT, 2)}
    assert all(0 < row["propensity"] <= 1 and row["relevance"] > 0 for row in rows)
    assert not any(name in row for row in rows for name in ("age", "gender", "country", "user_id"))


def test_a_user_has_an_exposure_at_each_position_that_explored_of_the_same_station_too(
    bundle: Bundle, store: EventStore, tmp_path: Path
) -> None:
    ledger = ExposureLog(store, SECRET, lambda: NOW)
    for carousel in (5, 5, 4):
        made = Made(tmp_path / "rates.json", carousel, budget=0, floor=0).with_rates(rates("Talk-2"))
        decision = made.explored(bundle)
        assert decision.slot is not None
        ledger.record([ledger.slot_exposure("anna", decision, decision.slot, microseconds(NOW))])
    rows = [(row["carousel"], row["station_id"]) for row in stored(tmp_path, store)]
    assert rows == [(5, "Talk-2"), (4, "Talk-2")]


def test_an_exposure_has_the_number_of_looked_up_listens_that_moved_the_answer(
    bundle: Bundle, store: EventStore, tmp_path: Path
) -> None:
    made, ledger = Made(tmp_path / "rates.json").with_rates(rates()), ExposureLog(store, SECRET, lambda: NOW)
    settings = PolicySettings(listens_from_events=True)
    heard = [Listen(station, 300.0) for station, genre in STATIONS.items() if genre in bundle.evidence.genres][:2]
    for listens, expected in ((tuple(heard), 2), ((Listen("nowhere", 9.0),), None), (None, None)):
        registration = msgspec.structs.replace(ANNA, listens=listens)
        decision = made.slot.explored(
            registration, "anna", decide(registration, "anna", bundle, None, settings), bundle
        )
        assert decision.slot is not None
        assert ledger.slot_exposure("anna", decision, decision.slot, microseconds(NOW)).listens == expected


def test_children_users_of_the_experiment_and_invocations_are_answered_as_without_a_slot(
    bundle_folder: Path, store: EventStore, tmp_path: Path
) -> None:
    made = Made(tmp_path / "rates.json", budget=1.0).with_rates(rates("News-1"))
    apps = an_app(bundle_folder, store, made, HALVES), an_app(bundle_folder, store, None, HALVES)
    inside = [user for user in map(str, range(40)) if assign(HALVES.split, user)]
    asked = [{"user_id": user, "age": 45} for user in inside] + [{"user_id": "kid", "age": 9, "genres": ["Rock"]}]
    for body in asked:
        first, second = (recommend(app, **body) for app in apps)
        assert first == second
    first, second = (ask(app, "POST", "/invocations", b'{"age":45}').body for app in apps)
    assert first == second
    assert made.outcomes == {}
    assert not [row for row in stored(tmp_path, store) if row["carousel"] is not None]
