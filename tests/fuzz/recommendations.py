"""`POST /v1/recommendations`, with an experiment that keeps exposures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from made_app import NOW
from made_experiments import HALVES, SECRET

from firstspin.events.store import open_store
from firstspin.service.exposures import ExposureLog
from fuzz import http
from fuzz.inputs import Check, Input
from fuzz.invocations import BODIES


@contextmanager
def opened(folder: Path) -> Iterator[Check]:
    store = open_store(f"sqlite:///{folder / 'events.sqlite'}", SECRET)
    try:
        with http.asking(folder, ledger=ExposureLog(store, SECRET, lambda: NOW, HALVES)) as ask:

            def check(made: Input) -> str:
                kind = made.pick(("json", "json", "json", "lines", "csv"))
                reply = ask(made, http.request(made, "/v1/recommendations", BODIES[kind](made, of_user=True), kind))
                if reply.status == 200:
                    answered = next(name for name, media in http.TYPES.items() if media == reply.content_type)
                    http.check_answers(reply.body, answered)
                return str(reply.status)

            yield check
    finally:
        store.close()
