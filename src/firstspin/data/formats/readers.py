"""Readers of input files: the format and the columns of a CSV or Parquet file, and how DuckDB reads it.

The format follows from the first bytes, not from the name. No name chosen by a user becomes part of an SQL statement:
files are linked into the workspace under fixed names, and columns are named by position. Files compressed with gzip or
zstd are unpacked there first. A folder is read as one table: its files in the order of their paths.
"""

from __future__ import annotations

import codecs
import errno
import gzip
import re
import shlex
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, TypeVar, cast

from firstspin.data.formats import csv_rewriting
from firstspin.data.formats.columns import Shape, shape_of
from firstspin.data.formats.csv_rewriting import ENCODING_HINT, MAX_LINE, NOT_TEXT, UTF_8, Dialect, Record
from firstspin.data.formats.written_values import AS_WRITTEN, Spelling
from firstspin.data.names import assigned
from firstspin.data.sql import identifier, literal
from firstspin.data.table_files import files_of
from firstspin.records import MAX_TEXT, InputError, listed

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

MEMORY_LIMIT: Final = "1300MB"
MAX_COLUMNS: Final = 10_000
MAX_TITLE_LINES: Final = 20
_NO_SPACE: Final = f"not enough space; TMPDIR names the folder for what is more than {MEMORY_LIMIT}"
PROBLEM: Final = "problem of the row"
"""A column of every table read: why the row is not well-formed, or null."""

