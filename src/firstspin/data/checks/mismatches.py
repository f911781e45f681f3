"""Values of the tables that match nothing or are implausible: counts, each with an example.

A single such row is not an error: a listen of another user, a pick of a genre that has ended, a wrong clock. But ids
that lost leading zeros, milliseconds instead of seconds, or picks in JSON look the same, and give labels that are
silently wrong or missing. So each kind is counted and reported, and is an error where it is nearly all of a column.

Listens are scanned once for their days; those of unregistered users are counted while labels are made.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice, product
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from firstspin.data.checks.data_end import AHEAD, DayOfListens, days_of_data, is_future
from firstspin.data.checks.findings import NEARLY_ALL
from firstspin.data.formats.columns import is_number
from firstspin.data.ingest import Tables
from firstspin.data.names import NameIndex
from firstspin.data.schema import (
    GENRES,
    LISTENS,
    MARKET,
    NAME,
    PICK_SEPARATOR,
    REGISTRATIONS,
    SECONDS,
    STATIONS,
    TEXT,
    USER_ID,
)
from firstspin.data.sql import compiled, identifier
from firstspin.data.stations import station_markets
from firstspin.records import InputError, LabelRule, Mismatch, listed, normal

if TYPE_CHECKING:
    import duckdb
    import ibis.expr.types as ir

MIN_SHARE_OF_NUMBERS: Final = 0.8
WEEK_SECONDS: Final = 7 * 86_400
MAX_COMPARED: Final = 100_000
"""Listens of unregistered users among which the example is the first by its id."""

MAX_STRANGERS: Final = 1000
"""Unregistered users whose ids are compared with the registered ones where nearly all ids differ."""

MOST: Final = 0.5
SHOWN_GENRES: Final = 5
SHOWN_SPELLINGS: Final = 3
MAX_SPELLINGS: Final = 1000
SEPARATORS: Final = (",", ";", "/", "|", "+", "&", "\t")
"""What exports put between picks."""


@dataclass(frozen=True, slots=True)
class Listening:
    """The days of the listens, in order, the number of listens longer than a week, and the longest such (seconds)."""

    days: tuple[DayOfListens, ...]
    long: int
    max_seconds: float

    @property
    def listens(self) -> int:
        """The number of listens."""
        return sum(day.listens for day in self.days)


def listening(tables: Tables) -> Listening:
    """Days and lengths of the listens, in one scan of the times: Parquet's statistics often exclude long listens."""
    if tables.remote:
        counts = tables.remote.by_day()
        lengths = [(row["long"], row["max_seconds"]) for row in counts.to_pylist()]
    else:
        counts = tables.connection.sql(compiled("by_day")).to_arrow_table()
        longer = f"SELECT count(*), max(seconds) FROM listens WHERE seconds > {WEEK_SECONDS}"
        lengths = tables.connection.execute(longer).fetchall()
    rows = sorted(counts.to_pylist(), key=itemgetter("day"))  # Arrow's own sort imports its compute functions
    of_days = tuple(DayOfListens(row["day"], row["listens"], row["last"]) for row in rows)
    return Listening(of_days, sum(long for long, _ in lengths), max((of or 0.0 for _, of in lengths), default=0.0))


def by_day(listens: ir.Table) -> ir.Table:
    """For each `day` (UTC) the number of `listens`, the time of the `last`, how many are `long`, and `max_seconds`."""
    return listens.group_by(day=listens.started_at.date()).agg(
        listens=listens.count(),
        last=listens.started_at.max(),
        long=listens.count(where=listens.seconds > WEEK_SECONDS),
        max_seconds=listens.seconds.max(),
    )


def data_ends(heard: Listening, rule: LabelRule, now: datetime | None) -> tuple[datetime, int]:
    """The end of the data (UTC), and the number of listens that come after it, with wrong clocks.

    Raises InputError where `rule.data_ends` is in the future.
    """
    last = heard.days[-1].last
    if rule.data_ends is not None:
        if now is not None and rule.data_ends > max(now + AHEAD, last):
            raise InputError(f"the data can't end at {rule.data_ends.isoformat()}Z: this time is in the future")
        return rule.data_ends, 0
    n_days = days_of_data(heard.days, now=now, label_days=rule.gap_days + rule.window_days)
    return heard.days[n_days - 1].last, sum(day.listens for day in heard.days[n_days:])


