"""Metrics in memory that is shared by all processes of the service.

Every process has a row of integers in shared memory: counting is an addition, a killed worker loses no count, and its
replacement continues in the same row. Any worker can sum all rows. Labels have fixed lists of values, so the number of
time series is fixed; the one label that has not, the id of the bundle, has at most one value per worker.
"""

from __future__ import annotations

import mmap
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate, product
from typing import TYPE_CHECKING, Final

from firstspin.records import SOURCES
from firstspin.service.routes import LABELS
from firstspin.serving.lookups import OTHER_VERSION, OUTCOMES
from firstspin.serving.slot.carousel import OUTCOMES as SLOT_OUTCOMES

if TYPE_CHECKING:
    from prometheus_client import core

STATUSES: Final = (200, 202, 304, 400, 401, 403, 404, 405, 406, 408, 409, 413, 415, 422, 429, 431, 499, 500, 503, 507)
HOPS: Final = ("read", "answer", "whole")
BACKGROUND: Final = ("analysis", "webhooks", "slot", "telemetry", "quality", "shadow")
STEPS: Final = ("start", "bundle", "watch", "listen", "signal", "word", "order", "reap", "stop", *BACKGROUND)
WORKER_STEPS: Final = ("deadlines", "room", "refresh", "tally", "shadow")
ADMIN_STEPS: Final = ("record",)
DELIVERIES: Final = ("sent", "failed", "dropped")
EXPORTS: Final = ("exported", "failed")
SHADOWED: Final = ("scored", "failed", "dropped")
AGREEMENTS: Final = ("first genre", "first three", "source")
RELOADS: Final = ("done", "refused", "rollback")
BUCKETS: Final = (25, 50, 100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 100_000, 1_000_000)  # microseconds

_COUNTERS: Final[tuple[tuple[str, str, tuple[str, ...], tuple[tuple[object, ...], ...]], ...]] = (
    ("firstspin_requests", "Requests answered", ("route", "status"), (LABELS, STATUSES)),
    ("firstspin_answers", "Registrations answered, by source", ("source",), (SOURCES,)),
    ("firstspin_kept_answers", "Lookups of stored answers, by outcome", ("outcome",), ((*OUTCOMES, OTHER_VERSION),)),
    ("firstspin_listens", "Listens that the model was given, by station", ("station",), (("known", "unknown"),)),
    ("firstspin_listen_lookups", "Lookups of listens in the event store, by outcome", ("outcome",), (OUTCOMES,)),
    ("firstspin_reloads", "Attempts to change the model, by outcome", ("outcome",), (RELOADS,)),
    ("firstspin_worker_starts", "Workers started", (), ()),
    ("firstspin_worker_deaths", "Workers that ended unexpectedly", (), ()),
    ("firstspin_worker_hangs", "Workers that sent no heartbeat and were killed", (), ()),
    ("firstspin_admin_starts", "Admin processes started", (), ()),
    ("firstspin_admin_deaths", "Admin processes that ended unexpectedly", (), ()),
    ("firstspin_admin_hangs", "Admin processes that sent no heartbeat and were killed", (), ()),
    ("firstspin_supervisor_errors", "Failures that the supervisor survived, by step of its loop", ("step",), (STEPS,)),
    ("firstspin_worker_errors", "Failures that a worker survived, by step of its loop", ("step",), (WORKER_STEPS,)),
    ("firstspin_admin_errors", "Failures that the admin process survived, by step", ("step",), (ADMIN_STEPS,)),
    ("firstspin_log_lines_dropped", "Log lines dropped because stderr was not ready", (), ()),
    ("firstspin_connections_closed_for_others", "Idle connections closed so that new clients are served", (), ()),
    (
        "firstspin_slot_answers",
        "Answers that the exploration slot could explore, by outcome",
        ("outcome",),
        (SLOT_OUTCOMES,),
    ),
    ("firstspin_exposures_stored", "Exposures that are on the disk", (), ()),
    ("firstspin_exposures_dropped", "Exposures that could not be stored", (), ()),
    ("firstspin_events_stored", "Clicks and listens that are on the disk, each once", (), ()),
    ("firstspin_spans", "Spans of answers, by outcome", ("outcome",), ((*EXPORTS, "dropped"),)),
    ("firstspin_metric_exports", "Exports of metrics by OpenTelemetry, by outcome", ("outcome",), (EXPORTS,)),
    ("firstspin_webhooks", "Attempts to send a notice, by outcome; dropped ones are lost", ("outcome",), (DELIVERIES,)),
    ("firstspin_shadow_answers", "Answers copied to the shadow bundle, by outcome", ("outcome",), (SHADOWED,)),
    (
        "firstspin_shadow_agreement",
        "Scored answers of the shadow bundle that agree with those sent, by what is the same",
        ("same",),
        (AGREEMENTS,),
    ),
    ("firstspin_event_store_failures", "Attempts to open or write the event store that failed", (), ()),
)
_GAUGES: Final = (
    ("firstspin_connections", "Open connections"),
    ("firstspin_ready", "Workers that can answer"),
    ("firstspin_event_store_ready", "Workers whose event store takes events"),
    (
        "firstspin_compiled",
        "1 with compiled C code, 0 with NumPy only",
    ),
    ("firstspin_started", "1 once all workers have been ready"),
    ("firstspin_drift_columns", "Columns of registrations and answers that drift"),
    ("firstspin_canary_stopped", "Above 0 once the canary is stopped"),
    ("firstspin_below_rule", "1 where the model has fewer hits than the business rule with the same labelled users"),
    ("firstspin_hits_differ", "Comparisons of observed and expected hits that chance does not explain"),
    (
        "firstspin_watch_timestamp_seconds",
        "Time of the last report about drift and expected hits, in seconds since 1970",
    ),
)
_EXPECTED: Final = "firstspin_expected_hit_rate"
_EXPECTED_LABELS: Final = (("1", "3", "5"), ("low", "value", "high"))
_LATENCY: Final = "firstspin_latency_seconds"
_MODEL_WORKERS: Final = "firstspin_model_workers"
_BEATS: Final = "beats"  # not exported: a sum of heartbeats has no meaning
_SHADOW: Final = "shadow"  # the id of the shadow bundle, as in _MODEL
_MODEL: Final = "model"  # the id of the bundle in service as a number, plus 1; 0 is none


