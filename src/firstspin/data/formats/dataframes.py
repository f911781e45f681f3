"""Tables in memory (pandas, Polars, Arrow, DuckDB): written as Parquet to a workspace, then read as any other file.

So one reader has the rules for types, values and bad rows. A table is any object with the Arrow stream interface
(https://arrow.apache.org/docs/format/CDataInterface/PyCapsuleInterface.html); no table library is imported.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, runtime_checkable

from firstspin.data import schema
from firstspin.data.formats.columns import Shape, shape_of
from firstspin.data.names import NameIndex
from firstspin.records import InputError, listed

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

FilePath: TypeAlias = str | os.PathLike[str]


@runtime_checkable
class DataFrame(Protocol):
    """A table in memory: of pandas 2.2 or later, Polars, pyarrow, DuckDB or Ibis."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """The rows as a stream of Arrow record batches."""


Table: TypeAlias = FilePath | DataFrame
"""One table: in memory, or the path of its CSV or Parquet file."""

TableSet: TypeAlias = FilePath | Mapping[str, Table]
"""The three tables: the path of their folder, or a dict with the keys registrations, listens and stations."""

_NAMES: Final = ", ".join(schema.COLUMNS)
_ANSWERS: Final = (schema.AGE, schema.GENDER, schema.COUNTRY, schema.GENRES)
_UNNAMED_INDEX: Final = re.compile("__index_level_[0-9]+__")  # of a pandas table
_SHOWN_COLUMNS: Final = 10


def folder_of(tables: TableSet, workspace: Path) -> Path:
    """The folder of the three tables, made in the workspace where they are given one by one.

    A table in memory becomes a file without a suffix, so that messages name it as the caller does. Raises InputError
    where a table is missing, or is neither a path nor a table.
    """
    if isinstance(tables, str | os.PathLike):
        return Path(tables)
    if not isinstance(tables, Mapping):
        raise InputError(f"the data are {described(tables)}: expected a folder, or a dict with the keys {_NAMES}")
    if missing := [name for name in schema.COLUMNS if name not in tables]:
        raise InputError(f"the data have no {missing[0]}: a dict of tables has the keys {_NAMES}")
    if unknown := [name for name in tables if name not in schema.COLUMNS]:
        raise InputError(f"{unknown[0]!r} is none of the tables: {_NAMES}")
    folder = workspace / "given"
    folder.mkdir()
    for name in schema.COLUMNS:
        table = tables[name]
        if isinstance(table, str | os.PathLike):
            path = existing(table)
            suffix = "" if path.is_dir() else ".parquet" if path.suffix == ".parquet" else ".csv"
            (folder / f"{name}{suffix}").symlink_to(path.resolve())
        else:
            _write(received(table, name), folder / name)
    return folder


def registrations_file(table: Table, workspace: Path, extra: Collection[str], *, named: bool = False) -> Path:
    """The file of registrations to answer.

    A table in memory may lack columns: answers that are not there are missing, and its rows are numbered from 1 where
    there is no `user_id`, unless they must be `named`. Raises InputError where it has none of the form's fields, or a
    misspelt one, and as `received`.
    """
    import pyarrow as pa

    if isinstance(table, str | os.PathLike):
        return existing(table)
    arrow = received(table, schema.REGISTRATIONS)
    names = [name.strip() for name in arrow.schema.names]
    if not {*_ANSWERS, *extra} & set(names):
        fields = ", ".join((*_ANSWERS, *extra))
        raise InputError(f"the table has none of the columns {fields} (it has {', '.join(names) or 'no column'})")
    if named and schema.USER_ID not in names:
        raise InputError(f"the registrations have no column {schema.USER_ID}, so their listens are not known")
    _report_absent(names, (*_ANSWERS, *extra))
    rows = len(arrow)
    for name in (schema.USER_ID, *_ANSWERS, *extra):
        if name not in names:
            numbers = pa.array(range(1, rows + 1), pa.int64())
            arrow = arrow.append_column(name, numbers if name == schema.USER_ID else pa.nulls(rows))
    path = workspace / schema.REGISTRATIONS
    _write(arrow, path)
    return path


def listens_file(table: Table, workspace: Path) -> Path:
    """The file of the listens of registrations to answer. Raises InputError as `received`."""
    if isinstance(table, str | os.PathLike):
        return existing(table)
    path = workspace / schema.LISTENS
    _write(received(table, schema.LISTENS), path)
    return path


def _report_absent(names: Collection[str], fields: Collection[str]) -> None:
    """A warning of absent fields, where the table has columns that are not used.

    Raises InputError where one of these seems to be the picks, or differs from a field in case only, as for a file.
    """
    unused = NameIndex(name for name in names if name not in (*schema.REGISTRATION_COLUMNS, *fields))
    absent = [name for name in fields if name not in names]
    for name in absent:
        nearest = unused.nearest(name)
        if nearest and (name == schema.GENRES or nearest.casefold() == name):
            raise InputError(f"the table has no column {name}, but {nearest}: rename it, or leave it out", field=name)
    if absent and unused.names:
        columns = listed(unused.names, _SHOWN_COLUMNS)
        log.warning("the table has no column %s: answered without; not used: %s", ", ".join(absent), columns)


def path_of(given: object, what: str) -> Path:
    """The path of a file or folder. Raises InputError where it is of another type, as where arguments are swapped."""
    if not isinstance(given, str | os.PathLike):
        raise InputError(f"{what} is {described(given)}, where a path is expected")
    return Path(given)


def existing(path: FilePath) -> Path:
    """The path of a file, or of a folder of files. Raises InputError where there is none."""
    if not Path(path).exists():
        raise InputError(f"{Path(path)} is not a file")
    return Path(path)


def received(table: object, name: str) -> pa.Table:
    """A table as an Arrow table with plain values. Raises InputError where it is none, or Arrow can't hold a column."""
    import pyarrow as pa

    if not isinstance(table, DataFrame):
        hint = "; call collect() first" if hasattr(table, "collect") else ""
        kinds = "a path, or a table with the Arrow interface: pandas 2.2 or later, Polars, pyarrow"
        raise InputError(f"{name} is {described(table)}: expected {kinds}{hint}")
    if any(named == schema.GENRES and str(kind) == "Object" for named, kind in _polars_columns(table)):
        raise InputError(f"{name}: genres is a column of Python objects (Polars); give the picks in lists, as picked")
    of_pandas = hasattr(table, "iloc") and schema.GENRES in getattr(table, "columns", ())  # others have no sets
    if of_pandas and any(isinstance(picks, set | frozenset) for picks in table[schema.GENRES]):  # type: ignore[index]
        raise InputError(f"{name}: genres has sets, which have no order; give the picks in lists, as picked")
    try:
        with pa.RecordBatchReader.from_stream(table) as batches:
            arrow = batches.read_all()
        columns = [(name, arrow.column(at)) for at, name in enumerate(arrow.schema.names)]
        named = [(name, _values(column)) for name, column in columns if not _UNNAMED_INDEX.fullmatch(name)]
        return pa.table([column for _, column in named], names=[name for name, _ in named])
    except Exception as problem:  # of any table library
        bare = f"{name} can't be read as an Arrow table; each column needs values of one type: drop it, or convert it"
        raise InputError(f"{bare} ({'; '.join(map(str, problem.args))})", bare=bare) from problem