_PARQUET: Final = b"PAR1"
_ENCODINGS: Final = {b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_OTHER_FORMATS: Final = {
    b"BZh": "is compressed with bzip2: unpack it first",
    b"\xfd7zXZ\0": "is compressed with xz: unpack it first",
    b"PK\x03\x04": "is a ZIP archive or an Excel workbook: unpack it, or save the sheet as CSV in UTF-8",
    b"\xd0\xcf\x11\xe0": "is an Excel workbook: save the sheet as CSV in UTF-8",
    b"SQLite format 3\0": "is an SQLite database: export the table as CSV or Parquet",
    b"ARROW1\0\0": "is a Feather file: write it as Parquet",
    b"ORC": "is an ORC file: write it as Parquet",
    b"Obj\x01": "is an Avro file: write it as Parquet",
}
_CODECS: Final = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_DELIMITER_NAMES: Final = {",": "commas", ";": "semicolons", "\t": "tabs"}
_DELIMITERS: Final = tuple(_DELIMITER_NAMES)
_SHOWN_NAMES: Final = 20
_CHUNK: Final = 1 << 20

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a file: its position, its type (text in CSV) and its name in the file."""

    position: int
    type: pa.DataType
    header: str

    @property
    def sql(self) -> str:
        """The SQL name of the column, which no further column can have."""
        return identifier(name_at(self.position))


@dataclass(frozen=True, slots=True)
class Source:
    """A file with the columns `names`, and the `columns` to read, by our name; `dialect` is None for Parquet.

    `spelling` says how its values are written. DuckDB reads the file at `link`, a path in the workspace; of a folder,
    the `parts` are its files, and `dialect` is that of one in CSV, if any.
    """

    path: Path
    link: Path
    names: tuple[str, ...]
    columns: Mapping[str, Column]
    dialect: Dialect | None
    spelling: Spelling = AS_WRITTEN
    parts: tuple[Source, ...] = ()

    @property
    def width(self) -> int:
        """The number of columns in the file."""
        return len(self.names)

    @property
    def format(self) -> str:
        """The name of the format, with what is unusual about it."""
        if self.dialect is None:
            return "Parquet"
        unusual = [_DELIMITER_NAMES[self.dialect.delimiter]] if self.dialect.delimiter != "," else []
        unusual += [self.dialect.encoding.upper()] if self.dialect.encoding != UTF_8 else []
        return f"CSV ({', '.join(unusual)})" if unusual else "CSV"


# ------------------------------------------------------------------------------------------------------- opening files


def open_table(
    path: Path,
    name: str,
    needed: Sequence[str],
    *,
    workspace: Path,
    optional: Sequence[str] | None = (),
    mapped: Mapping[str, Sequence[str]] | None = None,
    mapped_at: str = "",
    spelling: Spelling = AS_WRITTEN,
) -> Source:
    """Open a CSV or Parquet file, or a folder of such: its format, the `needed` columns, and the `optional` ones there.

    `name` is the name of the table, unique in the workspace. Where `optional` is None, all columns with a unique name
    are read. `mapped`: the names that a column may have in the file, the first of which that is there is used; None
    where columns can't be mapped. `mapped_at` ends the message about a missing column. Raises InputError where the file
    is no table, or a needed or mapped column is missing or occurs twice.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.is_dir():
        how = {"optional": optional, "mapped": mapped, "mapped_at": mapped_at, "spelling": spelling}
        return _open_folder(path, name, lambda file, of: open_table(file, of, needed, workspace=workspace, **how))  # type: ignore[arg-type]
    if not path.is_file():
        raise InputError(f"{path} is not a file")
    path = _unpacked(path, workspace / f"unpacked.{name}")
    link = workspace / f"received.{name}"
    with in_our_words(f"{path.name} can't be read"):
        with path.open("rb") as file:
            begin = file.read(1000)
        if begin.startswith(_PARQUET):
            dialect, schema = None, pq.read_schema(path)
        else:
            _refuse_other_format(path, begin)
            encoding = _encoding(path, begin, spelling)
            wanted = [(mapped or {}).get(column, (column,)) for column in needed]
            dialect = _dialect(path, encoding, wanted)
            header = _header(path, dialect)
            if not _fit(header, wanted)[0]:
                _refuse_title(path, encoding, wanted)
            if any("\n" in name or "\r" in name for name in header):
                dialect = replace(dialect, plain=False)  # DuckDB may find no rows at all below such a header
            schema = pa.schema([(column, pa.string()) for column in header])
        link.unlink(missing_ok=True)
        link.symlink_to(path.resolve())
    if len(schema) > MAX_COLUMNS:
        raise InputError(f"{path.name} has {len(schema):,} columns; at most {MAX_COLUMNS:,} are read")
    names = tuple(name.strip() for name in schema.names)
    columns = _columns(path, schema, names, needed, optional, mapped, mapped_at)
    return Source(path, link, names, columns, dialect, spelling)


def _open_folder(folder: Path, name: str, open_file: Callable[[Path, str], Source]) -> Source:
    """The files of a folder as one table. Raises InputError where it has none, or their columns have other types."""
    parts = []
    for number, path in enumerate(files_of(folder)):
        try:
            parts.append(open_file(path, f"{name}.{number}"))
        except InputError as problem:
            inside = f"{folder.name}/{path.parent.relative_to(folder)}".removesuffix("/.")
            raise InputError(f"{inside}: {problem}", bare=f"{inside}: {problem.bare}", field=problem.field) from None
    dialects = [part.dialect for part in parts if part.dialect is not None]
    dialect = replace(dialects[0], plain=all(one.plain for one in dialects)) if dialects else None
    named = dict.fromkeys(column for part in parts for column in part.columns)
    columns = {column: _common([part for part in parts if column in part.columns], column) for column in named}
    first = parts[0]
    return Source(folder, first.link, first.names, columns, dialect, first.spelling, tuple(parts))


def _common(parts: Sequence[Source], name: str) -> Column:
    """The column of the first file, with the type of all. Raises InputError where files have other types."""
    import pyarrow as pa

    filled = [part for part in parts if not is_empty(part, part.columns[name])]
    if not filled:
        return replace(parts[0].columns[name], type=pa.null())
    first, *others = filled
    column, shape = first.columns[name], shape_of(first.columns[name].type)
    for part in others:
        other = shape_of(part.columns[name].type)
        if shape is Shape.nothing:
            column, shape = replace(column, type=part.columns[name].type), other
        elif {shape, other} <= {Shape.whole, Shape.decimal, Shape.floating} and shape is not other:
            column, shape = replace(column, type=pa.float64()), Shape.floating
        elif other not in (shape, Shape.nothing):
            of, ours = (one.columns[name].type for one in (part, first))
            raise InputError(f"{part.path.name}: {name} is {of}, where {first.path.name} has {ours}", field=name)
    return column


def _unpacked(path: Path, folder: Path) -> Path:
    """The file, or where it is compressed, an unpacked copy of the same name in the folder."""
    with in_our_words(f"{path.name} can't be read"):
        with path.open("rb") as file:
            begin = file.read(4)
        codec = next((codec for magic, codec in _CODECS.items() if begin.startswith(magic)), None)
        if codec is None:
            return path
        folder.mkdir(exist_ok=True)
        copy = folder / path.name
        copy.unlink(missing_ok=True)
        with _decompressing(path, codec) as packed, copy.open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked, _CHUNK)
        return copy


