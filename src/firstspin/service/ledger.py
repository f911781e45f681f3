"""The experiment and the event store, as the service uses them: who sees which arm, and what is kept of it.

A user of the experiment is answered by the arm that the hash of the id gives; what every arm would have shown is kept
with the exposure. Whoever is under age, or outside the experiment, is answered as ever and nothing is kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec

from firstspin.experiment.assign import Split, assign, split
from firstspin.experiment.events import Secret, Unavailable, exposure, read_batch, results
from firstspin.records import InputError, Recommendation, Registration
from firstspin.service.answers import Answering, Answers
from firstspin.service.wire import Refusal

if TYPE_CHECKING:
    from firstspin.experiment.store import Store

Arm = Literal["model", "rule"]
ARMS: Final[tuple[Arm, ...]] = ("model", "rule")


class Experiment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file of an experiment: the model against the business rule. A new salt is a new experiment."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    salt: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    weights: dict[Arm, float]
    coverage: float = 1.0


@dataclass(frozen=True, slots=True)
class Running:
    """An experiment and its split."""

    name: str
    split: Split


def read_experiment(path: Path) -> Running:
    """The experiment of a file. Raises InputError where it is none."""
    try:
        read = msgspec.json.decode(path.read_bytes(), type=Experiment)
    except OSError as problem:
        raise InputError(f"{path}: {problem.strerror}") from problem
    except (msgspec.MsgspecError, UnicodeDecodeError) as problem:
        raise InputError(f"{path} is not an experiment: {problem}") from problem
    return Running(
        read.name, split(read.salt, {str(arm): w for arm, w in read.weights.items()}, coverage=read.coverage)
    )


@dataclass(frozen=True, slots=True)
class Ledger:
    """What `/v1` keeps; `now` is the time of day. Without a running experiment nobody is assigned."""

    store: Store
    secret: Secret
    now: Callable[[], datetime]
    running: Running | None = None

    def answer(self, answering: Answering, registration: Registration) -> tuple[bytes, str]:
        """The answer of the user's arm and its source; the exposure is kept as soon as that is possible."""
        user_id: str = getattr(registration, "user_id")  # noqa: B009 - a field that only the reader of users adds
        given = assign(self.running.split, user_id) if self.running else None
        if given is None or not isinstance(answering, Answers) or answering.source(registration) == "under-age":
            return answering.one(registration)
        assert self.running is not None
        would = {arm: answering.by_arm(registration, arm) for arm in ARMS}
        shown = would[ARMS[ARMS.index(given.arm)]]
        if shown.message:
            kept = exposure(
                self.secret,
                experiment=self.running.name,
                user_id=user_id,
                arm=given.arm,
                propensity=given.propensity,
                decided_at=self.now(),
                source=shown.source,
                model=shown.model,
                station_id=shown.message.station_id,
                candidates={arm: _stations(answer) for arm, answer in would.items()},
            )
            self.store.submit_exposure(kept)
        return msgspec.json.encode(shown), shown.source

    async def keep(self, body: bytes) -> bytes:
        """A status for every event, once all are on the disk. Refusal 503 while that can't be."""
        try:
            batch = read_batch(body, self.secret, received_at=self.now())
            written = self.store.submit(batch.events) if batch.events else None
            statuses = await asyncio.wrap_future(written) if written else ()
        except InputError as problem:
            raise Refusal(400, "malformed", str(problem)) from None
        except Unavailable:
            raise Refusal(503, "events_unavailable", "events can't be kept just now; send them again") from None
        return msgspec.json.encode({"results": results(batch, statuses)})


def _stations(answer: Recommendation) -> list[str]:
    return [station.station_id for station in answer.stations]
