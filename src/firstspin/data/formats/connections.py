"""Connections of DuckDB behind a wall, and its errors in our words."""

from __future__ import annotations

import errno
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from firstspin.data.formats.sources import DATABASE, Source
from firstspin.data.sql import identifier, literal
from firstspin.records import InputError

if TYPE_CHECKING:
    import duckdb

MEMORY_LIMIT: Final = "1300MB"
_NO_SPACE: Final = f"not enough space; TMPDIR names the folder for what is more than {MEMORY_LIMIT}"


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
    for database in {source.link for source in sources if source.table}:
        connection.execute(f"ATTACH {literal(database)} AS {identifier(DATABASE)} (READ_ONLY)")
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
        case duckdb.PermissionException():
            return "a view of it reads another file: name a table, or write the view to one"
        case duckdb.ConversionException():
            return "a number or a time is out of range"
        case duckdb.OutOfMemoryException():
            return _NO_SPACE
        case duckdb.IOException() if "No space left" in str(problem):
            return _NO_SPACE
        case duckdb.IOException() if "set lock" in str(problem):
            return "another process has it open for writing"
        case _:
            return "damaged or cut off"
