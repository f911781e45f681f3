"""Requests -> replies: which path does what. Nothing here waits, and all who ask in one turn are ranked together.

A reply about several newcomers is made in pieces, one piece in a turn of the loop however many such requests are in
work, so that others are answered in between. Whatever goes wrong inside, the newcomer gets an
answer whose `source` says so: no request is answered with a 5xx because of what it holds.
"""

from __future__ import annotations

import logging
from asyncio import Lock, sleep
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from math import inf
from pathlib import Path
from typing import Final, NamedTuple

from firstspin.data.schema import USER_ID
from firstspin.records import Registration, StoredAnswer, is_under
from firstspin.service.api_keys import Key, Keys
from firstspin.service.exposures import ExposureLog
from firstspin.service.http.connection import RETRY, Reply, Request, Work
from firstspin.service.http.openapi import schema
from firstspin.service.metrics import ROUTES, ProcessMetrics, SharedMetrics
from firstspin.service.pages import experiments
from firstspin.serving.explanations import PARTS
from firstspin.serving.responses import Answering, NoModel
from firstspin.serving.stored_answers import StoredAnswers
from firstspin.serving.wire import (
    SHORT,
    SPELLINGS,
    Asked,
    Body,
    BodyReader,
    Encoding,
    LongBody,
    Refusal,
    around,
    check_accept,
    encoding_of,
)

log = logging.getLogger(__name__)

WITHOUT_MODEL: Final = ("rule", "no-model")
"""Sources of an answer that the model had no part in, although it should have."""

