"""Requests -> replies: the handlers of the routes. Requests of one event-loop turn are ranked in one batch.

A reply about several registrations is made in pieces, one piece per turn of the loop for all such requests together, so
that other requests are answered in between. Where the model fails, a fallback answers and `source` names it: no content
of a request leads to a 5xx.
"""

from __future__ import annotations

import logging
from asyncio import Lock, sleep
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from math import inf
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from firstspin.events.schema import Exposure
from firstspin.records import Registration, StoredAnswer
from firstspin.service.api_keys import Key, Keys
from firstspin.service.exposures import ExposureLog
from firstspin.service.http.messages import RETRY, Reply, Request, StreamedReply, Work
from firstspin.service.http.openapi import schema
from firstspin.service.metrics import ProcessMetrics, SharedMetrics
from firstspin.service.pages import experiments
from firstspin.service.pages.home import FormPage, home
from firstspin.service.pages.site import HTML, IMMUTABLE, REVALIDATED, STATIC_FILES, Site, cached, sections, static_file
from firstspin.service.routes import OTHER, PAGE, ROUTES, dispatch, not_taken
from firstspin.serving.bundle import Bundle
from firstspin.serving.content import NO_STATIONS
from firstspin.serving.explanations import MAX_SUBSETS, ModelFailed, explain
from firstspin.serving.policy import (
    DEFAULTS,
    NO_MODEL,
    Decision,
    PolicySettings,
    decide,
    decide_many,
    is_current,
    may_use_stored,
    refuse_under_age,
)
from firstspin.serving.refusal import Refusal
from firstspin.serving.responses import Responses
from firstspin.serving.stations import StationList
from firstspin.serving.stored_answers import OTHER_VERSION, StoredAnswers
from firstspin.serving.wire import (
    MAX_INSTANCES,
    SHORT,
    SPELLINGS,
    Body,
    BodyReader,
    Encoding,
    LongBody,
    ParsedBody,
    around,
    check_accept,
    encoding_of,
    user_of,
)

log = logging.getLogger(__name__)

TEXT: Final = b"text/plain; version=0.0.4; charset=utf-8"
REPORT_HEADERS: Final = (
    b"content-security-policy: default-src 'self' 'unsafe-inline'\r\nx-content-type-options: nosniff\r\n"
)
_KNOWN_TYPES: Final = {name.encode(): kind for name, kind in SPELLINGS.items()}
_encode: Final = msgspec.json.Encoder().encode
_ANY: Final = (None, b"*/*", b"application/json, */*")
STREAMED: Final = 1_024
"""Answers about more registrations are streamed: about 3 MB, half of the max body of a request."""

_LABELS: Final = {route.path: route.label for route in ROUTES} | dict.fromkeys(STATIC_FILES, PAGE)
_POSTED: Final = {route.path for route in ROUTES if route.method == "POST"}


@dataclass(frozen=True, slots=True, eq=False)
class ServedModel:
    """A bundle with its responses and body readers, read once per request, so that a request has one model.

    `bundle` is None before there is a model.
    """

    bundle: Bundle | None
    responses: Responses
    reader: BodyReader
    reader_of_users: BodyReader

    @staticmethod
    def of(bundle: Bundle | None, *, max_instances: int | None = MAX_INSTANCES) -> ServedModel:
        """A bundle ready to serve, `most` registrations a request."""
        extra = bundle.manifest.extra if bundle else {}
        return ServedModel(
            bundle,
            Responses(bundle),
            BodyReader(extra, max_instances=max_instances),
            BodyReader(extra, of_users=True, max_instances=max_instances),
        )


NOTHING: Final = ServedModel.of(None)


