"""What SageMaker asks of a container beside `/ping` and `/invocations`: its limits in batch, and many models."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final

import msgspec

from firstspin.service.app import App, Further
from firstspin.service.http.connection import Reply, Request
from firstspin.service.multi_model import PATH, ManyModels
from firstspin.serving.wire import Refusal

PARAMETERS: Final = "/execution-parameters"
BATCH_MEGABYTES: Final = 1
"""What batch transform sends at a time unless its job says otherwise: the answer to it has forty times the length."""


def further(workers: int, many: ManyModels | None = None) -> Further:
    """Answers these paths; Refusal 404 or 405 for all others. Without `many` only the service's model is there."""
    limits = {
        "MaxConcurrentTransforms": workers,
        "BatchStrategy": "MULTI_RECORD",
        "MaxPayloadInMB": BATCH_MEGABYTES,
    }
    parameters = Reply(200, msgspec.json.encode(limits))

    def answer(app: App, request: Request) -> Reply | Awaitable[Reply]:
        if request.path == PARAMETERS:
            if request.method not in ("GET", "HEAD"):
                raise Refusal(405, "method_not_allowed", "this path takes GET")
            return parameters
        if many and (request.path == PATH or request.path.startswith(f"{PATH}/")):
            return many(app, request)
        raise Refusal(404, "not_found", "there is nothing at this path")

    return answer