def _decompressing(path: Path, codec: str) -> BinaryIO:
    import pyarrow as pa

    if codec == "gzip":
        return cast("BinaryIO", gzip.open(path))
    return cast("BinaryIO", pa.input_stream(str(path), compression=codec))


def _columns(
    path: Path,
    schema: pa.Schema,
    names: Sequence[str],
    needed: Sequence[str],
    optional: Sequence[str] | None,
    mapped: Mapping[str, Sequence[str]] | None,
    mapped_at: str,
) -> dict[str, Column]:
    if optional is None:
        optional = [name for name in names if name and name not in needed and names.count(name) == 1]
    aliases = {column: (mapped or {}).get(column, (column,)) for column in (*needed, *optional)}
    headers = {column: next((name for name in aliases[column] if name in names), None) for column in aliases}
    missing = [column for column in aliases if headers[column] is None and column in (*needed, *(mapped or ()))]
    if missing:
        raise _missing(path, missing, aliases, names, None if mapped is None else mapped_at)
    there = {column: header for column, header in headers.items() if header is not None}
    if twice := [header for header in there.values() if names.count(header) > 1]:
        raise InputError(f"{path.name} names the column {_shown(twice[0])} twice", field=twice[0])
    positions = {column: names.index(header) for column, header in there.items()}
    return {column: Column(at, schema.field(at).type, names[at]) for column, at in positions.items()}


def _missing(
    path: Path,
    missing: Sequence[str],
    aliases: Mapping[str, Sequence[str]],
    names: Sequence[str],
    mapped_at: str | None,
) -> InputError:
    """The error for needed columns that a file lacks, with its columns and those of similar names."""
    if any("\0" in name for name in names):
        return InputError(f"{path.name} has NUL bytes in its first line: save it as CSV in UTF-8")
    wanted = (shown_alias(column, aliases[column][0]) for column in missing)
    lacks = f"{path.name} has no column {', '.join(wanted)}"
    has = listed(list(map(_shown, names)), _SHOWN_NAMES)
    used = {header for known in aliases.values() for header in known if header in names}
    free = (name for name in names if name.isprintable() and not set(name) & set(",\"'") and name not in used)
    similar = assigned({column: aliases[column][0] for column in missing}, free)
    pairs = ",".join(f"{column}={similar.get(column, 'NAME')}" for column in missing)
    hint = "" if mapped_at is None else f"; for columns of other names: --map {shlex.quote(pairs)}{mapped_at}"
    bare = lacks  # without a header the names are values of a row
    return InputError(f"{lacks} (it has {has}){hint}", bare=bare, field=missing[0])


def shown_alias(column: str, header: str) -> str:
    """A column of ours as messages name it: with its name in the file, where that is another."""
    return column if column == header else f"{_shown(header)} ({column})"