def mismatches(
    tables: Tables, heard: Listening, wrong_clocks: int, unregistered: int, now: datetime | None
) -> list[Mismatch]:
    """All mismatches of the tables, of which so many listens have a wrong clock or an unregistered user.

    Raises InputError where nearly all values of a column match nothing, unless problems are collected.
    """
    checks: list[tuple[str, Callable[[], Iterable[Mismatch]]]] = [
        (LISTENS, lambda: [_unregistered(tables, unregistered, heard.listens)]),
        (LISTENS, lambda: _clocks(tables, heard, wrong_clocks, now)),
        (LISTENS, lambda: [_long(tables, heard)]),
        (REGISTRATIONS, lambda: [_picks(tables)]),
        (STATIONS, lambda: [_nameless(tables)]),
        (STATIONS, lambda: [_markets(tables)]),
        (REGISTRATIONS, lambda: [_numbers(tables, name) for name, kind in tables.extra.items() if kind == TEXT]),
    ]
    kinds: list[Mismatch] = []
    for table, check in checks:
        with tables.complaints.of(tables.files[table]):
            kinds += check()
    return [kind for kind in kinds if kind.count]


# ------------------------------------------------------------------------------------------------------------- user ids


def _unregistered(tables: Tables, count: int, listens: int) -> Mismatch:
    what = f"listens are of unregistered users ({tables.files[LISTENS]})"
    if not count:
        return Mismatch(0, listens, what, "")
    nearly_all = count >= NEARLY_ALL * listens
    if tables.remote:
        tables.connection.execute("DROP VIEW listens")
        tables.connection.register(LISTENS, tables.remote.users(MAX_STRANGERS, registered=nearly_all))
    if nearly_all:
        _refuse_other_ids(tables)
    strangers = f"SELECT user_id FROM listens ANTI JOIN registrations USING (user_id) LIMIT {MAX_COMPARED}"
    ((user,),) = tables.connection.execute(f"SELECT min(user_id) FROM ({strangers})").fetchall()
    return Mismatch(count, listens, what, f"user_id {user}")


def _refuse_other_ids(tables: Tables) -> None:
    """Raises InputError where nearly no registered user has a listen: the ids of the two tables differ."""
    sql = tables.connection.execute
    ((registered, first),) = sql("SELECT count(*), min(user_id) FROM registrations").fetchall()
    ((heard,),) = sql("SELECT count(DISTINCT user_id) FROM listens JOIN registrations USING (user_id)").fetchall()
    if heard > (1 - NEARLY_ALL) * registered:
        return
    bare = "no listen belongs to a registered user"
    if heard:
        bare = f"nearly no listen belongs to a registered user: {heard:,} of {registered:,} users have any"
    unknown = "SELECT DISTINCT user_id FROM listens ANTI JOIN registrations USING (user_id)"
    others = f"{unknown} LIMIT {MAX_STRANGERS}"
    alike = f"FROM ({others}) l JOIN registrations r ON {_loosely('l.user_id')} = {_loosely('r.user_id')}"
    pairs = sql(f"SELECT l.user_id, r.user_id {alike} ORDER BY ALL LIMIT 1").fetchall()
    if pairs:
        ((one, other),) = pairs
        hint = "; they differ in zeros, case or space only"
    else:
        ((one,),) = sql(f"SELECT min(user_id) FROM ({others})").fetchall()
        other, hint = first, ""
    text = f"{bare}: user_id {one} (listens), {other} (registrations){hint}"
    raise InputError(text, bare=f"{bare}{hint}", field=USER_ID)


def _loosely(user: str) -> str:
    """SQL: an id without leading zeros, a fraction of zero, case and outer space, which spreadsheets change."""
    return f"regexp_replace(lower(trim({user})), '^0+|[.]0+$', '', 'g')"


# --------------------------------------------------------------------------------------------------- times and lengths


