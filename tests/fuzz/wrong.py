"""An entry whose inputs break in every way there is, to test that each is found: no entry point of ours."""

from __future__ import annotations

import ctypes
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fuzz.inputs import Broken, Check, Input

KINDS = ("fine", "invariant", "exception", "hang", "crash", "fine", "files")


@contextmanager
def opened(folder: Path) -> Iterator[Check]:
    left = []

    def check(made: Input) -> str:
        made.note("kind", kind := KINDS[made.index])
        if kind == "invariant":
            raise Broken("this does not hold")
        if kind == "exception":
            raise KeyError("this was not expected")
        if kind == "hang":
            signal.pause()
        if kind == "crash":
            ctypes.string_at(0)
        if kind == "files":
            left.extend((folder / "left").open("w") for _ in range(50))
        return kind

    yield check
