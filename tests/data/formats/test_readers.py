"""A file is read correctly or gives a one-sentence error, and no other file is read."""

from __future__ import annotations

import bz2
import codecs
import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstspin.data.formats import csv_rewriting
from firstspin.data.formats.connections import connect, in_our_words
from firstspin.data.formats.opening import MAX_COLUMNS, open_table
from firstspin.data.formats.readers import read
from firstspin.data.formats.sources import PROBLEM, Source
from firstspin.data.formats.written_values import AS_WRITTEN, Spelling
from firstspin.data.sql import identifier, literal
from firstspin.records import InputError

NEEDED = ("user_id", "genres")
ROWS = [("007", "Rock|Jazz"), ("008", None)]
Cells = list[tuple[str | None, ...]]


def write(folder: Path, content: bytes, name: str = "registrations.csv") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def rows_of(
    path: Path, workspace: Path, needed: tuple[str, ...] = NEEDED, spelling: Spelling = AS_WRITTEN
) -> tuple[Cells, list[str]]:
    """The well-formed rows, and what is wrong with the others."""
    source = open_table(path, "table", needed, workspace=workspace, spelling=spelling)
    with connect(workspace, [source]) as connection:
        found = read(source, lambda rows: connection.execute(f"SELECT {_wanted(source)} FROM {rows}").fetchall())
    return [cells for problem, *cells in map(list, found) if problem is None], [p for p, *_ in found if p]  # type: ignore[misc]


def _wanted(source: Source) -> str:
    return ", ".join([identifier(PROBLEM), *(column.sql for column in source.columns.values())])


def read_as(folder: Path, content: bytes, name: str = "registrations.csv") -> Cells:
    rows, problems = rows_of(write(folder, content, name), folder)
    assert problems == []
    return [tuple(row) for row in rows]


def refused(folder: Path, content: bytes, name: str = "registrations.csv") -> str:
    with pytest.raises(InputError) as problem:
        rows_of(write(folder, content, name), folder)
    assert "\n" not in str(problem.value)
    return str(problem.value)