def _polars_columns(table: object) -> list[tuple[str, object]]:
    """The name and type of each column of a Polars table; none of another library's."""
    columns, kinds = getattr(table, "columns", ()), getattr(table, "dtypes", ())
    return list(zip(columns, kinds, strict=True)) if isinstance(kinds, list) else []


def _values(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column without the encodings (categories, runs) that Parquet or pyarrow's own casts don't know."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if column.null_count == len(column):
        return pa.chunked_array([pa.nulls(len(column))])  # pandas gives an empty column of text the type of floats
    if pa.types.is_dictionary(kind):
        value = pa.large_string() if pa.types.is_string_view(kind.value_type) else kind.value_type
        return pa.chunked_array([one.dictionary.cast(value).take(one.indices) for one in column.chunks], value)
    if pa.types.is_run_end_encoded(kind):
        return pc.run_end_decode(column)
    if shape_of(kind) is Shape.texts and pa.types.is_dictionary(kind.value_type):
        return pa.chunked_array([column.to_pylist()], pa.list_(pa.string()))
    return column


def _write(arrow: pa.Table, path: Path) -> None:
    """Write a table as Parquet, without the columns of types that Parquet doesn't have: no column of ours has them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    foreign = [pa.types.is_union(kind) or pa.types.is_interval(kind) for kind in arrow.schema.types]
    pq.write_table(arrow.select([at for at, is_foreign in enumerate(foreign) if not is_foreign]), path)


def described(given: object) -> str:
    """The type of an argument, for messages."""
    kind = type(given)
    library = "" if kind.__module__ == "builtins" else f"{kind.__module__.partition('.')[0]}."
    return "missing" if given is None else f"of type {library}{kind.__qualname__}"
