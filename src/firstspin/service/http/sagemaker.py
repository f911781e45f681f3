"""What SageMaker asks of a container beside `/ping` and `/invocations`: its limits in batch, and many models."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final

import msgspec

from firstspin.service.app import App, Further
from firstspin.service.http.messages import Reply, Request
from firstspin.service.multi_model import ManyModels
from firstspin.service.routes import BATCH_ROUTE, MODELS, not_taken

BATCH_MEGABYTES: Final = 1
"""What batch transform sends at a time unless its job says otherwise: the answer to it has forty times the length."""


def further(workers: int, many: ManyModels | None = None) -> Further:
    """Answers these paths; 404 or 405 for all others. Without `many` only the service's model is there."""
    limits = {
        "MaxConcurrentTransforms": workers,
        "BatchStrategy": "MULTI_RECORD",
        "MaxPayloadInMB": BATCH_MEGABYTES,
    }
    parameters = Reply(200, msgspec.json.encode(limits))

    def answer(app: App, request: Request) -> Reply | Awaitable[Reply]:
        if many and request.path.startswith(MODELS):
            return many(app, request)
        if request.path == BATCH_ROUTE.path and request.method in BATCH_ROUTE.methods:
            return parameters
        return not_taken([BATCH_ROUTE], request.path)

    return answer
