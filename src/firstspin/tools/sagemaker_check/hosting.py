"""The facts about a server that is up: one short function each, from what SageMaker sends to what it must get."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException

import msgspec

from firstspin.tools.sagemaker_check import payloads as bodies
from firstspin.tools.sagemaker_check.client import UNREADABLE, Answer, ContainerClient, Unanswered, decoded, received
from firstspin.tools.sagemaker_check.payloads import CSV, JSON, JSON_LINES, Payload, Payloads
from firstspin.tools.sagemaker_check.report import Finding, judged, missed, passed, untestable

PINGS = 10
CALLERS, CALLS = 4, 8
CONNECTIONS, APART = 12, 0.01
UNKNOWN_TYPE = "application/x-no-such-type"
UNKNOWN_HEADERS = {
    "X-Amzn-Trace-Id": "Root=1-0",
    "X-Unheard-Of": "1",
    "X-Forwarded-For": "10.0.0.1",
    "Via": "1.1 proxy",
}
FORWARDED_HEADERS = {
    "X-Amzn-SageMaker-Custom-Attributes": "a" * 1024,
    "X-Amzn-SageMaker-Target-Model": "market.tar.gz",
    "X-Amzn-SageMaker-Target-Variant": "blue",
    "X-Amzn-SageMaker-Target-Container-Hostname": "first",
    "X-Amzn-SageMaker-Inference-Id": "i" * 64,
    "X-Amzn-SageMaker-Enable-Explanations": "`false`",
    "X-Amzn-SageMaker-Inference-Component": "component",
    "X-Amzn-SageMaker-Session-Id": "NEW_SESSION",
}
ANY_BYTES = "no body of JSON, JSON Lines or CSV was given; of other types any bytes may be a valid one"
SAMPLE = re.compile(r'[a-zA-Z_:][\w:]*(\{([a-zA-Z_]\w*="(\\.|[^"\\])*",?)*\})? +(NaN|[+-]?(Inf|\d[\d.eE+-]*))( -?\d+)?')


@dataclass(frozen=True, slots=True)
class Server:
    """A server that is up, and what it must understand."""

    client: ContainerClient
    payloads: Payloads

    @property
    def payload(self) -> Payload:
        """The one to send where any would do."""
        return self.payloads.first


Check = Callable[[Server], Finding]


def _ping_answers_200(server: Server) -> Finding:
    status = server.client.ping().status
    return judged(status == 200, f"status {status}")


def _ping_has_no_body(server: Server) -> Finding:
    body = server.client.ping().body
    return judged(not body, repr(body[:20]) if body else "")


def _ping_is_quick(server: Server) -> Finding:
    return passed(f"slowest of {PINGS}: {_slowest_ping(server) * 1000:.0f} ms")


def ping_is_quick_while_busy(server: Server) -> Finding:
    """Unanswered of a ping is the miss; what the callers get is another fact's business."""

    def call() -> None:
        for _ in range(CALLS):
            with suppress(Unanswered):
                server.client.invoke(server.payload)

    with ThreadPoolExecutor(CALLERS) as pool:
        callers = [pool.submit(call) for _ in range(CALLERS)]
        slowest = _slowest_ping(server)
        for caller in callers:
            caller.result()
    return passed(f"slowest of {PINGS}: {slowest * 1000:.0f} ms beside {CALLERS} callers")


def accepts_quickly(server: Server) -> Finding:
    """Connections that stay open while the next are made, so that one that is never accepted shows."""
    limit, slowest, connections = server.client.limits.accept, 0.0, list[HTTPConnection]()
    try:
        while len(connections) < CONNECTIONS and slowest <= limit:
            started = time.monotonic()
            connections.append(server.client.connect(server.client.limits.answer))
            slowest = max(slowest, time.monotonic() - started)
            time.sleep(APART)
    finally:
        for connection in connections:
            connection.close()
    return judged(slowest <= limit, f"slowest of {len(connections)}: {slowest * 1000:.1f} ms")


def _answers_invocations(server: Server) -> Finding:
    answer = server.client.invoke(server.payload)
    return judged(answer.fine, f"status {answer.status} in {answer.seconds * 1000:.0f} ms")


def _keeps_the_connection(server: Server) -> Finding:
    connection = server.client.connect(server.client.limits.answer)
    try:
        first = _on(connection, server)
        if connection.sock is None:
            return missed("closed after the first answer")
        second = _on(connection, server)
    except (OSError, HTTPException) as error:
        return missed(f"the second request got no answer: {type(error).__name__}")
    finally:
        connection.close()
    return judged(first.fine and second.fine, f"status {first.status}, then {second.status}")


