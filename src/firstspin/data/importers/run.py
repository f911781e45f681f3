"""An archive of a known layout -> our three tables, with a page that says what is real and what is derived."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import msgspec

from firstspin import files
from firstspin.data import schema
from firstspin.data.formats.connections import connect, in_our_words
from firstspin.data.formats.opening import open_table
from firstspin.data.formats.readers import read
from firstspin.data.importers import deezer, lastfm, movielens
from firstspin.data.importers.archives import PackedFile, matching, opened
from firstspin.data.importers.layouts import ArchiveLayout, GenreLists, TextFile
from firstspin.data.names import NameIndex
from firstspin.data.sql import identifier, literal
from firstspin.records import InputError

if TYPE_CHECKING:
    import duckdb

LAYOUTS: Final = {
    layout.name: layout
    for layout in (
        lastfm.LASTFM_1K,
        lastfm.LASTFM_2K,
        movielens.ML_100K,
        movielens.ML_1M,
        movielens.ML_25M,
        deezer.DEEZER,
    )
}
ABOUT: Final = "README.md"
MAX_IN_MEMORY: Final = 500 * 2**20
_ONE_BYTE: Final = "\x1f"
_BLOCK: Final = 8 * 2**20


def layout_of(name: str) -> ArchiveLayout:
    """The layout of this name. Raises InputError where there is none."""
    if name not in LAYOUTS:
        nearest = NameIndex(LAYOUTS).nearest(name)
        hint = f"; did you mean {nearest}?" if nearest else ""
        raise InputError(f"no archive is called {name!r}{hint}; there are {', '.join(LAYOUTS)}")
    return LAYOUTS[name]


@in_our_words("the archive can't be imported")
def import_archive(
    layout: ArchiveLayout, path: Path, out: Path, genres: Path | None, progress: Callable[[str, float], None]
) -> dict[str, int]:
    """Write the tables of an archive, and README.md, into the new folder `out`; the rows left out, by file.

    `genres` is a table with the columns name and genre, for a layout that takes one. Raises InputError where the
    archive lacks a file, is damaged or would unpack to too much, or gives no registration or no listen.
    """
    if genres and not layout.takes_genres:
        raise InputError(f"--genres: {layout.name} has genres of its own")
    with files.beside(out) as new:
        new.mkdir(0o700)
        work = new.parent
        connection = connect(work)
        with opened(path) as packed:
            skipped = _load_all(connection, layout, path, packed, work, progress)
        if layout.takes_genres:
            _load_genres(connection, genres, work)
        progress("tables", 0.7)
        for statement in layout.prepare:
            connection.execute(statement)
        _write(connection, layout, new)
        (new / ABOUT).write_text(about(layout), encoding="utf-8")
        for file in new.iterdir():
            file.chmod(files.PRIVATE)
        connection.close()
        files.put_in_place(new, out)
        progress("done", 1.0)
    return {name: n for name, n in skipped.items() if n}


def about(layout: ArchiveLayout) -> str:
    """Source, licence and citation of an archive, and what is derived, as Markdown."""
    derived = "\n".join(f"- {one}" for one in layout.derived)
    return (
        f"# {layout.title}\n\nSource: {layout.home}\n\nLicence: {layout.licence}.\n\nCitation: {layout.citation}.\n\n"
        f"Derived, not in the archive:\n\n{derived}\n"
    )


def _load_all(
    connection: duckdb.DuckDBPyConnection,
    layout: ArchiveLayout,
    path: Path,
    packed: Mapping[str, PackedFile],
    work: Path,
    progress: Callable[[str, float], None],
) -> dict[str, int]:
    """Make a table of each file; the number of malformed rows by file."""
    chosen = {name: _chosen(layout, path, packed, of) for name, of in layout.files.items()}
    total, done, skipped = sum(file.size for of in chosen.values() for file in of) or 1, 0, {}
    for name, of in layout.files.items():
        file, *_ = chosen[name]
        progress(f"reading {file.name}", 0.7 * done / total)
        parquet = work / f"{name}.read.parquet"
        if isinstance(of, TextFile):
            with file.open() as content:
                skipped[file.name] = _to_parquet(content, file, of, parquet)
        else:
            _lists_to_parquet(chosen[name], of, parquet)
        connection.execute(f"CREATE VIEW {identifier(name)} AS FROM read_parquet({literal(parquet)})")
        done += sum(file.size for file in chosen[name])
    return skipped


def _chosen(
    layout: ArchiveLayout, path: Path, packed: Mapping[str, PackedFile], of: TextFile | GenreLists
) -> list[PackedFile]:
    """The files for a table. Raises InputError where none matches, or several do and one is needed."""
    pattern = of.name if isinstance(of, TextFile) else f"*{of.suffix}"
    found = matching(packed, pattern)
    if not found:
        fitting = [name for name, other in LAYOUTS.items() if other is not layout and _fits(other, packed)]
        hint = f"; its files are those of {', '.join(fitting)}" if fitting else ""
        raise InputError(f"{path} has no {pattern}, which {layout.name} has{hint}")
    if isinstance(of, TextFile) and len(found) > 1:
        raise InputError(f"{path} has {len(found)} files {pattern}: name the folder of one")
    return found


def _fits(layout: ArchiveLayout, packed: Mapping[str, PackedFile]) -> bool:
    patterns = [of.name if isinstance(of, TextFile) else f"*{of.suffix}" for of in layout.files.values()]
    return all(matching(packed, pattern) for pattern in patterns)


def _to_parquet(content: IO[bytes], file: PackedFile, of: TextFile, out: Path) -> int:
    """Copy a text file as Parquet, all columns as text, in blocks; the number of rows with other than its columns."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet as pq

    malformed = 0

    def skip(_row: object) -> str:
        nonlocal malformed
        malformed += 1
        return "skip"

    if len(of.delimiter) > 1:
        content = _one_byte_delimiters(content, file, of.delimiter)
    texts = dict.fromkeys(of.columns, pa.string())
    reader = pyarrow.csv.open_csv(
        content,
        pyarrow.csv.ReadOptions(
            column_names=list(of.columns), skip_rows=int(of.header), encoding=of.encoding, block_size=_BLOCK
        ),
        pyarrow.csv.ParseOptions(
            delimiter=of.delimiter if len(of.delimiter) == 1 else _ONE_BYTE,
            quote_char='"' if of.quoted else False,
            invalid_row_handler=skip,
        ),
        pyarrow.csv.ConvertOptions(column_types=texts, strings_can_be_null=True, null_values=[""]),
    )
    with pq.ParquetWriter(out, pa.schema(texts.items())) as writer:
        for batch in reader:
            writer.write_batch(batch)
    return malformed