PLAIN = b"user_id,genres\n007,Rock|Jazz\n008,\n"
MEANT_THE_SAME = {
    "no line end at the end": PLAIN.rstrip(),
    "CRLF": PLAIN.replace(b"\n", b"\r\n"),
    "CR": PLAIN.replace(b"\n", b"\r"),
    "mixed line ends": b"user_id,genres\r\n007,Rock|Jazz\n008,\r\n",
    "mixed line ends, LF first": b"user_id,genres\n007,Rock|Jazz\r\n008,\n",
    "mixed line ends, CR among them": b"user_id,genres\n007,Rock|Jazz\r008,\r\n",
    "empty lines": b"\n\nuser_id,genres\n\n007,Rock|Jazz\n\n\n008,\n \n",
    "empty lines of CRLF": b"\r\nuser_id,genres\r\n\r\n007,Rock|Jazz\r\n008,\r\n",
    "a byte order mark": codecs.BOM_UTF8 + PLAIN,
    "UTF-16": PLAIN.decode().encode("utf-16"),
    "UTF-16, big-endian": codecs.BOM_UTF16_BE + PLAIN.decode().encode("utf-16-be"),
    "UTF-32": PLAIN.decode().encode("utf-32"),
    "semicolons": PLAIN.replace(b",", b";"),
    "tabs": PLAIN.replace(b",", b"\t"),
    "Excel's Unicode text": PLAIN.replace(b",", b"\t").replace(b"\n", b"\r\n").decode().encode("utf-16"),
    "sep=,": b"sep=,\n" + PLAIN,
    "sep=;": b'"sep=;"\r\n' + PLAIN.replace(b",", b";").replace(b"\n", b"\r\n"),
    "sep= and a mark": codecs.BOM_UTF8 + b"SEP=\t\n" + PLAIN.replace(b",", b"\t"),
    "quotes everywhere": b'"user_id","genres"\n"007","Rock|Jazz"\n"008",""\n',
    "space around the names": b"user_id , genres\n007,Rock|Jazz\n008,\n",
    "another order": b"genres,user_id\nRock|Jazz,007\n,008\n",
    "an unnamed first column": b",user_id,genres\n0,007,Rock|Jazz\n1,008,\n",
    "unnamed columns": b"user_id,,genres,\n007,x,Rock|Jazz,y\n008,x,,y\n",
    "a comma at the end of all lines": b"user_id,genres,\n007,Rock|Jazz,\n008,,\n",
    "a comma at the end of all rows": b"user_id,genres\n007,Rock|Jazz,\n008,,\n",
    "other columns twice": b"user_id,x,genres,x\n007,1,Rock|Jazz,2\n008,1,,2\n",
    "other columns twice but for case": b"user_id,x,genres,X\n007,1,Rock|Jazz,2\n008,1,,2\n",
    "our names in another case": b"USER_ID,user_id,genres,Genres\nx,007,Rock|Jazz,y\nx,008,,y\n",
    "a first name with a comma, after a mark": codecs.BOM_UTF8 + b'"a,",user_id,genres\n1,007,Rock|Jazz\n1,008,\n',
    "a first name with a comma, after a space": b' "a," b",user_id,genres\n1,1,007,Rock|Jazz\n1,1,008,\n',
    "sep=, in quotes after a mark": codecs.BOM_UTF8 + b'"sep=,"\n' + PLAIN,
    "sep=, before an empty line": b'"sep=,"\n\n' + PLAIN,
    "sep=, with another line end": b"sep=,\r\n" + PLAIN,
    "an empty line in quotes": codecs.BOM_UTF8 + b'""\n' + PLAIN,
    "a name with a line end": b'user_id,"a\nb",genres\r\n007,x,Rock|Jazz\r\n008,x,\r\n',
    "a name of 10,000 characters": b"user_id," + b"x" * 10_000 + b",genres\n007,1,Rock|Jazz\n008,1,\n",
    "NUL in another column": b"user_id,\0,genres\n007,\0,Rock|Jazz\n008,\0,\n",
    "names of SQL and of ours": b'row,broken,problem of the row,column 0,"a"";--",user_id,genres\n'
    b"1,2,3,4,5,007,Rock|Jazz\n1,2,3,4,5,008,\n",
}


@pytest.mark.parametrize("how", MEANT_THE_SAME)
def test_a_table_is_read_however_it_is_written(how: str, tmp_path: Path) -> None:
    assert read_as(tmp_path, MEANT_THE_SAME[how]) == ROWS


@pytest.mark.parametrize(
    "name", ["[a]*?.csv", "a{b,c}.csv", "it's.csv", 'a";b.csv', "~.csv", "a\nb.csv", "x", "x.csv.gz"]
)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_name_of_a_file_is_that_file_and_no_pattern(name: str, kind: str, tmp_path: Path) -> None:
    for other in ("aaa.csv", "ab.csv", "ac.csv"):
        (tmp_path / other).write_bytes(b"user_id,genres\nwrong,wrong\n")
    table = io.BytesIO()
    pq.write_table(pa.table({"user_id": ["007", "008"], "genres": ["Rock|Jazz", None]}), table)
    assert read_as(tmp_path, PLAIN if kind == "csv" else table.getvalue(), name) == ROWS


def test_the_folders_of_a_path_add_no_columns(tmp_path: Path) -> None:
    for folder in (tmp_path / "user_id=1" / "genres=x", tmp_path / os.fsdecode(b"\xff")):
        folder.mkdir(parents=True)
        assert [tuple(row) for row in rows_of(write(folder, PLAIN), tmp_path)[0]] == ROWS


