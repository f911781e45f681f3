"""One worker: a loop that answers on one socket from one bundle."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path

from firstspin import bundle
from firstspin.features import NUMBER
from firstspin.recommender import Recommender
from firstspin.service.answers import Answers
from firstspin.service.app import App, Serving
from firstspin.service.connection import Hub, Limits
from firstspin.service.wire import Reader

SWEEP_SECONDS = 0.5


def load(folder: Path, least_age: int) -> Serving:
    """A bundle, checked and ready to answer. Raises InputError with the reason where it is not."""
    loaded = bundle.load(folder)
    extra = loaded.manifest.extra
    encoder = loaded.predictor.encoder
    numbers = {question for question, kind in zip(encoder.questions, encoder.kinds, strict=True) if kind == NUMBER}
    return Serving(Answers(Recommender(loaded, least_age)), Reader(tuple(extra), sorted(numbers)))


async def run(
    listener: socket.socket, app: App, limits: Limits, ready: Callable[[], None], stop: asyncio.Event
) -> None:
    """Answer until `stop` is set, then finish what has begun."""
    loop = asyncio.get_running_loop()
    hub = Hub(app, limits, loop, app.refused)
    server = await loop.create_server(hub.protocol, sock=listener, backlog=2048)
    ready()
    while not stop.is_set():
        hub.sweep()
        try:
            await asyncio.wait_for(stop.wait(), SWEEP_SECONDS)
        except TimeoutError:
            continue
    server.close()
    hub.close()
