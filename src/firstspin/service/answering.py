"""Recommendations for requests: requests about one registration are ranked in one batch per event-loop turn.

A reply about several registrations is made in pieces, one piece per turn of the loop for all such requests together, so
that other requests are answered in between. Where the model fails, a fallback answers and `source` names it: no content
of a request leads to a 5xx.
"""

from __future__ import annotations

import logging
from asyncio import Lock, sleep
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import repeat
from math import inf
from typing import Final, NamedTuple

import msgspec

from firstspin.events.schema import Exposure
from firstspin.records import Listens, Ranking, Registration, StoredAnswer
from firstspin.service.challenger.shadow import ShadowSampler
from firstspin.service.exposures import ExposureLog
from firstspin.service.http.messages import RETRY, Reply, Request, StreamedReply, Work
from firstspin.service.metrics import ProcessMetrics
from firstspin.service.served_model import ServedModel
from firstspin.service.telemetry.spans import TRACEPARENT, AnswerSpans
from firstspin.serving.bodies.encodings import SPELLINGS, Encoding, around, check_accept, encoding_of
from firstspin.serving.bodies.limits import SHORT, Body
from firstspin.serving.bodies.wire import BodyReader, LongBody, ParsedBody, user_of
from firstspin.serving.explanations import MAX_SUBSETS, ModelFailed, explain
from firstspin.serving.lookups import OTHER_VERSION, UserLookups
from firstspin.serving.policy import (
    ArmPolicy,
    Decision,
    PolicySettings,
    decide,
    decide_many,
    is_by_challenger,
    is_current,
    may_look_up_listens,
    may_use_stored,
    refuse_under_age,
)
from firstspin.serving.refusal import Refusal
from firstspin.serving.responses import Responses
from firstspin.serving.slot.carousel import CarouselSlot

log = logging.getLogger(__name__)

STREAMED: Final = 1_024
"""Answers about more registrations are streamed: about 3 MB, half of the max body of a request."""

_KNOWN_TYPES: Final = {name.encode(): kind for name, kind in SPELLINGS.items()}
_ANY: Final = (None, b"*/*", b"application/json, */*")
_encode: Final = msgspec.json.Encoder().encode


class Asking(NamedTuple):
    """A request about one registration, to be answered in a batch; times in nanoseconds.

    `user` is None where the route takes no user id; `timed`: the reply tells how long it took; `parent` is the caller's
    traceparent.
    """

    serving: ServedModel
    registration: Registration
    user: str | None
    read: int
    parent: bytes = b""
    route: str = "other"
    start: int = 0
    timed: bool = False


