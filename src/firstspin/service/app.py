"""Requests -> replies: the handlers of the routes; each reply is counted and timed by its route."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from math import inf
from pathlib import Path
from typing import Any, Final

import msgspec

from firstspin.records import Listens, Registration, StoredAnswer
from firstspin.service.answering import Answering, Asking, encoding_of_request, failed, refused
from firstspin.service.api_keys import Key, Keys
from firstspin.service.challenger.canary import STOPPED, is_stopped
from firstspin.service.challenger.shadow import ShadowSampler
from firstspin.service.exposures import ExposureLog
from firstspin.service.http.messages import Reply, Request, StreamedReply, Work
from firstspin.service.http.openapi import schema
from firstspin.service.metrics import ProcessMetrics, SharedMetrics
from firstspin.service.pages import experiments, slot
from firstspin.service.pages.home import FormPage, home
from firstspin.service.pages.site import IMMUTABLE, REVALIDATED, SECTIONS, STATIC_FILES, Site, cached, static_file
from firstspin.service.pages.study import StudyPage
from firstspin.service.routes import OTHER, PAGE, ROUTES, dispatch, not_taken
from firstspin.service.served_model import NOTHING, ServedModel
from firstspin.service.telemetry.spans import AnswerSpans
from firstspin.serving.bodies.encodings import Encoding
from firstspin.serving.bodies.limits import SHORT
from firstspin.serving.content import NO_STATIONS
from firstspin.serving.lookups import UserLookups
from firstspin.serving.policy import (
    DEFAULTS,
    NO_MODEL,
    PolicySettings,
    refuse_under_age,
)
from firstspin.serving.refusal import Refusal
from firstspin.serving.slot.carousel import CarouselSlot
from firstspin.serving.stations import StationList

log = logging.getLogger(__name__)

TEXT: Final = b"text/plain; version=0.0.4; charset=utf-8"
_encode: Final = msgspec.json.Encoder().encode
_LABELS: Final = {route.path: route.label for route in ROUTES} | dict.fromkeys(STATIC_FILES, PAGE)
_POSTED: Final = {route.path for route in ROUTES if route.method == "POST"}


@dataclass(frozen=True, slots=True)
class Clock:
    """`now` is a monotonic clock in nanoseconds, `date` the time of day."""

    now: Callable[[], int]
    date: Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class AppOptions:
    """Whether to answer before there is a model, who may call `/v1`, what is kept there, and which features are on.

    `further` answers further paths; `report` is the file of the study, by default the one beside the folder `bundle`;
    `pages`: whether `/` and the other pages are there; `many_models`: whether models can be loaded at `/models`;
    `experiment_pages`: the folder of pages that analyses write; `stored` looks up the answers of batch scoring, for
    users, `listens` their listens; `slot` explores, for users, and `slot_folder` has its page. An answer about several
    of more than `max_answer_bytes` bytes is refused.
    Once the file `canary_stop` is there, all users are answered as without an experiment.
    `policy` decides what answers; its experiment is the one that `ledger` records. `spans` traces answers, `shadow`
    copies them for a shadow bundle,
    which the page `/` asks too.
    """

    without_model: bool = False
    keys: Keys | None = None
    ledger: ExposureLog | None = None
    further: Further | None = None
    report: Path | None = None
    max_answer_bytes: float = inf
    stored: UserLookups[StoredAnswer] | None = None
    listens: UserLookups[Listens] | None = None
    policy: PolicySettings = DEFAULTS
    pages: bool = True
    many_models: bool = False
    experiment_pages: Path | None = None
    bundle: Path | None = None
    slot: CarouselSlot | None = None
    slot_folder: Path | None = None
    spans: AnswerSpans | None = None
    shadow: ShadowSampler | None = None
    canary_stop: Path | None = None


Further = Callable[["App", Request], Reply | Awaitable[Reply]]
"""Answers the paths that the app does not have. Raises Refusal for what it has not either."""


class App:
    """The state of a worker's service, and its reply to every request."""

    def __init__(self, tallies: SharedMetrics, tally: ProcessMetrics, clock: Clock, options: AppOptions) -> None:
        self._clock, self._now, self._options = clock, clock.now, options
        self._tallies, self._tally = tallies, tally
        running = options.ledger.running if options.ledger else None
        self._answering = Answering(
            tally,
            clock.now,
            replace(options.policy, experiment=running),
            ledger=options.ledger,
            stored=options.stored,
            listens=options.listens,
            slot=options.slot,
            shadow=options.shadow,
            max_bytes=options.max_answer_bytes,
            spans=options.spans,
        )
        self._serving: ServedModel | None = None
        self._counted: dict[str, int] = {}  # counts of the exposure log at the last refresh
        self._made: dict[str, tuple[ServedModel, Reply]] = {}  # replies that change with the model only, by path
        site = Site((*SECTIONS, slot.SECTION) if options.slot else SECTIONS)
        self._site = site if options.pages else None
        self._study = StudyPage(site, options.report, options.bundle)
        self.draining = False
        self.store_trouble = ""  # why the event store can't keep anything
        answers: dict[str, Callable[[Request], Reply | Awaitable[Reply] | Asking]] = {
            "/invocations": self._invocations,
            "/v1/recommendations": self._recommendations,
            "/v1/events": self._events,
            "/v1/explanations": self._explanation,
            "/challenger": self._challenger,
            "/openapi.json": self._openapi,
            "/stations.json": self._stations,
            "/ping": self._ping,
            "/metrics": self._metrics,
            "/report": self._report,
            "/experiments": self._experiments,
            "/experiments/{name}": self._experiments,
            slot.PATH: self._exploration,
            "/": self._home,
        }
        self._answers = dispatch(ROUTES, answers)
        if options.pages:
            self._answers |= {(method, path): static_file for path in STATIC_FILES for method in ("GET", "HEAD")}

    def serve(self, serving: ServedModel) -> None:
        """Serve this model from the next request on."""
        self._serving = serving
        self._tally.serves(serving.bundle.id if serving.bundle else "")

    def challenge(self, challenger: ServedModel) -> None:
        """Answer the experiment's arms of a challenger with this model from the next request on."""
        self._answering.challenge(challenger)

    def refresh(self) -> None:
        """Refresh keys, counts and the slot's rates, and send spans. To be called about twice a second."""
        if (canary := self._options.canary_stop) and (self._tallies.total(STOPPED) or is_stopped(canary)):
            self._answering.end_experiment()
            self._tally.gauge(STOPPED, 1)
        if self._options.spans:
            running = self._options.ledger.running if self._options.ledger else None
            self._options.spans.flush(running.key if running else "")
        if self._options.keys is not None:
            self._options.keys.refresh()
        if self._options.ledger is not None:
            self._options.ledger.report()
            for name, total in self._options.ledger.counts().items():
                self._tally.count(name, more=total - self._counted.get(name, 0))
                self._counted[name] = total
            self.store_trouble = self._options.ledger.trouble()
            self._tally.gauge("firstspin_event_store_ready", int(not self.store_trouble))
        if self._options.slot is not None:
            self._options.slot.refresh(has_store=not self.store_trouble)

    @property
    def ready(self) -> bool:
        """Readiness: whether all workers have started, and this one has a model and is not draining."""
        answering = self._serving is not None or self._options.without_model
        return answering and not self.draining and self._tallies.total("firstspin_started") > 0

    def refused(self, status: int) -> None:
        """Count a request that was refused before it reached the app."""
        self._tally.request(OTHER, status, 0)

    def __call__(self, requests: Sequence[Request]) -> list[Reply | Awaitable[Reply]]:
        """Replies to the requests of one turn, in order."""
        begun = [self._begin(request) for request in requests]
        together = [one for one in begun if isinstance(one, Asking)]
        answers = iter(self._answering.together(together))
        return [next(answers) if isinstance(one, Asking) else one for one in begun]

    def _begin(self, request: Request) -> Reply | Awaitable[Reply] | Asking:
        start = self._now()
        route = _LABELS.get(request.path, OTHER)
        try:
            reply = self._routed(request)
        except Refusal as refusal:
            reply = refused(refusal)
        except Exception as problem:
            reply = failed(problem)
        if isinstance(reply, Asking):
            return reply._replace(route=route, start=start, timed=b"origin" in request.headers)
        if isinstance(reply, Work):
            return Work(reply.registrations, partial(self._worked, reply.reply, route, start))
        if not isinstance(reply, Reply):
            return self._awaited(reply, route, start)
        if reply.status >= 400 and self._site and not (request.method == "POST" and request.path in _POSTED):
            reply = self._site.error(request, reply)
        self._tally.request(route, reply.status, self._now() - start)
        return reply

    def _routed(self, request: Request) -> Reply | Awaitable[Reply] | Asking:
        answer = self._answers.get((request.method, request.path))
        if answer:
            return answer(request)
        if request.path.startswith(experiments.BELOW) and request.method in ("GET", "HEAD"):
            return self._experiments(request)
        if self._options.further and request.path not in _LABELS:
            return self._options.further(self, request)
        return not_taken(ROUTES, request.path)

    async def _worked(
        self, begin: Callable[[], Coroutine[Any, Any, Reply | StreamedReply]], route: str, start: int
    ) -> Reply | StreamedReply:
        try:
            done = await begin()
        except Refusal as refusal:
            done = refused(refusal)
        except Exception as problem:
            done = failed(problem)
        if isinstance(done, StreamedReply):
            return done._replace(pieces=self._counted_at_end(done, route, start))
        self._tally.request(route, done.status, self._now() - start)
        return done

    async def _counted_at_end(
        self, reply: StreamedReply, route: str, start: int
    ) -> AsyncGenerator[bytes | bytearray, None]:
        async with aclosing(reply.pieces) as pieces:
            async for piece in pieces:
                yield piece
        self._tally.request(route, reply.status, self._now() - start)

    async def _awaited(self, reply: Awaitable[Reply], route: str, start: int) -> Reply:
        try:
            done = await reply
        except Refusal as refusal:
            done = refused(refusal)
        except Exception as problem:
            done = failed(problem)
        self._tally.request(route, done.status, self._now() - start)
        return done

    # ------------------------------------------------------------------------------------------------ recommendations

    def _invocations(self, request: Request) -> Reply | Awaitable[Reply] | Asking:
        return self._answering.begin(request, self._now_serving())

    def answered(self, request: Request, serving: ServedModel) -> Reply | Awaitable[Reply]:
        """The reply of `/invocations` with this model."""
        reply = self._answering.begin(request, serving)
        return self._answering.alone(reply) if isinstance(reply, Asking) else reply

    def _recommendations(self, request: Request) -> Reply | Awaitable[Reply] | Asking:
        key = self._admit(request)
        reply = self._answering.begin(request, self._now_serving(), of_users=True)
        if key and self._options.keys and isinstance(reply, Work):
            self._options.keys.charge(key, reply.registrations - 1)
        return reply

    def _explanation(self, request: Request) -> Work:
        self._admit(request)
        return self._answering.explanation(request, self._now_serving())

    def _challenger(self, request: Request) -> Awaitable[Reply]:
        """The answer of the shadow bundle, for the page `/`. Raises Refusal where `/invocations` does, too."""
        self._pages()
        if self._options.shadow is None:
            raise Refusal(404, "no_challenger", "this service has no challenger; see --shadow")
        if encoding_of_request(request) is not Encoding.json:
            raise Refusal(415, "unsupported_content_type", "a challenger is asked in application/json")
        if len(request.body) > SHORT:
            raise Refusal(413, "too_large", f"a challenger is asked in at most {SHORT:,} bytes")
        parsed = self._now_serving().reader.read(request.body, Encoding.json)
        if not parsed.alone:
            raise Refusal(422, "invalid", "a challenger is asked about one registration")
        refuse_under_age(parsed.registrations, self._options.policy)
        return self._challenged(self._options.shadow, parsed.registrations[0])

    async def _challenged(self, shadow: ShadowSampler, registration: Registration) -> Reply:
        return Reply(200, await shadow.answer(registration))

    def _now_serving(self) -> ServedModel:
        if self._serving is not None:
            return self._serving
        if self._options.without_model:
            return NOTHING
        raise Refusal(503, "no_model", "there is no model yet; try again in a moment")

    # --------------------------------------------------------------------------------------------------------- events

    def _events(self, request: Request) -> Awaitable[Reply]:
        self._admit(request)
        if self._options.ledger is None:
            raise Refusal(503, "events_unavailable", "this service was started without an event store")
        if encoding_of_request(request) is not Encoding.json:
            raise Refusal(415, "unsupported_content_type", "events are sent as application/json")
        return self._kept(self._options.ledger, bytes(request.body))

    async def _kept(self, ledger: ExposureLog, body: bytes) -> Reply:
        return Reply(202, await ledger.keep(body))

    def _admit(self, request: Request) -> Key | None:
        """The caller's key, where keys are asked for. Refusal for a caller without one, or over its rate."""
        if self._options.keys is None:
            return None
        key = self._options.keys.check(request.headers, self._clock.date())
        self._options.keys.spend(key, self._now())
        return key

    # ----------------------------------------------------------------------------------------------------- operation

    def _ping(self, request: Request) -> Reply:  # noqa: ARG002
        if self.ready:
            return Reply(200, b"", TEXT)  # empty, as SageMaker asks for it
        return refused(Refusal(503, "not_ready", "draining" if self.draining else "there is no model yet"))

    def _metrics(self, request: Request) -> Reply:  # noqa: ARG002
        return Reply(200, self._tallies.text(), TEXT)

    def _once(self, path: str, make: Callable[[ServedModel], Reply]) -> Reply:
        """A reply that is made once per served model."""
        serving = self._serving or NOTHING
        if path not in self._made or self._made[path][0] is not serving:
            self._made[path] = serving, make(serving)
        return self._made[path][1]

    def _openapi(self, request: Request) -> Reply:
        return self._once(
            request.path, lambda serving: Reply(200, schema(serving.reader.extra, serving.reader.max_instances))
        )

    def _stations(self, request: Request) -> Reply:
        bundle = self._now_serving().bundle
        model, catalogue = (bundle.id, bundle.catalogue) if bundle else (NO_MODEL, NO_STATIONS)
        reply = self._once(request.path, lambda _: Reply(200, _encode(StationList.of(model, catalogue))))
        is_named = bundle is not None and request.query == b"model=" + model.encode()
        return cached(request, reply, model, IMMUTABLE if is_named else REVALIDATED)

    def _report(self, request: Request) -> Reply:
        self._pages()
        bundle = (self._serving or NOTHING).bundle
        return self._study.reply(request, bundle.id if bundle else "")

    def _experiments(self, request: Request) -> Reply:
        ledger, now = self._options.ledger, self._clock.date()
        name = ledger.running.plan.name if ledger and ledger.running else ""
        if folder := self._options.experiment_pages:
            page = experiments.written(self._pages(), folder, request, name, now)
            if page:
                return page
        if request.path != experiments.PATH:
            raise Refusal(404, "not_found", "there is no experiment of this name")
        totals = {name: self._tallies.total(name) for name in self._counted}
        return experiments.page(
            self._pages(), ledger.running if ledger else None, totals, now, has_figures=folder is not None
        )

    def _exploration(self, request: Request) -> Reply:  # noqa: ARG002
        return slot.page(self._pages(), self._options.slot_folder, self._clock.date())

    def _home(self, request: Request) -> Reply:
        site, options = self._pages(), self._options
        form = FormPage(options.keys is None, options.many_models, options.shadow is not None, options.policy.min_age)
        return self._once(request.path, lambda serving: home(site, serving.bundle, form))

    def _pages(self) -> Site:
        if self._site is None:
            raise Refusal(404, "not_found", "this service was started without pages; see --pages")
        return self._site