def is_empty(source: Source, column: Column) -> bool:
    """Whether a Parquet column of floats has no value: pandas gives an empty column of text this type."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if source.parts or source.dialect is not None or not pa.types.is_floating(column.type):
        return False
    with in_our_words(f"{source.path.name} can't be read"):
        cells = pq.read_table(source.path, columns=[pq.read_schema(source.path).names[column.position]])
    return bool(cells.num_columns == 1 and cells.column(0).null_count == len(cells))


def _shown(name: str) -> str:
    return name if name.isprintable() and len(name) <= MAX_TEXT else f"{name[:80]!r}"


def _refuse_other_format(path: Path, begin: bytes) -> None:
    for magic, what in _OTHER_FORMATS.items():
        if begin.startswith(magic):
            raise InputError(f"{path.name} {what}")
    if path.suffix == ".parquet":
        raise InputError(
            f"{path.name} is not Parquet: {'it is empty' if not begin else 'its first bytes are not PAR1'}"
        )


def _encoding(path: Path, begin: bytes, spelling: Spelling) -> str:
    """The encoding that a file begins with, else UTF-8 if it is that, else the one named: a folder may have several."""
    if marked := next((name for mark, name in _ENCODINGS.items() if begin.startswith(mark)), None):
        return marked
    encoding = codecs.lookup(spelling.encoding or "utf-8").name
    return UTF_8 if encoding == "utf-8" or csv_rewriting.is_utf_8(path) else encoding


def _dialect(path: Path, encoding: str, needed: Sequence[Sequence[str]]) -> Dialect:
    """The dialect of a CSV file. The delimiter is the one that gives the needed columns, or else the most columns."""
    with csv_rewriting.open_text(path, Dialect(encoding)) as file:
        first = file.readline(1000)
    plain = encoding == UTF_8 and bool(first.strip())
    if hint := re.fullmatch(r'"?sep=(.)"?[,;\s]*', first, re.IGNORECASE):  # Excel writes and reads this line
        if hint[1] not in _DELIMITERS:
            raise InputError(f"{path.name}: the first line, {first.strip()!r}, names no comma, semicolon or tab")
        return Dialect(encoding, hint[1], skip=1, plain=plain)
    dialects = [Dialect(encoding, delimiter, plain=plain) for delimiter in _DELIMITERS]
    return max(dialects, key=lambda dialect: _fit(_first_record(path, dialect), needed))


def _fit(header: Record | None, needed: Sequence[Sequence[str]]) -> tuple[bool, int]:
    names = {name.strip() for name in header} if isinstance(header, list) else {""}
    return all(not names.isdisjoint(aliases) for aliases in needed), len(names)


def _header(path: Path, dialect: Dialect) -> list[str]:
    header = _first_record(path, dialect)
    if header is None:
        raise InputError(f"{path.name} is empty; the first line must name the columns")
    if isinstance(header, str):
        hint = f"; {ENCODING_HINT}" if header == NOT_TEXT else ""
        raise InputError(f"{path.name}: the first line {header}; it must name the columns{hint}")
    return header


def _refuse_title(path: Path, encoding: str, needed: Sequence[Sequence[str]]) -> None:
    """Raises InputError where a line below the first one has the names of all needed columns."""
    with csv_rewriting.open_text(path, Dialect(encoding)) as file:
        file.readline(MAX_LINE)
        for number in range(2, MAX_TITLE_LINES + 1):
            line = file.readline(MAX_LINE)
            rows = (line.rstrip("\r\n").replace('"', "").split(delimiter) for delimiter in _DELIMITERS)
            if any(_fit(row, needed)[0] for row in rows):
                above = "the line" if number == 2 else f"the {number - 1} lines"
                raise InputError(f"{path.name}: line {number} names the columns: delete {above} above it")


def _first_record(path: Path, dialect: Dialect) -> Record | None:
    with csv_rewriting.open_text(path, dialect) as file:
        return next(csv_rewriting.records(file, dialect), None)


# ------------------------------------------------------------------------------------------------------- reading files


def connect(
    workspace: Path, sources: Sequence[Source] = (), *, threads: int | None = None
) -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB, in UTC, that keeps rows in order and spills to the workspace above MEMORY_LIMIT.

    It can read and write the workspace, read the sources, and no other file, whatever the statement.
    Its settings are locked. Raises InputError where the path of the workspace is a glob pattern to DuckDB.
    """
    import duckdb

    if strange := set("*?[]{}") & set(str(workspace)):
        raise InputError(f"the temporary folder {workspace} has {min(strange)} in its name: set TMPDIR to another")
    connection = duckdb.connect(config={"autoinstall_known_extensions": False, "autoload_known_extensions": False})
    paths = [part.link for source in sources for part in source.parts or (source,)]
    settings = {
        "TimeZone": literal("UTC"),
        "memory_limit": literal(MEMORY_LIMIT),
        "temp_directory": literal(workspace / "spill"),
        "allowed_directories": f"[{literal(workspace)}]",
        "allowed_paths": f"[{', '.join(map(literal, paths))}]",
        "enable_external_access": "false",
        **({"threads": str(threads)} if threads else {}),
        "lock_configuration": "true",  # last: no setting can follow
    }
    for name, value in settings.items():
        connection.execute(f"SET {name} = {value}")
    return connection


def read(source: Source, run: Callable[[str], Result]) -> Result:
    """Call `run` with the SQL of the source's table: its columns by their `sql` names, and PROBLEM.

    A CSV file that DuckDB can't read is rewritten and `run` called again. Raises InputError where the file can't be
    read at all.
    """
    import duckdb

    with in_our_words(f"{source.path.name} can't be read"):
        if source.dialect is None or source.dialect.plain:
            try:
                return run(_as_received(source))
            except (duckdb.OutOfMemoryException, duckdb.IOException):
                raise
            except duckdb.Error:
                if source.dialect is None:
                    raise
        return run(_rewritten(source, source.dialect))


