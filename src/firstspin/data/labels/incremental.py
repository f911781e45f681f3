"""Incremental labels: new listens are added to stored sums, and the listens of earlier days are not read again.

A state has the seconds by user and genre of all listens before a moment, `summed_to`, and each later listen by itself:
so many late days, within which a late listen counts and a copy is detected. Of one run:

    state + new listens -> sums and recent listens -> labels, census; the next state

The labels are those of all listens at once, as sums of parts are put together before they are rounded. Registrations
and stations are read anew, as without a state. Times are UTC.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, time, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from firstspin.data import parsing, schema
from firstspin.data.checks.data_end import FEW
from firstspin.data.checks.findings import NEARLY_ALL
from firstspin.data.checks.mismatches import by_day, data_ends, listening
from firstspin.data.dataset import Reading, open_reading
from firstspin.data.erasure import leave_out_erased
from firstspin.data.formats.connections import in_our_words
from firstspin.data.ingest import Tables
from firstspin.data.labels import labelling
from firstspin.data.labels.label_state import LATE_DAYS, REBUILD, LabelState, held, load, save
from firstspin.data.labels.labelling import COPIES, COUNTED
from firstspin.data.labels.new_listens import GIVEN_TWICE, NewListens, new_listens
from firstspin.data.labels.remote import COLUMNS, RECEIVED
from firstspin.data.schema import ROW
from firstspin.data.sql import identifier, literal
from firstspin.files import beside, make_private_folder, put_in_place, workspace
from firstspin.records import MAX_DAYS, Census, InputError, LabelRule

if TYPE_CHECKING:
    import duckdb
    import ibis.expr.types as ir
    import pyarrow as pa

LATE: Final = "listens that start before those already summed (--late-days)"

_BULK: Final = 0.9
"""The share of new listens that must start before a moment for the state to sum up to it: a few clocks are wrong."""

_ROW, _COUNTED, _COPIES = identifier(ROW), identifier(COUNTED), identifier(COPIES)
_LISTEN: Final = ", ".join(RECEIVED)
_NEW: Final = identifier("is new")

RECENT, SUMS, USERS, DAYS, HEARD = "recent", "sums", "users", "days", "heard"
_STORED: Final = {
    RECENT: "user_id VARCHAR, started_at TIMESTAMP, station_id VARCHAR, seconds DOUBLE",
    SUMS: f"number BIGINT, genre VARCHAR, {_COUNTED} BIGINT, {_COPIES} BIGINT, seconds DOUBLE",
    USERS: "user_id VARCHAR, number BIGINT, registered_at TIMESTAMP, listens BIGINT",
    DAYS: "day DATE, listens BIGINT, last TIMESTAMP, long BIGINT, max_seconds DOUBLE",
    HEARD: "station_id VARCHAR, genre VARCHAR",
}
"""The tables of a state, a file each: recent listens; sums; all users, with their number in the sums and the count of
their summed listens, without `registered_at` where they have no registration; the days; the stations of those listens.
"""

_SOME, _SUMMED, _PARTS, _FRESH = "some listens", "listens to sum", "parts of the sums", "new listens"
_PEOPLE, _ADDED = "people", identifier("sums to add")
_OF_SUMS: Final = f"number, genre, {_COUNTED}, {_COPIES}, seconds"


def write_labels(
    data: Path, out: Path, reading: Reading, state: Path, late_days: int = LATE_DAYS
) -> tuple[Census, dict[str, int]]:
    """`dataset.write_labels` of the listens of a state and the new ones of `data`, which the state has afterwards.

    The file of labels is written where no user has a label yet, without rows. Raises InputError as there, and where the
    state is in use, damaged, or not of this label rule and these tables, or for other late days than 0 to MAX_DAYS; the
    state is then as before.
    """
    if late_days not in range(MAX_DAYS + 1):
        raise InputError(f"listens may be late by 0 to {MAX_DAYS} days, whole ones (late_days is {late_days!r})")
    make_private_folder(state.parent)
    with beside(state) as new, held(state), workspace("label") as folder:  # first, a state moved aside comes back
        stored, summed = folder / "stored", folder / "summed"
        stored.mkdir()
        summed.mkdir()
        with in_our_words(f"the state {state} can't be read"):
            before = load(state, stored)
        _refuse_other_rule(before, reading.rule, state)
        given = new_listens(data, folder, before)
        tables = open_reading(given.folder, folder, replace(reading, erased=None))
        update = _Update(tables, before, given, reading, late_days)
        with in_our_words(f"the state {state} can't be read"):
            arrived = update.combine(stored)
            update.refuse_other_tables(state, arrived)
        with in_our_words("the listens can't be summed"):
            after = update.sum_up(summed, arrived)
        ours = replace(tables, remote=SummedListens(tables.connection))
        census, _ = labelling.label_tables(ours, reading.rule, out, reading.now, may_be_empty=True)
        with in_our_words(f"the state {state} can't be written"):
            save(after, {f"{name}.parquet": summed / f"{name}.parquet" for name in _STORED}, new)
            put_in_place(new, state)
    return census, update.ignored(after)


def _refuse_other_rule(before: LabelState | None, rule: LabelRule, state: Path) -> None:
    if before and (before.gap_days, before.window_days) != (rule.gap_days, rule.window_days):
        sums = f"--gap-days {before.gap_days} --window-days {before.window_days}"
        raise InputError(f"{state} has the sums of {sums}: give these, or {REBUILD}")


class _Arrived(NamedTuple):
    """The number of given listens, of the late ones among them, and the moment before which their bulk starts."""

    listens: int
    late: int
    bulk: datetime | None


@dataclass(frozen=True, slots=True)
class _Update:
    """One update of a state: the tables, with the new listens alone; the state before; how to read."""

    tables: Tables
    before: LabelState | None
    given: NewListens
    reading: Reading
    late_days: int

    @property
    def since(self) -> datetime:
        """The moment before which all listens are summed."""
        return self.before.summed_to if self.before else parsing.EARLIEST.replace(tzinfo=None)

    def combine(self, stored: Path) -> _Arrived:
        """Create views of the stored tables, and `listens` of recent and new listens, without erased users."""
        run = self.tables.connection.execute
        for name, columns in _STORED.items():
            rows = f"read_parquet({literal(stored / f'{name}.parquet')})"
            run(f"CREATE TEMP VIEW {name} AS FROM {rows}" if self.before else f"CREATE TEMP TABLE {name} ({columns})")
        run("ALTER VIEW listens RENAME TO given")
        late = f"started_at < {_at(self.since)}"
        new = f"SELECT user_id, started_at, station_id, seconds::DOUBLE, true FROM given WHERE NOT {late}"
        new += "" if self.given.files else " AND false"
        run(f"CREATE VIEW listens AS SELECT {_LISTEN}, false AS {_NEW} FROM {RECENT} UNION ALL {new}")
        if self.reading.erased:
            leave_out_erased(self.tables, self.reading.erased, (schema.REGISTRATIONS, schema.LISTENS, USERS))
        else:
            run("CREATE TEMP TABLE erased (user_id VARCHAR)")
        number = f"coalesce(u.number, r.{_ROW} + (SELECT coalesce(max(number) + 1, 0) FROM {USERS}))"
        listens = "coalesce(u.listens, 0) AS listens"
        known = f"{number} AS number, r.registered_at, u.registered_at AS was_registered_at, {listens}"
        both = f"registrations r FULL JOIN (FROM {USERS} ANTI JOIN erased USING (user_id)) u USING (user_id)"
        run(f"CREATE TEMP TABLE {_PEOPLE} AS SELECT user_id, r.{_ROW}, {known} FROM {both}")
        if not self.given.files:
            return _Arrived(0, 0, None)
        counts = f"count(*), count(*) FILTER ({late}), quantile_disc(started_at, {_BULK})"
        return _Arrived(*run(f"SELECT {counts} FROM given").fetchall()[0])

    def refuse_other_tables(self, state: Path, arrived: _Arrived) -> None:
        """Raises InputError where registrations or stations are not those of the sums, or nearly all listens late."""
        run = self.tables.connection.execute
        gap = f"INTERVAL {int(self.reading.rule.gap_days)} DAY"
        earlier = "least(registered_at, coalesce(was_registered_at, registered_at))"
        other = "registered_at IS DISTINCT FROM was_registered_at AND listens > 0"
        changed = f"{_PEOPLE} WHERE {_ROW} IS NOT NULL AND {other} AND {earlier} + {gap} < {_at(self.since)}"
        ((n, user),) = run(f"SELECT count(*), min(user_id) FROM {changed}").fetchall()
        if n and self.before:
            why = f"{n:,} registrations are new or have another registered_at, after listens in their label windows"
            raise _mismatch(state, f"{why} (before {self.since.date()}) were summed", f"user_id {user}")
        both = f"{HEARD} h LEFT JOIN stations s USING (station_id) WHERE s.genre IS DISTINCT FROM h.genre"
        missing = f"SELECT station_id, NULL, NULL FROM {RECENT} ANTI JOIN stations USING (station_id)"
        rows = f"SELECT station_id, h.genre, s.genre FROM {both} UNION ALL {missing} ORDER BY ALL LIMIT 1"
        for station, was, now in run(rows).fetchall():
            if now is None:
                raise _mismatch(state, "a station of its listens is not in the stations", f"station_id {station}")
            raise _mismatch(state, "a station of its sums has another genre now", f"station_id {station}: {was}, {now}")
        if arrived.late > max(FEW, NEARLY_ALL * arrived.listens):
            file = self.tables.files[schema.LISTENS]
            late = f"{arrived.late:,} of {arrived.listens:,} listens ({file}) start before {self.since.date()}"
            advice = f"give new listens alone, or {REBUILD}, with more --late-days"
            raise InputError(f"{late}, up to which {state} is summed: {advice}")

    def sum_up(self, summed: Path, arrived: _Arrived) -> LabelState:
        """Sum the listens that are too old to stay, and write the tables of the next state."""
        connection, run = self.tables.connection, self.tables.connection.execute
        run(f"CREATE TEMP VIEW {identifier(_FRESH)} AS SELECT started_at, seconds FROM listens WHERE {_NEW}")
        _write(connection, summed, DAYS, _days())
        summed_to = self._summed_to(arrived.bulk)
        until = f"started_at < {_at(summed_to)}"
        _write(connection, summed, RECENT, f"SELECT {_LISTEN} FROM listens WHERE NOT {until}")
        run(f"CREATE TEMP VIEW {identifier(_SUMMED)} AS SELECT {_LISTEN} FROM listens WHERE {until}")
        old = identifier(_SUMMED)
        added = f"SELECT user_id, count(*) AS n FROM {old} GROUP BY user_id"
        counted = "coalesce(listens, 0) + coalesce(n, 0)"
        people = f"{_PEOPLE} FULL JOIN ({added}) USING (user_id) WHERE {_ROW} IS NOT NULL OR {counted} > 0"
        _write(connection, summed, USERS, f"SELECT user_id, number, registered_at, {counted} AS listens FROM {people}")
        stations = f"SELECT station_id, genre FROM stations SEMI JOIN {old} USING (station_id)"
        _write(connection, summed, HEARD, f"FROM {HEARD} UNION {stations}")
        part = f"({_part(_SUMMED, self.reading.rule)})"
        run(f"CREATE TEMP TABLE {_ADDED} AS SELECT {_OF_SUMS} FROM {part} JOIN {_PEOPLE} USING ({_ROW})")
        _write(connection, summed, SUMS, _sums())
        return self._after(summed_to, arrived)

    def _summed_to(self, bulk: datetime | None) -> datetime:
        """The day up to which the listens are summed from now on: never before, nor ahead because of wrong clocks."""
        heard = listening(replace(self.tables, remote=SummedListens(self.tables.connection)))
        if bulk is None or not heard.days:
            return self.since
        ends, _ = data_ends(heard, self.reading.rule, self.reading.now)
        last = min(ends, bulk, self.reading.now or ends)
        return max(self.since, datetime.combine(last, time.min) - timedelta(days=self.late_days))

    def _after(self, summed_to: datetime, arrived: _Arrived) -> LabelState:
        before, rule = self.before or LabelState(0, 0, self.since), self.reading.rule
        skipped = self._skipped() if self.given.files else {}
        return LabelState(
            rule.gap_days,
            rule.window_days,
            summed_to,
            before.late + arrived.late,
            {why: before.rejected.get(why, 0) + skipped.get(why, 0) for why in {**before.rejected, **skipped}},
            before.taken | (self.given.files if arrived.listens or skipped else {}),
        )

    def _skipped(self) -> dict[str, int]:
        """The bad rows of the given listens that were skipped, by reason."""
        file = f"{self.tables.files[schema.LISTENS]}: "
        return {why.removeprefix(file): n for why, n in self.tables.ignored.items() if why.startswith(file)}

    def ignored(self, after: LabelState) -> dict[str, int]:
        """What was ignored of the registrations and stations, and of the listens since the state was begun."""
        file = f"{self.tables.files[schema.LISTENS]}: "
        others = {why: n for why, n in self.tables.ignored.items() if not why.startswith(file)}
        rejected = {f"{file}{why}": n for why, n in after.rejected.items()}
        more = {LATE: after.late, GIVEN_TWICE: self.given.twice}
        return {**others, **rejected, **{why: n for why, n in more.items() if n}}


@dataclass(frozen=True, slots=True)
class SummedListens:
    """The listens of a state after its update, as those of another engine (`ingest.RemoteListens`)."""

    connection: duckdb.DuckDBPyConnection

    def by_day(self) -> pa.Table:
        """The result of `mismatches.by_day`."""
        return self.connection.sql(f"FROM {_next(DAYS)}").to_arrow_table()

    def seconds_by_genre(self, rule: LabelRule) -> Iterator[pa.Table]:
        """The result of `labelling.seconds_by_genre`."""
        columns = f"genre, {_COUNTED}, {_COPIES}, seconds"
        stored = f"SELECT {_ROW}::INTEGER AS {_ROW}, {columns} FROM {_next(SUMS)} JOIN {_PEOPLE} USING (number)"
        recent = f"SELECT {_ROW}, {columns} FROM ({_part(f'next {RECENT}', rule)})"
        count = "coalesce(sum(listens), 0)::BIGINT"
        others = f"SELECT NULL, NULL, {count}, 0, NULL FROM {_next(USERS)} WHERE registered_at IS NULL"
        self.connection.execute(
            f"CREATE TEMP VIEW {identifier(_PARTS)} AS {stored} UNION ALL {recent} UNION ALL {others}"
        )
        kinds = {ROW: "int32", schema.GENRE: "string", COUNTED: "int64", COPIES: "int64", schema.SECONDS: "float64"}
        yield self.connection.sql(_sql(labelling.summed(_table(_PARTS, kinds)))).to_arrow_table()

    def users(self, strangers: int) -> pa.Table:
        """The distinct users of the listens: all registered ones, and so many others, the first by their id."""
        summed = f"SELECT user_id FROM {_next(USERS)} WHERE listens > 0"
        everyone = f"FROM ({summed} UNION SELECT user_id FROM {_next(RECENT)})"
        known = f"{everyone} SEMI JOIN registrations USING (user_id)"
        first = f"{everyone} ANTI JOIN registrations USING (user_id) ORDER BY user_id LIMIT {int(strangers)}"
        return self.connection.sql(f"({known}) UNION ALL ({first})").to_arrow_table()


def _next(name: str) -> str:
    """The SQL name of a table of the next state."""
    return identifier(f"next {name}")


def _write(connection: duckdb.DuckDBPyConnection, folder: Path, name: str, rows: str) -> None:
    """Write a table of the next state to its file, and create the view of the file."""
    path = literal(folder / f"{name}.parquet")
    connection.execute(f"COPY ({rows}) TO {path} (FORMAT parquet, COMPRESSION zstd)")
    connection.execute(f"CREATE TEMP VIEW {_next(name)} AS FROM read_parquet({path})")


def _days() -> str:
    """SQL: `mismatches.by_day` of the listens of the next state, from the stored days and the fresh listens."""
    fresh = _sql(by_day(_table(_FRESH, {schema.STARTED_AT: "timestamp", schema.SECONDS: "float64"})))
    sums = ", ".join(f"sum({name})::BIGINT AS {name}" for name in ("listens", "long"))
    maxima = ", ".join(f"max({name}) AS {name}" for name in ("last", "max_seconds"))
    return f"SELECT day, {sums}, {maxima} FROM (FROM {DAYS} UNION ALL BY NAME {fresh}) GROUP BY day ORDER BY day"


def _sums() -> str:
    """SQL: the next sums of each user and genre: those of users without sums to add remain as they are."""
    sums = ", ".join(f"sum({of})::BIGINT AS {of}" for of in (_COUNTED, _COPIES))
    added = f"SELECT {_OF_SUMS} FROM {SUMS} SEMI JOIN {_ADDED} USING (number) UNION ALL FROM {_ADDED}"
    return (
        f"SELECT {_OF_SUMS} FROM {SUMS} ANTI JOIN {_ADDED} USING (number) "
        f"SEMI JOIN (FROM {_PEOPLE} WHERE {_ROW} IS NOT NULL) USING (number) UNION ALL "
        f"SELECT number, genre, {sums}, sum(seconds) AS seconds FROM ({added}) GROUP BY number, genre"
    )


def _part(listens: str, rule: LabelRule) -> str:
    """SQL: `labelling.seconds_by_genre` of a part of the listens, not rounded."""
    return _by_genre(rule).replace(identifier(_SOME), identifier(listens))


@cache
def _by_genre(rule: LabelRule) -> str:
    """`_part` of the table _SOME: Ibis takes longer for it than DuckDB for a day."""
    registrations, stations = (_table(name, COLUMNS[name]) for name in (schema.REGISTRATIONS, schema.STATIONS))
    return _sql(labelling.seconds_by_genre(registrations, _table(_SOME, RECEIVED), stations, rule, rounded=False))


def _table(name: str, kinds: Mapping[str, str]) -> ir.Table:
    import ibis

    return ibis.table(dict(kinds), name)


def _sql(query: ir.Table) -> str:
    import ibis

    return str(ibis.to_sql(query, dialect="duckdb"))


def _at(moment: datetime) -> str:
    """SQL: a time."""
    return f"TIMESTAMP {literal(moment.isoformat(' '))}"


def _mismatch(state: Path, why: str, example: str) -> InputError:
    return InputError(f"{state} does not match the tables: {why} ({example}): {REBUILD}", bare=f"{why}: {REBUILD}")
