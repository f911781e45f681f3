"""SageMaker's routes beside `/ping` and `/invocations`: the parameters of batch transform, and multi-model hosting."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final

import msgspec

from firstspin.service.app import App, Further
from firstspin.service.http.answers import BatchLimits
from firstspin.service.http.messages import Reply, Request
from firstspin.service.multi_model import ManyModels
from firstspin.service.routes import BATCH_ROUTE, MODELS, not_taken

BATCH_MEGABYTES: Final = 1
"""Default payload of batch transform; the reply to it is forty times as long."""


def further(workers: int, many: ManyModels | None = None) -> Further:
    """The handler of these routes; `many` serves the models of a multi-model endpoint.

    Raises Refusal 404 or 405 for other paths and methods.
    """
    parameters = Reply(200, msgspec.json.encode(BatchLimits(workers, "MULTI_RECORD", BATCH_MEGABYTES)))

    def answer(app: App, request: Request) -> Reply | Awaitable[Reply]:
        if many and request.path.startswith(MODELS):
            return many(app, request)
        if request.path == BATCH_ROUTE.path and request.method in BATCH_ROUTE.methods:
            return parameters
        return not_taken([BATCH_ROUTE], request.path)

    return answer
