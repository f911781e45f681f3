"""Connections of DuckDB behind a wall, and its errors in our words."""

from __future__ import annotations

import ctypes
import errno
import os
import weakref
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final

from firstspin.data.formats.sources import DATABASE, Source
from firstspin.data.sql import identifier, literal
from firstspin.installation.machine import machine_memory
from firstspin.records import InputError

if TYPE_CHECKING:
    import duckdb

MEMORY_LIMIT: Final = 1300
"""MB that DuckDB gets, with small tables."""
BYTES_OF_ROW: Final = 150
"""Of a row of a table in memory, and of the hash table that joins it with listens."""
SMALL_TABLE: Final = 2_000_000
"""Rows that are within the MEMORY_LIMIT."""
MAX_INSTANCES: Final = 8
"""Instances of DuckDB that stay open; each has its functions in memory (5 MB), and threads that sleep."""

_SPILL: Final = "spill"
_BYTES_OF_LINE: Final = 40
"""In CSV: an id, a time and some answers."""
_OF_SYSTEM: Final = (OSError, EOFError, MemoryError, RuntimeError, UnicodeError, zlib.error)
_NO_SPACE: Final = "not enough space; TMPDIR names the folder for what does not fit in memory"
_GONE: Final = "a file of it, or one in TMPDIR, was removed meanwhile; run the command again"
_OUT_OF_SPACE: Final = ("Out of Memory Error", "No space left")
"""In the text of DuckDB's errors, which is all that remains of them where Arrow reads its rows: an OSError."""


@dataclass(frozen=True, slots=True)
class Wall:
    """What an instance of DuckDB can use: a folder, files by their links in it, a number of threads, and memory in MB.

    DuckDB follows the links when the files are allowed, so links to other files need another instance.
    """

    workspace: Path
    files: tuple[tuple[Path, Path], ...]
    threads: int | None = None
    memory: int = MEMORY_LIMIT


_instances: dict[Wall, duckdb.DuckDBPyConnection] = {}
_numbers = count()


