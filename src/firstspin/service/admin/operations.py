"""The page `/ops`: its shell, its facts as JSON, and its panels as server-sent events.

With keys the shell has no fact: the browser asks for an admin key, sends it as a header, and forgets it with the page.
An event has the panels that changed since the last one. Panels are rendered once per sample, and only for readers; a
slow reader gets the next event when it has read the last (backpressure), so it skips samples and nothing piles up.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from firstspin.experiment.plan import Plan
from firstspin.service.admin.facts import Facts, facts
from firstspin.service.admin.panels import panels
from firstspin.service.admin.recorder import Recorder, ServiceState
from firstspin.service.http.messages import Reply, Request, StreamedReply
from firstspin.service.pages.site import Site, template
from firstspin.service.watch_facts import read_facts
from firstspin.serving.refusal import Refusal

PATH: Final = "/ops"
OWN: Final = (PATH, "Operations")
PAGE: Final = template("operations.html")
MODULES: Final = ("operations.js",)
EVENTS: Final = b"text/event-stream"
LIVE_HEADERS: Final = b"cache-control: no-store\r\nx-accel-buffering: no\r\n"
"""A proxy such as nginx must not collect the events."""

COMMENT: Final = b": nothing changed\n\n"
_HOST: Final = re.compile(r"[a-z0-9.-]+|\[[0-9a-f:.]+\]")


@dataclass(frozen=True, slots=True)
class ServiceFacts:
    """What the service is, beside its state: the plan of its experiment, whether it stores events, its own pages.

    `needs_model`: whether the service refuses requests without a model. `watch`: the file of the last report about the
    answers. `state`: the folder of the accepted bundles. `shadow`: the folder of the shadow bundle.
    """

    plan: Plan | None = None
    has_event_store: bool = False
    needs_model: bool = True
    port: int = 0
    sections: Sequence[tuple[str, str]] = ()
    watch: Path | None = None
    state: Path | None = None
    shadow: Path | None = None


class Operations:
    """The page over a recorder."""

    def __init__(self, recorder: Recorder, service: ServiceFacts) -> None:
        self._recorder, self._service = recorder, service
        self._panels: Mapping[str, str] | None = None  # of the last sample, once a reader needed them
        self._sampled = asyncio.Event()
        self._closed = False

    def record(self, state: ServiceState | None) -> None:
        """Take a sample, and wake the readers."""
        self._recorder.record(state)
        self._panels = None
        self._wake()

    def close(self) -> None:
        """End all streams."""
        self._closed = True
        self._wake()

    def facts(self) -> Facts:
        """The facts at the last sample."""
        service = self._service
        return facts(
            self._recorder,
            service.plan,
            has_event_store=service.has_event_store,
            needs_model=service.needs_model,
            watch=read_facts(service.watch) if service.watch else None,
            state=service.state,
            shadow=service.shadow,
        )

    def json(self) -> Reply:
        """The facts as JSON."""
        return Reply(200, msgspec.json.encode(self.facts()))

    def page(self, request: Request, *, keyed: bool) -> Reply:
        """The page, with the facts of now unless they need a key."""
        shown = self._rendered()
        if keyed:
            shown = dict.fromkeys(shown, "")
        content = PAGE.substitute(shown, keyed="yes" if keyed else "no", hidden=" hidden" if keyed else "")
        return self._site(request).page("Operations", content, PATH, modules=MODULES)

    def error(self, request: Request, refusal: Reply) -> Reply:
        """A refusal as a page for a browser, which leads to this port's page: its own link is of no other origin.

        It does not repeat the host of the request, which may be what was refused.
        """
        return Site((OWN,), OWN).error(request, refusal)

    async def live(self, allow: Callable[[], None]) -> StreamedReply:
        """The panels as server-sent events. `allow` raises Refusal where the reader may read no more."""
        return StreamedReply(200, self._events(allow), EVENTS, LIVE_HEADERS)

    async def _events(self, allow: Callable[[], None]) -> AsyncGenerator[bytes | bytearray, None]:
        shown: Mapping[str, str] = {}
        while not self._closed:
            try:
                allow()
            except Refusal:  # the key was revoked: the next request says so
                return
            now, sampled = self._rendered(), self._sampled
            changed = {name: html for name, html in now.items() if shown.get(name) != html}
            shown = now
            yield b"event: panels\ndata: %b\n\n" % msgspec.json.encode(changed) if changed else COMMENT
            await sampled.wait()

    def _rendered(self) -> Mapping[str, str]:
        if self._panels is None:
            self._panels = panels(self.facts())
        return self._panels

    def _wake(self) -> None:
        sampled, self._sampled = self._sampled, asyncio.Event()
        sampled.set()

    def _site(self, request: Request) -> Site:
        """The navigation: the pages on the service's own port, at the host of this request, and this page."""
        host = request.headers.get(b"host", b"").decode("latin-1").lower().rsplit(":", 1)[0]
        pages = self._service.sections if _HOST.fullmatch(host) else ()
        base = f"http://{host}:{self._service.port}"
        return Site([*((base + path, name) for path, name in pages), OWN], OWN)