def name_at(position: int) -> str:
    """The name of the column at a position of the file, which no further column can have."""
    return f"column {position}"


def _as_received(source: Source) -> str:
    if source.parts:
        alike = groupby(source.parts, key=lambda part: (part.names, part.dialect, str(dict(part.columns))))
        return _united(source, ((part, _files([part, *more])) for _, (part, *more) in alike))
    return _files([source])


def _united(source: Source, parts: Iterable[tuple[Source, str]]) -> str:
    """SQL: the rows of all parts, each given with its SQL, in order; a column that a part lacks is null there."""
    selected = []
    for part, rows in parts:
        columns = []
        for name, column in source.columns.items():
            value = part.columns[name].sql if name in part.columns else "NULL"
            floats = shape_of(column.type) is Shape.floating
            columns.append(f"{f'{value}::DOUBLE' if floats else value} AS {column.sql}")
        selected.append(f"SELECT {', '.join(columns)}, {identifier(PROBLEM)} FROM {rows}")
    return f"({' UNION ALL '.join(selected)})"


def _files(alike: Sequence[Source]) -> str:
    """SQL: the rows of files with the same columns and dialect, as received."""
    source, paths = alike[0], f"[{', '.join(literal(one.link) for one in alike)}]"
    names = [name_at(position) for position in range(source.width)]
    if source.dialect is None:
        by_position = f"received({', '.join(map(identifier, names))})"
        file = f"read_parquet({paths}, hive_partitioning = false) AS {by_position}"
    else:
        header = f"header = true, skip = {source.dialect.skip}"
        file = _read_csv(paths, names, source.dialect.delimiter, header)
    columns = ", ".join(column.sql for column in source.columns.values())
    return f"(SELECT {columns}, NULL::VARCHAR AS {identifier(PROBLEM)} FROM {file})"


def _rewritten(source: Source, dialect: Dialect) -> str:
    if source.parts:
        return _united(
            source, ((one, _rewritten(one, one.dialect) if one.dialect else _files([one])) for one in source.parts)
        )
    out = source.link.with_suffix(f"{source.link.suffix}.rewritten")
    positions = [column.position for column in source.columns.values()]
    csv_rewriting.rewrite(source.path, dialect, out, source.width, positions)
    line_end = r"header = false, new_line = '\r\n'"  # otherwise DuckDB takes the first one, even in quotes
    return _read_csv(literal(out), [PROBLEM, *map(name_at, positions)], ",", line_end)


def _read_csv(paths: str, names: Sequence[str], delimiter: str, more: str) -> str:
    """SQL: all columns as text; DuckDB's type detection is off."""
    columns = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in names)
    return (
        f"read_csv({paths}, columns = {{{columns}}}, {more}, delim = {literal(delimiter)}, quote = '\"', "
        "escape = '\"', nullstr = '', auto_detect = false, compression = 'none', hive_partitioning = false, "
        f"max_line_size = {MAX_LINE})"
    )


@contextmanager
def in_our_words(failed: str) -> Iterator[None]:
    """Convert errors of DuckDB, Arrow and the system: Raises InputError, beginning with `failed`, where one is raised.

    Raises KeyboardInterrupt where DuckDB was interrupted by Ctrl-C.
    """
    import duckdb
    import pyarrow as pa

    try:
        yield
    except (duckdb.Error, pa.ArrowException, OSError, EOFError, zlib.error, UnicodeError, RuntimeError) as problem:
        if type(problem) is RuntimeError and "interrupted" in str(problem):  # Ctrl-C
            raise KeyboardInterrupt from problem
        raise InputError(f"{failed}: {_reason(problem)}") from problem


def _reason(problem: Exception) -> str:
    import duckdb

    match problem:
        case OSError(errno=errno.ENOSPC):
            return _NO_SPACE
        case OSError(strerror=str() as reason) if reason:
            return reason
        case UnicodeError():
            return "not text in the encoding that it begins with, or that --encoding names; save it as UTF-8"
        case duckdb.ConversionException():
            return "a number or a time is out of range"
        case duckdb.OutOfMemoryException():
            return _NO_SPACE
        case duckdb.IOException() if "No space left" in str(problem):
            return _NO_SPACE
        case _:
            return "damaged or cut off"