def _reads_chunks(server: Server) -> Finding:
    payload, started = server.payload, time.monotonic()
    half = len(payload.body) // 2
    connection = server.client.connect(server.client.limits.answer)
    try:
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.request(
                "POST",
                "/invocations",
                iter([part for part in (payload.body[:half], payload.body[half:]) if part]),
                {"Content-Type": payload.content_type, "Transfer-Encoding": "chunked"},
                encode_chunked=True,
            )
        answer = received(connection, started=started, within=server.client.limits.answer)
    except (OSError, HTTPException) as error:
        return missed(f"no answer: {type(error).__name__}")
    finally:
        connection.close()
    return _same(server, answer)


def _ignores_unknown_headers(server: Server) -> Finding:
    return _same(server, server.client.invoke(server.payload, UNKNOWN_HEADERS))


def tolerates_forwarded_headers(server: Server) -> Finding:
    """Accept names what it answers with anyway: another type it may rightly refuse with 406."""
    accept = server.client.invoke(server.payload).media_type or "*/*"
    return _same(server, server.client.invoke(server.payload, {"Accept": accept, **FORWARDED_HEADERS}))


def takes_the_largest_body(server: Server) -> Finding:
    """JSON before JSON Lines before a table: spaces cost the model nothing, 100,000 rows do."""
    example = server.payloads.of(JSON) or server.payloads.of(JSON_LINES) or server.payload
    if (full := bodies.filled(example, server.client.limits.body)) is None:
        return untestable(f"no way to lengthen {example.media_type}; give JSON, JSON Lines or CSV")
    answer = server.client.invoke(full)
    detail = f"status {answer.status} to {len(full.body):,} bytes of {full.media_type} in {answer.seconds:.1f} s"
    return judged(answer.fine, detail)


def sends_no_more_than_is_handed_on(server: Server) -> Finding:
    """Asked about as many records as fit into a body, of which every answer is longer than its question in most."""
    limit = server.client.limits.body
    for payload in filter(None, (server.payloads.of(JSON_LINES), server.payloads.of(CSV))):
        full = bodies.filled_with_records(payload, limit)
        if full is not None and server.client.invoke(payload).fine:
            try:
                answer = server.client.invoke(full)
            except Unanswered:
                return untestable("so many records are not answered in time")
            held = len(answer.body) <= limit if answer.fine else 400 <= answer.status < 500
            return judged(held, f"status {answer.status} with {len(answer.body):,} bytes to {full.media_type}")
    return untestable("neither CSV nor JSON Lines is answered")


def _refuses_a_broken_body(server: Server) -> Finding:
    statuses = _statuses_of_broken_bodies(server)
    return judged(min(statuses.values()) >= 400, _listed(statuses)) if statuses else untestable(ANY_BYTES)


def _blames_the_caller(server: Server) -> Finding:
    statuses = _statuses_of_broken_bodies(server)
    ours = [status for status in statuses.values() if not 400 <= status < 500]
    return judged(not ours, _listed(statuses)) if statuses else untestable(ANY_BYTES)


def _survives_bad_callers(server: Server) -> Finding:
    for payload in server.payloads.examples:
        with suppress(Unanswered):
            server.client.invoke(bodies.broken(payload))
        with suppress(Unanswered):
            server.client.begin(payload).close()
    ping, answer = server.client.ping(), server.client.invoke(server.payload)
    return judged(ping.status == 200 and answer.fine, f"then ping {ping.status}, invocation {answer.status}")


def _answers_json(server: Server) -> Finding:
    return _answers(server, server.payloads.of(JSON), "JSON", lambda body: decoded(body) is not None)


def _answers_csv(server: Server) -> Finding:
    return _answers(server, server.payloads.of(CSV), "CSV", lambda body: bodies.records(body) > 0)


def _answers_json_lines(server: Server) -> Finding:

    def lines(body: bytes) -> bool:
        return bool(body.strip()) and all(decoded(line) is not None for line in body.splitlines())

    return _answers(server, server.payloads.of(JSON_LINES), "JSON Lines", lines)


def _understands_a_parameter(server: Server) -> Finding:
    payload = next(
        (p for p in server.payloads.examples if p.media_type in JSON | CSV and ";" not in p.content_type), None
    )
    if payload is None:
        return untestable("no body of JSON or CSV was given")
    answer = server.client.invoke(Payload(f"{payload.content_type}; charset=utf-8", payload.body))
    return judged(answer.fine, f"status {answer.status} to {payload.content_type}; charset=utf-8")


def _refuses_unknown_types(server: Server) -> Finding:
    status = server.client.invoke(Payload(UNKNOWN_TYPE, server.payload.body)).status
    return judged(status == 415, f"status {status}")


