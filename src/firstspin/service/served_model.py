"""The model that a process serves: its bundle with the encoders of replies and the readers of bodies made for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from firstspin.serving.bodies.limits import MAX_INSTANCES
from firstspin.serving.bodies.wire import BodyReader
from firstspin.serving.bundle import Bundle
from firstspin.serving.responses import Responses


@dataclass(frozen=True, slots=True, eq=False)
class ServedModel:
    """A bundle with its responses and body readers, read once per request, so that a request has one model.

    `bundle` is None before there is a model.
    """

    bundle: Bundle | None
    responses: Responses
    reader: BodyReader
    reader_of_users: BodyReader

    @staticmethod
    def of(bundle: Bundle | None, *, max_instances: int | None = MAX_INSTANCES) -> ServedModel:
        """A bundle ready to serve, `max_instances` registrations a request."""
        extra = bundle.manifest.extra if bundle else {}
        return ServedModel(
            bundle,
            Responses(bundle),
            BodyReader(extra, max_instances=max_instances),
            BodyReader(extra, of_users=True, max_instances=max_instances),
        )


NOTHING: Final = ServedModel.of(None)
