"""Incremental labels: new listens are added to stored sums, and the listens of earlier days are not read again.

A state has the seconds by user and genre of all listens before a moment, `summed_to`, and each later listen by itself:
so many late days, within which a late listen counts and a copy is detected. Of one run:

    state + new listens -> sums and recent listens -> labels, census; the next state

The labels are those of all listens at once, as sums of parts are put together before they are rounded. A user whose
label window ended before `summed_to` is closed: the sums are final, and stay in files that are not written again.
Registrations and stations are read anew, as without a state. Times are UTC.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, time, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from firstspin.data import parsing, schema
from firstspin.data.checks.data_end import FEW
from firstspin.data.checks.findings import NEARLY_ALL
from firstspin.data.checks.mismatches import by_day, data_ends, listening
from firstspin.data.dataset import Reading, open_reading
from firstspin.data.erasure import leave_out_erased
from firstspin.data.formats.connections import in_our_words
from firstspin.data.ingest import Tables
from firstspin.data.labels import expressions, labelling
from firstspin.data.labels.expressions import COPIES, COUNTED
from firstspin.data.labels.label_state import LATE_DAYS, REBUILD, LabelState, held, load, save
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
_GENRES: Final = identifier(expressions.PLAYED_GENRES)
_LISTEN: Final = ", ".join(RECEIVED)
_NEW: Final = identifier("is new")

RECENT, SUMS, USERS, DAYS, HEARD = "recent", "sums", "users", "days", "heard"
CLOSED, CLOSED_GENRES, LISTENERS, STRANGERS = "closed", "closed_genres", "listeners", "strangers"
_OF_USER: Final = "user_id VARCHAR, registered_at TIMESTAMP"
_STORED: Final = {
    RECENT: "user_id VARCHAR, started_at TIMESTAMP, station_id VARCHAR, seconds DOUBLE",
    SUMS: f"user_id VARCHAR, genre VARCHAR, {_COUNTED} BIGINT, {_COPIES} BIGINT, seconds DOUBLE",
    USERS: _OF_USER,
    DAYS: "day DATE, listens BIGINT, last TIMESTAMP, long BIGINT, max_seconds DOUBLE",
    HEARD: "station_id VARCHAR, genre VARCHAR",
    CLOSED: f"{_OF_USER}, top_genre VARCHAR, seconds DOUBLE, {_GENRES} BIGINT, {_COUNTED} BIGINT, {_COPIES} BIGINT",
    CLOSED_GENRES: "genre VARCHAR, seconds DOUBLE",
    LISTENERS: "user_id VARCHAR, listens BIGINT",
    STRANGERS: "user_id VARCHAR, listens BIGINT",
}
"""The tables of a state: the registrations that are not closed, and their sums, not rounded; the days; the stations of
summed listens. With a file per run: recent listens; closed users, and their seconds by genre, by user in the same
order; the count of summed listens of users, with a registration at that time and without.
"""

_STAY: Final = (CLOSED, CLOSED_GENRES, LISTENERS, STRANGERS)
_MAX_PARTS: Final = 64
"""Tables whose files stay; with so many they are written anew as one, since each is opened in every run."""

_SOME, _SUMMED, _SUMS_AND_RECENT, _FRESH = "some listens", "listens to sum", "parts of the sums", "new listens"
_PEOPLE, _OPEN, _KNOWN, _ADDED = "people", identifier("open users"), "known users", identifier("listens added")
_OPEN_SUMS: Final = identifier("sums of open users")
_OF_SUMS: Final = f"genre, {_COUNTED}, {_COPIES}, seconds"


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
        update = _Update(tables, before, given, reading, late_days, summed)
        with in_our_words(f"the state {state} can't be read"):
            arrived = update.combine(stored)
            update.refuse_other_tables(state, arrived)
        with in_our_words("the listens can't be summed"):
            after = update.sum_up(arrived)
        ours = replace(tables, remote=SummedListens(tables.connection))
        census, _ = labelling.label_tables(ours, reading.rule, out, reading.now, may_be_empty=True)
        with in_our_words(f"the state {state} can't be written"):
            update.close(after, arrived)
            save(after, summed, state, new)
            put_in_place(new, state)
    return census, update.ignored(after)


def _refuse_other_rule(before: LabelState | None, rule: LabelRule, state: Path) -> None:
    if before and (before.gap_days, before.window_days) != (rule.gap_days, rule.window_days):
        sums = f"--gap-days {before.gap_days} --window-days {before.window_days}"
        raise InputError(f"{state} has the sums of {sums}: give these, or {REBUILD}")


class _Arrived(NamedTuple):
    """The number of given listens, of the late ones among them, and the moment before which their bulk starts.

    `anew`: whether tables in parts are written again, as users of the state are gone or changed, or the parts many.
    """

    listens: int
    late: int
    bulk: datetime | None
    anew: bool


@dataclass(frozen=True, slots=True)
class _Update:
    """One update of a state: the tables, with the new listens alone; the state before; how to read."""

    tables: Tables
    before: LabelState | None
    given: NewListens
    reading: Reading
    late_days: int
    folder: Path

    @property
    def number(self) -> int:
        """The number of this run."""
        return self.before.runs + 1 if self.before else 1

    @property
    def since(self) -> datetime:
        """The moment before which all listens are summed."""
        return self.before.summed_to if self.before else parsing.EARLIEST.replace(tzinfo=None)

    def combine(self, stored: Path) -> _Arrived:
        """Create views of the stored tables, and `listens` of recent and new listens, without erased users."""
        run = self.tables.connection.execute
        for name, columns in _STORED.items():
            files = [literal(stored / file) for file in self._files if _table_of(file) == name]
            rows = f"read_parquet([{', '.join(files)}])"
            run(f"CREATE TEMP VIEW {name} AS FROM {rows}" if files else f"CREATE TEMP TABLE {name} ({columns})")
        run("ALTER VIEW listens RENAME TO given")
        late = f"started_at < {_at(self.since)}"
        new = f"SELECT user_id, started_at, station_id, seconds::DOUBLE, true FROM given WHERE NOT {late}"
        new += "" if self.given.files else " AND false"
        run(f"CREATE VIEW listens AS SELECT {_LISTEN}, false AS {_NEW} FROM {RECENT} WHERE NOT {late} UNION ALL {new}")
        if self.reading.erased:
            names = (RECENT, USERS, CLOSED, LISTENERS, STRANGERS)
            known = " UNION ALL ".join(f"SELECT user_id FROM {name}" for name in names)
            run(f"CREATE TEMP VIEW {identifier(_KNOWN)} AS {known}")
            leave_out_erased(self.tables, self.reading.erased, (schema.REGISTRATIONS, schema.LISTENS, _KNOWN))
        else:
            run("CREATE TEMP TABLE erased (user_id VARCHAR)")
        closed = f"(SELECT *, row_number() OVER () - 1 AS position FROM {CLOSED}) c USING (user_id, registered_at)"
        both = f"r.{_ROW}, r.user_id, r.registered_at, c.* EXCLUDE (user_id, registered_at) FROM registrations r"
        run(f"CREATE TEMP TABLE {_PEOPLE} AS SELECT {both} LEFT JOIN {closed}")
        run(f"CREATE TEMP VIEW {_OPEN} AS SELECT {_ROW}, user_id, registered_at FROM {_PEOPLE} WHERE position IS NULL")
        counts = f"count(*), count(*) FILTER ({late}), quantile_disc(started_at, {_BULK})"
        counted = run(f"SELECT {counts} FROM given").fetchall() if self.given.files else [(0, 0, None)]
        ((listens, n_late, bulk),) = counted
        return _Arrived(listens, n_late, bulk, self._others() or len(self._files) >= _MAX_PARTS * len(_STAY))

    @property
    def _files(self) -> dict[str, str]:
        return self.before.tables if self.before else {}

    def _staying(self, summed_to: datetime, arrived: _Arrived) -> set[str]:
        """The tables whose files stay: recent listens until more than half of those are summed."""
        if arrived.anew:
            return set()
        recent = f"SELECT count(*), count(*) FILTER (started_at >= {_at(summed_to)}) FROM {RECENT}"
        ((stored, remain),) = self.tables.connection.execute(recent).fetchall()
        return {*_STAY, *([RECENT] if stored <= 2 * remain else [])}

    def _others(self) -> bool:
        """Whether users of the state are erased, or not registered any more, or at another time."""
        others = [
            f"(SELECT count(*) FROM {CLOSED}) > (SELECT count(position) FROM {_PEOPLE})",
            f"EXISTS (FROM {USERS} ANTI JOIN {_OPEN} USING (user_id, registered_at))",
            *([f"EXISTS (FROM {identifier(_KNOWN)} SEMI JOIN erased USING (user_id))"] if self.reading.erased else []),
        ]
        return any(self.tables.connection.execute(f"SELECT {other}").fetchall()[0][0] for other in others)

    def refuse_other_tables(self, state: Path, arrived: _Arrived) -> None:
        """Raises InputError where registrations or stations are not those of the sums, or nearly all listens late."""
        run = self.tables.connection.execute
        gap = f"INTERVAL {int(self.reading.rule.gap_days)} DAY"
        was = f"FROM {USERS} UNION ALL SELECT user_id, registered_at FROM {CLOSED} WHERE {arrived.anew}"
        new = f"(FROM {_OPEN} ANTI JOIN {USERS} USING (user_id, registered_at)) n LEFT JOIN ({was}) w USING (user_id)"
        opened = f"least(n.registered_at, coalesce(w.registered_at, n.registered_at)) + {gap} < {_at(self.since)}"
        listened = f"SEMI JOIN (FROM {LISTENERS} UNION ALL FROM {STRANGERS}) USING (user_id)"
        changed = f"FROM (SELECT user_id FROM {new} WHERE {opened}) {listened}"
        ((n, user),) = run(f"SELECT count(*), min(user_id) {changed}").fetchall()
        if n:
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

    def sum_up(self, arrived: _Arrived) -> LabelState:
        """Sum the listens that are too old to stay, and write the tables of the next state, but for closed users."""
        run = self.tables.connection.execute
        run(f"CREATE TEMP VIEW {identifier(_FRESH)} AS SELECT started_at, seconds FROM listens WHERE {_NEW}")
        self._write(DAYS, _days())
        after = self._after(self._summed_to(arrived.bulk), arrived)
        until = f"started_at < {_at(after.summed_to)}"
        remain = f"SELECT {_LISTEN} FROM {{}} WHERE NOT {until}".format
        if RECENT in map(_table_of, after.tables):
            self._write(RECENT, f"{remain('listens')} AND {_NEW}", remain(RECENT))
        else:
            self._write(RECENT, remain("listens"))
        run(f"CREATE TEMP VIEW {identifier(_SUMMED)} AS SELECT {_LISTEN} FROM listens WHERE {until}")
        old = identifier(_SUMMED)
        stations = f"SELECT station_id, genre FROM stations SEMI JOIN {old} USING (station_id)"
        self._write(HEARD, f"FROM {HEARD} UNION {stations}")
        self._count_listens(f"SELECT user_id, count(*) AS listens FROM {old} GROUP BY user_id", anew=arrived.anew)
        stored = f"SELECT {_ROW}, {_OF_SUMS} FROM {SUMS} JOIN {_OPEN} USING (user_id)"
        added = f"SELECT {_ROW}, {_OF_SUMS} FROM ({_part(_SUMMED, self.reading.rule)}) WHERE {_ROW} IS NOT NULL"
        sums = ", ".join(f"sum({of}) AS {of}" for of in (_COUNTED, _COPIES, "seconds"))
        sums = f"SELECT {_ROW}, genre, {sums} FROM ({stored} UNION ALL {added}) GROUP BY {_ROW}, genre"
        run(f"CREATE TEMP TABLE {_OPEN_SUMS} AS {sums}")
        open_still = f"{_OPEN} WHERE NOT {self._closes(after)}"
        self._write(SUMS, f"SELECT user_id, {_OF_SUMS} FROM {_OPEN_SUMS} JOIN (FROM {open_still}) USING ({_ROW})")
        self._write(USERS, f"SELECT user_id, registered_at FROM {open_still}")
        return after

    def _count_listens(self, added: str, *, anew: bool) -> None:
        """Write the count of summed listens of each user; users without a registration apart."""
        if anew:
            earlier = f"FROM (FROM {LISTENERS} UNION ALL FROM {STRANGERS}) ANTI JOIN erased USING (user_id)"
            added = f"SELECT user_id, sum(listens) AS listens FROM ({added} UNION ALL {earlier}) GROUP BY user_id"
        self.tables.connection.execute(f"CREATE TEMP TABLE {_ADDED} AS {added}")
        for name, join in ((LISTENERS, "SEMI"), (STRANGERS, "ANTI")):
            of = f"SELECT user_id, listens::BIGINT AS listens FROM {_ADDED} {join} JOIN registrations USING (user_id)"
            self._write(name, of, "" if anew else f"FROM {name}")

    def _closes(self, after: LabelState) -> str:
        """SQL: whether the label window of a user is over, and all its listens are summed."""
        return f"registered_at + INTERVAL {after.gap_days + after.window_days} DAY <= {_at(after.summed_to)}"

    def close(self, after: LabelState, arrived: _Arrived) -> None:
        """Write the users whose sums are final from now on, as labelled: `labelling.label_tables` was called."""
        which = "true" if arrived.anew else "position IS NULL"
        closing = f"(SELECT {_ROW}, user_id, registered_at FROM {_PEOPLE} WHERE {which} AND {self._closes(after)})"
        semi = f"SEMI JOIN {closing} USING ({_ROW})"
        counts = f"SELECT {_ROW}, sum(once) AS once, sum(copies) AS copies FROM ({labelling.COUNTS_BY_ROW}) {semi}"
        name = "enum_range(NULL::genres)[{} + 1]::VARCHAR".format
        self._write(
            CLOSED,
            f"SELECT user_id, registered_at, {name('top_genre')} AS top_genre, seconds, {_GENRES}, "
            f"coalesce(once, 0)::BIGINT AS {_COUNTED}, coalesce(copies, 0)::BIGINT AS {_COPIES} "
            f"FROM {closing} JOIN {labelling.FATES} USING ({_ROW}) LEFT JOIN ({counts} GROUP BY {_ROW}) USING ({_ROW}) "
            f"ORDER BY {_ROW}",
        )
        rows = f"FROM ({labelling.SECONDS_BY_ROW}) {semi} ORDER BY {_ROW}, code"
        self._write(CLOSED_GENRES, f"SELECT {name('code')} AS genre, seconds {rows}")

    def _write(self, name: str, rows: str, stay: str = "") -> None:
        """Write rows of a table of the next state to a file, and create its view: with those that `stay` in others."""
        run, path = self.tables.connection.execute, literal(self.folder / f"{name}.{self.number}.parquet")
        run(f"COPY ({rows}) TO {path} (FORMAT parquet, COMPRESSION zstd)")
        run(f"CREATE TEMP VIEW {_next(name)} AS FROM read_parquet({path}) {stay and f'UNION ALL {stay}'}")

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
        stay = self._staying(summed_to, arrived)
        return LabelState(
            rule.gap_days,
            rule.window_days,
            summed_to,
            before.late + arrived.late,
            {why: before.rejected.get(why, 0) + skipped.get(why, 0) for why in {**before.rejected, **skipped}},
            before.taken | (self.given.files if arrived.listens or skipped else {}),
            {file: sha for file, sha in self._files.items() if _table_of(file) in stay},
            self.number,
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
        """The result of `expressions.seconds_by_genre`."""
        self._show_final()
        stored = f"SELECT {_ROW}::INTEGER AS {_ROW}, {_OF_SUMS} FROM {_OPEN_SUMS}"
        recent = f"SELECT {_ROW}, {_OF_SUMS} FROM ({_part(f'next {RECENT}', rule)})"
        unregistered = f"FROM {_next(STRANGERS)} ANTI JOIN registrations USING (user_id)"
        others = f"SELECT NULL, NULL, coalesce(sum(listens), 0)::BIGINT, 0, NULL {unregistered}"
        parts = f"{stored} UNION ALL {recent} UNION ALL {others}"
        self.connection.execute(f"CREATE TEMP VIEW {identifier(_SUMS_AND_RECENT)} AS {parts}")
        yield self.connection.sql(_summed()).to_arrow_table()

    def _show_final(self) -> None:
        """Create the views `labelling.FINAL` and FINAL_BY_GENRE of closed users; `genres` is a type by now."""
        query = self.connection.sql
        top = "enum_code(top_genre::genres)::BIGINT AS top_genre"
        closed = f"SELECT {_ROW}, {_GENRES}, seconds, {top}, {_COUNTED}, {_COPIES} FROM {_PEOPLE}"
        view = f"CREATE TEMP VIEW {identifier(labelling.FINAL)} AS {closed} WHERE position IS NOT NULL"
        self.connection.execute(view)
        lengths = query(f"SELECT {_GENRES} AS n FROM {CLOSED}").fetchnumpy()["n"]
        people = query(f"SELECT position, {_ROW} FROM {_PEOPLE} WHERE position IS NOT NULL").fetchnumpy()
        rows = np.full(len(lengths), -1, dtype=np.int32)  # of users who are not registered any more
        rows[people["position"]] = people[ROW]
        rows = np.repeat(rows, lengths)
        heard = query(f"SELECT enum_code(genre::genres) AS code, seconds FROM {CLOSED_GENRES}").fetchnumpy()
        final = labelling.arrow_table({name: column[rows >= 0] for name, column in {ROW: rows, **heard}.items()})
        self.connection.register(labelling.FINAL_BY_GENRE, final)

    def users(self, strangers: int, *, registered: bool) -> pa.Table:
        """Distinct users of the listens: the `registered` ones, if asked for, and so many others, the first by id."""
        others, users = (
            " UNION ".join(f"SELECT user_id FROM {_next(name)}" for name in names)
            for names in ((STRANGERS, RECENT), (LISTENERS, STRANGERS, RECENT))
        )
        known = f"FROM ({users}) SEMI JOIN registrations USING (user_id) WHERE {registered}"
        first = f"FROM ({others}) ANTI JOIN registrations USING (user_id) ORDER BY user_id LIMIT {int(strangers)}"
        return self.connection.sql(f"({known}) UNION ALL ({first})").to_arrow_table()


def _next(name: str) -> str:
    """The SQL name of a table of the next state."""
    return identifier(f"next {name}")


def _table_of(file: str) -> str:
    """The table that a file of a state belongs to."""
    return file.partition(".")[0]


@cache
def _days() -> str:
    """SQL: `mismatches.by_day` of the listens of the next state, from the stored days and the fresh listens."""
    fresh = _sql(by_day(_table(_FRESH, {schema.STARTED_AT: "timestamp", schema.SECONDS: "float64"})))
    sums = ", ".join(f"sum({name})::BIGINT AS {name}" for name in ("listens", "long"))
    maxima = ", ".join(f"max({name}) AS {name}" for name in ("last", "max_seconds"))
    return f"SELECT day, {sums}, {maxima} FROM (FROM {DAYS} UNION ALL BY NAME {fresh}) GROUP BY day ORDER BY day"


def _part(listens: str, rule: LabelRule) -> str:
    """SQL: `expressions.seconds_by_genre` of a part of the listens, not rounded."""
    return _by_genre(rule).replace(identifier(_SOME), identifier(listens))


@cache
def _by_genre(rule: LabelRule) -> str:
    """`_part` of the table _SOME: Ibis takes longer for it than DuckDB for a day."""
    registrations, stations = (_table(name, COLUMNS[name]) for name in (schema.REGISTRATIONS, schema.STATIONS))
    return _sql(expressions.seconds_by_genre(registrations, _table(_SOME, RECEIVED), stations, rule, rounded=False))


@cache
def _summed() -> str:
    """SQL: `expressions.summed` of the parts of the sums."""
    kinds = {ROW: "int32", schema.GENRE: "string", COUNTED: "int64", COPIES: "int64", schema.SECONDS: "float64"}
    return _sql(expressions.summed(_table(_SUMS_AND_RECENT, kinds)))


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