def _clocks(tables: Tables, heard: Listening, wrong_clocks: int, now: datetime | None) -> list[Mismatch]:
    file, last = tables.files[LISTENS], f"started_at {heard.days[-1].last.isoformat()}Z"
    what = f"listens start after the end of the data: their clocks are wrong ({file})"
    late = [Mismatch(wrong_clocks, heard.listens, what, last)]
    if now is None:
        return late
    future = sum(day.listens for day in heard.days if is_future(day.day, now)) if not wrong_clocks else 0
    what = f"listens start in the future: check the clock of this machine ({file})"
    counted = "SELECT count(*), count(*) FILTER (registered_at > $now), max(registered_at) FROM registrations"
    ((registered, early, latest),) = tables.connection.execute(counted, {"now": now + AHEAD}).fetchall()
    whose = f"registrations are in the future ({tables.files[REGISTRATIONS]})"
    return [
        *late,
        Mismatch(future, heard.listens, what, last),
        Mismatch(early, registered, whose, f"registered_at {latest.isoformat()}Z"),
    ]


def _long(tables: Tables, heard: Listening) -> Mismatch:
    file, example = tables.files[LISTENS], f"seconds {heard.max_seconds:.15g}"
    if heard.long >= NEARLY_ALL * heard.listens:
        nearly = "nearly every listen" if heard.long < heard.listens else "every listen"
        bare = f"{nearly} is longer than a week ({file}): are the seconds milliseconds?"
        raise InputError(f"{bare} The longest has {example}", bare=bare, field=SECONDS)
    return Mismatch(heard.long, heard.listens, f"listens are longer than a week ({file})", example)


# ------------------------------------------------------------------------------------------------------ further columns


def _numbers(tables: Tables, name: str) -> Mismatch:
    """The values that are not numbers in a further column of text, where most values are."""
    column = identifier(name)
    others = f"FILTER (NOT {is_number(column)})"
    counted = f"SELECT count(*) {others}, count({is_number(column)}), min({column}) {others} FROM registrations"
    ((count, values, other),) = tables.connection.sql(counted).fetchall()
    what = f"values of {name} are not numbers, so the column counts as text ({tables.files[REGISTRATIONS]})"
    return Mismatch(count if values - count >= MIN_SHARE_OF_NUMBERS * values else 0, values, what, repr(other))


# --------------------------------------------------------------------------------------------------- picks and markets


@dataclass(frozen=True, slots=True)
class UnknownPicks:
    """The picks that name none of the genres: `count` of `of`, and the number of each spelling, most frequent first."""

    count: int
    of: int
    spellings: Mapping[str, int]
    names: NameIndex

    def mismatch(self, what: str, file: str) -> Mismatch:
        """The count, with the most frequent spellings; `what` names the genres, such as "of the stations"."""
        examples = f"{self._examples()}{self._how_to_pick() if self._joined_by() else ''}"
        return Mismatch(self.count, self.of, f"picks name no genre {what} ({file})", examples)

    def refuse_most(self, what: str, file: str) -> None:
        """Raises InputError where most picks are unknown; `what` as in `mismatch`."""
        if self.count <= MOST * self.of:
            return
        known = self.of - self.count
        bare = f"no pick names a genre {what}"
        if known:
            bare = f"most picks name no genre {what}: {known:,} of {self.of:,} do"
        genres = listed(self.names.names, SHOWN_GENRES)
        hint = self._how_to_pick()
        text = f"{bare}: {self._examples()} ({file}); the genres are {genres}{hint}"
        raise InputError(text, bare=f"{bare} ({file}){hint}", field=GENRES)

    def _examples(self) -> str:
        """The most frequent spellings, each with its number and the nearest genre."""
        shown = []
        for pick, n in islice(self.spellings.items(), SHOWN_SPELLINGS):
            nearest = self.names.nearest(pick)
            shown.append(f"{pick!r} ({n:,}{f', nearest genre {nearest}' if nearest else ''})")
        return ", ".join(shown)

    def _how_to_pick(self) -> str:
        """What to do where the parts of the picks are genres; otherwise empty."""
        first = next(iter(self.spellings))
        if separator := self._joined_by():
            shown = f"{separator} " if f"{separator} " in first else separator
            return f"; the picks look joined by {shown!r}: --pick-separator {separator!r}"
        if any(self.names.find(part) for part in re.split(r"[][{}()\"',;/&+]+", first)):
            return f"; separate picks by {PICK_SEPARATOR!r}, as in Rock{PICK_SEPARATOR}Jazz, or write lists in Parquet"
        return ""

    def _joined_by(self) -> str:
        """The separator that makes genres of most of the unknown picks; empty where there is none."""
        joined = dict.fromkeys(SEPARATORS, 0)
        most_frequent = dict(islice(self.spellings.items(), MAX_SPELLINGS))
        for separator, (pick, n) in product(SEPARATORS, most_frequent.items()):
            parts = self.names.separated(pick, separator) if separator in pick else ()
            joined[separator] += n if len(parts) > 1 and all(map(self.names.find, parts)) else 0
        separator = max(SEPARATORS, key=joined.__getitem__)
        return separator if joined[separator] > MOST * sum(most_frequent.values()) else ""


