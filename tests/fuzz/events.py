"""`POST /v1/events`: whatever is sent, each event gets a status, and only whole ones are kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from made_app import NOW
from made_experiments import HALVES, SECRET

from firstspin.events.store import open_store
from firstspin.service.exposures import ExposureLog
from fuzz import http, values
from fuzz.inputs import Broken, Check, Input

STATUSES = ("stored", "duplicate", "invalid", "erased")


@contextmanager
def opened(folder: Path) -> Iterator[Check]:
    store = open_store(f"sqlite:///{folder / 'events.sqlite'}", SECRET)
    try:
        with http.asking(folder, ledger=ExposureLog(store, SECRET, lambda: NOW, HALVES)) as ask:

            def check(made: Input) -> str:
                body, sent = _body(made)
                reply = ask(made, http.request(made, "/v1/events", body))
                if reply.status == 202:
                    _check_results(reply.body, sent)
                return str(reply.status)

            yield check
    finally:
        store.close()


def _check_results(body: bytes, sent: int | None) -> None:
    results = json.loads(body)["results"]
    if sent is not None and len(results) != sent:
        raise Broken(f"{len(results)} results of {sent} events")
    for result in results:
        if result["status"] not in STATUSES or (result["status"] == "invalid") != bool(result.get("error")):
            raise Broken(f"a result like {result}")
        if values.MARK in result.get("error", ""):
            raise Broken("an error repeats what was sent")


def _body(made: Input) -> tuple[bytes, int | None]:
    """A body, and how many events it holds where that is sure."""
    kind = made.number(0, 9)
    if kind < 7:
        events = [_event(made) for _ in range(made.number(0, 4))]
        return values.as_json(made, {"events": events}), len(events)
    if kind == 7:
        return values.as_json(made, values.json_value(made)), None
    if kind == 8:
        return values.as_json(made, {"events": values.json_value(made)}), None
    return values.mutated(made, values.as_json(made, {"events": [_event(made)]})), None


def _event(made: Input) -> object:
    if made.chance(0.05):
        return values.json_value(made)
    event: dict[str, object] = {
        "event_id": f"e{made.number(0, 10**6)}",
        "type": made.pick(("click", "listen")),
        "user_id": made.pick(("anna", "007", values.MARK)),
        "station_id": "17",
        "at": "2026-01-31T12:00:00Z",
    }
    if event["type"] == "listen":
        event["seconds"] = made.pick((180, 0.5, 1))
    for name in list(event):
        if made.chance(0.1):
            event[name] = made.pick((values.cell(made), values.json_value(made, 1)))
        elif made.chance(0.03):
            del event[name]
    if made.chance(0.05):
        event[values.name(made)] = values.json_value(made)
    return event