def answers_in_kind(server: Server) -> Finding:
    """Over the examples that are answered at all, and of types in which there is something to answer."""
    if not server.payloads.texts:
        return untestable(f"no model answers in {server.payload.media_type}; give JSON, JSON Lines or CSV")
    answered = [(payload, server.client.invoke(payload)) for payload in server.payloads.texts]
    pairs = [(payload.media_type, answer.media_type) for payload, answer in answered if answer.fine]
    if not pairs:
        return untestable("no example was answered")
    wrong = [f"{sent} answered as {got or 'nothing'}" for sent, got in pairs if not _alike(sent, got)]
    return judged(not wrong, ", ".join(wrong or [sent for sent, _ in pairs]))


def _shows_metrics(server: Server) -> Finding:
    page = server.client.get("/metrics")
    if page.status != 200:
        return missed(f"status {page.status}")
    samples = [line for line in page.body.decode(errors="replace").splitlines() if line and not line.startswith("#")]
    odd = [line for line in samples if not SAMPLE.fullmatch(line)]
    return judged(bool(samples) and not odd, f"not a sample: {odd[0][:60]!r}" if odd else f"{len(samples)} samples")


def _names_its_limits(server: Server) -> Finding:
    answer = server.client.get("/execution-parameters")
    if answer.status != 200:
        return missed(f"status {answer.status}")
    try:
        limits = msgspec.json.decode(answer.body, type=dict[str, int | str])
    except UNREADABLE as error:
        return missed(str(error))
    concurrent, size = limits.get("MaxConcurrentTransforms"), limits.get("MaxPayloadInMB")
    right = (
        isinstance(concurrent, int)
        and isinstance(size, int)
        and limits.get("BatchStrategy") in ("MULTI_RECORD", "SINGLE_RECORD")
        and concurrent >= 1
        and 0 <= size * concurrent <= 100
    )
    return judged(right, str(limits))


def limits(server: Server) -> Mapping[str, object]:
    """What it names in /execution-parameters; nothing where it names none."""
    answer = server.client.get("/execution-parameters")
    named = decoded(answer.body) if answer.status == 200 else None
    return named if isinstance(named, dict) else {}


CHECKS: Mapping[str, Check] = {
    "6.1": _ping_answers_200,
    "6.2": _ping_has_no_body,
    "6.3": _ping_is_quick,
    "6.5": ping_is_quick_while_busy,
    "7.1": accepts_quickly,
    "7.2": _answers_invocations,
    "7.3": _keeps_the_connection,
    "7.4": _reads_chunks,
    "8.1": _ignores_unknown_headers,
    "8.2": tolerates_forwarded_headers,
    "9.1": takes_the_largest_body,
    "10.1": _refuses_a_broken_body,
    "10.2": _blames_the_caller,
    "10.3": _survives_bad_callers,
    "12.1": _answers_json,
    "12.2": _answers_csv,
    "12.3": _answers_json_lines,
    "12.4": _understands_a_parameter,
    "12.5": _refuses_unknown_types,
    "14.1": _shows_metrics,
    "15.1": answers_in_kind,
    "24.1": _names_its_limits,
    "9.2": sends_no_more_than_is_handed_on,  # last: it keeps some servers busy for a while
}


def _slowest_ping(server: Server) -> float:
    return max(server.client.ping().seconds for _ in range(PINGS))


def _statuses_of_broken_bodies(server: Server) -> dict[str, int]:
    return {
        payload.media_type: server.client.invoke(bodies.broken(payload)).status for payload in server.payloads.texts
    }


def _listed(statuses: Mapping[str, int]) -> str:
    return ", ".join(f"{status} to {kind}" for kind, status in statuses.items())


def _on(connection: HTTPConnection, server: Server) -> Answer:
    started = time.monotonic()
    connection.request("POST", "/invocations", server.payload.body, {"Content-Type": server.payload.content_type})
    return received(connection, started=started, within=server.client.limits.answer)


def _same(server: Server, answer: Answer) -> Finding:
    """Whether a request sent in another way was answered as the plain one is (where that has one answer)."""
    plain, again = server.client.invoke(server.payload), server.client.invoke(server.payload)
    if answer.status != plain.status:
        return missed(f"status {answer.status} instead of {plain.status}")
    if plain.body != again.body:
        return judged(answer.fine, f"status {answer.status}; its answers vary")
    same = "the same answer" if answer.body == plain.body else "another answer"
    return judged(answer.fine and answer.body == plain.body, f"status {answer.status}, {same}")


def _answers(server: Server, payload: Payload | None, name: str, reads: Callable[[bytes], bool]) -> Finding:
    if payload is None:
        return untestable(f"no body of {name} was given")
    answer = server.client.invoke(payload)
    if not answer.fine:
        return missed(f"status {answer.status} to {payload.media_type}")
    size = f"{len(answer.body)} bytes"
    return passed(size) if reads(answer.body) else missed(f"{size} that are not {name}")


def _alike(sent: str, got: str) -> bool:
    return sent == got or (sent in JSON_LINES and got in JSON_LINES)
