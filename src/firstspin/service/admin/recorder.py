"""What the page of operations shows, recorded in the admin process: the last minutes of the metrics, and the changes.

The metrics of all processes are in shared memory; the state of models and workers is the supervisor's answer to the
order `state`. Both are read every SAMPLE_SECONDS. Memory is bounded: one sample is stored per BIN_SECONDS, the last
MAX_CHANGES changes, and the counts of the last MAX_MODELS models; those of earlier ones are summed.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final, NamedTuple

import msgspec

from firstspin.records import SOURCES
from firstspin.service.challenger.canary import CanaryStop
from firstspin.service.metrics import HOPS, SharedMetrics

SAMPLE_SECONDS: Final = 2.0
BIN_SECONDS: Final = 10.0
BINS: Final = 90
MAX_CHANGES: Final = 50
MAX_MODELS: Final = 20
EARLIER: Final = "earlier models"
STORE_COUNTERS: Final = (
    "firstspin_exposures_stored",
    "firstspin_exposures_dropped",
    "firstspin_events_stored",
    "firstspin_event_store_failures",
)


class WorkerState(msgspec.Struct, frozen=True):
    """A worker in the supervisor's answer; `heartbeat_age` in seconds."""

    worker: int
    pid: int
    state: str
    model: str
    heartbeat_age: float | None
    restarts: int
    failures: int
    event_store: str


class AdminState(msgspec.Struct, frozen=True):
    """The admin process in the supervisor's answer."""

    restarts: int = 0


class ChallengerState(msgspec.Struct, frozen=True):
    """A canary's challenger in the supervisor's answer."""

    model: str | None
    refusal: str


class ServiceState(msgspec.Struct, frozen=True):
    """The supervisor's answer to the order `state`. `data_ends` by the id of the bundle.

    `challenger` and `canary_stop` are those of a canary.
    """

    model: str | None
    wanted: str | None
    previous: str | None
    refusal: str
    trying: bool
    reloads: dict[str, int]
    wanted_seconds: float | None
    data_ends: dict[str, str | None]
    workers: tuple[WorkerState, ...]
    compiled: bool
    admin: AdminState = AdminState()
    challenger: ChallengerState | None = None
    canary_stop: CanaryStop | None = None


class Change(msgspec.Struct, frozen=True):
    """A change of the model, a worker or the event store; `times` it was seen in a row, the last time at `at`.

    `kind` is done, refused or rollback, the outcomes of a change of the model, or worker, store or ready.
    """

    number: int
    at: datetime
    kind: str
    text: str
    times: int = 1


class ShadowSample(NamedTuple):
    """The id of the shadow bundle, empty for none; its answers by outcome, and those that agree by what is the same."""

    model: str
    answers: Mapping[tuple[object, ...], int]
    same: Mapping[tuple[object, ...], int]


class Sample(NamedTuple):
    """The metrics at a moment: `at` in seconds of a monotonic clock, `date` the time of day."""

    at: float
    date: datetime
    requests: Mapping[tuple[object, ...], int]  # by route and status
    answers: Mapping[tuple[str, str], int]  # by source and model
    latency: Mapping[str, tuple[int, ...]]  # by hop, per bucket
    stored: Mapping[str, int]
    shadow: ShadowSample


