"""Opening of input files: the format, the dialect and the columns of a CSV or Parquet file, or of a folder of such.

The format follows from the first bytes, not from the name. Files are linked into the workspace under fixed names, so
that none chosen by a user becomes part of an SQL statement. Files compressed with gzip or zstd are unpacked there
first. A folder is one table: its files in the order of their paths.
"""

from __future__ import annotations

import codecs
import gzip
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Final, cast

from firstspin.data.formats import csv_rewriting
from firstspin.data.formats.columns import Shape, shape_of
from firstspin.data.formats.connections import connect, in_our_words
from firstspin.data.formats.csv_rewriting import ENCODING_HINT, MAX_LINE, NOT_TEXT, UTF_8, Dialect, Record
from firstspin.data.formats.sources import DELIMITER_NAMES, Column, Source, columns_to_read
from firstspin.data.formats.written_values import AS_WRITTEN, Spelling
from firstspin.data.table_files import files_of
from firstspin.records import InputError

MAX_COLUMNS: Final = 10_000
MAX_TITLE_LINES: Final = 20

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
_DELIMITERS: Final = tuple(DELIMITER_NAMES)
_CHUNK: Final = 1 << 20


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
            if any(set(name) & {'"', "\n", "\r", dialect.delimiter} for name in header):
                dialect = replace(dialect, plain=False)  # DuckDB may parse rows as part of such a header
            schema = pa.schema([(column, pa.string()) for column in header])
        link.unlink(missing_ok=True)
        link.symlink_to(path.resolve())
    if len(schema) > MAX_COLUMNS:
        raise InputError(f"{path.name} has {len(schema):,} columns; at most {MAX_COLUMNS:,} are read")
    names = tuple(name.strip() for name in schema.names)
    columns = columns_to_read(path, schema, names, needed, optional, mapped, mapped_at)
    return Source(path, link, names, columns, dialect, spelling)


def open_stored(
    path: Path,
    table: str,
    needed: Sequence[str],
    *,
    workspace: Path,
    optional: Sequence[str] = (),
    mapped: Mapping[str, Sequence[str]] | None = None,
    mapped_at: str = "",
    spelling: Spelling = AS_WRITTEN,
) -> Source:
    """Open a table or view of a DuckDB database, which is only read; see `open_table`.

    Raises InputError where the file is no such database, another process writes to it, or it lacks the table.
    """
    import duckdb

    if not path.is_file():
        raise InputError(f"{path} is not a file")
    source = Source(path, path.resolve(), (), {}, None, spelling, table=table)
    with in_our_words(f"{path.name} can't be read as a DuckDB database"), connect(workspace, [source]) as connection:
        try:
            schema = connection.sql(f"FROM {source.stored} LIMIT 0").to_arrow_table().schema
        except duckdb.CatalogException:
            raise InputError(f"{path.name} has no table {table!r}") from None
    names = tuple(name.strip() for name in schema.names)
    columns = columns_to_read(path, schema, names, needed, optional, mapped, mapped_at)
    return replace(source, names=names, columns=columns)


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


def is_empty(source: Source, column: Column) -> bool:
    """Whether a Parquet column of floats has no value: pandas gives an empty column of text this type."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if source.parts or source.table or source.dialect is not None or not pa.types.is_floating(column.type):
        return False
    with in_our_words(f"{source.path.name} can't be read"):
        cells = pq.read_table(source.path, columns=[pq.read_schema(source.path).names[column.position]])
    return bool(cells.num_columns == 1 and cells.column(0).null_count == len(cells))


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
    if hint := re.fullmatch(r'"?sep=(.)"?[,;\s]*', first, re.IGNORECASE):  # Excel writes and reads this line
        if hint[1] not in _DELIMITERS:
            raise InputError(f"{path.name}: the first line, {first.strip()!r}, names no comma, semicolon or tab")
        return Dialect(encoding, hint[1], skip=1, plain=False)  # DuckDB may skip further lines
    plain = encoding == UTF_8 and bool(first.replace('"', "").strip())  # DuckDB takes a blank line for the header
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
