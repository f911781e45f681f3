"""Labels of listens in PostgreSQL: they stay there, and their seconds by registration and genre come back.

Registrations and stations are files, read and checked as with DuckDB. Their ids go to PostgreSQL as arrays, since the
transaction is read-only and may run on a replica, which has no temporary tables. The checks of the listens and the
label's Ibis expression are compiled to PostgreSQL; results are streamed by COPY, which queries in parallel.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from firstspin.data import schema
from firstspin.data.checks.findings import RowRule
from firstspin.data.checks.mismatches import by_day
from firstspin.data.checks.row_rules import BROKEN, SHOWN_CHARACTERS, VALUE
from firstspin.data.dataset import Reading, open_reading
from firstspin.data.formats import postgres_address
from firstspin.data.formats.sources import shown_alias
from firstspin.data.ingest import Tables, listen_rules
from firstspin.data.labels import expressions, labelling
from firstspin.data.labels.remote import RECEIVED, EngineTables, broken_rule, complain, without_listens
from firstspin.data.schema import ROW
from firstspin.data.sql import identifier
from firstspin.files import workspace
from firstspin.installation.extras import need
from firstspin.records import Census, InputError, LabelRule

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import psycopg
    import pyarrow as pa
    from psycopg.abc import Buffer

SCHEMES: Final = ("postgresql", "postgres")
COMPILED_ONLY: Final = ("bigquery", "databricks", "snowflake", "trino")

_OPTION: Final = "--listens"
_DEFAULTS: Final = {"application_name": "firstspin label", "connect_timeout": "10"}
_SETTINGS: Final = """
    SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO'; SET LOCAL client_encoding = 'UTF8';
    SET LOCAL extra_float_digits = 1"""
"""How values are written: databases, roles and the address may have other settings; the last one: doubles exactly."""
_NAMES: Final = {name: f"firstspin {name}" for name in schema.COLUMNS}
_TABLES: Final = EngineTables(_NAMES)
_RECEIVED: Final = "firstspin received"
_C: Final = 'COLLATE "C"'  # texts are equal, and in order, by their bytes, as in DuckDB

_INTEGERS: Final = ("int2", "int4", "int8")
_NUMBERS: Final = (*_INTEGERS, "numeric", "float4", "float8")
_IDS: Final = ("text", "varchar", "bpchar", "name", "uuid", *_INTEGERS)
_TYPES: Final = {
    schema.USER_ID: (_IDS, "text or whole numbers are"),
    schema.STARTED_AT: (("timestamp", "timestamptz", "date"), "a time is"),
    schema.STATION_ID: (_IDS, "text or whole numbers are"),
    schema.SECONDS: (_NUMBERS, "a number is"),
}
_FLOATS: Final = {"float4": "FLOAT", "float8": "DOUBLE"}
_HUGE: Final = 1.7e308
_BLOCK: Final = 1 << 24
"""Bytes of a result that are read at once: a row must fit in."""
_POSTGRES: Final = {
    "int32": "int4",
    "int64": "int8",
    "float64": "float8",
    "string": "text",
    "timestamp": "timestamp",
    "date": "date",
}


def write_labels(
    data: Path, out: Path, reading: Reading, address: str, table: str = schema.LISTENS
) -> tuple[Census, dict[str, int]]:
    """`dataset.write_labels` with the listens in a table or view of PostgreSQL: its `name`, or `schema.name`.

    Raises InputError as there, for the address of another engine, for a column whose values would have to be parsed,
    and where PostgreSQL fails.
    """
    refuse_other_engines(address)
    if reading.erased:
        raise InputError(f"{_OPTION} does not leave out erased users: export the listens as Parquet for --erased")
    need("postgres", f"{_OPTION} postgresql://…")
    with workspace("label") as folder, _in_our_words(), _connection(address) as connection:
        tables, listens = _opened(data, folder, reading, connection, table)
        complain(tables, listens.broken(), listens.bad_values)
        census, _ = labelling.label_tables(replace(tables, remote=listens), reading.rule, out, reading.now)
        return census, tables.ignored


def refuse_other_engines(address: str) -> None:
    """Raises InputError, which shows the scheme of the address alone, where it is not one of PostgreSQL."""
    scheme, found, _ = address.partition("://")
    if found and scheme in SCHEMES:
        return
    hint = "expected postgresql://USER@HOST/DATABASE or duckdb://FILE"
    if found and scheme in COMPILED_ONLY:
        hint = (
            "the label compiles to its SQL but was never run there; export the listens as Parquet, or read PostgreSQL"
        )
        raise InputError(f"{_OPTION} {scheme}:…: {hint} (docs/scale.md)")
    raise InputError(f"{_OPTION}: this is no address of listens: {hint}")


@contextmanager
def _connection(address: str) -> Iterator[psycopg.Connection[Any]]:
    """A read-only connection, whose one transaction sees one state of the table."""
    import psycopg

    with psycopg.connect(postgres_address.complete(address, _DEFAULTS, _OPTION)) as connection:
        connection.isolation_level, connection.read_only = psycopg.IsolationLevel.REPEATABLE_READ, True
        connection.execute(_SETTINGS)  # in the transaction: a pool may give the next one another session
        yield connection
        connection.rollback()


@contextmanager
def _in_our_words() -> Iterator[None]:
    """Convert the errors of PostgreSQL. Raises InputError with its message, without the statement."""
    import psycopg
    import pyarrow as pa

    try:
        yield
    except pa.ArrowException as problem:
        cause = "a text is not UTF-8, or longer than 16 MB"
        raise InputError(f"the listens can't be read in PostgreSQL: {cause}") from problem
    except psycopg.Error as problem:
        cause = problem.diag.message_primary or " ".join(str(problem).split())
        raise InputError(f"the listens can't be read in PostgreSQL: {cause}") from problem


def _opened(
    data: Path, folder: Path, reading: Reading, connection: psycopg.Connection[Any], name: str
) -> tuple[Tables, PostgresListens]:
    """The tables, with the columns of the listens alone; and the listens."""
    import pyarrow as pa

    table = ".".join(map(identifier, name.split(".", 1)))
    described = connection.execute(f"SELECT * FROM {table} LIMIT 0".encode()).description or []
    names, types = [of.name for of in described], [of.type_display.partition("(")[0] for of in described]
    columns = pa.table({of: pa.array([], _arrow(kind)) for of, kind in zip(names, types, strict=True)})
    given = without_listens(data, folder, columns, schema.LISTENS)
    tables = open_reading(given, folder, reading)
    source = tables.sources[schema.LISTENS]
    selected, values = [], []
    for ours, column in source.columns.items():
        kind, received = types[column.position], identifier(names[column.position])
        expected, needed = _TYPES[ours]
        if kind not in expected:
            problem = f"{shown_alias(ours, column.header)} is {kind}, where {needed} needed: name a view that casts it"
            raise InputError(f"{name} in PostgreSQL: {problem}", field=ours)
        selected.append(f"{_value(ours, received, kind)} AS {identifier(ours)}")
        values.append(f"left({received}::text, {SHOWN_CHARACTERS}) {_C} AS {identifier(_received(ours))}")
    rows = f"SELECT {', '.join(selected + values)} FROM {table}"
    floats = _FLOATS.get(types[source.columns[schema.SECONDS].position], "")
    return tables, PostgresListens(connection, tables, rows, floats)


def _arrow(kind: str) -> pa.DataType:
    """A type that lets `open_tables` check names alone: `_opened` checks the types of our columns."""
    import pyarrow as pa

    if kind in _NUMBERS:
        return pa.int64() if kind in _INTEGERS else pa.float64()
    return pa.timestamp("us") if kind in _TYPES[schema.STARTED_AT][0] else pa.string()


def _value(ours: str, received: str, kind: str) -> str:
    """SQL: a value of the table in the type that `RECEIVED` has for our column; a number beyond doubles is infinite."""
    if ours == schema.STARTED_AT:
        return f"{received} AT TIME ZONE 'UTC'" if kind == "timestamptz" else f"{received}::timestamp"
    if ours == schema.SECONDS:
        finite = f"WHEN abs({received}) < {_HUGE} OR {received} = 'NaN' THEN {received}::float8"
        infinite = f"WHEN {received} IS NOT NULL THEN 'infinity'::float8"
        return f"CASE {finite} {infinite} END" if kind == "numeric" else f"{received}::float8"
    return f"{received}::text {_C}"


@dataclass(frozen=True, slots=True)
class PostgresListens:
    """The listens as `rows`: SQL of PostgreSQL whose columns are those of `RECEIVED`, and each again as it is shown.

    `floats` is DuckDB's type of the seconds where they are floats.
    """

    connection: psycopg.Connection[Any]
    tables: Tables
    rows: str
    floats: str

    def by_day(self) -> pa.Table:
        """Days and lengths of the valid listens, see `mismatches.by_day`."""
        return self._all(by_day(_TABLES.valid))

    def seconds_by_genre(self, rule: LabelRule) -> Iterator[pa.Table]:
        """The result of `expressions.seconds_by_genre`, in parts."""
        registrations, stations = _TABLES.table(schema.REGISTRATIONS), _TABLES.table(schema.STATIONS)
        yield from self._parts(expressions.seconds_by_genre(registrations, _TABLES.valid, stations, rule))

    def users(self, strangers: int, *, registered: bool) -> pa.Table:
        """Distinct users of the listens, see `EngineTables.users`."""
        return self._all(_TABLES.users(strangers, registered=registered))

    def broken(self) -> pa.Table:
        """How many listens break each rule, see `EngineTables.broken`."""
        return self._all(_TABLES.broken())

    def bad_values(self) -> pa.Table:
        """Distinct bad values, see `EngineTables.bad_values`; floats as DuckDB shows them."""
        values = self._all(_TABLES.bad_values())
        if not self.floats:
            return values
        of_seconds = [number for number, rule in enumerate(self._rules) if rule.field == schema.SECONDS]
        shown = f"CASE WHEN rule IN {tuple(of_seconds)} THEN value::{self.floats}::VARCHAR ELSE value END AS value"
        connection = self.tables.connection
        connection.register("values", values)
        as_shown = connection.sql(f'SELECT rule, {shown} FROM "values"').to_arrow_table()
        connection.unregister("values")
        return as_shown

    def _all(self, query: ir.Table) -> pa.Table:
        """The result of a query, which may have no rows."""
        import pyarrow as pa

        return pa.concat_tables([query.schema().to_pyarrow().empty_table(), *self._parts(query)])

    def _parts(self, query: ir.Table) -> Iterator[pa.Table]:
        """The result of a query. Raises InputError where PostgreSQL fails."""
        import ibis
        import pyarrow as pa
        from pyarrow import csv

        compiled = str(ibis.to_sql(query, dialect="postgres"))
        kinds = query.schema()
        typed = ", ".join(f"{identifier(name)}::{_POSTGRES[str(kind)]}" for name, kind in kinds.items())
        views, values = self._views(compiled)
        statement = (
            f"COPY (WITH {views} SELECT {typed} FROM ({_escaped(compiled)}) AS result) TO STDOUT (FORMAT csv, HEADER)"
        )
        convert = csv.ConvertOptions(
            column_types=kinds.to_pyarrow(),
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            null_values=[""],
        )
        with _in_our_words(), self.connection.cursor() as cursor, cursor.copy(statement.encode(), values) as copied:
            parse = csv.ParseOptions(newlines_in_values=True)
            read = csv.ReadOptions(use_threads=False, block_size=_BLOCK)
            stream = io.BufferedReader(_Stream(iter(copied)))
            for batch in csv.open_csv(stream, read_options=read, parse_options=parse, convert_options=convert):
                yield pa.Table.from_batches([batch])

    @property
    def _rules(self) -> Sequence[RowRule]:
        return listen_rules(self.tables, self.tables.sources[schema.LISTENS]).rules

    def _views(self, compiled: str) -> tuple[str, list[list[Any]]]:
        """SQL of the tables that a query names, with the values of its placeholders: arrays of columns."""
        import ibis

        rules, stations = self._rules, _TABLES.table(schema.STATIONS)
        received = ibis.table(RECEIVED | {_received(name): "string" for name in RECEIVED}, _RECEIVED)
        verdict = received.mutate(broken_rule(received, stations, rules).name(BROKEN))
        values = [(verdict[BROKEN] == at, verdict[_received(of.field)]) for at, of in enumerate(rules) if of.field]
        value = ibis.cases(*values, else_=ibis.null("string"))
        checked = verdict.select(*RECEIVED, BROKEN, value.name(VALUE))
        views = [
            f"{identifier(_NAMES[schema.REGISTRATIONS])} AS (SELECT n AS {identifier(ROW)}, id {_C} AS user_id, "
            "at AS registered_at FROM unnest(%s::int4[], %s::text[], %s::timestamp[]) AS t(n, id, at))",
            f"{identifier(_NAMES[schema.STATIONS])} AS (SELECT n AS {identifier(ROW)}, id {_C} AS station_id, "
            f"of {_C} AS genre FROM unnest(%s::int4[], %s::text[], %s::text[]) AS t(n, id, of))",
            f"{identifier(_RECEIVED)} AS ({_escaped(self.rows)})",
            f"{identifier(_NAMES[schema.LISTENS])} AS ({_escaped(str(ibis.to_sql(checked, dialect='postgres')))})",
        ]
        row, at = f"{identifier(ROW)}::INTEGER", "registered_at::VARCHAR"
        nobody = "" if _NAMES[schema.REGISTRATIONS] in compiled else " LIMIT 0"
        sent = (
            f"SELECT {row}, user_id, {at} FROM registrations{nobody}",
            f"SELECT {row}, station_id, genre FROM stations",
        )
        columns = [column for query in sent for column in self.tables.connection.sql(query).to_arrow_table().columns]
        return ", ".join(views), [column.to_pylist() for column in columns]


class _Stream(io.RawIOBase):
    """The chunks of a copy as a file."""

    def __init__(self, chunks: Iterator[Buffer]) -> None:
        self._chunks, self._rest = chunks, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        if not self._rest:
            self._rest = memoryview(next(self._chunks, b""))
        room = memoryview(into)
        n = min(len(room), len(self._rest))
        room[:n], self._rest = self._rest[:n], self._rest[n:]
        return n


def _received(name: str) -> str:
    """The column with the values of another as messages show them."""
    return f"{name} received"


def _escaped(statement: str) -> str:
    """SQL in which no percent sign is taken for a placeholder."""
    return statement.replace("%", "%%")
