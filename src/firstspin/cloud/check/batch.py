"""The facts of batch transform: the hosting container started with the transform job's variables."""

from __future__ import annotations

from collections.abc import Mapping

from firstspin.cloud.check import payloads as bodies
from firstspin.cloud.check.hosting import Check, Server
from firstspin.cloud.check.payloads import CSV, JSON_LINES
from firstspin.cloud.check.report import Finding, judged, untestable

VARIABLES = {
    "SAGEMAKER_BATCH": "true",
    "SAGEMAKER_MAX_PAYLOAD_IN_MB": "6",
    "SAGEMAKER_BATCH_STRATEGY": "MULTI_RECORD",
    "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": "2",
}


def answers_as_in_hosting(server: Server) -> Finding:
    answer = server.client.invoke(server.payload)
    return judged(answer.fine, f"status {answer.status}")


def answers_a_line_a_record(server: Server) -> Finding:
    """Counted as the difference that one record more makes, so that a header line plays no part."""
    payload = server.payloads.of(JSON_LINES) or server.payloads.of(CSV)
    longer = None if payload is None else bodies.one_more(payload)
    if payload is None or longer is None:
        return untestable("no body of CSV or JSON Lines was given")
    answer, more = server.client.invoke(payload), server.client.invoke(longer)
    if not (answer.fine and more.fine):
        return untestable(f"{payload.media_type} was answered {answer.status}")
    before, after = bodies.records(answer.body), bodies.records(more.body)
    return judged(after - before == 1, f"{payload.media_type}: {before} lines, {after} with one record more")


CHECKS: Mapping[str, Check] = {"23.1": answers_as_in_hosting, "23.2": answers_a_line_a_record}
