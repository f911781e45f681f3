"""The panels of the page `/ops`: facts -> HTML by the panel's name. The page begins with them, and events replace them.

All text of a bundle, a plan or an error is escaped here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Final

from firstspin.evaluation.bootstrap import bare
from firstspin.service.admin.facts import BinFacts, Facts, LatencyFacts
from firstspin.service.admin.recorder import BIN_SECONDS, BINS, ServiceState
from firstspin.service.bundles.facts import SCORES
from firstspin.service.metrics import BUCKETS
from firstspin.service.pages.charts import timeline
from firstspin.service.watch_facts import WatchFacts

HEARTBEAT_SECONDS: Final = 2.0
"""A heartbeat is due twice a second; one older than this is marked."""

SOURCES: Final = {
    "model": "the model's ranking",
    "popular": "the model, no usable answer",
    "under-age": "the rule, under the minimum age",
    "rule-arm": "the rule, by the experiment",
    "rule": "the rule, as the model failed",
    "no-model": "an empty list, without a model",
    "batch": "a stored answer",
    "champion": "the model, as the challenger failed",
}
HOPS: Final = {"whole": "whole request", "read": "reading the body", "answer": "ranking and writing"}
STORED: Final = {
    "firstspin_exposures_stored": "exposures stored",
    "firstspin_exposures_dropped": "exposures dropped",
    "firstspin_events_stored": "clicks and listens stored",
    "firstspin_event_store_failures": "failed attempts to open or write",
}
TONES: Final = {"refused": "bad", "rollback": "warn", "worker": "warn", "store": "warn"}
Cell = str | int


def panels(facts: Facts) -> dict[str, str]:
    """Every panel of the page by name."""
    return {
        "status": _status(facts),
        "notices": _notices(facts),
        "figures": _figures(facts),
        "model": _model(facts),
        "reload_words": _reload_words(facts.service),
        "rollback_words": _rollback_words(facts.service),
        "changes": _changes(facts),
        **_charts(facts.bins),
        "minutes": _minutes(facts.bins),
        "answers": _answers(facts),
        "routes": _routes(facts),
        "latency": _table(
            ("part", "requests", "p50", "p95", "p99"), [_latency_row(one) for one in reversed(facts.latency)]
        ),
        "workers": _workers(facts.service),
        "store": _store(facts),
        "experiment": _experiment(facts),
        "quality": _quality(facts.watch),
        "shadow": _shadow(facts),
    }


def _status(facts: Facts) -> str:
    tone, word = _health(facts)
    return (
        f'<p class="badge {tone}">{word}</p><p class="muted">as of '
        f'<time datetime="{facts.as_of:%Y-%m-%dT%H:%M:%SZ}">{facts.as_of:%H:%M:%S}</time> UTC</p>'
    )


def _health(facts: Facts) -> tuple[str, str]:
    service = facts.service
    if facts.silent_since:
        return "bad", "supervisor silent"
    if service is None:
        return "", "loading"
    if not any(worker.state == "answering" for worker in service.workers):
        return "bad", "no worker answers"
    if service.model is None and facts.needs_model:
        return "bad", "no model"
    if facts.failed or service.refusal or _late(service) or any(worker.event_store for worker in service.workers):
        return "warn", "needs attention"
    if _findings(facts.watch):
        return "warn", "needs attention"
    return "good", "healthy"


def _late(service: ServiceState) -> list[int]:
    """The workers that do not answer, or whose heartbeat is late."""
    return [
        worker.worker
        for worker in service.workers
        if worker.state != "answering" or (worker.heartbeat_age or 0) > HEARTBEAT_SECONDS
    ]


def _findings(watch: WatchFacts | None) -> list[str]:
    """What is wrong by the last report about the answers."""
    findings = []
    if watch and watch.is_below_rule:
        findings.append("The model has fewer hits than its business rule with the same labelled users.")
    if watch and (weeks := [week.week for week in watch.weeks if week.differs]):
        findings.append(f"Observed hits are not those that were expected, in the week of {', '.join(weeks)}.")
    if watch and watch.drifting:
        findings.append(f"Registrations or answers drift: {', '.join(watch.drifting)}.")
    return findings


def _notices(facts: Facts) -> str:
    service, texts = facts.service, []
    if facts.silent_since:
        texts.append(f"The supervisor has not answered since {_at(facts.silent_since)}; its facts below are older.")
    if service and service.refusal:
        texts.append(f"The last bundle was refused: {service.refusal}")
    if service and service.canary_stop:
        texts.append(f"The canary {service.canary_stop.experiment} is stopped: {service.canary_stop.reason}")
    elif service and service.challenger and service.challenger.refusal:
        texts.append(f"The challenger was refused, and the bundle in service answers: {service.challenger.refusal}")
    if service and (late := _late(service)):
        texts.append(f"Without a heartbeat or not answering: worker {', '.join(map(str, late))}.")
    if service and (troubled := [worker for worker in service.workers if worker.event_store]):
        texts.append(f"The event store takes no events: {troubled[0].event_store}")
    if service and not service.compiled:
        texts.append("There is no C code: NumPy computes the same answers several times slower.")
    texts += _findings(facts.watch)
    return "".join(f'<p class="note"><bdi>{escape(text)}</bdi></p>' for text in texts)


def _figures(facts: Facts) -> str:
    whole = next(one for one in facts.latency if one.hop == "whole")
    rate = facts.requests / facts.window_seconds if facts.window_seconds else 0.0
    answering = sum(worker.state == "answering" for worker in facts.service.workers) if facts.service else 0
    number = len(facts.service.workers) if facts.service else 0
    minute = "in the last minute" if facts.window_seconds >= 60 else f"in the last {facts.window_seconds:.0f} s"
    failed = f"{facts.failed / facts.requests:.2%}" if facts.requests else "–"
    return "".join(
        (
            _figure(f"{rate:,.1f}/s", f"requests, {minute}"),
            _figure(_milliseconds(whole.p50), "median time to answer"),
            _figure(_milliseconds(whole.p99), "99th percentile"),
            _figure(failed, f"failed with 5xx, {minute}", "bad" if facts.failed else "good"),
            _figure(f"{answering} of {number}", "workers answer", "good" if answering == number > 0 else "bad"),
        )
    )


def _figure(value: str, words: str, tone: str = "") -> str:
    dot = f'<i class="dot {tone}" aria-hidden="true"></i>' if tone else ""
    return f'<div class="card tile-figure"><strong>{dot}{value}</strong><p>{words}</p></div>'


# ------------------------------------------------------------------------------------------------------------ the model


def _model(facts: Facts) -> str:
    service = facts.service
    if service is None:
        return '<p class="muted">The supervisor has not answered yet.</p>'
    since = f", for {_duration(service.wanted_seconds)}" if service.wanted_seconds is not None else ""
    rows = [
        ("in service", _named(service.model) + since),
        ("its data end", _data_end(service, service.model, facts.as_of)),
        ("before it", _named(service.previous)),
    ]
    if service.previous:
        rows.append(("its data end", _data_end(service, service.previous, facts.as_of)))
    if service.wanted != service.model:
        rows.insert(1, ("being loaded", _named(service.wanted)))
    if service.challenger:
        rows.append(("challenger of the canary", _named(service.challenger.model)))
    if service.trying:
        rows.append(("now", "a bundle is being checked"))
    counts = {"done": "accepted", "refused": "refused", "rollback": "rolled back"}
    rows.append(("so far", ", ".join(f"{service.reloads.get(kind, 0)} {word}" for kind, word in counts.items())))
    return _listed(rows)


def _named(model: str | None) -> str:
    return f"model {model}" if model else "no model"


def _data_end(service: ServiceState | None, model: str | None, now: datetime) -> str:
    """The end of a model's data and their age in days, which is the age of its answers, the stored ones too."""
    text = service.data_ends.get(model or "") if service else None
    ends = _moment(text)
    if ends is None:
        return "not known"
    days = (now - ends).days
    return f"{_date(text)}, {days:,} {'day' if days == 1 else 'days'} ago" if days >= 0 else _date(text)


