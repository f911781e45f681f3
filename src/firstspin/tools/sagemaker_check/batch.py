"""The facts of batch transform: the hosting container started with the transform job's variables."""

from __future__ import annotations

from collections.abc import Mapping

from firstspin.tools.sagemaker_check import hosting
from firstspin.tools.sagemaker_check import payloads as bodies
from firstspin.tools.sagemaker_check.hosting import Check, Server
from firstspin.tools.sagemaker_check.payloads import CSV, JSON_LINES
from firstspin.tools.sagemaker_check.report import Finding, judged, untestable

MAX_PAYLOAD = 6 << 20
VARIABLES = {
    "SAGEMAKER_BATCH": "true",
    "SAGEMAKER_MAX_PAYLOAD_IN_MB": "6",
    "SAGEMAKER_BATCH_STRATEGY": "MULTI_RECORD",
    "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": "2",
}


def _answers_as_in_hosting(server: Server) -> Finding:
    answer = server.client.invoke(server.payload)
    return judged(answer.fine, f"status {answer.status}")


def _answers_a_line_a_record(server: Server) -> Finding:
    """Counted as the difference of one more record: headers cancel out."""
    for payload in filter(None, (server.payloads.of(JSON_LINES), server.payloads.of(CSV))):
        answer, longer = server.client.invoke(payload), bodies.one_more(payload)
        if answer.fine and longer is not None:
            before, after = bodies.records(answer.body), bodies.records(server.client.invoke(longer).body)
            return judged(after - before == 1, f"{payload.media_type}: {before} lines, {after} with one record more")
    return untestable("neither CSV nor JSON Lines is answered")


def answers_a_full_body(server: Server) -> Finding:
    """Fact 23.3: a body of the default size of a job, or of the size in /execution-parameters, is accepted."""
    limits = hosting.limits(server)
    if limits.get("BatchStrategy") in ("SINGLE_RECORD", "SingleRecord"):
        return untestable("it asks for one record at a time")
    named = limits.get("MaxPayloadInMB")
    size = min(server.client.limits.body, named << 20 if isinstance(named, int) and named > 0 else MAX_PAYLOAD)
    for payload in filter(None, (server.payloads.of(JSON_LINES), server.payloads.of(CSV))):
        full = bodies.filled_with_records(payload, size)
        if full is not None and server.client.invoke(payload).fine:
            answer = server.client.transform(full)
            sent, answered = bodies.records(full.body), bodies.records(answer.body)
            # either may have a header
            holds = answer.fine and abs(sent - answered) <= 1
            return judged(holds, f"status {answer.status}, {answered:,} lines to {sent:,} of {full.media_type}")
    return untestable("neither CSV nor JSON Lines is answered")


CHECKS: Mapping[str, Check] = {
    "23.1": _answers_as_in_hosting,
    "23.2": _answers_a_line_a_record,
    "23.3": answers_a_full_body,
}