class Recorder:
    """Samples the metrics and remembers what changed. `now` is a monotonic clock in seconds, `date` the time of day."""

    def __init__(self, metrics: SharedMetrics, now: Callable[[], float], date: Callable[[], datetime]) -> None:
        self._metrics, self._now, self._date = metrics, now, date
        self._models = metrics.models()
        self._counted = {source: metrics.by_process("firstspin_answers", source) for source in SOURCES}
        self._answers: Counter[tuple[str, str]] = Counter()
        self._served: dict[str, None] = {}  # the models of the counts, those served latest at the end
        for source, counts in self._counted.items():  # of before this process: their model is not known
            self._answers[source, ""] += sum(counts)
        self.changes: deque[Change] = deque(maxlen=MAX_CHANGES)
        self.state: ServiceState | None = None
        self.silent_since: datetime | None = None
        """Since when the supervisor does not answer."""
        self.latest = self._sampled()
        self.bins: deque[Sample] = deque([self.latest], maxlen=BINS + 1)

    def record(self, state: ServiceState | None) -> None:
        """Take a sample; `state` is the supervisor's answer, or None where there was none."""
        self._attribute()
        self.latest = self._sampled()
        if self.latest.at - self.bins[-1].at >= BIN_SECONDS:
            self.bins.append(self.latest)
        if state is None:
            self.silent_since = self.silent_since or self.latest.date
            return
        self.silent_since = None
        for kind, text in changes(self.state, state):
            self._remember(kind, text)
        self.state = state

    def before(self, seconds: float) -> Sample:
        """The newest stored sample that is at least so old, or else the oldest."""
        old_enough = (sample for sample in reversed(self.bins) if self.latest.at - sample.at >= seconds)
        return next(old_enough, self.bins[0])

    def _attribute(self) -> None:
        """Attribute the answers since the last sample to the model that each worker serves now, or served last."""
        self._models = [new or old for new, old in zip(self._metrics.models(), self._models, strict=True)]
        for source in SOURCES:
            counts = self._metrics.by_process("firstspin_answers", source)
            for model, count, before in zip(self._models, counts, self._counted[source], strict=True):
                self._answers[source, model] += count - before
            self._counted[source] = counts
        self._sum_earlier()

    def _sum_earlier(self) -> None:
        """Sum the answers of all but the last MAX_MODELS models."""
        for model in filter(None, self._models):
            self._served.pop(model, None)
            self._served[model] = None
        for model in list(self._served)[:-MAX_MODELS]:
            del self._served[model]
            for source in SOURCES:
                self._answers[source, EARLIER] += self._answers.pop((source, model), 0)

    def _sampled(self) -> Sample:
        return Sample(
            self._now(),
            self._date(),
            self._metrics.by_label("firstspin_requests"),
            {key: count for key, count in self._answers.items() if count},
            {hop: self._metrics.latency(hop) for hop in HOPS},
            {name: self._metrics.total(name) for name in STORE_COUNTERS},
            ShadowSample(
                self._metrics.shadow(),
                self._metrics.by_label("firstspin_shadow_answers"),
                self._metrics.by_label("firstspin_shadow_agreement"),
            ),
        )

    def _remember(self, kind: str, text: str) -> None:
        """Add a change; one that repeats the last one is counted."""
        number, times = 1, 1
        if self.changes:
            last = self.changes[-1]
            number = last.number + 1
            if (last.kind, last.text) == (kind, text):
                times = self.changes.pop().times + 1
        self.changes.append(Change(number, self._date(), kind, text, times))


def _in_place(old: str | None, new: str | None) -> str:
    """How a model followed another; None stands for no model."""
    if old is None:
        return f"{new} was put in service"
    return f"{old} was taken out of service" if new is None else f"{new} was put in place of {old}"


def changes(old: ServiceState | None, new: ServiceState) -> list[tuple[str, str]]:
    """What changed between two answers of the supervisor: kind and text, of models first."""
    if old is None:
        return []
    found = []
    in_place = _in_place(old.wanted, new.wanted)
    outcomes = {kind: count - old.reloads.get(kind, 0) for kind, count in new.reloads.items()}
    moved = new.wanted != old.wanted
    if outcomes.get("refused"):
        found.append(("refused", f"A bundle was refused: {new.refusal or 'the reason is in the log'}"))
        if moved and not (outcomes.get("done") or outcomes.get("rollback")):
            found.append(("rollback", f"A worker could not load {old.wanted}: {in_place}"))
    if outcomes.get("rollback"):
        found.append(("rollback", f"Rolled back: {in_place}"))
    if outcomes.get("done"):
        found.append(("done", in_place if moved else f"{new.wanted} was checked again and stays"))
    before = {worker.worker: worker for worker in old.workers}
    for worker in new.workers:
        was = before.get(worker.worker, worker)
        if worker.restarts > was.restarts:
            found.append(("worker", f"Worker {worker.worker} was restarted"))
        if worker.event_store != was.event_store:
            store, trouble = f"The event store of worker {worker.worker}", worker.event_store
            found.append(
                ("store", f"{store} takes no events: {trouble}") if trouble else ("ready", f"{store} is ready")
            )
    return found
