"""The file of each table in a folder, such as `registrations.parquet` or `.csv.gz`, or the folder of its files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from firstspin.data import schema
from firstspin.data.names import assigned
from firstspin.records import InputError

SHOWN_FILES: Final = 10
SUFFIXES: Final = (".parquet", ".csv", ".csv.gz", ".csv.zst")


def find_table(data: Path, name: str) -> Path:
    """The file or folder of a table. Raises InputError where there is none, or two, with advice for a similar name."""
    if (in_memory := data / name).is_file():  # see dataframes.folder_of
        return in_memory
    paths = [path for path in (data / f"{name}{suffix}" for suffix in ("", *SUFFIXES)) if path.exists()]
    if len(paths) > 1:
        first, second = (f"{path.name}{'/' if path.is_dir() else ''}" for path in paths[:2])
        raise InputError(f"{data} has both {first} and {second}: remove the one that is not to be used")
    if not paths:
        there = sorted(path.name for path in data.iterdir())
        has = ", ".join(there[:SHOWN_FILES]) + (", …" if len(there) > SHOWN_FILES else "") or "no files"
        raise InputError(f"{data} has neither {name}.parquet nor {name}.csv (it has {has}){_renamed(there, name)}")
    return paths[0]


def files_of(folder: Path) -> list[Path]:
    """The files of a table in a folder, at any depth, in the order of their paths.

    Names that begin with a dot or an underscore are not those of data: Spark and others write such beside it. Raises
    InputError where another file has none of the suffixes, or no file remains.
    """
    inside = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    paths = sorted(path for path in inside if not any(part.startswith((".", "_")) for part in path.parts))
    if other := next((path for path in paths if not path.name.lower().endswith(SUFFIXES)), None):
        raise InputError(f"{folder}: {other} is none of {', '.join(SUFFIXES)}; remove it")
    if not paths:
        raise InputError(f"{folder} is a folder without a file of {', '.join(SUFFIXES)}")
    return [folder / path for path in paths]


def is_parquet(path: Path) -> bool:
    """Whether a table is in Parquet, by the suffixes of its files."""
    return all(one.suffix.lower() != ".csv" and ".csv." not in one.name.lower() for one in _each(path))


def _each(path: Path) -> list[Path]:
    return files_of(path) if path.is_dir() else [path]


def _renamed(there: Sequence[str], table: str) -> str:
    """The advice to give the file of a similar name that of the table; empty where there is none."""
    suffixes = (".csv", ".parquet")
    stems = {Path(file).stem: file for file in there if Path(file).suffix.lower() in suffixes}
    similar = assigned({table: table}, [stem for stem in stems if stem not in schema.COLUMNS]).get(table)
    return f": rename {stems[similar]} to {table}{Path(stems[similar]).suffix.lower()}" if similar else ""
