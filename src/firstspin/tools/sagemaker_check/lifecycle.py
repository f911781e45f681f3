"""The life cycle of a hosting container: start, port, and shutdown."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from firstspin.tools.sagemaker_check import player
from firstspin.tools.sagemaker_check.client import Answer, ContainerClient, Unanswered
from firstspin.tools.sagemaker_check.payloads import Payload
from firstspin.tools.sagemaker_check.player import Container, PrivateRoot, Target
from firstspin.tools.sagemaker_check.report import Finding, judged, passed, untestable

SERVERLESS_READY = 180.0
CALLERS = 4
UNDER_WAY, LINGER = 0.2, 0.5  # seconds of requests before SIGTERM, and from it to the half sent one's other half
PORT_RELEASE = 2.0


@dataclass(frozen=True, slots=True)
class Start:
    """A start of a container; `client` is None where it never became ready."""

    target: Target
    container: Container
    place: PrivateRoot
    client: ContainerClient | None
    asked_port: int | None
    seconds: float
    last_ping: int | None
    model_before: Mapping[str, tuple[int, int]]

    @property
    def failure(self) -> str:
        """Why it is not ready: its exit status or last ping, and the last line of its log."""
        status = self.container.process.poll()
        pinged = "no ping was answered" if self.last_ping is None else f"the last ping was answered {self.last_ping}"
        how = pinged if status is None else f"the process ended with status {status}"
        return f"{how} after {self.seconds:.1f} s; its last words: {player.last_words(self.container.written())}"


@dataclass(frozen=True, slots=True)
class Stop:
    """The shutdown at SIGTERM: exit status (None: it had to be killed), seconds to it, and the fate of the requests."""

    status: int | None
    seconds: float
    sent: tuple[str, ...]
    half_sent: str
    model_changed: str


@contextmanager
def serving(
    target: Target, folder: Path, model: Path | None, variables: Mapping[str, str], *, named_port: bool = True
) -> Iterator[Start]:
    """The container as started by SageMaker hosting, once it is ready or has failed.

    With `named_port` it gets a free port in SAGEMAKER_BIND_TO_PORT; where it listens on its own port all the same, that
    one is used if it was free before.
    """
    folder.mkdir(parents=True)
    place = player.prepare(target, folder, model)
    port = player.free_port() if named_port else None
    own_is_free = released(target.port)
    clients = [ContainerClient("127.0.0.1", port, target.limits)] if port is not None else []
    clients += [ContainerClient("127.0.0.1", target.port, target.limits)] if own_is_free else []
    before = player.contents(place.model)
    named = {**variables, **({"SAGEMAKER_BIND_TO_PORT": str(port)} if port is not None else {})}
    with player.running(target, place, "serve", named) as container:
        client, seconds, last_ping = player.first_ready(container, tuple(clients), target.limits.ready)
        yield Start(target, container, place, client, port, seconds, last_ping, before)


def released(port: int) -> bool:
    """Whether a port is free, after a moment for the previous container to release it."""
    deadline = time.monotonic() + PORT_RELEASE
    while not (free := player.is_free(port)) and time.monotonic() < deadline:
        time.sleep(player.POLL)
    return free


def starts(start: Start) -> Finding:
    """Fact 1.1: starts with the argument `serve`."""
    return judged(start.client is not None, "" if start.client else start.failure)


def _is_ready_in_time(start: Start) -> Finding:
    return judged(start.client is not None, f"{start.seconds:.1f} s" if start.client else start.failure)


START_CHECKS: Mapping[str, Callable[[Start], Finding]] = {"1.1": starts, "6.4": _is_ready_in_time}


def runs_as_root(start: Start) -> Finding:
    """Fact 3.1 for a local program, which runs as the check's user; for a container the image has the user."""
    if start.target.mounts:
        return untestable("no file of `docker image inspect` was given")
    return passed("") if os.geteuid() == 0 else untestable("the check does not run as root itself")


def _obeys_the_port(start: Start) -> Finding:
    port = start.client.port if start.client else None
    return judged(port == start.asked_port, f"asked for {start.asked_port}, listens on {port}")


def _is_ready_for_serverless(start: Start) -> Finding:
    return judged(start.seconds <= SERVERLESS_READY, f"{start.seconds:.1f} s")


READY_CHECKS: Mapping[str, Callable[[Start], Finding]] = {
    "5.2": _obeys_the_port,
    "27.1": _is_ready_for_serverless,
}


@dataclass(frozen=True, slots=True)
class Known:
    """A container that was ready: the seconds until then, and the responses to a request (several if they vary)."""

    seconds: float
    answers: frozenset[tuple[int, bytes]]


