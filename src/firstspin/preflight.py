"""Checks before the first table is read: installed extras and output paths.

Reading the tables takes minutes and training takes hours, so these mistakes are reported first. The message of each
InputError says what is wrong and what to do.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from firstspin.data import schema
from firstspin.files import is_partial
from firstspin.installation.extras import need
from firstspin.records import InputError
from firstspin.serving.bundle import MANIFEST, STATIONS, check_place
from firstspin.serving.score_stores import SCHEMES

SUFFIXES = (".parquet", ".csv")


def report(out: Path, data: Path) -> None:
    """Check that the report can be drawn and written. Raises InputError where it can't."""
    need("report", "a report")
    file(out, data, suffixes=(".html", ".htm"))


def scores(out: str, registrations: Path, *, on_spark: bool = False) -> None:
    """Check the output path of scores; a store is checked when it is opened. Spark writes Parquet alone.

    Raises InputError where the file can't be written or is among the registrations, or an extra is not installed.
    """
    if on_spark:
        need("spark", "--engine spark")
    if out.startswith("dynamodb:"):
        need("aws", "dynamodb")
    scheme, _, name = out.partition(":")
    if not on_spark and scheme in SCHEMES and name:
        return
    place = Path(out).resolve()
    if registrations.resolve() in (place, *place.parents):
        raise InputError(f"{out} holds the registrations; name another file for the scores")
    if on_spark:
        file(Path(out), suffixes=(".parquet",))
    else:
        file(Path(out), suffixes=(".csv", ".parquet"), stores=", sqlite:PATH or dynamodb:TABLE")


def file(out: Path, data: Path | None = None, *, suffixes: Sequence[str], stores: str = "") -> None:
    """Check an output file. Raises InputError where it can't be written, or is a table of the folder `data`.

    `suffixes` are those of the formats that the command writes: a name with another one, or with none, raises too.
    `stores`: what else the command takes, for the message.
    """
    if out.is_dir():
        raise InputError(f"{out} is a folder; name a file in it")
    if out.exists() and not out.is_file():
        raise InputError(f"{out} is not a regular file; name another")
    if all((out.parent / name).is_file() for name in (MANIFEST, STATIONS)):
        raise InputError(f"{out} is inside the bundle {out.parent}; choose a path outside")
    if data is not None and _is_table(out, data):
        raise InputError(f"{out} would replace or hide a table of {data}; name another file")
    if not out.name.lower().endswith(tuple(suffixes)):
        named = "" if out.suffix else f", such as {out.name}{suffixes[0]}"
        raise InputError(f"--out {out}: expected a {' or '.join(suffixes)} file{stores}{named}")
    _check_folder_of(out)


def bundle(out: Path, data: Path) -> None:
    """Check the output folder of a bundle. Raises InputError where it can't be written or holds the tables."""
    check_place(out)
    if data.resolve().is_relative_to(out.resolve()):
        raise InputError(f"{out} holds the tables; name another folder for the bundle")
    replaced_folder(out)


def state(out: Path, data: Path, labels: Path) -> None:
    """Check the folder of a state. Raises InputError where it can't be written, or holds the tables or the labels."""
    place = out.resolve()
    tables = [(data / table).resolve() for table in schema.COLUMNS]
    if data.resolve().is_relative_to(place) or any(place.is_relative_to(table) for table in tables):
        raise InputError(f"{out} holds the tables; name another folder for the state")
    if labels.resolve().is_relative_to(place):
        raise InputError(f"{labels} is inside the state {out}; choose a path outside")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; name a folder for the state")
    folder(out)
    replaced_folder(place)


def folder(out: Path) -> None:
    """Check an output folder, which is created if missing. Raises InputError where no file can be written there."""
    _check_folder_of(out / "file")


def replaced_folder(out: Path) -> None:
    """Check an output folder that is put in place by a rename. Raises InputError where it can't be."""
    if out.is_mount():
        raise InputError(f"{out} is a mount point, which no rename can replace; name a folder in it")
    _check_folder_of(out)


def new_folder(out: Path) -> None:
    """Check an output folder whose files are all ours. Raises InputError where it has any, or can't be written."""
    folder(out)
    if out.is_dir() and (there := next((path for path in out.iterdir() if not is_partial(path)), None)):
        raise InputError(f"{out} is not empty (it has {there.name}); name another folder")


def _is_table(out: Path, data: Path) -> bool:
    names = {f"{table}{suffix}" for table in schema.COLUMNS for suffix in SUFFIXES}
    folders = [(data / table).resolve() for table in schema.COLUMNS]
    replaced = out.name in names and out.resolve().parent == data.resolve()
    return replaced or any(folder in out.resolve().parents for folder in folders)


def _check_folder_of(out: Path) -> None:
    """Raises InputError where the folder of `out` can't be written to or created."""
    existing = next(parent for parent in out.absolute().parents if os.path.lexists(parent))
    if not existing.is_dir():
        raise InputError(f"{out} can't be written: {existing} is not a folder")
    try:
        with tempfile.TemporaryFile(dir=existing):  # permissions alone do not show a read-only disk
            pass
    except OSError as problem:
        raise InputError(f"{out} can't be written: no file can be created in {existing} ({problem.strerror})") from None
