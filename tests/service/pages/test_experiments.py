"""The page tells what is tried and where it stands, and never who is ahead; what is kept is counted as it is kept."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from made_app import ask, new_app
from made_experiments import HALVES, PLAN, SECRET
from msgspec import structs

from firstspin.events.schema import Exposure
from firstspin.events.store import EventStore, QueueLimits, open_store
from firstspin.service.exposures import ExposureLog
from firstspin.service.pages.experiments import page
from firstspin.service.pages.site import Site
from firstspin.serving.experiment import Running, running


def shown(running: Running | None, now: datetime) -> str:
    return page(Site(), running, {"firstspin_exposures_stored": 1234}, now).body.decode()


def told(now: datetime) -> str:
    return shown(HALVES, now)


def test_without_an_experiment_the_page_says_how_to_begin_one() -> None:
    said = shown(None, datetime(2026, 1, 1, tzinfo=UTC))
    assert "No experiment is running here" in said
    assert "firstspin experiment plan" in said


def test_the_plan_and_what_was_kept_are_told() -> None:
    said = told(datetime(2026, 1, 27, 12, tzinfo=UTC))
    assert HALVES.key in said
    assert "<td>rule</td><td>rule</td><td>50%</td>" in said
    assert "a lift of 10.0% or more" in said
    assert "<dd>1,234</dd>" in said


@pytest.mark.parametrize(
    ("now", "stage"),
    [
        (datetime(2026, 1, 25, 23, tzinfo=UTC), "not started: it starts on 2026-01-26"),
        (datetime(2026, 1, 26, tzinfo=UTC), "day 1 of 14; no verdict before 2026-02-16 00:00 UTC"),
        (datetime(2026, 2, 8, 23, tzinfo=UTC), "day 14 of 14; no verdict before 2026-02-16 00:00 UTC"),
        (datetime(2026, 2, 9, tzinfo=UTC), "no more users; the last ones may still click and listen; no verdict"),
        (datetime(2026, 2, 16, tzinfo=UTC), "ended: analyse it with firstspin experiment analyse"),
    ],
)
def test_no_verdict_is_spoken_of_before_the_last_window_has_closed(now: datetime, stage: str) -> None:
    assert stage in told(now)


def test_words_of_the_plan_are_shown_as_words() -> None:
    arms = {"rule": 1.0, "model-<script>": 1.0}
    made = running(structs.replace(PLAN, arms=arms))
    said = shown(made, datetime(2026, 1, 27, tzinfo=UTC))
    assert "model-&lt;script&gt;" in said
    assert "model-<script>" not in said


def test_dropped_exposures_are_counted_and_shown(tmp_path: Path) -> None:
    store: EventStore = open_store(f"sqlite:///{tmp_path / 'events.sqlite'}", SECRET, QueueLimits(waiting_exposures=0))
    app = new_app(ledger=ExposureLog(store, SECRET, lambda: datetime(2026, 1, 27, tzinfo=UTC), HALVES))
    lost: Exposure = None  # type: ignore[assignment]  # nobody looks at what is dropped
    assert not store.submit_exposures([lost])
    app.refresh()
    app.refresh()  # counted once
    assert b"firstspin_exposures_dropped_total 1.0" in ask(app, "GET", "/metrics").body
    assert b"<dt>Messages that could not be stored</dt><dd>1</dd>" in ask(app, "GET", "/experiments").body
    store.close()


def test_events_kept_are_counted(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'events.sqlite'}", SECRET)
    app = new_app(ledger=ExposureLog(store, SECRET, lambda: datetime(2026, 1, 27, tzinfo=UTC), HALVES))
    event = {"event_id": "e1", "type": "click", "user_id": "u", "station_id": "17", "at": "2026-01-27T00:00:00Z"}
    body = json.dumps({"events": [event]}).encode()
    assert ask(app, "POST", "/v1/events", body).status == 202
    app.refresh()
    assert b"firstspin_events_stored_total 1.0" in ask(app, "GET", "/metrics").body
    store.close()
