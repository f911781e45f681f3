"""One input: the random numbers it is made of, a folder for its files, and a record of what was made."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


class Broken(Exception):
    """An invariant does not hold; the text says which."""


class Input:
    """What makes input `index` of an entry: the same (entry, seed, index) makes the same input in any process."""

    def __init__(self, entry: str, seed: int, index: int, folder: Path) -> None:
        self.random = random.Random(f"{entry}/{seed}/{index}")
        self.index = index
        self.folder = folder
        self._notes: list[tuple[str, object]] = []

    def note(self, name: str, what: object) -> None:
        """Record a part of the input, shown when it fails or is asked for alone."""
        self._notes.append((name, what))

    def notes(self) -> tuple[str, ...]:
        """What was recorded, written down."""
        return tuple(f"{name}: {what!r}" for name, what in self._notes)

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def pick(self, among: Sequence[T]) -> T:
        return among[int(self.random.random() * len(among))]

    def number(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`."""
        return self.random.randint(low, high)

    def new_folder(self, name: str) -> Path:
        """An empty folder of this input."""
        path = self.folder / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        return path


Check = Callable[[Input], str]
"""Makes an input and hands it over; the outcome is counted under the name that comes back."""

Opened = Callable[[Path], AbstractContextManager[Check]]