class Answering:
    """Reads registrations from requests, decides on them, and counts, times and records the answers.

    `settings` decide what answers; its experiment is the one that `ledger` records. `stored` looks up the answers of
    batch scoring, for users, `listens` what they listened to; `slot` explores, for users, and needs a ledger. An answer
    about several registrations of more than `max_bytes` bytes is refused. `spans` traces answers, `shadow` copies them.
    """

    def __init__(
        self,
        tally: ProcessMetrics,
        now: Callable[[], int],
        settings: PolicySettings,
        *,
        ledger: ExposureLog | None = None,
        stored: UserLookups[StoredAnswer] | None = None,
        listens: UserLookups[Listens] | None = None,
        slot: CarouselSlot | None = None,
        shadow: ShadowSampler | None = None,
        max_bytes: float = inf,
        spans: AnswerSpans | None = None,
    ) -> None:
        self._tally, self._now, self._settings, self._spans = tally, now, settings, spans
        self._ledger, self._max_bytes = ledger, max_bytes
        self._stored, self._listens, self._slot, self._shadow = stored, listens, slot, shadow
        self._failed_models: set[str] = set()  # whose failure is in the log
        self._challenger: ServedModel | None = None
        self._piece = Lock()  # held by the request that works in this turn

    def challenge(self, challenger: ServedModel) -> None:
        """Answer the experiment's arms of a challenger with this model."""
        self._challenger = challenger
        self._settings = replace(self._settings, challenger=challenger.bundle)

    def end_experiment(self) -> None:
        """Answer all users as without an experiment."""
        self._settings = replace(self._settings, experiment=None, challenger=None)

    def _responses(self, serving: ServedModel, decision: Decision) -> Responses:
        """The content of the bundle that ranked."""
        by_challenger = self._challenger is not None and is_by_challenger(decision, self._settings)
        return self._challenger.responses if self._challenger and by_challenger else serving.responses

    def begin(
        self, request: Request, serving: ServedModel, *, of_users: bool = False
    ) -> Reply | Awaitable[Reply] | Asking:
        """The reply, or a registration to answer in the turn's batch. Raises Refusal where the request is invalid."""
        encoding = encoding_of_request(request)
        if encoding is Encoding.csv and of_users and self._ledger:
            raise Refusal(415, "unsupported_content_type", "recommendations for users are asked for in JSON")
        reader = serving.reader_of_users if of_users else serving.reader
        parent = request.headers.get(TRACEPARENT, b"") if self._spans else b""
        if len(request.body) > SHORT:
            number = reader.max_number(request.body, encoding)
            return Work(number, partial(self._long, request.body, encoding, serving, reader, of_users, parent))
        parsed = self._read(reader, request.body, encoding)
        if self._settings.refuse_under_age:
            refuse_under_age(parsed.registrations, self._settings)
        if parsed.alone:
            return self._one(serving, parsed.registrations[0], of_users, parent)
        return Work(parsed.number, partial(self._many, serving, parsed, of_users, parsed.number, parent))

    def _read(self, reader: BodyReader, body: Body, encoding: Encoding) -> ParsedBody:
        start = self._now()
        parsed = reader.read(body, encoding)
        self._tally.took("read", self._now() - start)
        return parsed

    def _one(
        self, serving: ServedModel, registration: Registration, of_users: bool, parent: bytes
    ) -> Asking | Awaitable[Reply]:
        """A request about one registration: answered in the turn's batch, or after lookups of what is stored."""
        one = Asking(serving, registration, user_of(registration) if of_users else None, self._now(), parent)
        stored = self._stored  # asked for first: the policy hashes the user to an arm
        if stored and not may_use_stored(registration, one.user, self._settings):
            stored = None
        if stored or (self._listens and may_look_up_listens(registration, one.user, serving.bundle, self._settings)):
            return self._after_lookups(one, stored)
        return one

    async def _after_lookups(self, one: Asking, stored: UserLookups[StoredAnswer] | None) -> Reply:
        """Look up the stored answer where it has precedence, or where the decision without it is a fallback."""
        bundle, stored_first = one.serving.bundle, self._settings.stored_first
        answer = await self._looked_up(one, stored) if stored and stored_first else None
        if answer is None or not is_current(answer, bundle):
            one = await self._with_listens(one)
        # the settings after each lookup: a canary may have been stopped, or its challenger replaced, meanwhile
        decision = decide(one.registration, one.user, bundle, answer, self._settings)
        if stored and not stored_first and decision.is_fallback:
            answer = await self._looked_up(one, stored)
            decision = decide(one.registration, one.user, bundle, answer, self._settings, failure=decision.failure)
        return self._decided(one, decision)

    async def _with_listens(self, one: Asking) -> Asking:
        """The request with the listens of its user's events, where they may be used and come in time."""
        lookups, bundle = self._listens, one.serving.bundle
        if lookups is None or not may_look_up_listens(one.registration, one.user, bundle, self._settings):
            return one
        assert one.user is not None
        listens, outcome = await lookups.get(one.user)
        self._tally.count("firstspin_listen_lookups", outcome)
        if listens is None:
            return one
        return one._replace(registration=msgspec.structs.replace(one.registration, listens=listens))

    async def _looked_up(self, one: Asking, stored: UserLookups[StoredAnswer]) -> StoredAnswer | None:
        assert one.user is not None
        answer, outcome = await stored.get(one.user)
        is_other = answer is not None and not is_current(answer, one.serving.bundle)
        self._tally.count("firstspin_kept_answers", OTHER_VERSION if is_other else outcome)
        return answer

    def together(self, asking: Sequence[Asking]) -> list[Reply]:
        """The replies to this turn's requests about one registration each, in order; one batch per bundle."""
        if len(asking) < 2:
            return [self._finished(one, self.alone(one)) for one in asking]
        groups: dict[ServedModel, list[Asking]] = {}
        for one in asking:
            groups.setdefault(one.serving, []).append(one)
        replies = {serving: iter(self._answer_batch(serving, group)) for serving, group in groups.items()}
        return [self._finished(one, next(replies[one.serving])) for one in asking]

    def _answer_batch(self, serving: ServedModel, group: Sequence[Asking]) -> list[Reply]:
        try:
            registrations, users = [one.registration for one in group], [one.user for one in group]
            bodies = self._several(serving, registrations, users, Encoding.json, group)
        except Exception:  # again, one by one, so that it concerns no other request
            log.exception("a batch failed; its requests are answered one by one")
            return [self.alone(one) for one in group]
        return [Reply(200, body) for body in bodies]

    def alone(self, one: Asking) -> Reply:
        """The reply to a request about one registration, outside a batch."""
        try:
            return self._decided(one, decide(one.registration, one.user, one.serving.bundle, None, self._settings))
        except Refusal as refusal:
            return refused(refusal)
        except Exception as problem:
            return failed(problem)

    def _decided(self, one: Asking, decision: Decision) -> Reply:
        if self._slot is not None and one.user is not None:
            decision = self._slot.explored(one.registration, one.user, decision, one.serving.bundle)
        decision, body = self._written(one.serving, one.registration, one.user, decision, Encoding.json)
        self._count(one.serving, (one.registration,), (one.user,), (decision,), (one,))
        self._tally.took("answer", self._now() - one.read)
        return Reply(200, body)

    def _written(
        self, serving: ServedModel, registration: Registration, user: str | None, decision: Decision, encoding: Encoding
    ) -> tuple[Decision, bytes]:
        """The answer as bytes; where the challenger's can't be written, that of the bundle in service."""
        responses = self._responses(serving, decision)
        try:
            return decision, responses.encoded(registration, decision, encoding)
        except Exception as problem:
            if responses is serving.responses:
                raise
            decision = decide(registration, user, serving.bundle, None, replace(self._settings, challenger=None))
            decision = msgspec.structs.replace(decision, failure=type(problem).__name__)
            return decision, serving.responses.encoded(registration, decision, encoding)

    def _count(
        self,
        serving: ServedModel,
        registrations: Sequence[Registration],
        users: Sequence[str | None] | None,
        decisions: Sequence[Decision],
        asked: Sequence[Asking] = (),
        parent: bytes = b"",
        start: int = 0,
    ) -> None:
        """Count answers, log the first failure of their model, record the exposures of users, and trace.

        Each answer has its request in `asked`, or all are of one request, with this `parent` and `start`.
        """
        for registration, decision in zip(registrations, decisions, strict=True):
            self._tally.answer(decision.ranking.source)
            if registration.listens and decision.known is not None:
                self._tally.listens(decision.known, len(registration.listens) - decision.known)
            if decision.failure:
                self._log_failure(serving, decision.failure, of_challenger=decision.source == "champion")
        if self._ledger:
            self._add_up(self._ledger, serving, registrations, users, decisions)
        if self._shadow:
            self._offer(self._shadow, registrations, decisions)
        exposure_ids: dict[int, bytes] = {}
        if users and self._ledger:
            exposure_ids = self._record(self._ledger, serving, zip(registrations, users, decisions, strict=True))
        if self._spans:
            self._spans.add(decisions, asked, exposure_ids, parent, start)

    def _record(
        self,
        ledger: ExposureLog,
        serving: ServedModel,
        answered: Iterable[tuple[Registration, str | None, Decision]],
    ) -> dict[int, bytes]:
        """Record the exposures to the slot, and those of the experiment's users; their ids by place.

        One that fails is dropped and counted, without the others.
        """
        at = ledger.moment()
        exposures: list[Exposure] = []
        ids: dict[int, bytes] = {}
        for place, (registration, user, decision) in enumerate(answered):
            if user is None or (decision.assignment is None and decision.slot is None):
                continue
            try:
                if decision.slot:
                    exposures.append(ledger.slot_exposure(user, decision, decision.slot, at))
                    ids[place] = exposures[-1].exposure_id
                    continue
                stations = self._stations(serving, registration, decision)
                for exposure in ledger.exposures(user, decision, stations, at):
                    exposures.append(exposure)
                    ids[place] = exposure.exposure_id
            except Exception:
                self._tally.count("firstspin_exposures_dropped")
                log.exception("an exposure could not be recorded")
        if exposures:
            ledger.record(exposures)
        return ids

    def _stations(
        self, serving: ServedModel, registration: Registration, decision: Decision
    ) -> Mapping[ArmPolicy, Sequence[str]]:
        """The stations that each policy would have shown, from the bundle that ranked."""
        by_champion, responses = decision.candidates, self._responses(serving, decision)
        if responses is serving.responses:
            return responses.stations(registration, by_champion)
        by_challenger: dict[ArmPolicy, Ranking] = {"challenger": decision.ranking}
        by_champion = {policy: ranking for policy, ranking in by_champion.items() if policy != "challenger"}
        return serving.responses.stations(registration, by_champion) | responses.stations(registration, by_challenger)

    def _add_up(
        self,
        ledger: ExposureLog,
        serving: ServedModel,
        registrations: Sequence[Registration],
        users: Sequence[str | None] | None,
        decisions: Sequence[Decision],
    ) -> None:
        """Add the answers to the sums for `firstspin watch`. A failure is counted, and the answers are sent."""
        try:
            ledger.tally.add(registrations, decisions, serving.bundle, users)
        except Exception:
            self._tally.count("firstspin_worker_errors", "tally")
            log.exception("answers could not be added up")

    def _offer(
        self, shadow: ShadowSampler, registrations: Sequence[Registration], decisions: Sequence[Decision]
    ) -> None:
        """Offer the answers to the shadow bundle. A failure is counted, and the answers are sent."""
        try:
            shadow.offer(registrations, decisions)
        except Exception:
            self._tally.count("firstspin_worker_errors", "shadow")
            log.exception("answers could not be offered to the shadow bundle")

    def _log_failure(self, serving: ServedModel, failure: str, *, of_challenger: bool = False) -> None:
        """Log the failure of a model, once per model."""
        failed = "challenger of " * of_challenger + serving.responses.model
        if failed not in self._failed_models:
            self._failed_models.add(failed)
            who = "challenger failed; the bundle in service" if of_challenger else "model failed; the business rule"
            log.error(f"the {who} answers", extra={"problem": failure})

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
        asked: Sequence[Asking] = (),
        parent: bytes = b"",
    ) -> list[bytes]:
        start = self._now()
        decisions = list(decide_many(registrations, users, serving.bundle, self._settings))
        if self._slot is not None and users is not None:
            decisions = [
                self._slot.explored(registration, user, decision, serving.bundle) if user is not None else decision
                for registration, user, decision in zip(registrations, users, decisions, strict=True)
            ]
        written = [
            self._written(serving, registration, user, decision, encoding)
            for registration, user, decision in zip(registrations, users or repeat(None), decisions, strict=False)
        ]
        decisions, bodies = [decision for decision, _ in written], [body for _, body in written]
        self._count(serving, registrations, users, decisions, asked, parent, start)
        self._tally.took("answer", self._now() - start)
        return bodies

    async def _long(
        self, body: Body, encoding: Encoding, serving: ServedModel, reader: BodyReader, of_users: bool, parent: bytes
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
            return await self._many(serving, parsed, of_users, number, parent)
        reply = self._one(serving, parsed.registrations[0], of_users, parent)
        return self.alone(reply) if isinstance(reply, Asking) else await reply

    async def _many(
        self, serving: ServedModel, parsed: ParsedBody | LongBody, of_users: bool, number: int, parent: bytes
    ) -> Reply | StreamedReply:
        """Stream a long reply, which bounds the memory of a connection.

        A reply with a max size is not streamed, because its size is known at its end only.
        """
        pieces = self._parts(serving, parsed, of_users, parent)
        if number > STREAMED and self._max_bytes == inf:
            return StreamedReply(200, pieces, parsed.encoding.encode())
        body = bytearray()
        async for piece in pieces:
            body += piece
            if len(body) > self._max_bytes:
                raise Refusal(413, "answer_too_large", "send fewer registrations in one request")
        return Reply(200, body, parsed.encoding.encode())

    async def _parts(
        self, serving: ServedModel, parsed: ParsedBody | LongBody, of_users: bool, parent: bytes
    ) -> AsyncGenerator[bytes | bytearray, None]:
        """The parts of a reply about many registrations, each made in its own turn."""
        begin, between, end = around(parsed.encoding)
        before, pieces = begin, parsed.pieces()
        while (piece := await self._next(pieces)) is not None:
            if piece:
                users = [user_of(registration) for registration in piece] if of_users else None
                yield before + between.join(self._several(serving, piece, users, parsed.encoding, (), parent))
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

    def explanation(self, request: Request, serving: ServedModel) -> Work:
        """The explanation of the answer for one registration, in its own turn. Raises Refusal where it is not JSON."""
        if encoding_of_request(request) is not Encoding.json:
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


def encoding_of_request(request: Request) -> Encoding:
    """The encoding of a body. Raises Refusal where it is not read, or its answer not accepted."""
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


def refused(refusal: Refusal) -> Reply:
    """The reply of a refusal."""
    return Reply(refusal.status, refusal.body(), headers=RETRY if refusal.status in (429, 503) else b"")


def failed(problem: Exception) -> Reply:
    """The reply to a request that failed by our mistake, which is logged."""
    log.error("a request failed", extra={"problem": type(problem).__name__}, exc_info=True)
    return refused(Refusal(500, "internal", "this is our mistake"))
