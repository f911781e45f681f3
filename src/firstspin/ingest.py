"""Files as received -> checked tables, or an error naming file, row, field and value.

Registrations and stations become DuckDB tables. Listens stay on disk: Parquet is read in place, CSV is rewritten once
as typed Parquet in the workspace, so that no step ever holds them in memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from firstspin import tables
from firstspin.further_fields import check_names
from firstspin.records import MAX_PICKS, MAX_TEXT, BadRows, InputError, Station, normal
from firstspin.sources import ZONE, Source, connect, open_file, readable
from firstspin.sql import identifier, literal
from firstspin.tables import NUMBER, TEXT

SHOWN = 10
_SEPARATOR = literal(tables.PICK_SEPARATOR)
_AVAILABLE = f"TRY_CAST({tables.AVAILABLE} AS BOOLEAN)"


@dataclass(frozen=True, slots=True)
class Rule:
    """A row is bad when `broken` (SQL over the columns as received) is true; `complaint` ends the sentence."""

    field: str
    broken: str
    complaint: str


@dataclass(frozen=True, slots=True)
class Tables:
    """The checked tables `registrations`, `listens` and `stations`, as DuckDB relations of one connection.

    `registrations` and `stations` have a further column `row`: the position in the file, from 0. `ignored` counts
    what was left out: bad rows by reason (only when asked to skip them) and picks that name no known genre. `extra`
    says of each further column whether it holds "number" or "text".
    """

    connection: duckdb.DuckDBPyConnection
    genres: tuple[str, ...]
    extra: dict[str, str]
    ignored: dict[str, int]


def open_tables(
    data: Path, *, workspace: Path, extra: Sequence[str] = (), skip_bad_rows: bool = False, threads: int | None = None
) -> Tables:
    """Check the three tables of a folder and make them ready to query.

    Raises BadRows with at most ten of them, one a line, and the count of the rest; InputError for what else is wrong.
    """
    check_names(extra)
    connection = connect(workspace, threads)
    ignored: dict[str, int] = {}
    stations = _source(connection, data, tables.STATIONS)
    _load(connection, stations, _station_rules(stations), _station_columns(stations), skip_bad_rows, ignored)
    _normalise_genres(connection)
    registrations = _source(connection, data, tables.REGISTRATIONS, extra)
    _load(
        connection,
        registrations,
        _registration_rules(registrations),
        _registration_columns(registrations, extra),
        skip_bad_rows,
        ignored,
    )
    _load_listens(connection, _source(connection, data, tables.LISTENS), workspace, skip_bad_rows, ignored)
    genres = tuple(g for (g,) in connection.sql("SELECT DISTINCT genre FROM stations ORDER BY genre").fetchall())
    unknown = _count_unknown_picks(connection)
    kinds = {name: _type_further(connection, name) for name in extra}
    return Tables(connection, genres, kinds, ignored | ({"picks of no known genre": unknown} if unknown else {}))


@dataclass(frozen=True, slots=True)
class Received:
    """Registrations alone, to be answered: the table `registrations` of a connection, and the bad rows skipped."""

    connection: duckdb.DuckDBPyConnection
    rows: int
    ignored: dict[str, int]


def read_registrations(
    path: Path, *, workspace: Path, extra: Mapping[str, str] | None = None, skip_bad_rows: bool = False
) -> Received:
    """The registrations of a CSV or Parquet file, checked as `open_tables` does; `extra` as in `Tables`."""
    extra = extra or {}
    connection = connect(workspace)
    source = open_file(connection, path, tables.REGISTRATIONS, _needed(tables.REGISTRATIONS, list(extra)))
    ignored: dict[str, int] = {}
    rules = _registration_rules(source) + [_number(name) for name, kind in extra.items() if kind == NUMBER]
    columns = _registration_columns(source, list(extra))
    _load(connection, source, rules, columns, skip_bad_rows, ignored)
    for name, kind in extra.items():
        _type_further(connection, name, kind)
    ((rows,),) = connection.sql("SELECT count(*) FROM registrations").fetchall()
    return Received(connection, rows, ignored)


def station_popularity(found: Tables) -> list[tuple[Station, float]]:
    """Each available station with its popularity: the column of that name, or else the seconds that it was heard."""
    columns = _columns_of_stations(found)
    available = f"coalesce({_AVAILABLE}, true)" if tables.AVAILABLE in columns else "true"
    popularity = (
        "coalesce(TRY_CAST(popularity AS DOUBLE), 0)"
        if "popularity" in columns
        else "coalesce((SELECT sum(seconds) FROM listens WHERE listens.station_id = stations.station_id), 0)"
    )
    query = f"SELECT station_id, name, genre, {popularity} FROM stations WHERE {available} ORDER BY row"
    rows = found.connection.sql(query).fetchall()
    return [(Station(station_id, name, genre), float(popularity)) for station_id, name, genre, popularity in rows]


def station_markets(found: Tables) -> dict[str, tuple[str, ...]]:
    """The countries that each station broadcasts to, where it names any."""
    if tables.MARKET not in _columns_of_stations(found):
        return {}
    query = f"SELECT station_id, {tables.MARKET}::VARCHAR FROM stations WHERE {tables.MARKET} IS NOT NULL ORDER BY row"
    named = {
        station_id: tuple(market for market in markets.split(tables.PICK_SEPARATOR) if market.strip())
        for station_id, markets in found.connection.sql(query).fetchall()
    }
    return {station_id: markets for station_id, markets in named.items() if markets}


def _columns_of_stations(found: Tables) -> set[str]:
    return {str(name) for name, *_ in found.connection.sql("DESCRIBE stations").fetchall()}


# ------------------------------------------------------------------------------------------- the rules


def _station_rules(source: Source) -> list[Rule]:
    unclear = Rule(tables.AVAILABLE, f"{tables.AVAILABLE} IS NOT NULL AND {_AVAILABLE} IS NULL", "is not true or false")
    return [
        Rule("station_id", "coalesce(station_id::VARCHAR, '') = ''", "is missing"),
        Rule("genre", "genre IS NULL OR trim(genre) = ''", "is missing"),
        Rule("genre", f"contains(genre, {_SEPARATOR})", "holds a pipe sign, which separates genres"),
        _unique("station_id"),
        *([unclear] if tables.AVAILABLE in source.types else []),
    ]


def _registration_rules(source: Source) -> list[Rule]:
    return [
        Rule("user_id", "coalesce(user_id::VARCHAR, '') = ''", "is missing"),
        *_moment_rules(source, "registered_at"),
        Rule("age", "age IS NOT NULL AND TRY_CAST(age AS DOUBLE) IS NULL", "is not a number"),
        Rule("age", "TRY_CAST(age AS DOUBLE) <> floor(TRY_CAST(age AS DOUBLE))", "is not a whole number"),
        Rule("age", "NOT (TRY_CAST(age AS DOUBLE) BETWEEN 0 AND 120)", "is not between 0 and 120"),
        *(_not_too_long(field) for field in ("user_id", "gender", "country")),
        Rule("genres", f"len({_picks(source)}) > {MAX_PICKS}", f"names more than {MAX_PICKS} genres"),
        Rule(
            "genres",
            f"len(list_filter({_picks(source)}, lambda pick: length(pick) > {MAX_TEXT})) > 0",
            f"names a genre of more than {MAX_TEXT} characters",
        ),
        _unique("user_id"),
    ]


def _not_too_long(field: str) -> Rule:
    """What no answer over HTTP may be either."""
    return Rule(field, f"length({field}::VARCHAR) > {MAX_TEXT}", f"is longer than {MAX_TEXT} characters")


def _listen_rules(source: Source) -> list[Rule]:
    return [
        Rule("user_id", "coalesce(user_id::VARCHAR, '') = ''", "is missing"),
        *_moment_rules(source, "started_at"),
        Rule("station_id", "coalesce(station_id::VARCHAR, '') = ''", "is missing"),
        Rule("station_id", "station_id::VARCHAR NOT IN (SELECT station_id FROM stations)", "is not in the stations"),
        Rule("seconds", "seconds IS NULL", "is missing"),
        Rule("seconds", "seconds IS NOT NULL AND TRY_CAST(seconds AS DOUBLE) IS NULL", "is not a number"),
        Rule("seconds", "NOT isfinite(TRY_CAST(seconds AS DOUBLE))", "is not a number"),
        Rule("seconds", "TRY_CAST(seconds AS DOUBLE) <= 0", "is not more than 0"),
    ]


def _moment_rules(source: Source, field: str) -> list[Rule]:
    missing = Rule(field, f"{field} IS NULL", "is missing")
    if source.types[field] != "VARCHAR":
        return [missing]
    return [
        missing,
        Rule(field, f"TRY_CAST({field} AS TIMESTAMPTZ) IS NULL", "is not an ISO 8601 time"),
        Rule(
            field,
            f"NOT regexp_matches(trim({field}), {literal(ZONE)}) OR NOT contains({field}, ':')",
            "has no time zone",
        ),
    ]


def _number(field: str) -> Rule:
    column = identifier(field)
    return Rule(field, f"{column} IS NOT NULL AND TRY_CAST({column} AS DOUBLE) IS NULL", "is not a number")


def _unique(field: str) -> Rule:
    return Rule(field, f"row_number() OVER (PARTITION BY {field} ORDER BY row) > 1", "appears a second time")


# ------------------------------------------------------------------------------------ columns, as kept


def _station_columns(source: Source) -> str:
    further = [identifier(name) for name in source.types if name not in tables.STATION_COLUMNS]
    return ", ".join(
        ["station_id::VARCHAR AS station_id", "coalesce(name, station_id)::VARCHAR AS name", "genre", *further]
    )


def _registration_columns(source: Source, extra: Sequence[str]) -> str:
    return ", ".join(
        [
            "user_id::VARCHAR AS user_id",
            f"{source.moment('registered_at')} AS registered_at",
            "TRY_CAST(TRY_CAST(age AS DOUBLE) AS INTEGER) AS age",
            "nullif(trim(gender::VARCHAR), '') AS gender",
            "nullif(trim(country::VARCHAR), '') AS country",
            f"{_picks(source)} AS genres",
            *map(identifier, extra),
        ]
    )


def _picks(source: Source) -> str:
    """The genres picked, as a list without empty names."""
    picks = "genres" if "[" in source.types["genres"] else f"string_split(genres, {_SEPARATOR})"
    return f"list_filter(coalesce({picks}, []), lambda pick: trim(pick) <> '')"


def _type_further(connection: duckdb.DuckDBPyConnection, name: str, kind: str | None = None) -> str:
    """Make a further column of the registrations numbers or text: as told, or numbers where every value is one."""
    column = identifier(name)
    if kind is None:
        asked = (
            f"SELECT count({column}) > 0 AND count({column}) = count(TRY_CAST({column} AS DOUBLE)) FROM registrations"
        )
        ((numbers,),) = connection.sql(asked).fetchall()
        kind = NUMBER if numbers else TEXT
    wanted = "DOUBLE" if kind == NUMBER else "VARCHAR"
    connection.execute(f"ALTER TABLE registrations ALTER {column} TYPE {wanted} USING TRY_CAST({column} AS {wanted})")
    return kind


def _listen_columns(source: Source) -> str:
    seconds = "seconds" if source.types["seconds"] in {"INTEGER", "BIGINT", "DOUBLE"} else "TRY_CAST(seconds AS DOUBLE)"
    return (
        f"user_id::VARCHAR AS user_id, {source.moment('started_at')} AS started_at, "
        f"station_id::VARCHAR AS station_id, {seconds} AS seconds"
    )


# --------------------------------------------------------------------------------------- reading files


def _needed(name: str, extra: Sequence[str] = ()) -> tuple[str, ...]:
    return (*tables.COLUMNS[name], *extra)


def _source(connection: duckdb.DuckDBPyConnection, data: Path, name: str, extra: Sequence[str] = ()) -> Source:
    if not data.is_dir():
        raise InputError(f"{data} is not a folder with registrations, listens and stations")
    for suffix in (".parquet", ".csv"):
        path = data / f"{name}{suffix}"
        if path.exists():
            return open_file(connection, path, name, _needed(name, extra))
    raise InputError(f"{data} has neither {name}.parquet nor {name}.csv")


def _load(
    connection: duckdb.DuckDBPyConnection,
    source: Source,
    rules: list[Rule],
    columns: str,
    skip_bad_rows: bool,
    ignored: dict[str, int],
) -> None:
    """Read a small table whole, in the order of its file, keeping the good rows."""
    with readable(source.path):
        connection.execute("SET preserve_insertion_order = true")
        connection.execute(
            f"CREATE TEMP TABLE received AS SELECT *, row_number() OVER () - 1 AS row FROM {source.reader}"
        )
        connection.execute("SET preserve_insertion_order = false")
        bad = _refuse_or_count(connection, "received", source, rules, skip_bad_rows, ignored)
        good = f"received WHERE row NOT IN (SELECT row FROM ({_problems('received', rules)}))" if bad else "received"
        connection.execute(f"CREATE TABLE {source.name} AS SELECT {columns}, row FROM {good} ORDER BY row")
        connection.execute("DROP TABLE received")


def _load_listens(
    connection: duckdb.DuckDBPyConnection,
    source: Source,
    workspace: Path,
    skip_bad_rows: bool,
    ignored: dict[str, int],
) -> None:
    """Make the view `listens` over Parquet on disk."""
    rules = _listen_rules(source)
    broken = " OR ".join(f"coalesce({rule.broken}, false)" for rule in rules)
    columns = _listen_columns(source)
    with readable(source.path):
        if source.path.suffix == ".parquet":
            bad = connection.sql(f"SELECT 1 FROM {source.reader} WHERE {broken} LIMIT 1").fetchall()
            good = f"SELECT {columns} FROM {source.reader}" + (f" WHERE NOT ({broken})" if bad else "")
        else:
            typed = workspace / "listens.parquet"
            flagged = f"SELECT {columns}, {broken} AS bad FROM {source.reader}"
            connection.execute(f"COPY ({flagged}) TO {literal(typed)} (FORMAT parquet)")
            bad = connection.sql(f"SELECT 1 FROM {literal(typed)} WHERE bad LIMIT 1").fetchall()
            good = f"SELECT * EXCLUDE (bad) FROM {literal(typed)} WHERE NOT bad"
        if bad:
            connection.execute("SET preserve_insertion_order = true")
            numbered = f"(SELECT *, row_number() OVER () - 1 AS row FROM {source.reader})"
            _refuse_or_count(connection, numbered, source, rules, skip_bad_rows, ignored)
            connection.execute("SET preserve_insertion_order = false")
        connection.execute(f"CREATE VIEW listens AS {good}")


# --------------------------------------------------------------------------------------- what is wrong


def _problems(rows: str, rules: list[Rule]) -> str:
    """SQL: the bad rows with the number of the first rule each breaks."""
    cases = " ".join(f"WHEN {rule.broken} THEN {number}" for number, rule in enumerate(rules))
    return f"SELECT * FROM (SELECT *, CASE {cases} END AS broken FROM {rows}) WHERE broken IS NOT NULL"


def _refuse_or_count(
    connection: duckdb.DuckDBPyConnection,
    rows: str,
    source: Source,
    rules: list[Rule],
    skip_bad_rows: bool,
    ignored: dict[str, int],
) -> int:
    """The number of bad rows; unless they may be skipped, BadRows that shows the first ten."""
    problems = _problems(rows, rules)
    counts = dict(connection.sql(f"SELECT broken, count(*) FROM ({problems}) GROUP BY ALL ORDER BY ALL").fetchall())
    total = sum(counts.values())
    if total and not skip_bad_rows:
        raise _complaints(connection, problems, source, rules, total)
    for number, count in counts.items():
        ignored[f"{source.path.name}: {rules[number].field} {rules[number].complaint}"] = count
    return total


def _complaints(
    connection: duckdb.DuckDBPyConnection, problems: str, source: Source, rules: list[Rule], total: int
) -> BadRows:
    fields = list(dict.fromkeys(rule.field for rule in rules))
    values = ", ".join(f"{identifier(field)}::VARCHAR" for field in fields)
    first = connection.sql(f"SELECT row, broken, {values} FROM ({problems}) ORDER BY row LIMIT {SHOWN}").fetchall()
    more = [f"{source.path.name}: and {total - SHOWN} more bad rows"] if total > SHOWN else []
    shown = [
        _complaint(source, rules[broken], row, values[fields.index(rules[broken].field)])
        for row, broken, *values in first
    ]
    bare = [_complaint(source, rules[broken], row) for row, broken, *_ in first]
    return BadRows("\n".join(shown + more), "\n".join(bare + more))


def _complaint(source: Source, rule: Rule, row: int, value: str | None = None) -> str:
    shown = "" if value is None else f" {value[:80]!r}"
    return f"{source.path.name} row {row + 1}: {rule.field}{shown} {rule.complaint}"


# ---------------------------------------------------------------------------------------------- genres


def _normalise_genres(connection: duckdb.DuckDBPyConnection) -> None:
    """Write each station's genre as we compare it; the table is small, so Python's own Unicode does it."""
    spelled = [genre for (genre,) in connection.sql("SELECT DISTINCT genre FROM stations").fetchall()]
    for genre in spelled:
        if normal(genre) != genre:
            connection.execute("UPDATE stations SET genre = ? WHERE genre = ?", [normal(genre), genre])


def _count_unknown_picks(connection: duckdb.DuckDBPyConnection) -> int:
    known = {genre for (genre,) in connection.sql("SELECT DISTINCT genre FROM stations").fetchall()}
    picks = connection.sql(
        "SELECT pick, count(*) FROM (SELECT unnest(genres) AS pick FROM registrations) GROUP BY pick"
    )
    return sum(count for pick, count in picks.fetchall() if normal(pick) not in known)
