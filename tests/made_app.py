"""The app without its socket, and how to ask it."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from itertools import count
from typing import Any

import made_people

from firstspin.service.app import App, AppOptions, Clock
from firstspin.service.http.messages import Reply, Request
from firstspin.service.metrics import SharedMetrics

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def new_app(tallies: SharedMetrics | None = None, **options: Any) -> App:
    tallies = tallies or SharedMetrics(1)
    tallies.row(0).gauge("firstspin_started", 1)
    return App(tallies, tallies.row(0), Clock(count(0, 1000).__next__, lambda: NOW), AppOptions(**options))


def ask(app: App, method: str, path: str, body: bytes = b"", **headers: str) -> Reply:
    told = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    [reply] = app([Request(method, path, b"", told, body)])
    if isinstance(reply, Reply):
        return reply

    async def awaited() -> Reply:
        return await reply

    return asyncio.run(awaited())


def code(reply: Reply) -> str:
    return str(json.loads(reply.body)["error"]["code"])


class Broken:
    """A model that fails whoever asks."""

    genres = made_people.GENRES

    def __init__(self, encoder: object) -> None:
        self.encoder = encoder

    def rank(self, *_: object) -> None:
        raise FloatingPointError("no answer")

    rankings = rank
