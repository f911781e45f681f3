"""What can be checked before the first table is read: names, extras, and the places to write to.

Reading the tables takes minutes and training takes hours; none of these mistakes may cost that. Every function raises
InputError with what is wrong and what would be right.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from firstspin.data import schema
from firstspin.extras import need
from firstspin.models.features import selected_questions
from firstspin.models.registry import check_name, check_tunable
from firstspin.records import InputError
from firstspin.serving.bundle import check_place

SUFFIXES = (".parquet", ".csv")


def training(models: Sequence[str], extra: Sequence[str], without: Sequence[str], *, tuned: bool = False) -> None:
    """Models that exist, questions that are asked, and what tuning needs."""
    for model in models:
        check_name(model)
    selected_questions(extra, without)
    if tuned:
        need("tune", "tuning")
        for model in models:
            check_tunable(model)


def report(out: Path, data: Path) -> None:
    """The page can be drawn and written."""
    need("report", "a report")
    file(out, data)


def scores(out: str, registrations: Path) -> None:
    """A file of scores can be written, and it is not the file of the registrations. Stores are checked when opened."""
    path = Path(out)
    if path.suffix in SUFFIXES and not out.startswith(("sqlite:", "dynamodb:")):
        if path.resolve() == registrations.resolve():
            raise InputError(f"{out} holds the registrations; name another file for the scores")
        file(path)


def file(out: Path, data: Path | None = None) -> None:
    """A file can be written at `out`, and it is none of the tables of the folder `data`."""
    if out.is_dir():
        raise InputError(f"{out} is a folder; name a file in it")
    if out.exists() and not out.is_file():
        raise InputError(f"{out} is not a regular file; name another")
    if data is not None and _is_table(out, data):
        raise InputError(f"{out} would replace or hide a table of {data}; name another file")
    _place(out)


def bundle(out: Path, data: Path) -> None:
    """A bundle can be put in place at `out`, which holds no tables."""
    check_place(out)
    if data.resolve().is_relative_to(out.resolve()):
        raise InputError(f"{out} holds the tables; name another folder for the bundle")
    _place(out)


def folder(out: Path) -> None:
    """Files can be written into the folder `out`, which is made if it is not there."""
    _place(out / "file")


def _is_table(out: Path, data: Path) -> bool:
    names = {f"{table}{suffix}" for table in schema.COLUMNS for suffix in SUFFIXES}
    return out.name in names and out.resolve().parent == data.resolve()


def _place(out: Path) -> None:
    """The folder of `out` can be written to, or made."""
    there = next(parent for parent in out.absolute().parents if os.path.lexists(parent))
    if not there.is_dir():
        raise InputError(f"{out} can't be written: {there} is not a folder")
    try:
        with tempfile.TemporaryFile(dir=there):  # rights alone don't tell of a read-only disk
            pass
    except OSError as problem:
        raise InputError(f"{out} can't be written: {there} takes no file ({problem.strerror})") from None
