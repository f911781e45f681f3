"""The label as Ibis expressions: of registrations, listens and stations, the top genre of each user, or why not.

    registrations + listens + stations -> in_windows -> seconds_by_genre -> sums_by_user -> fates

Every engine can run all of them. On this machine `windows` finds the listens, `window_sums` adds them up, and DuckDB
runs the last one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from firstspin.data.schema import GENRE, REGISTERED_AT, ROW, SECONDS, STARTED_AT, STATION_ID, TOP_GENRE, USER_ID
from firstspin.records import LabelRule

if TYPE_CHECKING:
    import ibis.expr.types as ir

DROPPED = "why there is no label"  # names with spaces, which no further column can have
COUNTED = "listens in the window"
COPIES = "copies of listens in the window"
PLAYED_GENRES = "genres in the window"
STATION = "number of the station"

NOT_OVER = "window not over yet"
NO_LISTEN = "no listen in the window"
TOO_LITTLE = "under the activity rule"
REASONS = (NO_LISTEN, TOO_LITTLE, NOT_OVER)

ROUNDED = (1e-3, 2.0**33)
"""Sums of seconds that are rounded to microseconds: larger ones have no such digits, smaller ones too few."""

_MAX_SECONDS = "seconds of the top genre"
DAY = 86_400_000_000
"""Microseconds."""


def in_windows(registrations: ir.Table, listens: ir.Table, stations: ir.Table, rule: LabelRule) -> ir.Table:
    """The listens in the label window of their user, and all those of unregistered users, with null as ROW.

    The columns: ROW of the registration, STATION, `started_at`, `seconds` and `genre`. Times are timestamps, or whole
    microseconds. Registrations and stations have the integer column ROW: grouping by it costs less than by text.
    """
    people = registrations.select(
        registrations[ROW].cast("int32").name(ROW),
        USER_ID,
        opens=registrations.registered_at + _days(rule.gap_days, registrations.registered_at),
    )
    played = stations.select(STATION_ID, GENRE, stations[ROW].cast("int32").name(STATION))
    heard = listens.left_join(people, USER_ID)
    ends = heard.opens + _days(rule.window_days, heard.opens)  # the end is no part of the window
    inside = (heard.started_at >= heard.opens) & (heard.started_at < ends)
    return heard.filter(heard[ROW].isnull() | inside).join(played, STATION_ID)


def seconds_by_genre(
    registrations: ir.Table, listens: ir.Table, stations: ir.Table, rule: LabelRule, *, rounded: bool = True
) -> ir.Table:
    """The `seconds` of each registration (ROW) and genre in the label window; how many listens COUNTED, were COPIES.

    A listen that is there twice, with the same user, start, station and seconds, counts once. All listens of
    unregistered users are one row, with null as ROW. Partial sums, of some of the listens, are not `rounded`: `summed`
    rounds their sum.
    """
    import ibis

    heard = in_windows(registrations, listens, stations, rule)
    known = heard[ROW].notnull()
    of_known = {name: known.ifelse(heard[name], ibis.null()) for name in (STATION, STARTED_AT, SECONDS, GENRE)}
    once = heard.select(ROW, **of_known).group_by(ROW, *of_known).agg(times=ibis._.count())
    seconds = once.seconds.sum().cast("float64")
    return once.group_by(ROW, GENRE).agg(
        once.count().name(COUNTED),
        (once.times - 1).sum().cast("int64").name(COPIES),
        seconds=_rounded(seconds) if rounded else seconds,
    )


def summed(parts: ir.Table) -> ir.Table:
    """`seconds_by_genre` of listens in several parts, from the rows of each that are not rounded."""
    counts = {name: parts[name].sum().cast("int64") for name in (COUNTED, COPIES)}
    return parts.group_by(ROW, GENRE).agg(**counts, seconds=_rounded(parts.seconds.sum()))


def sums_by_user(by_genre: ir.Table) -> ir.Table:
    """The number of PLAYED_GENRES, `seconds` and `top_genre` of each ROW of `seconds_by_genre`.

    The maximum of the seconds, then the first genre that has it: BigQuery and Snowflake may not order structs.
    """
    whole = {PLAYED_GENRES: by_genre.count(), SECONDS: _rounded(by_genre.seconds.sum())}
    sums = by_genre.group_by(ROW).agg(**whole, **{_MAX_SECONDS: by_genre.seconds.max()})
    max_seconds = sums.select(ROW, _MAX_SECONDS)
    of_max = by_genre.join(max_seconds, [ROW, by_genre.seconds == max_seconds[_MAX_SECONDS]])
    tops = of_max.group_by(ROW).agg(top_genre=of_max.genre.min())
    return sums.join(tops, ROW).drop(_MAX_SECONDS)


def fates(registrations: ir.Table, by_user: ir.Table, rule: LabelRule) -> ir.Table:
    """One row per registration, by ROW, with its label or the reason why it has none, from `sums_by_user`."""
    people = registrations.select(registrations[ROW].cast("int32").name(ROW), REGISTERED_AT)
    return judged(people.left_join(by_user, ROW).drop(f"{ROW}_right"), rule).order_by(ROW)


def judged(everyone: ir.Table, rule: LabelRule) -> ir.Table:
    """The label of each registration, or the reason why it has none, from its sums, which are null without a listen.

    The columns: ROW; DROPPED, the reason or null; `top_genre`; `seconds`; the number of PLAYED_GENRES. `rule.data_ends`
    must be set.
    """
    import ibis

    window = ibis.interval(days=rule.gap_days + rule.window_days)
    over = everyone.registered_at + window <= ibis.timestamp(rule.data_ends)
    reason = ibis.cases(
        (~over, NOT_OVER),
        (everyone.seconds.isnull(), NO_LISTEN),
        (everyone.seconds < rule.min_seconds, TOO_LITTLE),
        else_=ibis.null("string"),
    )
    n_genres = everyone[PLAYED_GENRES].fill_null(0).name(PLAYED_GENRES)
    return everyone.select(ROW, reason.name(DROPPED), TOP_GENRE, SECONDS, n_genres)


def _days(number: int, time: ir.Value) -> ir.Value | int:
    """So many days, to be added to a time."""
    import ibis

    return number * DAY if time.type().is_integer() else ibis.interval(days=number)


def _rounded(total: ir.Value) -> ir.Value:
    """A sum to the microsecond, which no order of its terms changes: in doubles 0.1 + 0.2 is above 0.3, 0.3 + 0 not.

    Engines add in the order in which their threads come. Smaller and larger sums than these stay as they are, and so do
    whole numbers, which cost less to detect than to round.
    """
    import ibis

    return ibis.cases((~total.between(*ROUNDED), total), (total == total.floor(), total), else_=total.round(6))