def zipped(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("registrations.csv", content)
    return file.getvalue()


NO_TABLE = {
    "is empty; the first line must name the columns": b"",
    "is compressed with bzip2: unpack it first": bz2.compress(PLAIN),
    "is a ZIP archive or an Excel workbook": zipped(PLAIN),
    "is an SQLite database": b"SQLite format 3\0" + bytes(100),
    "has NUL bytes in its first line: save it as CSV in UTF-8": PLAIN.decode().encode("utf-16-le"),
    "registrations.csv has no column user_id, genres (it has 007, Rock|Jazz)": b"007,Rock|Jazz\n",
    "has no column genres (it has user_id, Genres)": b"user_id,Genres\n007,x\n",
    "names the column user_id twice": b"user_id,user_id,genres\n007,008,x\n",
    "first line is not text in UTF-8; it must name the columns; --encoding names": b"user_id,genres,gr\xf6\n007,x,1\n",
    "the first line is longer than 10,000,000 characters": b"user_id,genres," + b"x" * 10_000_001 + b"\n",
    "the first line has a quote that does not close": b'user_id,genres,"x"y\n007,x\n',
    "registrations.csv: line 2 names the columns: delete the line above it": b"Export of March\n" + PLAIN,
    "registrations.csv: line 4 names the columns: delete the 3 lines above it": b"Export;March\n\n;\n"
    + PLAIN.replace(b",", b";"),
    "registrations.csv has no column user_id, genres (it has user_id,genres)": b'"user_id,genres"\n"007,Rock"\n',
    "registrations.csv: the first line, 'sep=|', names no comma, semicolon or tab": b"sep=|\nuser_id|genres\n",
    f"columns; at most {MAX_COLUMNS:,} are read": b"user_id,genres" + b",x" * MAX_COLUMNS + b"\n",
    "registrations.csv can't be read: damaged or cut off": b"PAR1" + bytes(100),
    "not text in the encoding that it begins with": PLAIN.decode().encode("utf-16") + b"\x00\xd8\x00",
}


@pytest.mark.parametrize("message", NO_TABLE)
def test_a_file_that_is_no_table_gives_a_one_sentence_error(message: str, tmp_path: Path) -> None:
    assert message in refused(tmp_path, NO_TABLE[message])


def test_a_parquet_file_that_is_another_format_or_truncated_is_an_error(tmp_path: Path) -> None:
    whole = io.BytesIO()
    pq.write_table(pa.table({"user_id": ["007"] * 100, "genres": ["x"] * 100}), whole)
    for size in (0, 4, 50, len(whole.getvalue()) - 1):
        said = refused(tmp_path, whole.getvalue()[:size], "registrations.parquet")
        assert said in (
            "registrations.parquet is not Parquet: it is empty",
            "registrations.parquet can't be read: damaged or cut off",
        )
    said = refused(tmp_path, PLAIN, "registrations.parquet")
    assert said == "registrations.parquet is not Parquet: its first bytes are not PAR1"


def test_a_folder_without_files_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "registrations.parquet").mkdir()
    with pytest.raises(InputError, match=r"registrations\.parquet is a folder without a file of \.parquet"):
        rows_of(tmp_path / "registrations.parquet", tmp_path)


ENCODED = ("caf\u00e9", "\u017c\u00f3\u0142\u0107", "\u97f3\u697d", "\u20ac")


@pytest.mark.parametrize(
    ("encoding", "pick"),
    [
        *(("cp1252", ENCODED[0]), ("latin-1", ENCODED[0]), ("cp1250", ENCODED[1]), ("shift_jis", ENCODED[2])),
        *(("iso2022_jp", ENCODED[2]), ("utf-16-le", ENCODED[1]), ("CP1252", ENCODED[3])),
    ],
)
def test_a_file_that_is_not_utf_8_is_read_in_the_encoding_that_is_named(
    encoding: str, pick: str, tmp_path: Path
) -> None:
    """A UTF-8 file beside it is read as that."""
    text, spelling = f"user_id,genres\n007,{pick}\n", Spelling(encoding=encoding)
    for content in (text.encode(encoding), text.encode(), codecs.BOM_UTF8 + text.encode()):
        assert rows_of(write(tmp_path, content), tmp_path, spelling=spelling)[0] == [["007", pick]]


