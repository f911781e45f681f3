"""Shadow scoring: a second bundle ranks a share of the registrations, and the agreement with the answers is counted.

A worker copies a registration and its answer into a socket once the replies of its turn of the loop are written. The
socket's buffer bounds the queue: where it is full, the copy is dropped and counted. A niced child of the supervisor
reads the socket (`process/background_runs.py`), so that a shadow bundle that fails, hangs or crashes costs no answer.
Of copies only counts leave that process; registrations are nowhere stored.

The page `/` shows the shadow bundle's own answer. Its registration goes through the same socket, with a socket for the
answer beside it, so workers need no second model.
"""

from __future__ import annotations

import asyncio
import logging
import select
import socket
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from firstspin.data.further_fields import with_further_fields
from firstspin.records import InputError, Registration, Source
from firstspin.service.metrics import ProcessMetrics
from firstspin.service.process.background_runs import BackgroundRuns
from firstspin.service.process.crew import Crew
from firstspin.serving.bundle import MANIFEST, Bundle, load
from firstspin.serving.policy import Decision, PolicySettings, decide
from firstspin.serving.refusal import Refusal
from firstspin.serving.responses import Responses

log = logging.getLogger(__name__)

QUEUE_BYTES: Final = 256 * 1024
"""Max bytes of waiting copies, about a thousand."""
MAX_WAITING: Final = 1_024
"""Max copies of one turn of a worker's loop."""
MAX_COPY: Final = 65_536
RUN_SECONDS: Final = 30.0
"""After so long the process ends; the next one loads the bundle that is then in the folder."""
HUNG_SECONDS: Final = RUN_SECONDS + 30.0
MAX_QUESTIONS: Final = 8
"""Max questions of a worker that wait for the shadow bundle's answer."""
ANSWER_SECONDS: Final = 10.0
"""How long a worker waits for an answer: the process may have to be started, and to load its bundle."""
REPLY_SECONDS: Final = 1.0
TOP: Final = 3


class ShadowCopy(msgspec.Struct, frozen=True, array_like=True):
    """A registration as it was answered: the first genres of the answer and its source."""

    registration: dict[str, object]
    genres: tuple[str, ...]
    source: Source


def queue(folder: Path) -> tuple[socket.socket, socket.socket]:
    """A queue of copies: the end that workers write to, and the end that the shadow process reads. Neither blocks.

    Raises InputError where the folder of the shadow bundle is none at first sight.
    """
    if not (folder / MANIFEST).is_file():
        raise InputError(f"--shadow {folder} is not a bundle: it has no {MANIFEST}")
    outbox, inbox = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (outbox, inbox):
        end.setblocking(False)
    outbox.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, QUEUE_BYTES)
    return outbox, inbox


class ShadowSampler:
    """A worker's side: copies a `share` of its answers, from 0 to 1, into the queue, and asks for single answers."""

    def __init__(self, outbox: socket.socket, share: float, tally: ProcessMetrics) -> None:
        self._outbox, self._share, self._tally = outbox, share, tally
        self._credit = 0.0
        self._waiting: list[tuple[Registration, tuple[str, ...], Source]] = []  # as a ShadowCopy
        self._questions = 0

    def offer(self, registrations: Sequence[Registration], decisions: Sequence[Decision]) -> None:
        """Choose the share of these answers; they are copied when the loop has written this turn's replies."""
        is_scheduled = bool(self._waiting)
        for registration, decision in zip(registrations, decisions, strict=True):
            # an arm of the rule or of a challenger: no answer of the bundle in service
            if decision.assignment and (decision.by_rule or "challenger" in decision.candidates):
                continue
            self._credit += self._share
            if self._credit < 1:
                continue
            self._credit -= 1
            if len(self._waiting) >= MAX_WAITING:
                self._tally.count("firstspin_shadow_answers", "dropped")
                continue
            self._waiting.append((registration, decision.ranking.genres[:TOP], decision.source))
        if self._waiting and not is_scheduled:
            asyncio.get_running_loop().call_soon(self._send)

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, []
        for copy in waiting:
            try:
                self._outbox.send(msgspec.json.encode(copy))
            except Exception:  # the queue is full, or the copy larger than it
                self._tally.count("firstspin_shadow_answers", "dropped")

    async def answer(self, registration: Registration) -> bytes:
        """The shadow bundle's answer as JSON; it comes after the copies that wait in the queue.

        Raises Refusal 503 where the queue is full, the model fails, or no answer comes within ANSWER_SECONDS.
        """
        unanswered = Refusal(503, "no_challenger", "the challenger does not answer now; try again in a moment")
        if self._questions >= MAX_QUESTIONS:
            raise unanswered
        self._questions += 1
        try:
            ours, theirs = socket.socketpair()
            with ours:
                ours.setblocking(False)
                with theirs:
                    socket.send_fds(self._outbox, [msgspec.json.encode(registration)], [theirs.fileno()])
                answer = await asyncio.wait_for(_read_to_end(ours), ANSWER_SECONDS)
        except (OSError, TimeoutError):
            raise unanswered from None
        finally:
            self._questions -= 1
        if not answer:
            raise unanswered
        return answer


