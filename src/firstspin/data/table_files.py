"""The file of each table in a folder: `registrations.csv` or `.parquet`, or one of a table in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from firstspin.data import schema
from firstspin.data.names import assigned
from firstspin.records import InputError

SHOWN_FILES: Final = 10


def find_table(data: Path, name: str) -> Path:
    """The file of a table. Raises InputError where the folder has none, or two, with the advice for a similar name."""
    if (in_memory := data / name).is_file():  # see dataframes.folder_of
        return in_memory
    paths = [path for path in (data / f"{name}.parquet", data / f"{name}.csv") if path.exists()]
    if len(paths) > 1:
        raise InputError(f"{data} has both {name}.parquet and {name}.csv: remove the one that is not to be used")
    if not paths:
        there = sorted(path.name for path in data.iterdir())
        has = ", ".join(there[:SHOWN_FILES]) + (", …" if len(there) > SHOWN_FILES else "") or "no files"
        raise InputError(f"{data} has neither {name}.parquet nor {name}.csv (it has {has}){_renamed(there, name)}")
    return paths[0]


def _renamed(there: Sequence[str], table: str) -> str:
    """The advice to give the file of a similar name that of the table; empty where there is none."""
    suffixes = (".csv", ".parquet")
    stems = {Path(file).stem: file for file in there if Path(file).suffix.lower() in suffixes}
    similar = assigned({table: table}, [stem for stem in stems if stem not in schema.COLUMNS]).get(table)
    return f": rename {stems[similar]} to {table}{Path(stems[similar]).suffix.lower()}" if similar else ""
