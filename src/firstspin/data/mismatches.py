"""What in the tables matches nothing, or can hardly be meant: counted, with an example.

No such row is bad by itself: listens of other users, picks of genres that have ended, a clock that was wrong. But ids
that lost their zeros, seconds that are milliseconds or picks in JSON look the same, and give labels that are silently
wrong or none. So each kind is counted and shown, and is an error where it is nearly all of a column.

Listens are scanned once for their days and lengths, and joined once to the registrations; of very many, the listens of
one user in sixteen stand for all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import duckdb

from firstspin.data.data_end import AHEAD, DayOfListens, days_of_data, is_future
from firstspin.data.formats.columns import is_number
from firstspin.data.ingest import Tables, station_markets
from firstspin.data.names import NameIndex
from firstspin.data.schema import LISTENS, PICK_SEPARATOR, REGISTRATIONS, STATIONS, TEXT
from firstspin.data.sql import identifier
from firstspin.records import InputError, LabelRule, Mismatch, normal

NEARLY_ALL: Final = 0.95
MIN_SHARE_OF_NUMBERS: Final = 0.8
WEEK_SECONDS: Final = 7 * 86_400
MANY_LISTENS: Final = 5_000_000
ONE_USER_IN: Final = 16
SHOWN_GENRES: Final = 5


@dataclass(frozen=True, slots=True)
class Listening:
    """The days of the listens, in order, how many are longer than a week, and the longest in seconds."""

    days: tuple[DayOfListens, ...]
    long: int
    longest: float

    @property
    def listens(self) -> int:
        return sum(day.listens for day in self.days)


def listening(found: Tables) -> Listening:
    """One scan of the listens."""
    rows = found.connection.execute(
        "SELECT started_at::DATE AS day, count(*), max(started_at), "
        f"count(*) FILTER (seconds > {WEEK_SECONDS}), max(seconds) FROM listens GROUP BY day ORDER BY day"
    ).fetchall()
    days = tuple(DayOfListens(day, n, last) for day, n, last, _, _ in rows)
    return Listening(days, sum(long for *_, long, _ in rows), max((longest for *_, longest in rows), default=0.0))


def data_ends(heard: Listening, rule: LabelRule, now: datetime | None) -> tuple[datetime, int]:
    """When the data end by the rule of labels, and how many listens with wrong clocks were left out to tell.

    Raises InputError where the rule names a moment that is yet to come.
    """
    last = heard.days[-1].last
    if rule.data_ends is not None:
        if now is not None and rule.data_ends > max(now + AHEAD, last):
            raise InputError(f"the data can't end at {rule.data_ends.isoformat()}Z: that is yet to come")
        return rule.data_ends, 0
    kept = days_of_data(heard.days, now=now, label_days=rule.gap_days + rule.window_days)
    return heard.days[kept - 1].last, sum(day.listens for day in heard.days[kept:])


def mismatches(found: Tables, heard: Listening, wrong_clocks: int, now: datetime | None) -> list[Mismatch]:
    """All that is seen before labels are made. Raises InputError where nearly all of a column matches nothing."""
    kinds = [
        _unregistered(found, heard.listens),
        *_clocks(found, heard, wrong_clocks, now),
        _long(found, heard),
        _picks(found),
        _markets(found),
        *(_numbers(found, name) for name, kind in found.extra.items() if kind == TEXT),
    ]
    return [kind for kind in kinds if kind.count]


# ------------------------------------------------------------------------------------------------------------- user ids


def _unregistered(found: Tables, listens: int) -> Mismatch:
    many = listens > MANY_LISTENS
    some = f"SELECT user_id FROM listens WHERE hash(user_id) % {ONE_USER_IN} = 0" if many else "FROM listens"
    counted = f"SELECT count(*), min(user_id) FROM ({some}) ANTI JOIN registrations USING (user_id)"
    ((count, user),) = found.connection.execute(counted).fetchall()
    count = min(count * ONE_USER_IN, listens) if many else count
    if count >= NEARLY_ALL * listens:
        _refuse_other_ids(found)
    what = f"listens are of users who are not registered ({found.files[LISTENS]})"
    return Mismatch(
        count, listens, f"{what}{f', counted on one user in {ONE_USER_IN}' if many else ''}", f"user_id {user}"
    )


def _refuse_other_ids(found: Tables) -> None:
    """Raises InputError where nearly no registered user has a listen either: then the ids are not the same."""
    sql = found.connection.execute
    ((registered, first),) = sql("SELECT count(*), min(user_id) FROM registrations").fetchall()
    ((heard,),) = sql("SELECT count(DISTINCT user_id) FROM listens JOIN registrations USING (user_id)").fetchall()
    if heard > (1 - NEARLY_ALL) * registered:
        return
    bare = "no listen is of a registered user"
    if heard:
        bare = f"nearly no listen is of a registered user: {heard:,} of {registered:,} users have any"
    others = "SELECT DISTINCT user_id FROM listens ANTI JOIN registrations USING (user_id) LIMIT 1000"
    alike = f"FROM ({others}) l JOIN registrations r ON {_loosely('l.user_id')} = {_loosely('r.user_id')}"
    pairs = sql(f"SELECT l.user_id, r.user_id {alike} ORDER BY ALL LIMIT 1").fetchall()
    if pairs:
        ((one, other),) = pairs
        hint = "; the same but for zeros, case or space"
    else:
        ((one,),) = sql(f"SELECT min(user_id) FROM ({others})").fetchall()
        other, hint = first, ""
    raise InputError(f"{bare}: user_id {one} (listens), {other} (registrations){hint}", bare=f"{bare}{hint}")


def _loosely(user: str) -> str:
    """SQL: an id without what spreadsheets and exports change: leading zeros, a fraction of zero, case, outer space."""
    return f"regexp_replace(lower(trim({user})), '^0+|[.]0+$', '', 'g')"


# --------------------------------------------------------------------------------------------------- times and lengths


def _clocks(found: Tables, heard: Listening, wrong_clocks: int, now: datetime | None) -> list[Mismatch]:
    file, last = found.files[LISTENS], f"started_at {heard.days[-1].last.isoformat()}Z"
    what = f"listens start after the data end: their clocks are wrong ({file})"
    late = [Mismatch(wrong_clocks, heard.listens, what, last)]
    if now is None:
        return late
    future = sum(day.listens for day in heard.days if is_future(day.day, now)) if not wrong_clocks else 0
    what = f"listens start in the future: is the clock of this machine right? ({file})"
    counted = "SELECT count(*), count(*) FILTER (registered_at > $now), max(registered_at) FROM registrations"
    ((registered, early, latest),) = found.connection.execute(counted, {"now": now + AHEAD}).fetchall()
    whose = f"registrations are in the future ({found.files[REGISTRATIONS]})"
    return [
        *late,
        Mismatch(future, heard.listens, what, last),
        Mismatch(early, registered, whose, f"registered_at {latest.isoformat()}Z"),
    ]


def _long(found: Tables, heard: Listening) -> Mismatch:
    file, longest = found.files[LISTENS], f"seconds {heard.longest:.15g}"
    if heard.long >= NEARLY_ALL * heard.listens:
        nearly = "nearly every listen" if heard.long < heard.listens else "every listen"
        bare = f"{nearly} is longer than a week ({file}): are the seconds milliseconds?"
        raise InputError(f"{bare} The longest has {longest}", bare=bare)
    return Mismatch(heard.long, heard.listens, f"listens are longer than a week ({file})", longest)


# ------------------------------------------------------------------------------------------------------ further columns


def _numbers(found: Tables, name: str) -> Mismatch:
    """The values of a further column that make it text, where most are numbers."""
    column = identifier(name)
    others = f"FILTER (NOT {is_number(column)})"
    counted = f"SELECT count(*) {others}, count({is_number(column)}), min({column}) {others} FROM registrations"
    ((count, values, other),) = found.connection.sql(counted).fetchall()
    what = f"values of {name} are no numbers, so that it is text ({found.files[REGISTRATIONS]})"
    return Mismatch(count if values - count >= MIN_SHARE_OF_NUMBERS * values else 0, values, what, repr(other))


# --------------------------------------------------------------------------------------------------- picks and markets


def unknown_picks(connection: duckdb.DuckDBPyConnection, genres: Sequence[str]) -> tuple[int, int, str]:
    """Of the picks in the table `registrations`, how many name none of these genres, of how many, and one of them."""
    names = NameIndex(genres)
    counted = "SELECT pick, count(*) AS n FROM (SELECT unnest(genres) AS pick FROM registrations) GROUP BY pick"
    picks = connection.execute(f"{counted} ORDER BY n DESC, pick").fetchall()
    unknown = [(pick, n) for pick, n in picks if names.find(pick) is None]
    return sum(n for _, n in unknown), sum(n for _, n in picks), unknown[0][0] if unknown else ""


def _picks(found: Tables) -> Mismatch:
    file = found.files[REGISTRATIONS]
    count, total, pick = unknown_picks(found.connection, found.genres)
    if count and count >= NEARLY_ALL * total:
        bare = "no pick names a genre of the stations"
        if count < total:
            bare = f"nearly no pick names a genre of the stations: {total - count:,} of {total:,} do"
        genres = ", ".join(found.genres[:SHOWN_GENRES]) + (", …" if len(found.genres) > SHOWN_GENRES else "")
        hint = _how_to_pick(pick, NameIndex(found.genres))
        raise InputError(f"{bare}: {pick!r} ({file}); the genres are {genres}{hint}", bare=f"{bare} ({file}){hint}")
    return Mismatch(count, total, f"picks name no genre of the stations ({file})", repr(pick))


def _how_to_pick(pick: str, names: NameIndex) -> str:
    """What to do where the parts of a pick are genres."""
    if any(names.find(part) for part in re.split(r"[][{}()\"',;/&+]+", pick)):
        return f"; separate picks by {PICK_SEPARATOR!r}, as in Rock{PICK_SEPARATOR}Jazz, or write lists in Parquet"
    return ""


def _markets(found: Tables) -> Mismatch:
    """Stations all of whose markets are the country of no registration."""
    file, markets = found.files[STATIONS], station_markets(found)
    counted = "SELECT country, count(*) FROM registrations WHERE country IS NOT NULL GROUP BY country ORDER BY country"
    countries: Mapping[str, int] = dict(found.connection.execute(counted).fetchall())
    unmet = _without(markets, countries) if countries else []
    market = markets[unmet[0]][0] if unmet else ""
    ((stations,),) = found.connection.execute("SELECT count(*) FROM stations").fetchall()
    if len(unmet) >= NEARLY_ALL * stations:
        names = NameIndex(normal(market) for of in markets.values() for market in of)
        strangers = {country: n for country, n in countries.items() if names.find(country) is None}
        if strangers and sum(strangers.values()) >= NEARLY_ALL * sum(countries.values()):
            bare = "nearly no registration's country is a market of the stations"
            shown = f"country {next(iter(strangers))} ({found.files[REGISTRATIONS]}), market {market} ({file})"
            raise InputError(f"{bare}: {shown}", bare=bare)
    what = f"stations are for markets that are no registration's country ({file})"
    return Mismatch(len(unmet), len(markets), what, f"market {market}")


def _without(markets: Mapping[str, Sequence[str]], countries: Mapping[str, int]) -> list[str]:
    """The stations for none of these countries."""
    names = NameIndex(map(normal, countries))
    return [station for station, of in markets.items() if all(names.find(market) is None for market in of)]
