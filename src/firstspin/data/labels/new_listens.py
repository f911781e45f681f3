"""The files of listens that a state of incremental labels does not have yet."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from firstspin.data import schema
from firstspin.data.labels.label_state import REBUILD, LabelState, TakenFile, sha256
from firstspin.data.table_files import files_of, find_table
from firstspin.records import InputError

GIVEN_TWICE: Final = "files of listens that the state has already"


@dataclass(frozen=True, slots=True)
class NewListens:
    """A folder with the registrations, the stations and the `files` of listens that are new, by SHA-256.

    Where none is new, the folder has the last file of the listens. `twice`: files that the state has from another path,
    or an earlier run.
    """

    folder: Path
    files: dict[str, TakenFile]
    twice: int


def new_listens(data: Path, workspace: Path, before: LabelState | None) -> NewListens:
    """The new listens of a folder of tables: a file that the state does not have, or those of a folder of files.

    In a folder, a file of the same path, size and time of change is not read. Raises InputError where there is no such
    table, or a file of the folder has changed since.
    """
    if not data.is_dir():
        raise InputError(f"{data} is not a folder with registrations, listens and stations")
    listens = find_table(data, schema.LISTENS)
    of_folder = listens.is_dir()
    taken = dict(before.taken) if before else {}
    digests = {one.name: digest for digest, one in taken.items()} if of_folder else {}
    new: dict[str, TakenFile] = {}
    paths, twice = files_of(listens) if of_folder else [listens], 0
    for path in paths:
        name, stat = str(path.relative_to(listens)) if of_folder else path.name, path.stat()
        one = TakenFile(name, stat.st_size, stat.st_mtime_ns)
        if of_folder and taken.get(digests.get(name, "")) == one:
            continue
        digest = sha256(path)
        if name in digests and digest != digests[name]:
            raise InputError(
                f"{listens.name}/{name} has changed since the state has its listens: give new listens in a file of "
                f"their own, or {REBUILD}"
            )
        if digest in taken or digest in new:
            twice += _has_rows(path)
        else:
            new[digest] = one
    given = workspace / "given"
    given.mkdir()
    for table in (schema.REGISTRATIONS, schema.STATIONS):
        small = find_table(data, table)
        (given / small.name).symlink_to(small.resolve())
    names = [one.name for one in new.values()] or [str(paths[-1].relative_to(listens)) if of_folder else listens.name]
    for name in names:
        link = given / listens.name / name if of_folder else given / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to((listens / name if of_folder else listens).resolve())
    return NewListens(given, new, twice)


def _has_rows(path: Path) -> bool:
    """Whether a copy of a file may have listens: Spark writes files of Parquet without rows, which are all the same."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with suppress(pa.ArrowException):  # another format
        return bool(pq.read_metadata(path).num_rows)
    return True