TEXT: Final = b"text/plain; version=0.0.4; charset=utf-8"
HTML: Final = b"text/html; charset=utf-8"
HOME: Final = Path(__file__).with_name("pages").joinpath("index.html").read_bytes()
SAFE: Final = b"content-security-policy: default-src 'self' 'unsafe-inline'\r\nx-content-type-options: nosniff\r\n"
_KNOWN_TYPES: Final = {name.encode(): kind for name, kind in SPELLINGS.items()}
_ANY: Final = (None, b"*/*", b"application/json, */*")
_ALLOW: Final = {"GET": b"allow: GET, HEAD\r\n", "POST": b"allow: POST\r\n"}


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model with the reader of the fields it asks for: taken once at the start of a request, so never mixed."""

    answering: Answering
    reader: BodyReader
    reader_of_users: BodyReader
    least_age: int = 0  # who is younger is refused

    @staticmethod
    def nothing() -> ServedModel:
        """What answers before there is a model."""
        return ServedModel(NoModel(), BodyReader(), BodyReader(of_users=True))


NOTHING: Final = ServedModel.nothing()


@dataclass(frozen=True, slots=True)
class Clock:
    """`now` gives nanoseconds that only ever grow, `date` the time of day."""

    now: Callable[[], int]
    date: Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class Policy:
    """Whether to answer before there is a model, who may call `/v1`, what is kept there, and what else is to be had.

    `further` answers further paths; `report` is the study that led to the model, as a page; `kept` are the answers of
    batch, for users. An answer about several of more than `largest_answer` bytes is refused.
    """

    without_model: bool = False
    keys: Keys | None = None
    ledger: ExposureLog | None = None
    further: Further | None = None
    report: bytes = b""
    largest_answer: float = inf
    kept: StoredAnswers | None = None


Further = Callable[["App", Request], Reply | Awaitable[Reply]]
"""Answers the paths that the app does not have. Raises Refusal for what it has not either."""


class Asking(NamedTuple):
    """Somebody asks about one newcomer and can be answered together with others; times in nanoseconds."""

    answering: Answering
    registration: Registration
    read: int
    route: str = "other"
    start: int = 0


Alone = Callable[[Asking], Asking | Awaitable[Reply]]
"""How a request about one newcomer is answered: together with others, or otherwise."""


class App:
    """The service's state, and its answer to any request."""

    def __init__(self, tallies: SharedMetrics, tally: ProcessMetrics, clock: Clock, policy: Policy) -> None:
        self._clock, self._now, self._policy = clock, clock.now, policy
        self._tallies, self._tally = tallies, tally
        self._serving: ServedModel | None = None
        self._counted: dict[str, int] = {}  # what the ledger had kept when it was last asked
        self._piece = Lock()  # held by the request that has its turn
        self._described: tuple[ServedModel, Reply] | None = None
        self.draining = False
        self.store_trouble = ""  # why the event store can't keep anything
        self._routes: dict[str, tuple[str, Callable[[Request], Reply | Awaitable[Reply] | Asking]]] = {
            "/invocations": ("POST", self._invocations),
            "/v1/recommendations": ("POST", self._recommendations),
            "/v1/events": ("POST", self._events),
            "/v1/explanations": ("POST", self._explanation),
            "/openapi.json": ("GET", self._openapi),
            "/ping": ("GET", self._ping),
            "/metrics": ("GET", self._metrics),
            "/report": ("GET", self._report),
            "/experiments": ("GET", self._experiments),
            "/": ("GET", self._home),
        }

    def serve(self, serving: ServedModel) -> None:
        """Answer from this model from the next request on."""
        self._serving = serving

    def refresh(self) -> None:
        """Take up what has changed outside. To be called about twice a second."""
        if self._policy.keys is not None:
            self._policy.keys.refresh()
        if self._policy.ledger is not None:
            for name, kept in self._policy.ledger.kept().items():
                self._tally.count(name, more=kept - self._counted.get(name, 0))
                self._counted[name] = kept
            self.store_trouble = self._policy.ledger.trouble()
            self._tally.gauge("firstspin_event_store_ready", int(not self.store_trouble))

    @property
    def ready(self) -> bool:
        """Whether requests should come here: not before every worker of the service can answer them."""
        answering = self._serving is not None or self._policy.without_model
        return answering and not self.draining and self._tallies.total("firstspin_started") > 0

    def refused(self, status: int) -> None:
        """A request was turned away before it came here."""
        self._tally.request("other", status, 0)

    def __call__(self, requests: Sequence[Request]) -> list[Reply | Awaitable[Reply]]:
        """Replies to the requests of one turn, in order."""
        begun = [self._begin(request) for request in requests]
        together = [one for one in begun if isinstance(one, Asking)]
        answers = iter(self._answer_together(together))
        return [next(answers) if isinstance(one, Asking) else one for one in begun]

    def _begin(self, request: Request) -> Reply | Awaitable[Reply] | Asking:
        start = self._now()
        route = request.path if request.path in ROUTES else "page" if request.path in self._routes else "other"
        try:
            reply = self._routed(request)
        except Refusal as refusal:
            reply = _refused(refusal)
        except Exception as problem:
            reply = self._failed(problem)
        if isinstance(reply, Asking):
            return reply._replace(route=route, start=start)
        if isinstance(reply, Work):
            return Work(reply.registrations, partial(self._awaited, reply, route, start))
        if not isinstance(reply, Reply):
            return self._awaited(reply, route, start)
        self._tally.request(route, reply.status, self._now() - start)
        return reply

    def _routed(self, request: Request) -> Reply | Awaitable[Reply] | Asking:
        method, answer = self._routes.get(request.path, ("", None))
        if answer is None:
            if self._policy.further:
                return self._policy.further(self, request)
            raise Refusal(404, "not_found", "there is nothing at this path")
        if request.method != method and (request.method, method) != ("HEAD", "GET"):
            refusal = Refusal(405, "method_not_allowed", f"this path takes {method}")
            return Reply(405, refusal.body(), headers=_ALLOW[method])
        return answer(request)

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
        serving = self._now_serving()
        return self._answered(request, serving, serving.reader, serving.answering)

    def answered(self, request: Request, serving: ServedModel) -> Reply | Awaitable[Reply]:
        """What `/invocations` would answer if it served this model."""
        reply = self._answered(request, serving, serving.reader, serving.answering)
        return self._answer(reply) if isinstance(reply, Asking) else reply

    def _recommendations(self, request: Request) -> Reply | Awaitable[Reply] | Asking:
        key = self._admit(request)
        serving = self._now_serving()
        ledger = self._policy.ledger
        answering = Assigned(serving.answering, ledger) if ledger else serving.answering
        reply = self._answered(request, serving, serving.reader_of_users, answering, self._from_store)
        if key and self._policy.keys and isinstance(reply, Work):
            self._policy.keys.charge(key, reply.registrations - 1)
        return reply

    def _from_store(self, one: Asking) -> Asking | Awaitable[Reply]:
        """Answers a user from the store of batch answers, where there is one and no experiment has its say."""
        kept, ledger = self._policy.kept, self._policy.ledger
        if kept is None or not kept.serves(one.registration) or (ledger and ledger.takes(_user(one))):
            return one
        return self._with_kept(one, kept)

    async def _with_kept(self, one: Asking, kept: StoredAnswers) -> Reply:
        """What batch kept for this user: before the model's own answer, or where the model has none."""
        if kept.first:
            found = await self._looked_up(one, kept)
            return self._told(one, *found) if found else self._answer(one)
        body, source = one.answering.one(one.registration)
        found = await self._looked_up(one, kept) if source in WITHOUT_MODEL else None
        return self._told(one, *(found or (body, source)))

    async def _looked_up(self, one: Asking, kept: StoredAnswers) -> tuple[bytes, str] | None:
        found, outcome = await kept.get(_user(one))
        answer = one.answering.kept(one.registration, found) if found else None
        self._tally.count("firstspin_kept_answers", "other-version" if found and not answer else outcome)
        return answer

    def _explanation(self, request: Request) -> Work:
        self._admit(request)
        serving = self._now_serving()
        if _encoding(request) is not Encoding.json:
            raise Refusal(415, "unsupported_content_type", "an explanation is asked for as application/json")
        return Work(PARTS, partial(self._explained, request.body, serving))

    async def _explained(self, body: Body, serving: ServedModel) -> Reply:
        await self._turn()
        asked = serving.reader.begin(body, Encoding.json)
        if isinstance(asked, LongBody) or not asked.alone:
            raise Refusal(422, "invalid", "an explanation is for one registration")
        _check_ages(asked.registrations, serving.least_age)
        return Reply(200, serving.answering.explained(asked.registrations[0]))

    def _answered(
        self,
        request: Request,
        serving: ServedModel,
        reader: BodyReader,
        answering: Answering,
        alone: Alone | None = None,
    ) -> Reply | Awaitable[Reply] | Asking:
        """`alone` says how a request about one is answered, where that is not with all others of its turn."""
        encoding = _encoding(request)
        if len(request.body) > SHORT:
            number = reader.most_in(request.body, encoding)
            return Work(number, partial(self._long, request.body, encoding, serving, reader, answering, alone))
        asked = self._read(reader, request.body, encoding)
        _check_ages(asked.registrations, serving.least_age)
        if asked.alone:
            one = Asking(answering, asked.registrations[0], self._now())
            return alone(one) if alone else one
        return Work(asked.number, partial(self._many, answering, asked))

    def _read(self, reader: BodyReader, body: Body, encoding: Encoding) -> Asked:
        start = self._now()
        asked = reader.read(body, encoding)
        self._tally.took("read", self._now() - start)
        return asked

    def _answer_together(self, asking: Sequence[Asking]) -> list[Reply]:
        """Everyone who asked in this turn: ranked in one go, so that the model is fetched into the caches once."""
        if len(asking) < 2 or any(one.answering is not asking[0].answering for one in asking):
            return [self._finished(one, self._answer(one)) for one in asking]
        asked = Asked([one.registration for one in asking], Encoding.json)
        try:
            bodies = self._several(asking[0].answering, asked)
        except Exception:  # again, one by one, so that it concerns nobody else
            return [self._finished(one, self._answer(one)) for one in asking]
        return [self._finished(one, Reply(200, body)) for one, body in zip(asking, bodies, strict=True)]

    def _answer(self, one: Asking) -> Reply:
        try:
            return self._told(one, *one.answering.one(one.registration))
        except Refusal as refusal:
            return _refused(refusal)
        except Exception as problem:
            return self._failed(problem)

    def _told(self, one: Asking, body: bytes, source: str) -> Reply:
        self._tally.answer(source)
        self._tally.took("answer", self._now() - one.read)
        return Reply(200, body)

    def _finished(self, one: Asking, reply: Reply) -> Reply:
        self._tally.request(one.route, reply.status, self._now() - one.start)
        return reply

    def _several(self, answering: Answering, asked: Asked) -> list[bytes]:
        start = self._now()
        answers = list(answering.several(asked))
        for _, source in answers:
            self._tally.answer(source)
        self._tally.took("answer", self._now() - start)
        return [body for body, _ in answers]

    async def _long(
        self,
        body: Body,
        encoding: Encoding,
        serving: ServedModel,
        reader: BodyReader,
        answering: Answering,
        alone: Alone | None,
    ) -> Reply:
        """A long body is read in turns of its own, and all of it before anybody is answered.

        What was read is not kept but read again, so that the body is all the memory it takes.
        """
        await self._turn()
        asked = reader.begin(body, encoding)
        pieces = asked.pieces()
        while (piece := await self._next(pieces)) is not None:
            _check_ages(piece, serving.least_age)
        if isinstance(asked, LongBody) or not asked.alone:
            return await self._many(answering, asked)
        one = Asking(answering, asked.registrations[0], self._now())
        reply = alone(one) if alone else one
        return self._answer(reply) if isinstance(reply, Asking) else await reply

    async def _many(self, answering: Answering, asked: Asked | LongBody) -> Reply:
        """Each piece is written down where it stays, so that a long answer lies in memory once."""
        begin, between, end = around(asked.encoding)
        body, pieces = bytearray(begin), asked.pieces()
        while (piece := await self._next(pieces)) is not None:
            if piece:
                body += between if len(body) > len(begin) else b""
                body += between.join(self._several(answering, Asked(piece, asked.encoding)))
            if len(body) + len(end) > self._policy.largest_answer:
                raise Refusal(413, "answer_too_large", "ask about fewer newcomers at once")
        body += end
        return Reply(200, body, asked.encoding.encode())

    async def _next(self, pieces: Iterator[Sequence[Registration]]) -> Sequence[Registration] | None:
        """The next piece, in the turn of the loop in which it is to be answered."""
        await self._turn()
        return next(pieces, None)

    async def _turn(self) -> None:
        """Wait for a turn of the loop in which no other piece of work is done; requests about one newcomer go first."""
        async with self._piece:
            await sleep(0)

    def _now_serving(self) -> ServedModel:
        if self._serving is not None:
            return self._serving
        if self._policy.without_model:
            return NOTHING
        raise Refusal(503, "no_model", "there is no model yet; try again in a moment")

    # ---------------------------------------------------------------------------------------------------- what is kept

    def _events(self, request: Request) -> Awaitable[Reply]:
        self._admit(request)
        if self._policy.ledger is None:
            raise Refusal(503, "events_unavailable", "this service was started without an event store")
        if _encoding(request) is not Encoding.json:
            raise Refusal(415, "unsupported_content_type", "events are sent as application/json")
        return self._kept(self._policy.ledger, bytes(request.body))

    async def _kept(self, ledger: ExposureLog, body: bytes) -> Reply:
        return Reply(202, await ledger.keep(body))

    def _admit(self, request: Request) -> Key | None:
        """The caller's key, where keys are asked for. Refusal for a caller without one, or over its rate."""
        if self._policy.keys is None:
            return None
        key = self._policy.keys.check(request.headers, self._clock.date())
        self._policy.keys.spend(key, self._now())
        return key

    # ----------------------------------------------------------------------------------------------------- operation

    def _ping(self, request: Request) -> Reply:  # noqa: ARG002
        if self.ready:
            return Reply(200, b"", TEXT)  # empty, as SageMaker asks for it
        return _refused(Refusal(503, "not_ready", "draining" if self.draining else "there is no model yet"))

    def _metrics(self, request: Request) -> Reply:  # noqa: ARG002
        return Reply(200, self._tallies.text(), TEXT)

    def _openapi(self, request: Request) -> Reply:  # noqa: ARG002
        serving = self._serving or NOTHING
        if self._described is None or self._described[0] is not serving:
            self._described = serving, Reply(200, schema(serving.reader.extra, serving.reader.most))
        return self._described[1]

    def _report(self, request: Request) -> Reply:  # noqa: ARG002
        if not self._policy.report:
            raise Refusal(404, "not_found", "this service was started without a report")
        return Reply(200, self._policy.report, HTML, SAFE)

    def _experiments(self, request: Request) -> Reply:  # noqa: ARG002
        ledger = self._policy.ledger
        totals = {name: self._tallies.total(name) for name in self._counted}
        page = experiments.page(ledger.running if ledger else None, totals, self._clock.date())
        return Reply(200, page, HTML, SAFE)

    def _home(self, request: Request) -> Reply:  # noqa: ARG002
        return Reply(200, HOME, HTML, SAFE)


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