@dataclass(frozen=True, slots=True)
class Clock:
    """`now` is a monotonic clock in nanoseconds, `date` the time of day."""

    now: Callable[[], int]
    date: Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class AppOptions:
    """Whether to answer before there is a model, who may call `/v1`, what is kept there, and which features are on.

    `further` answers further paths; `report` is the study that led to the model, as a page; `pages`: whether `/` and
    the other pages are there; `many_models`: whether models can be loaded at `/models`; `experiment_pages`: the folder
    of pages that analyses write; `stored` looks up the answers of batch scoring, for users. An answer about several of
    more than `max_answer_bytes` bytes is refused.
    `policy` decides what answers; its experiment is the one that `ledger` records.
    """

    without_model: bool = False
    keys: Keys | None = None
    ledger: ExposureLog | None = None
    further: Further | None = None
    report: bytes = b""
    max_answer_bytes: float = inf
    stored: StoredAnswers | None = None
    policy: PolicySettings = DEFAULTS
    pages: bool = True
    many_models: bool = False
    experiment_pages: Path | None = None


Further = Callable[["App", Request], Reply | Awaitable[Reply]]
"""Answers the paths that the app does not have. Raises Refusal for what it has not either."""


class Asking(NamedTuple):
    """A request about one registration, to be answered in a batch; times in nanoseconds.

    `user` is None where the route takes no user id; `timed`: the reply tells how long it took.
    """

    serving: ServedModel
    registration: Registration
    user: str | None
    read: int
    route: str = "other"
    start: int = 0
    timed: bool = False


