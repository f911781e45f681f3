"""`POST /v1/explanations`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fuzz import http
from fuzz.inputs import Broken, Check, Input


@contextmanager
def opened(folder: Path) -> Iterator[Check]:
    with http.asking(folder) as ask:

        def check(made: Input) -> str:
            reply = ask(made, http.request(made, "/v1/explanations", http.json_body(made)))
            if reply.status == 200 and not json.loads(reply.body)["model"]:
                raise Broken("an explanation of no model")
            return str(reply.status)

        yield check