def unknown_picks(connection: duckdb.DuckDBPyConnection, genres: Sequence[str]) -> UnknownPicks:
    """The picks in the table `registrations` that are none of these genres."""
    names = NameIndex(map(normal, genres))
    counted = "SELECT pick, count(*) AS n FROM (SELECT unnest(genres) AS pick FROM registrations) GROUP BY pick"
    picks = connection.execute(f"{counted} ORDER BY n DESC, pick").fetchall()
    spellings = {pick: n for pick, n in picks if names.find(pick) is None}
    return UnknownPicks(sum(spellings.values()), sum(n for _, n in picks), spellings, names)


def unknown_values(
    connection: duckdb.DuckDBPyConnection, field: str, known: NameIndex, counts_as: str, file: str
) -> Mismatch:
    """The values of a column of the table `registrations` that are none of the known ones, with the most frequent."""
    column = identifier(field)
    counted = (
        f"SELECT {column}, count(*) AS n FROM registrations WHERE {column} IS NOT NULL GROUP BY ALL ORDER BY n DESC"
    )
    values = connection.execute(f"{counted}, {column}").fetchall()
    unknown = {value: n for value, n in values if known.find(str(value)) is None}
    value = next(iter(unknown), "")
    nearest = known.nearest(str(value))
    example = f"{value!r} ({unknown.get(value, 0):,}{f', nearest {nearest}' if nearest else ''})"
    what = f"values of {field} are none that the model knows and count as {counts_as} ({file})"
    return Mismatch(sum(unknown.values()), sum(n for _, n in values), what, example)


def _picks(tables: Tables) -> Mismatch:
    file = tables.files[REGISTRATIONS]
    unknown = unknown_picks(tables.connection, tables.genres)
    unknown.refuse_most("of the stations", file)
    return unknown.mismatch("of the stations", file)


def _nameless(tables: Tables) -> Mismatch:
    """All stations, where the file has no column of names."""
    source = tables.sources[STATIONS]
    ((stations, example),) = tables.connection.execute("SELECT count(*), min(station_id) FROM stations").fetchall()
    what = f"stations have no name, as there is no column {NAME}: their ids are shown ({source.path.name})"
    return Mismatch(0 if NAME in source.columns else stations, stations, what, f"{example!r}")


def _markets(tables: Tables) -> Mismatch:
    """Stations without a market that is the country of a registration."""
    file, markets = tables.files[STATIONS], station_markets(tables)
    counted = "SELECT country, count(*) FROM registrations WHERE country IS NOT NULL GROUP BY country ORDER BY country"
    countries: Mapping[str, int] = dict(tables.connection.execute(counted).fetchall())
    unmet = _without(markets, countries) if countries else []
    market = markets[unmet[0]][0] if unmet else ""
    ((stations,),) = tables.connection.execute("SELECT count(*) FROM stations").fetchall()
    if len(unmet) >= NEARLY_ALL * stations:
        names = NameIndex(normal(market) for of in markets.values() for market in of)
        strangers = {country: n for country, n in countries.items() if names.find(country) is None}
        if strangers and sum(strangers.values()) >= NEARLY_ALL * sum(countries.values()):
            bare = "nearly no country of the registrations is a market of the stations"
            shown = f"country {next(iter(strangers))} ({tables.files[REGISTRATIONS]}), market {market} ({file})"
            raise InputError(f"{bare}: {shown}", bare=bare, field=MARKET)
    what = f"stations have no market that is the country of a registration ({file})"
    return Mismatch(len(unmet), len(markets), what, f"market {market}")


def _without(markets: Mapping[str, Sequence[str]], countries: Mapping[str, int]) -> list[str]:
    """The stations without a market among these countries."""
    names = NameIndex(map(normal, countries))
    return [station for station, of in markets.items() if all(names.find(market) is None for market in of)]