def _laid_out() -> dict[tuple[object, ...], int]:
    """(name, label values…) -> position in a row."""
    keys: list[tuple[object, ...]] = [
        (name, *labels) for name, _, _, values in _COUNTERS for labels in product(*values)
    ]
    keys += [(name,) for name, _ in _GAUGES]
    keys += [(_EXPECTED, *labels) for labels in product(*_EXPECTED_LABELS)]
    keys += [(_BEATS,), (_MODEL,), (_SHADOW,)]
    keys += [(_LATENCY, hop, bucket) for hop in HOPS for bucket in (*range(len(BUCKETS) + 1), "sum")]
    return {key: position for position, key in enumerate(keys)}


_PLACE: Final = _laid_out()
_KNOWN, _UNKNOWN = (_PLACE["firstspin_listens", station] for station in ("known", "unknown"))


class ProcessMetrics:
    """The metrics of one process: one row of the shared memory."""

    def __init__(self, cells: memoryview) -> None:
        self._cells = cells
        self._requests = {key[1:]: place for key, place in _PLACE.items() if key[0] == "firstspin_requests"}
        self._answers = {key[1]: place for key, place in _PLACE.items() if key[0] == "firstspin_answers"}
        self._hops = {hop: _PLACE[_LATENCY, hop, 0] for hop in HOPS}

    def request(self, route: str, status: int, nanoseconds: int) -> None:
        """Count an answered request and its time."""
        place = self._requests.get((route, status))
        if place is not None:
            self._cells[place] += 1
        self.took("whole", nanoseconds)

    def answer(self, source: str) -> None:
        """Count an answer about one registration, by its source."""
        self._cells[self._answers[source]] += 1

    def listens(self, known: int, unknown: int) -> None:
        """Count the listens that a model was given, by whether it knows their station."""
        self._cells[_KNOWN] += known
        self._cells[_UNKNOWN] += unknown

    def took(self, hop: str, nanoseconds: int) -> None:
        """Record the time of a part of answering."""
        first = self._hops[hop]
        self._cells[first + bisect_left(BUCKETS, nanoseconds // 1000)] += 1
        self._cells[first + len(BUCKETS) + 1] += nanoseconds

    def count(self, name: str, *labels: object, more: int = 1) -> None:
        """Increase a counter."""
        self._cells[_PLACE[(name, *labels)]] += more

    def gauge(self, name: str, value: int, *labels: object) -> None:
        """Set a gauge; a rate is in millionths."""
        self._cells[_PLACE[(name, *labels)]] = value

    def serves(self, bundle_id: str) -> None:
        """Set the bundle in service: eight hexadecimal digits, or empty for none."""
        self._cells[_PLACE[(_MODEL,)]] = int(bundle_id, 16) + 1 if bundle_id else 0

    def shadows(self, bundle_id: str) -> None:
        """Set the shadow bundle: eight hexadecimal digits."""
        self._cells[_PLACE[(_SHADOW,)]] = int(bundle_id, 16) + 1

    def beat(self) -> None:
        """Count a heartbeat of this process's loop."""
        self._cells[_PLACE[(_BEATS,)]] += 1

    def beats(self) -> int:
        """The number of heartbeats so far, of all processes that had this row."""
        return self._cells[_PLACE[(_BEATS,)]]

    def died(self) -> None:
        """Set the gauges of an ended process to 0; its counters stay."""
        for name, _ in _GAUGES:
            self.gauge(name, 0)
        self.serves("")


class SharedMetrics:
    """The rows of all processes of a service. To be created before any of them is forked."""

    def __init__(self, processes: int) -> None:
        self._width = len(_PLACE)
        self._memory = mmap.mmap(-1, 8 * self._width * processes)
        self._cells = memoryview(self._memory).cast("Q")
        self._processes = processes

    def row(self, process: int) -> ProcessMetrics:
        """The row of one process."""
        return ProcessMetrics(self._cells[process * self._width : (process + 1) * self._width])

    def text(self) -> bytes:
        """The metrics in Prometheus's text format."""
        from prometheus_client import generate_latest  # an eighth of the time to the first answer

        return generate_latest(self)

    def total(self, name: str, *labels: object) -> int:
        """The sum over all processes."""
        place = _PLACE[(name, *labels)]
        return sum(self._cells[place :: self._width])

    def counters(self) -> list[tuple[str, str, tuple[str, ...]]]:
        """The name, the help and the labels of each counter."""
        return [(name, help_text, labels) for name, help_text, labels, _ in _COUNTERS]

    def gauges(self) -> tuple[tuple[str, str], ...]:
        """The name and the help of each gauge."""
        return _GAUGES

    def by_label(self, name: str) -> dict[tuple[object, ...], int]:
        """The sums of a counter by its label values, without those that are 0."""
        totals = {key[1:]: self.total(name, *key[1:]) for key in _PLACE if key[0] == name}
        return {labels: total for labels, total in totals.items() if total}

    def by_process(self, name: str, *labels: object) -> list[int]:
        """The value of a counter in each row."""
        return self._cells[_PLACE[(name, *labels)] :: self._width].tolist()

    def models(self) -> list[str]:
        """The id of the bundle that each process serves, empty for none."""
        return [f"{number - 1:08x}" if number else "" for number in self.by_process(_MODEL)]

    def shadow(self) -> str:
        """The id of the shadow bundle, empty for none."""
        number = max(self.by_process(_SHADOW))
        return f"{number - 1:08x}" if number else ""

    def latency(self, hop: str) -> tuple[int, ...]:
        """How many times fell into each of BUCKETS, and above them."""
        return tuple(self.total(_LATENCY, hop, position) for position in range(len(BUCKETS) + 1))

    def collect(self) -> Iterator[core.Metric]:
        """The metrics summed over all processes, for prometheus_client."""
        from prometheus_client import core

        for name, help_text, labels, values in _COUNTERS:
            counter = core.CounterMetricFamily(name, help_text, labels=labels)
            for combination in product(*values):
                # 0 too, or Prometheus misses a counter's first step; not of 140 pairs of route and status
                if (total := self.total(name, *combination)) or len(labels) < 2:
                    counter.add_metric([str(value) for value in combination], total)
            yield counter
        for name, help_text in _GAUGES:
            yield core.GaugeMetricFamily(name, help_text, self.total(name))
        about = "Expected hit@k of the last complete week's answers, with its 95% interval"
        expected = core.GaugeMetricFamily(_EXPECTED, about, labels=["k", "bound"])
        for labels in product(*_EXPECTED_LABELS):
            if self.total(_EXPECTED, labels[0], "high"):  # no series before the first complete week
                expected.add_metric(labels, self.total(_EXPECTED, *labels) / 1e6)
        yield expected
        workers = core.GaugeMetricFamily(_MODEL_WORKERS, "Workers that serve this bundle", labels=["model"])
        for model, count in sorted(Counter(self.models()).items()):
            if model:
                workers.add_metric([model], count)
        yield workers
        latency = core.HistogramMetricFamily(
            _LATENCY, "Time to answer, by hop: reading, answering, and whole", labels=["hop"]
        )
        for hop in HOPS:
            latency.add_metric([hop], *self._histogram(hop))
        yield latency

    def _histogram(self, hop: str) -> tuple[list[tuple[str, float]], float]:
        bounds = [*(str(microseconds / 1e6) for microseconds in BUCKETS), "+Inf"]
        buckets = [(bound, float(below)) for bound, below in zip(bounds, accumulate(self.latency(hop)), strict=True)]
        return buckets, self.total(_LATENCY, hop, "sum") / 1e9