def _reload_words(service: ServiceState | None) -> str:
    now = _code(service.model if service else None)
    return f"The bundle is checked again. A valid one is put in place of {now}; otherwise {now} stays in service."


def _rollback_words(service: ServiceState | None) -> str:
    if service is None or service.previous is None:
        return "There is no previous model to roll back to."
    return (
        f'<strong data-to="{escape(service.previous)}">{_code(service.previous)}</strong> is put in place of '
        f"{_code(service.wanted)} in all workers, between two requests. A new bundle replaces it again."
    )


def _code(model: str | None) -> str:
    return f"<code>{escape(model)}</code>" if model else "no model"


def _changes(facts: Facts) -> str:
    if not facts.changes:
        return f'<p class="muted">No change since {_at(facts.since)}.</p>'
    items = "".join(
        f'<li data-number="{one.number}" data-kind="{one.kind}">'
        f'<span class="tag {TONES.get(one.kind, "")}">{_at(one.at)}</span> '
        f"<bdi>{escape(one.text)}</bdi>{f' ({one.times} times)' if one.times > 1 else ''}</li>"
        for one in facts.changes
    )
    return f'<ol class="changes">{items}</ol>'


# -------------------------------------------------------------------------------------------------------------- traffic


def _charts(bins: Sequence[BinFacts]) -> dict[str, str]:
    rates = [one.requests / one.seconds for one in bins]
    known = [one for one in bins if one.p99 is not None]
    if not known:
        words = "No request in the last minutes." if bins else f"The first point comes after {BIN_SECONDS:.0f} s."
        return dict.fromkeys(("chart_requests", "chart_latency"), f'<p class="muted">{words}</p>')
    times = (f"{bins[0].ends:%H:%M}", f"{bins[-1].ends:%H:%M}")
    number = max(BINS // 3, len(bins))
    medians, highs = ([ms and ms * 1_000 for ms in part] for part in ([b.p50 for b in bins], [b.p99 for b in bins]))
    latest = f"now {_milliseconds(known[-1].p50)} and {_milliseconds(known[-1].p99)}"
    return {
        "chart_requests": timeline(
            {"line model": rates},
            number,
            "{:,.0f}".format,
            f"Requests a second by 10 s: now {rates[-1]:,.1f}, at most {max(rates):,.1f}.",
            times,
            filled=True,
        ),
        "chart_latency": timeline(
            {"line planned": highs, "line model": medians},  # in microseconds
            number,
            lambda value: f"{value / 1_000:g}",
            f"Milliseconds to answer, median and 99th percentile by 10 s: {latest}.",
            times,
        ),
    }


def _minutes(bins: Sequence[BinFacts]) -> str:
    """The newest numbers of the charts as a table."""
    rows: list[Sequence[Cell]] = [
        (_at(one.ends), one.requests, one.failed, _milliseconds(one.p50), _milliseconds(one.p99))
        for one in reversed(bins[-30:])
    ]
    return _table(("to", "requests", "failed", "p50", "p99"), rows)


def _answers(facts: Facts) -> str:
    if not facts.answers:
        return '<p class="muted">Nothing has been answered yet: send newcomers to <code>/invocations</code>.</p>'
    rows = [
        (
            f"{one.source} ({SOURCES[one.source]})",
            one.model or f"before {_at(facts.since)}",
            _data_end(facts.service, one.model, facts.as_of),
            one.window,
            one.total,
        )
        for one in facts.answers
    ]
    return _table(("source", "model", "its data end", "last minute", "all"), rows, numbers=2)


def _routes(facts: Facts) -> str:
    if not facts.routes:
        return '<p class="muted">No request has come yet.</p>'
    rows = [(one.route, one.window, one.total, one.refused, one.failed) for one in facts.routes]
    return _table(("route", "last minute", "all", "4xx", "5xx"), rows)


def _latency_row(one: LatencyFacts) -> Sequence[Cell]:
    times = (_milliseconds(one.p50), _milliseconds(one.p95), _milliseconds(one.p99))
    return (HOPS[one.hop], one.number, *times)


# ------------------------------------------------------------------------------------------------------------ processes


def _workers(service: ServiceState | None) -> str:
    if service is None:
        return '<p class="muted">The supervisor has not answered yet.</p>'
    rows: list[Sequence[Cell]] = [
        (
            str(worker.worker),
            worker.state,
            worker.model or "–",
            "–" if worker.heartbeat_age is None else f"{worker.heartbeat_age:.1f} s ago",
            worker.restarts,
        )
        for worker in service.workers
    ]
    rows.append(("admin", "answering", "–", "now", service.admin.restarts))
    return _table(("worker", "state", "model", "heartbeat", "restarts"), rows, numbers=2)


def _store(facts: Facts) -> str:
    if not facts.has_event_store:
        return '<p class="muted">This service has no event store; see <code>--events</code>.</p>'
    workers = facts.service.workers if facts.service else ()
    trouble = sorted({worker.event_store for worker in workers if worker.event_store})
    state = f"takes no events: {'; '.join(trouble)}" if trouble else "takes events"
    rows = [("state", state), *((word, f"{facts.stored[name]:,}") for name, word in STORED.items())]
    return _listed(rows)


def _experiment(facts: Facts) -> str:
    running = facts.experiment
    if running is None:
        return '<p class="muted">No experiment is running; see <code>--experiment</code>.</p>'
    total = sum(running.arms.values())
    arms = ", ".join(f"{arm} {weight / total:.0%}" for arm, weight in running.arms.items())
    day = (
        f"day {running.day} of {running.days}"
        if 1 <= running.day <= running.days
        else ("not begun" if running.day < 1 else "takes no more users")
    )
    rows = (("name", running.name), ("stage", day), ("arms", arms))
    return _listed(rows)


def _quality(watch: WatchFacts | None) -> str:
    """Expected and observed hits of the last weeks, and the columns that drift."""
    if watch is None:
        return '<p class="muted">No report yet; it needs <code>--events</code> and a bundle of this release.</p>'
    weeks = f"{watch.whole_weeks} whole week{'' if watch.whole_weeks == 1 else 's'}"
    since = ", ".join(f"{column} since {week}" for column, week in watch.drifting.items())
    drift = since or f"none, of {watch.columns} columns after {weeks}"
    state = [
        ("bundle", watch.model),
        ("drift", drift if watch.columns else "not known: the bundle has no counts of its training data"),
        ("business rule", "has more hits than the model" if watch.is_below_rule else "not found to be better"),
        ("report of", f"{watch.as_of:%-d %b %Y %H:%M} UTC"),
    ]
    rows = [
        (
            week.week,
            str(week.expected or "–"),
            "–" if week.observed is None else f"{bare(week.observed)}{' differs' if week.differs else ''}",
            week.answers,
            f"{week.labels_complete:%Y-%m-%d}",
        )
        for week in reversed(watch.weeks)
    ]
    table = _table(("week of", "expected hit@3", "observed", "answers", "labels complete"), rows) if rows else ""
    return f"{_listed(state)}{table}"


def _shadow(facts: Facts) -> str:
    """Champion and challenger: the bundle in service beside the one that scores in its shadow."""
    shadow = facts.shadow
    if shadow is None:
        return '<p class="muted">No bundle scores in the shadow of the one in service; see <code>--shadow</code>.</p>'
    champion, challenger = shadow.champion, shadow.challenger
    if challenger and shadow.model not in ("", challenger.model):
        challenger = None  # the bundle in the folder is a newer one, which scores in at most half a minute
    both = (champion, challenger)
    names = [(facts.service.model if facts.service else None) or "none", shadow.model or "not loaded"]
    rows: list[Sequence[Cell]] = [
        ("bundle", *names),
        ("trained until", *(_date(one.labels_end) if one else "not known" for one in both)),
        ("its data end", *(_date(one.data_ends) if one else "not known" for one in both)),
    ]
    rows += [
        (f"{metric.replace('_', ' ')}, hold-out", *(str(one.scores.get(metric, "–")) if one else "–" for one in both))
        for metric in SCORES
    ]
    counts = [
        ("scored", f"{shadow.scored:,}"),
        *(
            (f"same {what}", f"{count / shadow.scored:.1%}" if shadow.scored else "–")
            for what, count in shadow.same.items()
        ),
        ("failed", f"{shadow.failed:,}"),
        ("dropped", f"{shadow.dropped:,}"),
    ]
    table = _table(("", "champion", "challenger"), rows)
    caption = "Each bundle has a hold-out of its own; <code>firstspin evaluate --champion</code> compares both on one."
    return f'{table}{_listed(counts)}<p class="caption">{caption}</p>'


# ---------------------------------------------------------------------------------------------------------------- parts


def _listed(rows: Iterable[tuple[str, str]]) -> str:
    """A list of terms, each with its text."""
    return f"<dl>{''.join(f'<dt>{escape(term)}</dt><dd><bdi>{escape(text)}</bdi></dd>' for term, text in rows)}</dl>"


def _table(columns: Sequence[str], rows: Iterable[Sequence[Cell]], numbers: int | None = None) -> str:
    """A table whose first column names the row; the last `numbers` columns, or all others, are right-aligned."""
    first = len(columns) - numbers if numbers else 1
    kinds = ["" if place < first else ' class="number"' for place in range(len(columns))]
    head = "".join(
        f'<th scope="col"{kind}>{name}</th>' if name else "<td></td>" for name, kind in zip(columns, kinds, strict=True)
    )
    body = "".join(f"<tr>{_row(row, kinds)}</tr>" for row in rows)
    return f'<table class="numbers"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _row(row: Sequence[Cell], kinds: Sequence[str]) -> str:
    texts = [f"{cell:,}" if isinstance(cell, int) else f"<bdi>{escape(cell)}</bdi>" for cell in row]
    first, *others = zip(texts, kinds, strict=True)
    return f'<th scope="row">{first[0]}</th>' + "".join(f"<td{kind}>{text}</td>" for text, kind in others)


def _milliseconds(value: float | None) -> str:
    """Milliseconds with two or three digits; the last bound of the histogram is "over"."""
    if value is None:
        return "–"
    if value >= BUCKETS[-1] / 1_000:
        return f"over {BUCKETS[-1] // 1_000:,} ms"
    return f"{value:.2f} ms" if value < 10 else f"{value:.0f} ms"


def _moment(text: str | None) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _date(text: str | None) -> str:
    moment = _moment(text)
    return f"{moment:%-d %b %Y}" if moment else "not known"


def _at(moment: datetime) -> str:
    return f"{moment:%H:%M:%S}"


def _duration(seconds: float) -> str:
    """A duration in its two largest units.

    >>> _duration(42), _duration(3_700), _duration(200_000)
    ('42 s', '1 h 1 min', '2 d 7 h')
    """
    units = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
    rest, words = int(seconds), []
    for size, unit in units:
        if number := rest // size:
            words.append(f"{number} {unit}")
            rest %= size
    return " ".join(words[:2]) or "0 s"
