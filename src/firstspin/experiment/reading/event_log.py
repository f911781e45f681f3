"""Events in long format -> outcomes: rows of user, event name, time and value become one row per user."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from firstspin.data.formats.written_values import AS_WRITTEN, Spelling
from firstspin.data.sql import identifier, literal
from firstspin.experiment.outcomes import Outcomes, read_outcomes
from firstspin.experiment.reading.outcome_columns import NAME, UNIT, OutcomeTable, opened_table, times, value
from firstspin.experiment.reading.spelling import amount, day_order
from firstspin.experiment.reading.tidying import drop_rows_at_ends
from firstspin.experiment.rules import Metric, listed
from firstspin.records import InputError

USER, ARM, DAY = "user of the log", "arm of the log", "day of the log"


def read_event_log(
    source: Path,
    log: Sequence[str],
    metrics: Sequence[Metric],
    *,
    arm: str,
    exposure: str | None = None,
    spelling: Spelling = AS_WRITTEN,
    known_arms: Collection[str] = (),
) -> Outcomes:
    """The users of a table of events, each metric being an event's name: whether it happened, or the sum of its values.

    `log` names the columns of user, event and, where there are such, time and value. A metric without a kind is binary
    where its events have no value; a continuous one without values counts events. With `exposure`, the name of the
    event that starts a user, users without it are left out, and so are their earlier events. Raises InputError with
    file, row and column, and where no event has a metric's name.
    """
    if not 2 <= len(log) <= 4 or len({arm, *log}) <= len(log):
        raise InputError(f"event log {','.join(log)!r}: expected different columns of user, event, time and value")
    user, event, *rest = log
    with opened_table(source, spelling, [arm, *log]) as table:
        drop_rows_at_ends(table, [user, event, arm], known_arms)
        happened = times(day_order(table, rest[0], spelling)) if rest else NAME
        columns = {
            "user_id": value(table, user, UNIT),
            "event_name": value(table, event, NAME),
            "arm": value(table, arm, NAME),
            "happened_at": value(table, rest[0], happened) if rest else "NULL::TIMESTAMP",
            "amount": value(table, rest[1], amount(table, rest[1], spelling)) if len(rest) > 1 else "NULL::DOUBLE",
        }
        cells = ", ".join(f"{sql} AS {name}" for name, sql in columns.items())
        table.connection.execute(f"CREATE TABLE log AS SELECT {cells} FROM {table.rows(table.types)}")
        valued = _valued_events(table)
        named = [*_named(table, metrics, valued)]
        notes = [*table.notes, *_begin_at(table, exposure)]
        sums = {column: _sum(metric, event, valued) for metric, events in named for column, event in events.items()}
        selected = "".join(f", {sql} AS {identifier(column)}" for column, sql in sums.items())
        names = {"user_id": USER, "arm": ARM, "min(coalesce(start_at, happened_at))::DATE": DAY}
        by = ", ".join(f"{sql} AS {identifier(name)}" for sql, name in names.items())
        users = table.connection.sql(f"SELECT {by}{selected} FROM counted GROUP BY user_id, arm").to_arrow_table()
    metrics, day = [metric for metric, _ in named], DAY if rest else None
    outcomes = read_outcomes(users, arm=ARM, metrics=metrics, unit=USER, day=day, known_arms=known_arms)
    return replace(outcomes, source=table.file, notes=(*notes, *outcomes.notes))


def _valued_events(table: OutcomeTable) -> dict[str, bool]:
    """The names of the events, and whether any of that name has a value."""
    counted = "SELECT event_name, count(amount) FROM log WHERE event_name IS NOT NULL GROUP BY ALL"
    return {str(name): bool(values) for name, values in table.query(counted)}


def _named(
    table: OutcomeTable, metrics: Sequence[Metric], valued: Mapping[str, bool]
) -> Iterator[tuple[Metric, dict[str, str]]]:
    """The metrics with their kind, and the event of each of their columns; the second column of an event is renamed."""
    binary: dict[str, bool] = {}
    for metric in metrics:
        for event in metric.columns:
            if event not in valued:
                lacks = f"{table.file} has no event {event}"
                raise InputError(f"{lacks}; it has {listed(sorted(valued))}", bare=lacks)
        kind = metric.kind or ("continuous" if valued[metric.column] or metric.cap is not None else "binary")
        column = metric.column
        if binary.setdefault(column, kind == "binary") != (kind == "binary"):
            column = f"{column} ({'any' if kind == 'binary' else 'sum'})"
        events = {column: metric.column} | ({metric.per: metric.per} if metric.per else {})
        yield msgspec.structs.replace(metric, column=column, kind=kind), events


def _begin_at(table: OutcomeTable, exposure: str | None) -> Iterator[str]:
    """Create the view `counted`, the events from each user's exposure on; yields what to know about the users."""
    if exposure is None:
        table.connection.execute("CREATE VIEW counted AS SELECT *, NULL::TIMESTAMP AS start_at FROM log")
        yield "Users without any event are not in the log; name the event that each user has with --exposure."
        return
    shown = (
        f"SELECT user_id, min(happened_at) AS start_at FROM log WHERE event_name = {literal(exposure)} GROUP BY user_id"
    )
    table.connection.execute(f"CREATE TABLE starts AS {shown}")
    [(users, exposed)] = table.query("SELECT count(DISTINCT user_id), (SELECT count(*) FROM starts) FROM log")
    if not exposed:
        raise InputError(f"{table.file} has no event {exposure}, which --exposure names")
    later = "log JOIN starts USING (user_id) WHERE coalesce(happened_at >= start_at, true)"
    table.connection.execute(f"CREATE VIEW counted AS SELECT * FROM {later}")
    if without := int(str(users)) - int(str(exposed)):
        yield f"Users without the event {exposure} are excluded: {without:,}."


def _sum(metric: Metric, event: str, valued: Mapping[str, bool]) -> str:
    """SQL of a user's value of a metric: 1 where the event happened, the sum of its values, or its number."""
    of_event = f"event_name = {literal(event)}"
    if metric.kind == "binary":
        return f"max(({of_event})::INTEGER)"
    total = "sum(amount ORDER BY amount)" if valued[event] else "count(*)"
    return f"coalesce({total} FILTER (WHERE {of_event}), 0)::DOUBLE"