def _one_byte_delimiters(content: IO[bytes], file: PackedFile, delimiter: str) -> IO[bytes]:
    """The content with a delimiter of one byte, in memory: such files are small. Raises InputError where it is not."""
    if file.size > MAX_IN_MEMORY:
        raise InputError(f"{file.name} has {file.size:,} bytes; at most {MAX_IN_MEMORY:,} are read")
    return io.BytesIO(content.read().replace(delimiter.encode(), _ONE_BYTE.encode()))


def _lists_to_parquet(chosen: list[PackedFile], of: GenreLists, out: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("country", pa.string()), ("user_id", pa.string()), ("genres", pa.list_(pa.string()))])
    with pq.ParquetWriter(out, schema) as writer:
        for file in chosen:
            if file.size > MAX_IN_MEMORY:
                raise InputError(f"{file.name} has {file.size:,} bytes; at most {MAX_IN_MEMORY:,} are read")
            try:
                with file.open() as content:
                    lists = msgspec.json.decode(content.read(), type=dict[str, list[str]])
            except msgspec.MsgspecError as problem:
                raise InputError(f"{file.name} is not JSON that maps users to lists of genres: {problem}") from None
            country = Path(file.name).name.removesuffix(of.suffix)
            columns = [[country] * len(lists), list(lists), list(lists.values())]
            writer.write_batch(pa.record_batch(columns, schema=schema))


def _load_genres(connection: duckdb.DuckDBPyConnection, genres: Path | None, work: Path) -> None:
    """Make the table `artist_genres` of a file with the columns name and genre; empty without a file."""
    connection.execute("CREATE TABLE artist_genres (name VARCHAR, genre VARCHAR)")
    if genres:
        source = open_table(genres, "genres", [schema.NAME, schema.GENRE], workspace=work)
        columns = ", ".join(f"{source.columns[name].sql}::VARCHAR" for name in (schema.NAME, schema.GENRE))
        read(source, lambda rows: connection.execute(f"INSERT INTO artist_genres SELECT {columns} FROM {rows}"))
        connection.execute("DELETE FROM artist_genres WHERE name IS NULL OR genre IS NULL")


def _write(connection: duckdb.DuckDBPyConnection, layout: ArchiveLayout, new: Path) -> None:
    """Write the three tables. Raises InputError where one is empty."""
    for name, query in zip(schema.COLUMNS, (layout.registrations, layout.listens, layout.stations), strict=True):
        out = new / f"{name}.parquet"
        ((rows,),) = connection.execute(
            f"COPY ({query}) TO {literal(out)} (FORMAT parquet, USE_TMP_FILE false)"
        ).fetchall()
        if not rows:
            raise InputError(f"the archive gives no {name}: {'; '.join(layout.derived)}")