def test_text_that_is_not_in_the_encoding_named_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path, b"user_id,genres\n007,\x81\xff\n")
    with pytest.raises(InputError, match=r"csv can't be read: not text in the encoding that .*--encoding names"):
        rows_of(path, tmp_path, spelling=Spelling(encoding="cp1252"))


@pytest.mark.parametrize("name", ["", "cp99", "rot13", "hex", "undefined", "a\0b"])
def test_a_name_that_is_no_encoding_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"^--encoding .* is not the name of an encoding"):
        Spelling(encoding=name)


BROKEN_ROWS = {
    "has 3 cells instead of 2": b"007,Rock,Jazz\n",
    "has 1 cells instead of 2": b"007\n",
    "has 1000 cells instead of 2": b"x," * 999 + b"x\n",
    "is not text in UTF-8": b"007,gr\xf6\xdfe\n",
    "is longer than 10,000,000 characters": b"007," + b"x" * 10_000_001 + b"\n",
    csv_rewriting.MISQUOTED: b'007,"Rock\n',
}


@pytest.mark.parametrize("problem", BROKEN_ROWS)
def test_a_broken_row_is_named_and_costs_no_other(problem: str, tmp_path: Path) -> None:
    path = write(tmp_path, PLAIN + BROKEN_ROWS[problem] + b'009,"Pop"\n010,Soul\n')
    rows, problems = rows_of(path, tmp_path)
    assert [tuple(row) for row in rows] == [*ROWS, ("009", "Pop"), ("010", "Soul")]
    assert problems == [problem]


CELLS = st.sampled_from(
    [
        "1",
        "ab",
        "",
        "x y",
        '"q"',
        '"a,b"',
        '"a\nb"',
        '"a\r\nb"',
        '"a\rb"',
        '"a""b"',
        'a"b',
        '"a"x',
        "é",
        '"é\n"',
        '"',
        "\0",
    ]
)
NAMES = st.sampled_from(["a", '"c"', '"d\ne"', "e f", "", "é", '"f,g"', '"h,"', ' "i," j"', '"j""k"', '""",l"'])
FIRST_LINES = st.sampled_from(["", "", "", "\n", '""\n', "sep=,\n", "sep=,\r\n", '"sep=,"\n', "sep=,\n\n"])
TABLES = st.integers(2, 4).flatmap(
    lambda width: st.tuples(
        st.tuples(st.sampled_from(["", "\ufeff"]), FIRST_LINES).map("".join),
        st.lists(NAMES, min_size=width - 1, max_size=width - 1).flatmap(lambda names: st.permutations(["key", *names])),
        st.lists(st.lists(CELLS, min_size=1, max_size=5) | st.lists(CELLS, min_size=width, max_size=width), max_size=5),
        st.sampled_from(["\n", "\r\n", "\r"]),
        st.booleans(),
    )
)


@given(TABLES)
def test_duckdb_reads_a_well_formed_file_as_python_does(
    emptied: Callable[[], Path], table: tuple[str, list[str], list[list[str]], str, bool]
) -> None:
    begin, names, rows, line_end, ended = table
    text = begin + line_end.join(",".join(row) for row in [names, *rows]) + line_end * ended
    folder = emptied()
    source = open_table(write(folder, text.encode()), "table", ["key"], optional=None, workspace=folder)
    with connect(folder, [source]) as connection:
        found = read(source, lambda rows: connection.execute(f"SELECT {_wanted(source)} FROM {rows}").fetchall())
    kept = [column.position for column in source.columns.values()]
    with csv_rewriting.open_text(source.path, source.dialect) as file:  # type: ignore[arg-type]
        slow = list(csv_rewriting.records(file, source.dialect))[1:]  # type: ignore[arg-type]
    checked = [csv_rewriting._checked(row, source.width, kept) for row in slow]
    assert found == [tuple(cell or None for cell in row) for row in checked]


