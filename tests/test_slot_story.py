"""The exploration slot of a real service: users come and click, the rates move, a restart restores them."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from made_browser import PHONE, WIDE, visiting
from made_events import SECRET
from made_service import Service, counted, send, serving, until, workers
from made_slot import STATIONS, pack_for_slot
from playwright.sync_api import Browser

from firstspin.events.slot_log import SlotLog, read_slot_log
from firstspin.events.store import open_database, open_store
from firstspin.service.pages.slot_analysis import cost
from firstspin.serving.slot.carousel import read_rates, save_rates
from firstspin.serving.slot.exploration import SlotSettings, StationRates, uniform_of

TRUTH = {station: 0.6 if station == "Talk-1" else 0.15 for station in STATIONS}
"""The probability that a user who is shown a station clicks it."""
A_REQUEST = 100
EXPLORED = 'firstspin_slot_answers_total{outcome="explored"}'


def acknowledged(service: Service, clicks: list[dict[str, str]]) -> bool:
    """Whether the clicks are stored; on a busy machine some have to be sent again."""
    return set(send(service, *clicks)[1]) in ({"stored"}, {"duplicate"})


class Story:
    """A service with a slot at the fifth carousel, and its files."""

    def __init__(self, folder: Path) -> None:
        self.bundle, self.state, self.events = folder / "bundle", folder / "state", folder / "events.sqlite"
        self.secret, self.rates = folder / "secret", folder / "state" / "slot" / "rates.json"
        pack_for_slot(self.bundle)
        self.secret.write_text(bytes(range(32)).hex())
        self.secret.chmod(0o600)
        self.database = open_database(f"sqlite:///{self.events}", SECRET)
        self.clicks = 0

    @contextmanager
    def serving(self) -> Iterator[Service]:
        store = ("--events", f"sqlite:///{self.events}", "--events-secret", str(self.secret))
        slot = ("--explore", "5", "--explore-budget", "0.5", "--explore-floor", "0.04", "--explore-seed", "3")
        options = ("--workers", "2", "--state", str(self.state), "--drain-delay", "0", *store, *slot)
        with serving(self.bundle, *options) as service:
            yield service

    def users_come(self, service: Service, users: range) -> None:
        """They are shown the carousels, each on whatever worker takes the connection, and click what they like."""
        before = counted(service, "firstspin_exposures_stored_total")
        for start in users[::A_REQUEST]:
            until(lambda: counted(service, "firstspin_event_store_ready") == 2)
            names = [f"user-{i}" for i in range(start, start + A_REQUEST)]
            body = json.dumps({"instances": [{"user_id": name, "age": 45, "genres": ["Rock"]} for name in names]})
            status, _, answer = service.ask("POST", "/v1/recommendations", body.encode())
            assert status == 200
            led = [one["carousels"][4]["station_ids"][0] for one in json.loads(answer)["predictions"]]
            at = datetime.now(UTC).isoformat()
            clicks = [
                {"event_id": f"click-{name}", "type": "click", "user_id": name, "station_id": station, "at": at}
                for name, station in zip(names, led, strict=True)
                if uniform_of(99, name) < TRUTH[station]
            ]
            until(partial(acknowledged, service, clicks))
            self.clicks += len(clicks)
        until(lambda: counted(service, "firstspin_exposures_stored_total") >= before + len(users))

    def explores(self, service: Service) -> bool:
        """Whether the workers have read the snapshot: a user who came before is explored on each of 12 connections."""
        before = counted(service, EXPLORED)
        body = json.dumps({"user_id": "user-0", "age": 45, "genres": ["Rock"]}).encode()
        answered = [service.ask("POST", "/v1/recommendations", body)[0] for _ in range(12)]
        return answered == [200] * 12 and counted(service, EXPLORED) == before + 12

    def log(self) -> SlotLog:
        with self.database.snapshot() as session:
            return read_slot_log(session, 5)

    def learned(self) -> StationRates:
        return StationRates.learned(self.log(), SlotSettings().half_life_days)


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    made = Story(tmp_path)
    yield made
    made.database.close()


def test_users_click_the_rates_move_and_a_restart_restores_them_from_the_store(story: Story, browser: Browser) -> None:
    story.rates.parent.mkdir(parents=True)
    save_rates(story.learned(), story.rates)  # of the empty store
    with story.serving() as service:
        until((story.state / "slot" / "page.html").exists, 60)  # the first snapshot is before the first user
        story.users_come(service, range(800))
        assert counted(service, EXPLORED) == 800
        assert len(set(story.log().shown.tolist())) > 8  # little is known, so many stations are tried

        (story.state / "slot" / "wanted").touch()
        until(lambda: read_rates(story.rates) == story.learned(), 60)  # the snapshot has moved
        mark = len(story.log().shown)
        until(lambda: b"users were shown a station" in service.ask("GET", "/exploration")[2])
        for viewport in (PHONE, WIDE):
            with visiting(browser, service.port, viewport=viewport) as visit:
                page = visit.open("/exploration", ".taught tr")
                assert "Talk 1 FM" in page.inner_text(".taught")
                assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
                assert visit.violations() == []
        victim = workers(service)[0]
        story.users_come(service, range(800, 1600))
        os.kill(victim, signal.SIGKILL)
        until(lambda: len(workers(service)) == 2 and victim not in workers(service))
        log = story.log()
        assert len(log.shown) == 1600  # nothing that was counted as stored is lost
        assert int(log.clicked.sum()) == story.clicks
        best = log.station_ids.index("Talk-1")
        assert (log.shown[mark:] == best).mean() > 2 * (log.shown[:mark] == best).mean()  # it has been learned

    story.rates.unlink()
    with story.serving() as service:
        until(lambda: read_rates(story.rates) == story.learned(), 60)
        assert sum(story.learned().shown) == 1600
        until(lambda: story.explores(service), 60)
        story.users_come(service, range(1600, 1700))

    log = story.log()
    supported = log.best >= 0
    truth = np.array([TRUTH[station] for station in log.station_ids])[log.best[supported]].mean()
    greedy = cost(log, alpha=0.001).self_normalised.value  # the snapshots depend on the time, and so does the draw
    assert supported.mean() > 0.9
    assert greedy.low is not None
    assert greedy.high is not None
    assert greedy.low <= truth <= greedy.high
    assert greedy.high - greedy.low < 0.3


def test_without_its_store_the_service_answers_as_without_a_slot_and_counts_it(story: Story) -> None:
    open_store(f"sqlite:///{story.events}", SECRET).close()
    with closing(sqlite3.connect(story.events)) as connection, connection:
        connection.execute("UPDATE about SET value = '99' WHERE name = 'version'")
    body = json.dumps({"user_id": "anna", "age": 45, "genres": ["Rock"]}).encode()
    with story.serving() as service:
        plain = service.recommend(age=45, genres=["Rock"])
        for _ in range(4):
            assert json.loads(service.ask("POST", "/v1/recommendations", body)[2]) == plain
        assert counted(service, 'firstspin_slot_answers_total{outcome="no-snapshot"}') == 4
        until(lambda: counted(service, 'firstspin_supervisor_errors_total{step="slot"}') >= 1)
        assert b"being computed" in service.ask("GET", "/exploration")[2]