async def _read_to_end(end: socket.socket) -> bytes:
    parts = []
    while part := await asyncio.get_running_loop().sock_recv(end, MAX_COPY):
        parts.append(part)
    return b"".join(parts)


def is_waiting(inbox: socket.socket) -> bool:
    """Whether copies wait in the queue."""
    return bool(select.select([inbox], [], [], 0)[0])


def runs(
    folder: Path,
    inbox: socket.socket,
    crew: Crew,
    tally: ProcessMetrics,
    settings: PolicySettings,
    now: Callable[[], float],
) -> BackgroundRuns:
    """The scoring outside the workers: runs while copies come; a run that hangs is killed."""
    run = partial(score, folder, inbox, tally, settings, now)
    return BackgroundRuns("shadow", crew, run, partial(is_waiting, inbox), pause=1.0, max_seconds=HUNG_SECONDS)


def score(
    folder: Path, inbox: socket.socket, tally: ProcessMetrics, settings: PolicySettings, now: Callable[[], float]
) -> None:
    """Score the copies in the queue and answer the questions, for RUN_SECONDS. To be called in its own process.

    Ends the process with status 1, after a line in the log, where the bundle can't be loaded.
    """
    try:
        shadow = Shadow(load(folder), settings)
    except InputError as problem:
        log.error("the shadow bundle can't be loaded", extra={"reason": problem.bare})
        sys.exit(1)
    tally.shadows(shadow.bundle.id)
    has_failed, end = False, now() + RUN_SECONDS
    while (left := end - now()) > 0:
        if not select.select([inbox], [], [], left)[0]:
            continue
        try:
            message, ends, _, _ = socket.recv_fds(inbox, MAX_COPY, 1)
            if ends:
                with socket.socket(fileno=ends[0]) as asker:
                    _reply(asker, shadow.answer(message))
                continue
            same = shadow.agreement(message)
        except Exception:
            tally.count("firstspin_shadow_answers", "failed")
            if not has_failed:  # once per process: a failure of every answer must not fill the log
                log.exception("the shadow bundle failed")
            has_failed = True
            continue
        tally.count("firstspin_shadow_answers", "scored")
        for what in same:
            tally.count("firstspin_shadow_agreement", what)


def _reply(asker: socket.socket, answer: bytes) -> None:
    asker.settimeout(REPLY_SECONDS)
    with suppress(OSError):  # the worker waits no longer
        asker.sendall(answer)


class Shadow:
    """The shadow bundle: its answers, and their agreement with those of the bundle in service."""

    def __init__(self, bundle: Bundle, settings: PolicySettings) -> None:
        self.bundle, self._settings, self._responses = bundle, settings, Responses(bundle)
        self._kind = with_further_fields(tuple(bundle.manifest.extra))
        self._fields = frozenset(self._kind.__struct_fields__)

    def agreement(self, encoded: bytes) -> Iterable[str]:
        """What is the same in this bundle's answer to a copy.

        Raises RuntimeError where the model fails, DecodeError or ValidationError where the copy is none.
        """
        copy = msgspec.json.decode(encoded, type=ShadowCopy)
        _, decision = self._decided(copy.registration)
        if decision.failure:
            raise RuntimeError(decision.failure)
        genres = decision.ranking.genres[:TOP]
        same = {
            "first genre": genres[:1] == copy.genres[:1],
            "first three": set(genres) == set(copy.genres),
            "source": decision.source == copy.source,
        }
        return [what for what, agrees in same.items() if agrees]

    def answer(self, encoded: bytes) -> bytes:
        """The answer to a registration in JSON, as `/invocations` would give it with this bundle in service.

        Raises DecodeError or ValidationError where it is no registration for this bundle.
        """
        return self._responses.json(*self._decided(msgspec.json.decode(encoded, type=dict[str, object])))

    def _decided(self, registration: Mapping[str, object]) -> tuple[Registration, Decision]:
        """A registration with the fields that this bundle has, and the decision on it."""
        answers = {name: value for name, value in registration.items() if name in self._fields}
        converted = msgspec.convert(answers, self._kind)
        return converted, decide(converted, None, self.bundle, None, self._settings)
