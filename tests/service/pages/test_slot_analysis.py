"""The page of the exploration slot: its figures on a log made by hand, its empty states, and names that are text."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import msgspec
import numpy as np
import pytest
from event_store_contract import put
from made_app import NOW, ask, new_app
from made_events import SECRET, click, shown
from scipy import stats

from firstspin.events.schema import Exposure, candidates_json
from firstspin.events.slot_log import GREEDY, SLOT, SlotLog
from firstspin.events.store import open_database
from firstspin.service.pages.slot_analysis import about, analyse_slot, cost, learned
from firstspin.serving.slot.carousel import read_rates
from firstspin.serving.slot.exploration import MIN_PROPENSITY, Explorer, SlotSettings, StationRates, choose

BEST, TRIED = 0, 1


def a_log(*groups: tuple[int, float, int, int]) -> SlotLog:
    """Groups of users: station shown, its propensity, users, and how many of them clicked."""
    rows = [(station, p, i < clicks) for station, p, users, clicks in groups for i in range(users)]
    station, p, clicked = (np.array(column) for column in zip(*rows, strict=True))
    n = len(rows)
    at = np.full(n, np.datetime64("2026-01-31T12:00", "us"))
    return SlotLog(("17", "4"), station, np.full(n, BEST), p, np.full(n, 0.5), at, clicked)


LOG = a_log((BEST, 0.8, 800, 160), (TRIED, 0.2, 200, 10))


def test_the_cost_is_that_of_the_users_who_were_shown_another_station() -> None:
    found = cost(LOG)
    assert found.shown.value == pytest.approx(170 / 1000)
    assert found.self_normalised.value.value == pytest.approx(160 / 800)
    assert found.self_normalised.above_shown.value == pytest.approx(0.2 - 0.17)
    values = about(LOG, StationRates.learned(LOG, 14), 5, SlotSettings(), {"17": "Seventeen"})
    assert values["cost"] == {"value": "3.00", "interval": values["cost"]["interval"]}  # type: ignore[index]
    assert values["explored"] == 0.2
    assert str(values["verdict"]).startswith("Exploring cost 3.00 clicks per 100 users, compared with")


def test_an_estimate_is_the_posterior_and_has_moved_where_its_interval_excludes_the_mean() -> None:
    rates = StationRates.learned(LOG, 14)
    best, tried = learned(rates, 0.5)
    shape, rate = rates.posterior()
    place = rates.station_ids.index("4")
    posterior = stats.gamma(shape[place], scale=0.5 / rate[place])
    assert (tried.station_id, tried.users) == ("4", 200)
    assert (tried.rate, tried.low, tried.high) == pytest.approx((posterior.mean(), *posterior.interval(0.95)))
    assert best.mean == tried.mean == pytest.approx(0.5 * (1 + 170) / (20 + 500))
    assert tried.has_moved
    assert not learned(StationRates.learned(a_log((BEST, 0.8, 8, 1), (TRIED, 0.2, 2, 1)), 14), 0.5)[0].has_moved


@pytest.mark.parametrize("log", [a_log((TRIED, 0.2, 5, 1)), a_log((BEST, 0.8, 9, 0), (TRIED, 0.2, 2, 0))])
def test_a_cost_that_is_not_known_says_why(log: SlotLog) -> None:
    values = about(log, StationRates.learned(log, 14), 5, SlotSettings(), {})
    assert str(values["verdict"]).startswith("What exploring cost is not known yet: ")
    assert values["stations"] == []


def test_the_estimate_of_the_greedy_policy_is_unbiased_and_covers_its_truth() -> None:
    """Logs of two batches of users, of which the second is shown stations by what was learned from the first."""
    names, settings = [f"s{i:02}" for i in range(12)], SlotSettings(budget=0.5, floor=0.04)
    truth, user = np.where(np.arange(12) == 7, 0.6, 0.15), np.full((1, 12), 0.25)
    z = []
    for seed in range(60):
        rng, rates, rows = np.random.default_rng(seed), StationRates.of(()), []
        for _ in range(2):
            known = rates.among(names)
            explorer = Explorer(known, msgspec.structs.replace(settings, seed=seed))
            [p], best = explorer.propensities(user), int(explorer.values(user).argmax())
            ids = np.array([names.index(name) for name in known.station_ids])
            place = choose(np.tile(p, (600, 1)), rng.random(600))
            greedy = np.full(600, ids[best] if p[best] >= MIN_PROPENSITY else -1)
            rows.append((ids[place], greedy, p[place], rng.random(600) < truth[ids[place]]))
            shown, at_best, propensity, clicked = map(np.concatenate, zip(*rows, strict=True))
            times = np.full(len(shown), np.datetime64("2026-01-31", "us"))
            log = SlotLog(tuple(names), shown, at_best, propensity, np.full(len(shown), 0.25), times, clicked)
            rates = StationRates.learned(log, 14)
        value = cost(log).self_normalised.value
        assert value.value is not None
        assert value.low is not None
        off = value.value - truth[log.best[log.best >= 0]].mean()
        z.append(1.96 * off / (value.value - value.low))
    assert abs(np.mean(z)) < 4 / np.sqrt(len(z))
    assert 0.85 <= np.mean(np.abs(z) < 1.96) <= 1.0


def exposure_of(i: int, station: str) -> Exposure:
    made = shown(f"user-{i}", SLOT, station_id=station, arm=SLOT)
    return msgspec.structs.replace(made, candidates=candidates_json({GREEDY: ["17"]}), carousel=5, relevance=0.5)


def test_the_page_is_written_with_the_snapshot_and_the_worker_serves_it(tmp_path: Path) -> None:
    folder = tmp_path / "slot"
    folder.mkdir()
    app = new_app(slot_folder=folder)

    def page() -> str:
        return ask(app, "GET", "/exploration").body.decode()

    assert "The figures are being computed" in page()
    assert (folder / "wanted").exists()
    database = open_database(f"sqlite:///{tmp_path / 'events.sqlite'}", SECRET)
    database.open()

    def analyse() -> None:
        analyse_slot(database, 5, SlotSettings(), folder, bundle=tmp_path / "none", has_page=True, now=NOW)

    analyse()
    assert "No user has been shown a station by carousel 5 yet" in page()
    users = range(200)
    put(database, [exposure_of(i, "17" if i % 4 else "<b>4</b>") for i in users], [])
    put(database, [], [click(f"c{i}", f"user-{i}", minutes=1) for i in users if i % 4 == 1])
    analyse()
    assert read_rates(folder / "rates.json") == StationRates(
        ("17", "<b>4</b>"), (150.0, 50.0), (75.0, 25.0), (50.0, 0.0), 0, read_rates(folder / "rates.json").version
    )
    text = page()
    assert "<b>4</b>" not in text
    assert "&lt;b&gt;4&lt;/b&gt;" in text
    assert "200</strong><p>users were shown a station, 50 clicked it" in text
    database.close()


def test_a_page_that_is_old_says_so_and_a_service_without_a_slot_says_how_to_have_one(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("the figures")
    for minutes, is_old in ((1, False), (20, True)):
        at = (NOW - timedelta(minutes=minutes)).timestamp()
        os.utime(page, (at, at))
        text = ask(new_app(slot_folder=tmp_path), "GET", "/exploration").body.decode()
        assert "the figures" in text
        assert ("These figures are old" in text) is is_old
    without = ask(new_app(), "GET", "/exploration").body.decode()
    assert "--explore 5 --events" in without
    assert "Exploration</a>" not in without  # in the navigation
