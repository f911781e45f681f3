"""The command line in this process, and what must hold of every run of it."""

from __future__ import annotations

import io
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from unittest.mock import patch

import typer

from firstspin.__main__ import main
from fuzz.inputs import Broken, Input
from fuzz.values import CANARY

MOST_LINES, LONGEST = 40, 8_000

FOREIGN = re.compile(
    r"Traceback|(?<!')duckdb\b(?!')(?! only)|binder|pyarrow|\barrow\b|ibis|sqlglot|msgspec|numpy|errno|codec can't"
    r"|object at 0x|<class '|invalid input|conversion error|parser error|catalog error|out of range error"
    r"|\b[a-z]+ ?error:(?! )|\b[A-Za-z]*[a-z](Error|Exception|Warning|Interrupt)\b",
    re.IGNORECASE,
)
"""Words of the libraries underneath, and names of Python's exceptions: no message may hold one."""

COMMANDS = cache(typer.main.get_command)
"""Each program's commands, which Typer makes again at every call: a third of the time of an input."""

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class Done:
    """What a command left: its exit status and what it printed."""

    status: int
    out: str
    err: str


def run(made: Input, words: Sequence[str]) -> Done:
    """The `firstspin` command with these words, in this process; Broken where it did not end as a command should."""
    made.note("words", list(words))
    argv = ["firstspin", *(word.replace("\0", "") for word in words)]  # no process can be given a NUL
    with patch.object(sys, "argv", argv), patch.object(typer.main, "get_command", COMMANDS):
        return called(made, main)


def called(made: Input, command: Callable[[], object]) -> Done:
    """A function that ends as a command does: what it returns, or exits with, is the status."""
    before = _names(Path())
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors=how) for how in ("strict", "backslashreplace"))
    with redirect_stdout(out), redirect_stderr(err), warnings.catch_warnings():
        try:
            status = command()
        except SystemExit as end:
            status = end.code
    done = Done(0 if status is None else int(status), *(_written(stream) for stream in (out, err)))  # type: ignore[call-overload]
    made.note("ended", done)
    _check_words(done)
    _check_files(before)
    return done


def _written(stream: io.TextIOWrapper) -> str:
    stream.flush()
    raw = stream.buffer
    assert isinstance(raw, io.BytesIO)
    return raw.getvalue().decode()


def _check_words(done: Done) -> None:
    if done.status not in (0, 1, 2):
        raise Broken(f"exit status {done.status}")
    if done.status and not done.err.strip():
        raise Broken(f"exit status {done.status} without a word")
    if len(done.err) > LONGEST or done.err.count("\n") > MOST_LINES:
        raise Broken(f"a message of {len(done.err)} characters in {done.err.count(chr(10))} lines")
    if found := FOREIGN.search(done.err):
        raise Broken(f"the message says {found[0]!r}")
    if found := CONTROL.search(done.err):
        raise Broken(f"the message holds the control character {found[0]!r}")


def _check_files(before: set[str]) -> None:
    if left := _names(Path("tmp")):
        raise Broken(f"left in the folder of temporary files: {left}")
    if more := _names(Path()) - before:
        raise Broken(f"{'text ran as code and' if CANARY in more else 'it'} wrote {more}")


def check_out(out: Path, done: Done, existed: bool) -> None:
    """Nothing but the file asked for is in its folder; after a failure it is as it was before."""
    there = _names(out.parent)
    if there - {out.name}:
        raise Broken(f"beside --out: {there - {out.name}}")
    if done.status == 0 and out.name not in there:
        raise Broken("exit 0, but there is no --out")
    if done.status and (out.name in there) != existed:
        raise Broken(f"--out {'is gone' if existed else 'was written'} although the command failed")
    if done.status and existed and out.read_bytes() != BEFORE:
        raise Broken("--out was changed although the command failed")


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


BEFORE = b"as before"


def place(made: Input, name: str) -> tuple[Path, bool]:
    """Where a command is to write, and whether a file is there already."""
    out = made.new_folder("out") / name
    if existed := made.chance(0.1):
        out.write_bytes(BEFORE)
    return out, existed