def known(start: Start, payload: Payload) -> Known | None:
    """The responses of a ready container to a payload; None where it never became ready."""
    return Known(start.seconds, _answers(start.client, payload)) if start.client else None


def serves_its_model(target: Target, folder: Path, payload: Payload, ready: Known) -> Finding:
    """Fact 4.1: started again without a model, it is not ready or responds differently."""
    if not any(200 <= status < 300 for status, _ in ready.answers):
        return untestable("it answered nothing with one")
    with serving(target, folder, None, {}) as start:
        if start.client is None:
            return passed("without it, it is not ready")
        without = _answers(start.client, payload)
    if ready.answers & without:
        return untestable("it answers the same without a model")
    if len(ready.answers) > 1 and _statuses(ready.answers) & _statuses(without):
        return untestable("its answers vary, with a model and without")
    return passed("without it, it answers otherwise")


def _answers(client: ContainerClient, payload: Payload) -> frozenset[tuple[int, bytes]]:
    """What a request gets that is sent twice; nothing where there was no answer."""
    got = []
    with suppress(Unanswered):
        got = [client.invoke(payload) for _ in range(2)]
    return frozenset((answer.status, answer.body) for answer in got)


def _statuses(answers: Iterable[tuple[int, bytes]]) -> set[int]:
    return {status for status, _ in answers}


def variables() -> dict[str, str]:
    """What SageMaker sets beside the port: the caller's map, and spare ports."""
    return {"SAGEMAKER_SAFE_PORT_RANGE": "21000-21999", **player.user_map()}


def listens_on_its_own_port(target: Target, folder: Path, model: Path | None) -> Finding:
    """Starts it once more, telling it no port."""
    if not released(target.port):
        return untestable(f"port {target.port} is taken on this machine")
    with serving(target, folder, model, {}, named_port=False) as start:
        return judged(start.client is not None, f"{target.port}" if start.client else start.failure)


def stop(start: Start, client: ContainerClient, payload: Payload) -> Stop:
    """SIGTERM while callers ask one thing after the other, and while one has sent half of what it will."""
    half, stopping = client.begin(payload), Event()
    with ThreadPoolExecutor(CALLERS + 1) as pool:
        callers = [pool.submit(_call_until, stopping, client, payload) for _ in range(CALLERS)]
        time.sleep(UNDER_WAY)
        signalled = time.monotonic()
        player.terminate(start.container)
        stopping.set()
        time.sleep(LINGER)
        rest = pool.submit(_fate, lambda: client.finish(half, payload))
        status = player.ended(start.container, start.target.limits.drain)
        seconds = time.monotonic() - signalled
        if status is None:
            player.kill(start.container)
        sent = tuple(fate for caller in callers for began, fate in caller.result() if began < signalled)
    changed = player.changes(start.model_before, player.contents(start.place.model))
    return Stop(status, seconds, sent, rest.result(), changed)


def _ends_in_time(stop: Stop) -> Finding:
    return judged(stop.status is not None, f"{stop.seconds:.1f} s" if stop.status is not None else "had to be killed")


def _ends_well(stop: Stop) -> Finding:
    if stop.status is None:
        return untestable("it had to be killed")
    return judged(stop.status == 0, f"status {stop.status}")


def _answers_what_was_sent(stop: Stop) -> Finding:
    lost = [fate for fate in stop.sent if fate]
    return judged(
        not lost, f"{len(lost)} of {len(stop.sent)} lost ({lost[0]})" if lost else f"{len(stop.sent)} answered"
    )


def _answers_what_was_half_sent(stop: Stop) -> Finding:
    return judged(not stop.half_sent, stop.half_sent)


def _leaves_the_model_alone(stop: Stop) -> Finding:
    return judged(not stop.model_changed, stop.model_changed and f"changed: {stop.model_changed}")


STOP_CHECKS: Mapping[str, Callable[[Stop], Finding]] = {
    "2.1": _ends_in_time,
    "2.2": _ends_well,
    "2.3": _answers_what_was_sent,
    "2.4": _answers_what_was_half_sent,
    "4.2": _leaves_the_model_alone,
}


def _call_until(stopping: Event, client: ContainerClient, payload: Payload) -> list[tuple[float, str]]:
    """When each request was begun, and what became of it."""
    calls = []
    while not stopping.is_set():
        began = time.monotonic()
        calls.append((began, _fate(lambda: client.invoke(payload))))
    return calls


def _fate(ask: Callable[[], Answer]) -> str:
    """Empty where a request is answered well, else what became of it."""
    try:
        answer = ask()
    except Unanswered as error:
        return str(error)
    return "" if answer.fine else f"status {answer.status}"
