"""`POST /invocations` in its three encodings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fuzz import http
from fuzz.inputs import Check, Input

BODIES: dict[str, Callable[..., bytes]] = {"json": http.json_body, "lines": http.lines_body, "csv": http.csv_body}


@contextmanager
def opened(folder: Path, kind: str) -> Iterator[Check]:
    with http.asking(folder) as ask:

        def check(made: Input) -> str:
            reply = ask(made, http.request(made, "/invocations", BODIES[kind](made), kind))
            if reply.status == 200:
                answered = next(name for name, media in http.TYPES.items() if media == reply.content_type)
                http.check_answers(reply.body, answered)
            return str(reply.status)

        yield check
