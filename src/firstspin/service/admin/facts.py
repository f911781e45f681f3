"""The facts of `/ops.json`, from which the page `/ops` is made: rates and percentiles of the last minute and by bin."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Final

import msgspec

from firstspin.experiment.plan import Plan
from firstspin.service.admin.recorder import EARLIER, Change, Recorder, Sample, ServiceState, ShadowSample
from firstspin.service.bundles.facts import ServedBundle, bundle_facts
from firstspin.service.metrics import AGREEMENTS, BUCKETS, HOPS, SHADOWED
from firstspin.service.watch_facts import WatchFacts

WINDOW_SECONDS: Final = 60.0


class RouteFacts(msgspec.Struct, frozen=True):
    """Requests to a route: in the window, and all; refused ones have a status of 4xx, failed ones of 5xx."""

    route: str
    window: int
    total: int
    refused: int
    failed: int


class LatencyFacts(msgspec.Struct, frozen=True):
    """Percentiles of a hop in the window, in milliseconds; None without a request."""

    hop: str
    number: int
    p50: float | None
    p95: float | None
    p99: float | None


class AnswerFacts(msgspec.Struct, frozen=True):
    """Registrations answered from a source while a model was served.

    `model` is empty where it is not known, and "earlier models" for the sum of those before the last MAX_MODELS.
    """

    source: str
    model: str
    window: int
    total: int


class BinFacts(msgspec.Struct, frozen=True):
    """A stretch of the recording, to `ends`: requests, those that failed with 5xx, and percentiles in milliseconds."""

    ends: datetime
    seconds: float
    requests: int
    failed: int
    p50: float | None
    p99: float | None


class ExperimentFacts(msgspec.Struct, frozen=True):
    """The running experiment: the weights of its arms and its days, without results."""

    name: str
    arms: dict[str, float]
    day: int
    days: int


class ShadowFacts(msgspec.Struct, frozen=True):
    """The shadow bundle since the start: scored, failed and dropped answers, and those it agrees with, by what.

    `model` is the bundle that scores, empty before the first answer. `champion` is the bundle in service, `challenger`
    the one that is in the folder of the shadow bundle now.
    """

    model: str
    scored: int
    failed: int
    dropped: int
    same: dict[str, int]
    champion: ServedBundle | None = None
    challenger: ServedBundle | None = None


class Facts(msgspec.Struct, frozen=True):
    """The state of a service. `window_seconds` is the window of rates and percentiles; `since`: start of the recording.

    `service` is the supervisor's last answer, `silent_since` when it stopped answering.
    """

    as_of: datetime
    since: datetime
    window_seconds: float
    requests: int
    failed: int
    routes: tuple[RouteFacts, ...]
    latency: tuple[LatencyFacts, ...]
    answers: tuple[AnswerFacts, ...]
    bins: tuple[BinFacts, ...]
    stored: dict[str, int]
    changes: tuple[Change, ...]
    service: ServiceState | None
    silent_since: datetime | None
    experiment: ExperimentFacts | None
    has_event_store: bool
    needs_model: bool
    watch: WatchFacts | None = None
    shadow: ShadowFacts | None = None


def facts(
    recorder: Recorder,
    plan: Plan | None,
    *,
    has_event_store: bool,
    needs_model: bool = True,
    watch: WatchFacts | None = None,
    state: Path | None = None,
    shadow: Path | None = None,
) -> Facts:
    """The facts now; `watch` is the last report about the answers.

    `state` is the folder of the accepted bundles, `shadow` that of the shadow bundle, if there is one.
    """
    now, before = recorder.latest, recorder.before(WINDOW_SECONDS)
    bins = list(recorder.bins)
    in_window = _requests(before, now)
    return Facts(
        as_of=now.date,
        since=bins[0].date,
        window_seconds=round(now.at - before.at, 1),
        requests=in_window.total(),
        failed=_failed(in_window),
        routes=_routes(in_window, now),
        latency=tuple(_latency(hop, before, now) for hop in HOPS),
        answers=_answers(before, now),
        bins=tuple(_bin(start, end) for start, end in pairwise(bins)),
        stored=dict(now.stored),
        changes=tuple(reversed(recorder.changes)),
        service=recorder.state,
        silent_since=recorder.silent_since,
        experiment=_experiment(plan, now.date) if plan else None,
        has_event_store=has_event_store,
        needs_model=needs_model,
        watch=watch,
        shadow=_shadow(now.shadow, recorder.state, state, shadow) if shadow else None,
    )


def percentile(buckets: Sequence[int], share: float) -> float | None:
    """The percentile in milliseconds of a histogram with the bounds BUCKETS, or None where it is empty.

    Interpolated linearly within its bucket, as by `histogram_quantile` of Prometheus; the last bound where it is above.

    >>> percentile([0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 0.5)
    0.0375
    """
    rank, below = share * sum(buckets), 0
    if not rank:
        return None
    for low, high, number in zip((0, *BUCKETS), BUCKETS, buckets, strict=False):
        if number and below + number >= rank:
            return round((low + (high - low) * (rank - below) / number) / 1_000, 4)
        below += number
    return BUCKETS[-1] / 1_000


def _requests(before: Sample, now: Sample) -> Counter[tuple[str, int]]:
    """Requests between two samples, by route and status."""
    return Counter(
        {
            (str(route), int(str(status))): count - before.requests.get((route, status), 0)
            for (route, status), count in now.requests.items()
        }
    )


def _failed(requests: Counter[tuple[str, int]]) -> int:
    return sum(count for (_, status), count in requests.items() if status >= 500)


def _routes(in_window: Counter[tuple[str, int]], now: Sample) -> tuple[RouteFacts, ...]:
    found: dict[str, list[int]] = {}
    for (route, status), count in now.requests.items():
        counts = found.setdefault(str(route), [0, 0, 0, 0])
        code = int(str(status))
        counts[0] += in_window[str(route), code]
        counts[1] += count
        counts[2] += count if 400 <= code < 500 else 0
        counts[3] += count if code >= 500 else 0
    return tuple(RouteFacts(route, *counts) for route, counts in sorted(found.items(), key=lambda one: -one[1][1]))


def _latency(hop: str, before: Sample, now: Sample) -> LatencyFacts:
    buckets = [count - old for count, old in zip(now.latency[hop], before.latency[hop], strict=True)]
    return LatencyFacts(hop, sum(buckets), *(percentile(buckets, share) for share in (0.5, 0.95, 0.99)))


def _answers(before: Sample, now: Sample) -> tuple[AnswerFacts, ...]:
    old: Counter[tuple[str, str]] = Counter()
    for (source, model), count in before.answers.items():  # of models that have been summed since, too
        old[source, model if (source, model) in now.answers else EARLIER] += count
    ordered = sorted(now.answers.items(), key=lambda one: (-one[1], one[0]))
    return tuple(AnswerFacts(*key, count - old[key], count) for key, count in ordered)


def _bin(start: Sample, end: Sample) -> BinFacts:
    requests, latency = _requests(start, end), _latency("whole", start, end)
    seconds = round(end.at - start.at, 1)
    return BinFacts(end.date, seconds, requests.total(), _failed(requests), latency.p50, latency.p99)


def _shadow(sample: ShadowSample, service: ServiceState | None, state: Path | None, folder: Path) -> ShadowFacts:
    outcomes = [sample.answers.get((outcome,), 0) for outcome in SHADOWED]
    scored, failed, dropped = outcomes
    same = {what: sample.same.get((what,), 0) for what in AGREEMENTS}
    champion = bundle_facts(state / service.model) if state and service and service.model else None
    return ShadowFacts(sample.model, scored, failed, dropped, same, champion, bundle_facts(folder))


def _experiment(plan: Plan, now: datetime) -> ExperimentFacts:
    day = (now.astimezone(UTC).date() - plan.starts_on).days + 1
    return ExperimentFacts(plan.name, dict(plan.arms), day, plan.days)
