"""What engines that read the listens in place have in common: the tables as they are named there, and complaints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from firstspin.data import parsing, schema
from firstspin.data.checks import findings
from firstspin.data.checks.findings import SHOWN, BadRowsOfATable, RowRule
from firstspin.data.checks.hints import option_hints
from firstspin.data.checks.row_rules import BROKEN, VALUE
from firstspin.data.ingest import Tables, listen_rules
from firstspin.data.schema import ROW
from firstspin.data.table_files import find_table

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pyarrow as pa

MAX_BAD_VALUES: Final = 100_000
"""Distinct bad values among which options that read them are looked for."""

_USER: Final = {schema.USER_ID: "string"}
RECEIVED: Final = _USER | {schema.STARTED_AT: "timestamp", schema.STATION_ID: "string", schema.SECONDS: "float64"}
"""The columns of typed listens, as Ibis names their types."""

COLUMNS: Final[Mapping[str, Mapping[str, str]]] = {
    schema.REGISTRATIONS: {ROW: "int32"} | _USER | {schema.REGISTERED_AT: "timestamp"},
    schema.STATIONS: {ROW: "int32", schema.STATION_ID: "string", schema.GENRE: "string"},
    schema.LISTENS: RECEIVED | {BROKEN: "int32", VALUE: "string"},
}


@dataclass(frozen=True, slots=True)
class EngineTables:
    """The tables by the names that they have in the engine; the listens are checked: they have BROKEN and VALUE."""

    names: Mapping[str, str]

    def table(self, name: str) -> ir.Table:
        """The Ibis table of one of ours."""
        import ibis

        return ibis.table(dict(COLUMNS[name]), self.names[name])

    @property
    def valid(self) -> ir.Table:
        """The listens that break no rule."""
        listens = self.table(schema.LISTENS)
        return listens.filter(listens[BROKEN].isnull())

    def users(self, strangers: int, *, registered: bool) -> ir.Table:
        """Distinct users of the listens: the `registered` ones, if asked for, and so many others, the first by id."""
        users, known = self.valid.select(schema.USER_ID).distinct(), self.table(schema.REGISTRATIONS)
        others = users.anti_join(known, schema.USER_ID).order_by(schema.USER_ID).limit(strangers)
        return users.semi_join(known, schema.USER_ID).union(others) if registered else others

    def broken(self) -> ir.Table:
        """How many listens (`n`) break each rule first; BROKEN is null for those that break none."""
        listens = self.table(schema.LISTENS)
        return listens.group_by(BROKEN).agg(n=listens.count())

    def bad_values(self) -> ir.Table:
        """Distinct bad values (`rule`, `value`)."""
        listens = self.table(schema.LISTENS)
        bad = listens.filter(listens[BROKEN].notnull()).select(rule=BROKEN, value=VALUE).distinct()
        return bad.order_by("rule", "value").limit(MAX_BAD_VALUES)


def broken_rule(listens: ir.Table, stations: ir.Table, rules: Sequence[RowRule]) -> ir.Value:
    """The number of the first of the rules that a typed listen (RECEIVED) breaks, or null: what DuckDB's SQL says."""
    import ibis

    user, station, at, seconds = (
        listens[name] for name in (schema.USER_ID, schema.STATION_ID, schema.STARTED_AT, schema.SECONDS)
    )
    earliest, latest = (ibis.timestamp(of.replace(tzinfo=None)) for of in (parsing.EARLIEST, parsing.LATEST))
    conditions = {
        (schema.USER_ID, findings.MISSING): user.isnull() | (user == ""),
        (schema.STARTED_AT, findings.MISSING): at.isnull(),
        (schema.STARTED_AT, parsing.NO_SUCH_YEAR): (at < earliest) | (at >= latest),
        (schema.STATION_ID, findings.MISSING): station.isnull() | (station == ""),
        (schema.STATION_ID, findings.UNKNOWN_STATION): ~station.isin(stations[schema.STATION_ID]),
        (schema.SECONDS, findings.MISSING): seconds.isnull() | seconds.isnan(),
        (schema.SECONDS, parsing.NO_NUMBER): seconds.isinf(),
        (schema.SECONDS, findings.NOT_POSITIVE): seconds <= 0,
    }
    of_rules = [(conditions.get((rule.field, rule.complaint)), number) for number, rule in enumerate(rules)]
    branches = [(condition, number) for condition, number in of_rules if condition is not None]
    return ibis.cases(*branches, else_=ibis.null("int32"))


def complain(tables: Tables, counted: pa.Table, bad_values: Callable[[], pa.Table]) -> None:
    """Hand over the bad rows of the listens: the results of `broken` and `bad_values`.

    Raises BadRows, without the numbers of rows, unless they are to be skipped.
    """
    complaints, source, connection = tables.complaints, tables.sources[schema.LISTENS], tables.connection
    counts = {one[BROKEN]: one["n"] for one in counted.to_pylist()}
    valid = counts.pop(None, 0)
    if not counts:
        return
    rules = listen_rules(tables, source).rules
    connection.register("bad values", bad_values())
    of = 'SELECT NULL::BIGINT AS row, rule, value FROM "bad values"'
    hints = option_hints(connection, of, source, rules, sorted(counts))
    first = connection.execute(f"{of} ORDER BY rule, value LIMIT {SHOWN}").fetchall()
    connection.unregister("bad values")
    rows = sum(counts.values())
    complaints.add(
        source.path.name, rules, BadRowsOfATable(rows, rows + valid, dict(sorted(counts.items())), first, hints)
    )


def without_listens(data: Path, folder: Path, columns: pa.Table, file: str) -> Path:
    """A folder with the registrations and stations, and a file with the columns of the listens, without a row."""
    import pyarrow.parquet as pq

    given = folder / "columns"
    given.mkdir()
    for name in (schema.REGISTRATIONS, schema.STATIONS):
        small = find_table(data, name)
        (given / small.name).symlink_to(small.resolve())
    pq.write_table(columns, given / file)
    return given