def connect(
    workspace: Path, sources: Sequence[Source] = (), *, in_memory: Sequence[Source] = (), threads: int | None = None
) -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB, in UTC, that keeps rows in order and spills to the workspace above its memory limit.

    The limit grows with the sources that become tables `in_memory`, up to half of the machine's memory: a join spills
    all listens where its hash table of the registrations does not fit. The instance can read and write the workspace,
    read the sources, and no other file, whatever the statement. Its settings are locked, and its tables end with it. A
    new instance of DuckDB costs more CPU than all statements about a small table, so the last ones stay open for the
    next command with the same paths. Raises InputError where the path of the workspace is a glob pattern to DuckDB.
    """
    import duckdb

    if strange := set("*?[]{}") & set(str(workspace)):
        raise InputError(f"the temporary folder {workspace} has {min(strange)} in its name: set TMPDIR to another")
    links = sorted(part.link for source in sources for part in source.parts or (source,))
    wall = Wall(workspace, tuple((link, link.resolve()) for link in links), threads, _memory_for(in_memory))
    if databases := {source.link for source in sources if source.table}:
        return _opened(wall, databases)
    try:
        return _private(_instance(wall))
    except duckdb.Error:  # an internal error of DuckDB ends an instance
        _instances.pop(wall, None)
        return _private(_instance(wall))


def _memory_for(tables: Sequence[Source]) -> int:
    """MB for tables in memory."""
    further = sum(max(_rows(table) - SMALL_TABLE, 0) for table in tables)
    return max(MEMORY_LIMIT, min(MEMORY_LIMIT + further * BYTES_OF_ROW // 10**6, machine_memory() // 2 // 10**6))


def _rows(source: Source) -> int:
    """The number of rows: of Parquet as written in the file, of CSV estimated by its size."""
    import pyarrow.parquet as pq

    if source.parts:
        return sum(map(_rows, source.parts))
    return source.link.stat().st_size // _BYTES_OF_LINE if source.dialect else pq.read_metadata(source.link).num_rows


def _instance(wall: Wall) -> duckdb.DuckDBPyConnection:
    """The open instance behind a wall, or a new one; the least recently used one of too many is closed."""
    if instance := _instances.pop(wall, None):
        (wall.workspace / _SPILL).mkdir(parents=True, exist_ok=True)  # an instance makes it only once
    _instances[wall] = instance = instance or _opened(wall)
    for old in list(_instances)[:-MAX_INSTANCES]:
        _instances.pop(old, None)
    return instance


def _private(instance: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    """A connection with a catalog of its own, which is dropped with it."""
    catalog = identifier(f"of connection {next(_numbers)}")
    connection = instance.cursor()
    connection.execute(f"ATTACH ':memory:' AS {catalog}; USE {catalog}")
    weakref.finalize(connection, _detach, instance, catalog).atexit = False
    return connection


def _detach(instance: duckdb.DuckDBPyConnection, catalog: str) -> None:
    import duckdb

    with suppress(duckdb.Error):
        instance.execute(f"DETACH {catalog}")


def _leave_to_parent() -> None:
    """Never close the instances of the parent process after a fork: their threads, which closing waits for, are there.

    DuckDB would close them at the exit of the process too, but for the reference more.
    """
    for instance in _instances.values():
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(instance))
    _instances.clear()


os.register_at_fork(after_in_child=_leave_to_parent)


def _opened(wall: Wall, databases: Collection[Path] = ()) -> duckdb.DuckDBPyConnection:
    """A new instance of DuckDB behind a wall, with the databases attached."""
    import duckdb

    instance = duckdb.connect(config={"autoinstall_known_extensions": False, "autoload_known_extensions": False})
    for database in databases:
        instance.execute(f"ATTACH {literal(database)} AS {identifier(DATABASE)} (READ_ONLY)")
    settings = {
        "TimeZone": literal("UTC"),
        "memory_limit": literal(f"{wall.memory}MB"),
        "temp_directory": literal(wall.workspace / _SPILL),
        "allowed_directories": f"[{literal(wall.workspace)}]",
        "allowed_paths": f"[{', '.join(literal(link) for link, _ in wall.files)}]",
        "enable_external_access": "false",
        **({"threads": str(wall.threads)} if wall.threads else {}),
        "lock_configuration": "true",  # last: no setting can follow
    }
    instance.execute("; ".join(f"SET {name} = {value}" for name, value in settings.items()))
    return instance


@contextmanager
def in_our_words(failed: str) -> Iterator[None]:
    """Convert errors of DuckDB, Arrow and the system: Raises InputError, beginning with `failed`, where one is raised.

    Raises KeyboardInterrupt where DuckDB was interrupted by Ctrl-C.
    """
    import duckdb
    import pyarrow as pa

    try:
        yield
    except (*_OF_SYSTEM, duckdb.Error, pa.ArrowException) as problem:
        if type(problem) is RuntimeError and "interrupted" in str(problem):  # Ctrl-C
            raise KeyboardInterrupt from problem
        raise InputError(f"{failed}: {_reason(problem)}") from problem


def _is_out_of_space(problem: Exception) -> bool:
    return any(words in str(problem) for words in _OUT_OF_SPACE)


def _reason(problem: Exception) -> str:
    import duckdb

    match problem:
        case MemoryError():
            return "not enough memory on this machine"
        case OSError(errno=errno.ENOSPC):
            return _NO_SPACE
        case OSError(strerror=str() as reason) if reason:
            return reason
        case UnicodeError():
            return "not text in the encoding that it begins with, or that --encoding names; save it as UTF-8"
        case duckdb.PermissionException():
            return "a view of it reads another file: name a table, or write the view to one"
        case duckdb.ConversionException():
            return "a number or a time is out of range"
        case duckdb.OutOfMemoryException() | duckdb.IOException() | OSError() if _is_out_of_space(problem):
            return _NO_SPACE
        case FileNotFoundError():
            return _GONE
        case duckdb.IOException() if "No files found" in str(problem):
            return _GONE
        case duckdb.IOException() if "set lock" in str(problem):
            return "another process has it open for writing"
        case _:
            return "damaged or cut off"