class Assigned:
    """Answers users of the experiment by their arm."""

    def __init__(self, answering: Answering, ledger: ExposureLog) -> None:
        self._answering, self._ledger = answering, ledger

    @property
    def model(self) -> str:
        return self._answering.model

    def one(self, registration: Registration) -> tuple[bytes, str]:
        return self._ledger.answer(self._answering, registration)

    def kept(self, registration: Registration, kept: StoredAnswer) -> tuple[bytes, str] | None:
        return self._answering.kept(registration, kept)

    def explained(self, registration: Registration) -> bytes:
        return self._answering.explained(registration)

    def several(self, asked: Asked) -> Iterable[tuple[bytes, str]]:
        if asked.encoding is Encoding.csv:
            raise Refusal(415, "unsupported_content_type", "recommendations for users are asked for in JSON")
        return [self.one(registration) for registration in asked.registrations]


def _user(one: Asking) -> str:
    user_id: str = getattr(one.registration, USER_ID)  # a field that only the reader of users adds
    return user_id


def _check_ages(registrations: Sequence[Registration], least: int) -> None:
    if least and any(is_under(least, registration) for registration in registrations):
        raise Refusal(403, "under_age", "this service does not answer people of this age")


def _refused(refusal: Refusal) -> Reply:
    return Reply(refusal.status, refusal.body(), headers=RETRY if refusal.status in (429, 503) else b"")