class App:
    """The state of a worker's service, and its reply to every request."""

    def __init__(self, tallies: SharedMetrics, tally: ProcessMetrics, clock: Clock, options: AppOptions) -> None:
        self._clock, self._now, self._options = clock, clock.now, options
        self._tallies, self._tally = tallies, tally
        running = options.ledger.running if options.ledger else None
        self._settings = replace(options.policy, experiment=running)
        self._failed_models: set[str] = set()  # whose failure is in the log
        self._serving: ServedModel | None = None
        self._counted: dict[str, int] = {}  # counts of the exposure log at the last refresh
        self._piece = Lock()  # held by the request that works in this turn
        self._made: dict[str, tuple[ServedModel, Reply]] = {}  # replies that change with the model only, by path
        self._site = Site(sections(bool(options.report))) if options.pages else None
        self.draining = False
        self.store_trouble = ""  # why the event store can't keep anything
        answers: dict[str, Callable[[Request], Reply | Awaitable[Reply] | Asking]] = {
            "/invocations": self._invocations,
            "/v1/recommendations": self._recommendations,
            "/v1/events": self._events,
            "/v1/explanations": self._explanation,
            "/openapi.json": self._openapi,
            "/stations.json": self._stations,
            "/ping": self._ping,
            "/metrics": self._metrics,
            "/report": self._report,
            "/experiments": self._experiments,
            "/experiments/{name}": self._experiments,
            "/": self._home,
        }
        self._answers = dispatch(ROUTES, answers)
        if options.pages:
            self._answers |= {(method, path): static_file for path in STATIC_FILES for method in ("GET", "HEAD")}

    def serve(self, serving: ServedModel) -> None:
        """Serve this model from the next request on."""
        self._serving = serving
        self._tally.serves(serving.bundle.id if serving.bundle else "")

    def refresh(self) -> None:
        """Refresh the keys and the event store's counts. To be called about twice a second."""
        if self._options.keys is not None:
            self._options.keys.refresh()
        if self._options.ledger is not None:
            for name, total in self._options.ledger.counts().items():
                self._tally.count(name, more=total - self._counted.get(name, 0))
                self._counted[name] = total
            self.store_trouble = self._options.ledger.trouble()
            self._tally.gauge("firstspin_event_store_ready", int(not self.store_trouble))

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
        answers = iter(self._answer_together(together))
        return [next(answers) if isinstance(one, Asking) else one for one in begun]

    def _begin(self, request: Request) -> Reply | Awaitable[Reply] | Asking:
        start = self._now()
        route = _LABELS.get(request.path, OTHER)
        try:
            reply = self._routed(request)
        except Refusal as refusal:
            reply = _refused(refusal)
        except Exception as problem:
            reply = self._failed(problem)
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
            done = _refused(refusal)
        except Exception as problem:
            done = self._failed(problem)
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
            done = _refused(refusal)
        except Exception as problem:
            done = self._failed(problem)
        self._tally.request(route, done.status, self._now() - start)
        return done

    def _failed(self, problem: Exception) -> Reply:
        log.error("a request failed", extra={"problem": type(problem).__name__}, exc_info=True)
        return _refused(Refusal(500, "internal", "this is our mistake"))

    # --------------------------------------------------------------------------------------------------- the hot path

    def _invocations(self, request: Request) -> Reply | Awaitable[Reply] | Asking:
        return self._answered(request, self._now_serving())

    def answered(self, request: Request, serving: ServedModel) -> Reply | Awaitable[Reply]:
        """The reply of `/invocations` with this model."""
        reply = self._answered(request, serving)
        return self._answer(reply) if isinstance(reply, Asking) else reply

    def _recommendations(self, request: Request) -> Reply | Awaitable[Reply] | Asking:
        key = self._admit(request)
        reply = self._answered(request, self._now_serving(), of_users=True)
        if key and self._options.keys and isinstance(reply, Work):
            self._options.keys.charge(key, reply.registrations - 1)
        return reply

    def _one(self, serving: ServedModel, registration: Registration, of_users: bool) -> Asking | Awaitable[Reply]:
        """A request about one registration: answered in the turn's batch, or after a lookup of its stored answer."""
        one = Asking(serving, registration, user_of(registration) if of_users else None, self._now())
        stored = self._options.stored
        if stored is not None and may_use_stored(registration, one.user, self._settings):
            return self._with_stored(one, stored)
        return one

    async def _with_stored(self, one: Asking, stored: StoredAnswers) -> Reply:
        """Look up the stored answer where it has precedence, or where the decision without it is a fallback."""
        bundle, settings = one.serving.bundle, self._settings
        if settings.stored_first:
            answer = await self._looked_up(one, stored)
            return self._decided(one, decide(one.registration, one.user, bundle, answer, settings))
        decision = decide(one.registration, one.user, bundle, None, settings)
        if decision.is_fallback and (answer := await self._looked_up(one, stored)):
            decision = decide(one.registration, one.user, bundle, answer, settings, failure=decision.failure)
        return self._decided(one, decision)

    async def _looked_up(self, one: Asking, stored: StoredAnswers) -> StoredAnswer | None:
        assert one.user is not None
        answer, outcome = await stored.get(one.user)
        is_other = answer is not None and not is_current(answer, one.serving.bundle)
        self._tally.count("firstspin_kept_answers", OTHER_VERSION if is_other else outcome)
        return answer

    def _explanation(self, request: Request) -> Work:
        self._admit(request)
        serving = self._now_serving()
        if _encoding(request) is not Encoding.json:
            raise Refusal(415, "unsupported_content_type", "an explanation is asked for as application/json")
        return Work(MAX_SUBSETS, partial(self._explained, request.body, serving))

    async def _explained(self, body: Body, serving: ServedModel) -> Reply:
        await self._turn()
        parsed = serving.reader.begin(body, Encoding.json)
        if isinstance(parsed, LongBody) or not parsed.alone:
            raise Refusal(422, "invalid", "an explanation is for one registration")
        try:
            return Reply(200, _encode(explain(parsed.registrations[0], serving.bundle, self._settings)))
        except Refusal:
            raise
        except Exception as problem:
            self._log_failure(serving, problem.failure if isinstance(problem, ModelFailed) else type(problem).__name__)
            raise Refusal(503, "no_explanation", "the model failed, and the rule answers in its place") from None

    def _answered(
        self, request: Request, serving: ServedModel, *, of_users: bool = False
    ) -> Reply | Awaitable[Reply] | Asking:
        encoding = _encoding(request)
        if encoding is Encoding.csv and of_users and self._options.ledger:
            raise Refusal(415, "unsupported_content_type", "recommendations for users are asked for in JSON")
        reader = serving.reader_of_users if of_users else serving.reader
        if len(request.body) > SHORT:
            number = reader.max_number(request.body, encoding)
            return Work(number, partial(self._long, request.body, encoding, serving, reader, of_users))
        parsed = self._read(reader, request.body, encoding)
        if self._settings.refuse_under_age:
            refuse_under_age(parsed.registrations, self._settings)
        if parsed.alone:
            return self._one(serving, parsed.registrations[0], of_users)
        return Work(parsed.number, partial(self._many, serving, parsed, of_users, parsed.number))

    def _read(self, reader: BodyReader, body: Body, encoding: Encoding) -> ParsedBody:
        start = self._now()
        parsed = reader.read(body, encoding)
        self._tally.took("read", self._now() - start)
        return parsed

    def _answer_together(self, asking: Sequence[Asking]) -> list[Reply]:
        """The replies to this turn's requests about one registration each, in order; one batch per bundle."""
        if len(asking) < 2:
            return [self._finished(one, self._answer(one)) for one in asking]
        groups: dict[ServedModel, list[Asking]] = {}
        for one in asking:
            groups.setdefault(one.serving, []).append(one)
        replies = {serving: iter(self._answer_batch(serving, group)) for serving, group in groups.items()}
        return [self._finished(one, next(replies[one.serving])) for one in asking]

    def _answer_batch(self, serving: ServedModel, group: Sequence[Asking]) -> list[Reply]:
        try:
            bodies = self._several(
                serving, [one.registration for one in group], [one.user for one in group], Encoding.json
            )
        except Exception:  # again, one by one, so that it concerns no other request
            log.exception("a batch failed; its requests are answered one by one")
            return [self._answer(one) for one in group]
        return [Reply(200, body) for body in bodies]

    def _answer(self, one: Asking) -> Reply:
        try:
            return self._decided(one, decide(one.registration, one.user, one.serving.bundle, None, self._settings))
        except Refusal as refusal:
            return _refused(refusal)
        except Exception as problem:
            return self._failed(problem)

    def _decided(self, one: Asking, decision: Decision) -> Reply:
        body = one.serving.responses.json(one.registration, decision)
        self._count(one.serving, (one.registration,), (one.user,), (decision,))
        self._tally.took("answer", self._now() - one.read)
        return Reply(200, body)

    def _count(
        self,
        serving: ServedModel,
        registrations: Sequence[Registration],
        users: Sequence[str | None] | None,
        decisions: Sequence[Decision],
    ) -> None:
        """Count answers, log the first failure of their model, and record the exposures of users of the experiment."""
        for decision in decisions:
            self._tally.answer(decision.ranking.source)
            if decision.failure:
                self._log_failure(serving, decision.failure)
        if users and self._options.ledger:
            self._record(self._options.ledger, serving, zip(registrations, users, decisions, strict=True))

    def _record(
        self,
        ledger: ExposureLog,
        serving: ServedModel,
        answered: Iterable[tuple[Registration, str | None, Decision]],
    ) -> None:
        """Record the exposures of the experiment's users. One that fails is dropped and counted, without the others."""
        exposures: list[Exposure] = []
        for registration, user, decision in answered:
            if decision.assignment is None or user is None:
                continue
            try:
                stations = serving.responses.stations(registration, decision.candidates)
                exposures += ledger.exposures(user, decision, stations)
            except Exception:
                self._tally.count("firstspin_exposures_dropped")
                log.exception("an exposure could not be recorded")
        if exposures:
            ledger.record(exposures)

    def _log_failure(self, serving: ServedModel, failure: str) -> None:
        """Log the failure of a model, once per model."""
        if serving.responses.model not in self._failed_models:
            self._failed_models.add(serving.responses.model)
            log.error("the model failed; the business rule answers", extra={"problem": failure})

    def _finished(self, one: Asking, reply: Reply) -> Reply:
        took = self._now() - one.start
        self._tally.request(one.route, reply.status, took)
        return reply._replace(headers=b"server-timing: answer;dur=%.3f\r\n" % (took / 1e6)) if one.timed else reply

    def _several(
        self,
        serving: ServedModel,
        registrations: Sequence[Registration],
        users: Sequence[str | None] | None,
        encoding: Encoding,
    ) -> list[bytes]:
        start = self._now()
        decisions = list(decide_many(registrations, users, serving.bundle, self._settings))
        bodies = [
            serving.responses.encoded(registration, decision, encoding)
            for registration, decision in zip(registrations, decisions, strict=True)
        ]
        self._count(serving, registrations, users, decisions)
        self._tally.took("answer", self._now() - start)
        return bodies

    async def _long(
        self, body: Body, encoding: Encoding, serving: ServedModel, reader: BodyReader, of_users: bool
    ) -> Reply | StreamedReply:
        """Read a long body in pieces, one per turn, all of it before the first answer.

        The registrations are read again for answering, not stored, so that memory is bounded by the body.
        """
        await self._turn()
        parsed = reader.begin(body, encoding)
        pieces = parsed.pieces()
        number = 0
        while (piece := await self._next(pieces)) is not None:
            refuse_under_age(piece, self._settings)
            number += len(piece)
        if isinstance(parsed, LongBody) or not parsed.alone:
            return await self._many(serving, parsed, of_users, number)
        reply = self._one(serving, parsed.registrations[0], of_users)
        return self._answer(reply) if isinstance(reply, Asking) else await reply

    async def _many(
        self, serving: ServedModel, parsed: ParsedBody | LongBody, of_users: bool, number: int
    ) -> Reply | StreamedReply:
        """Stream a long reply, which bounds the memory of a connection.

        A reply with a max size is not streamed, because its size is known at its end only.
        """
        pieces = self._parts(serving, parsed, of_users)
        if number > STREAMED and self._options.max_answer_bytes == inf:
            return StreamedReply(200, pieces, parsed.encoding.encode())
        body = bytearray()
        async for piece in pieces:
            body += piece
            if len(body) > self._options.max_answer_bytes:
                raise Refusal(413, "answer_too_large", "send fewer registrations in one request")
        return Reply(200, body, parsed.encoding.encode())

    async def _parts(
        self, serving: ServedModel, parsed: ParsedBody | LongBody, of_users: bool
    ) -> AsyncGenerator[bytes | bytearray, None]:
        """The parts of a reply about many registrations, each made in its own turn."""
        begin, between, end = around(parsed.encoding)
        before, pieces = begin, parsed.pieces()
        while (piece := await self._next(pieces)) is not None:
            if piece:
                users = [user_of(registration) for registration in piece] if of_users else None
                yield before + between.join(self._several(serving, piece, users, parsed.encoding))
                before = between
        yield end if before is between else begin + end

    async def _next(self, pieces: Iterator[Sequence[Registration]]) -> Sequence[Registration] | None:
        """The next piece, in the turn of the loop in which it is answered."""
        await self._turn()
        return next(pieces, None)

    async def _turn(self) -> None:
        """Wait for a turn of the loop without another piece of work; requests about one registration come first."""
        async with self._piece:
            await sleep(0)

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
        if _encoding(request) is not Encoding.json:
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
        return _refused(Refusal(503, "not_ready", "draining" if self.draining else "there is no model yet"))

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

    def _report(self, request: Request) -> Reply:  # noqa: ARG002
        if not self._options.report:
            raise Refusal(404, "not_found", "this service was started without a report")
        return Reply(200, self._options.report, HTML, REPORT_HEADERS)

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

    def _home(self, request: Request) -> Reply:
        site, options = self._pages(), self._options
        form = FormPage(options.keys is None, options.many_models, options.policy.min_age)
        return self._once(request.path, lambda serving: home(site, serving.bundle, form))

    def _pages(self) -> Site:
        if self._site is None:
            raise Refusal(404, "not_found", "this service was started without pages; see --pages")
        return self._site


def _encoding(request: Request) -> Encoding:
    headers = request.headers
    kind = headers.get(b"content-type", b"")
    if not kind and b"origin" in headers:  # a page of another origin may send a body of no type without asking first
        raise Refusal(415, "unsupported_content_type", "a browser says what it sends, as in application/json")
    encoding = _KNOWN_TYPES.get(kind) or encoding_of(kind.decode("latin-1"))
    accept = headers.get(b"accept")
    if accept not in _ANY and accept != kind:
        check_accept((accept or b"").decode("latin-1"), encoding)
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise Refusal(415, "unsupported_content_encoding", "send the body uncompressed")
    return encoding


def _refused(refusal: Refusal) -> Reply:
    return Reply(refusal.status, refusal.body(), headers=RETRY if refusal.status in (429, 503) else b"")