# ------------------------------------------------------------------------------------------------------------ the wall

OUTSIDE: dict[str, Callable[[Path], str]] = {
    "reads another file": lambda path: f"FROM read_csv({literal(path / 'secret.csv')})",
    "reads another file as text": lambda path: f"FROM read_text({literal(path / 'secret.csv')})",
    "reads by a link to a folder": lambda path: f"FROM read_csv({literal(path / 'w' / 'up' / 'secret.csv')})",
    "reads beside the file": lambda path: f"FROM read_csv({literal(path / 'in' / 'other.csv')})",
    "reads a file by its name alone": lambda path: f"FROM {identifier(str(path / 'secret.csv'))}",
    "lists a folder": lambda path: f"FROM glob({literal(path / '*')})",
    "writes a file": lambda path: f"COPY (SELECT 1) TO {literal(path / 'stolen.csv')}",
    "writes the file it reads": lambda path: f"COPY (SELECT 1) TO {literal(path / 'in' / 'table.csv')}",
    "attaches a database": lambda path: f"ATTACH {literal(path / 'stolen.db')}",
    "exports": lambda path: f"EXPORT DATABASE {literal(path / 'stolen')}",
    "installs an extension": lambda _: "INSTALL httpfs",
    "loads an extension": lambda path: f"LOAD {literal(path / 'evil.duckdb_extension')}",
    "opens the wall": lambda _: "SET enable_external_access = true",
    "allows a folder": lambda _: "SET allowed_directories = ['/']",
    "unlocks the settings": lambda _: "SET lock_configuration = false",
    "sets anything": lambda _: "SET memory_limit = '99GB'",
    "writes a profile": lambda path: f"PRAGMA profiling_output = {literal(path / 'stolen.json')}",
    "reads Python's variables": lambda _: "FROM python_variable",
}


@pytest.mark.parametrize("attack", OUTSIDE)
def test_no_statement_gets_beyond_the_files_of_its_connection(attack: str, tmp_path: Path) -> None:
    python_variable = pa.table({"secret": [1]})
    (tmp_path / "secret.csv").write_text("a\n1\n")
    for folder in ("w", "in"):
        (tmp_path / folder).mkdir()
    (tmp_path / "w" / "up").symlink_to(tmp_path)
    (tmp_path / "in" / "other.csv").write_text("a\n1\n")
    path = write(tmp_path / "in", PLAIN, "table.csv")
    source = open_table(path, "table", NEEDED, workspace=tmp_path / "w")
    before = sorted(tmp_path.rglob("*"))
    for _ in ("a new instance of DuckDB", "the same one"):
        with connect(tmp_path / "w", [source]) as connection:
            with pytest.raises(duckdb.Error):
                connection.execute(OUTSIDE[attack](tmp_path)).fetchall()
            assert connection.execute(f"SELECT count(*) FROM read_csv({literal(source.link)})").fetchall() == [(2,)]
    (tmp_path / "w" / "spill").rmdir()
    assert sorted(tmp_path.rglob("*")) == before
    assert path.read_bytes() == PLAIN
    assert python_variable.num_rows == 1


def test_an_interrupted_query_is_an_interrupt_and_no_damaged_file() -> None:
    with pytest.raises(KeyboardInterrupt), in_our_words("it can't be read"):
        raise RuntimeError("Query interrupted")  # DuckDB's word for Ctrl-C


def test_a_workspace_whose_path_is_a_pattern_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a[b]").mkdir()
    with pytest.raises(InputError, match=r"set TMPDIR to another"):
        connect(tmp_path / "a[b]")


def test_every_connection_is_behind_the_wall() -> None:
    source = Path(csv_rewriting.__file__).parents[2]
    opening = [path.name for path in source.rglob("*.py") if "duckdb.connect(" in path.read_text()]
    assert opening == ["connections.py"]
