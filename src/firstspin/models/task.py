"""What a model learns from: encoded rows and what these people then played."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from firstspin.features import Encoder
from firstspin.models.predictor import Array, log_probabilities

Indexes = NDArray[np.int64]
Progress = Callable[[str, float], None]
Settings = TypeVar("Settings")


def silent(step: str, done: float) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """What tuning chose for the model of this name, after so many trials."""

    name: str
    settings: Any
    trials: int

    def __str__(self) -> str:
        chosen = ", ".join(f"{name}={value}" for name, value in asdict(self.settings).items())
        return f"{self.name} tuned in {self.trials} trials ({chosen})"


@dataclass(frozen=True, slots=True)
class Task:
    """n people as rows (n, c), their top genre `tops` (n,) and listening `shares` (n, k), and how to learn from it.

    `tuned` holds the settings that tuning chose, each of its model's own type. `progress` is told the name of a step
    and how much of it is done, from 0 to 1.
    """

    encoder: Encoder
    genres: tuple[str, ...]
    rows: Array
    tops: Indexes
    shares: Array
    seed: int = 0
    tuned: tuple[Tuned, ...] = ()
    progress: Progress = silent

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, which: Indexes) -> Task:
        """The same task for the people at these positions only."""
        return replace(self, rows=self.rows[which], tops=self.tops[which], shares=self.shares[which])

    def chosen(self, kind: type[Settings]) -> Settings | None:
        """The settings of this type that tuning chose, if it did."""
        return next((tuned.settings for tuned in self.tuned if isinstance(tuned.settings, kind)), None)

    def targets(self, softness: float) -> Array:
        """(n, k) what to predict: between the top genre alone (softness 0) and the shares of all listening (1)."""
        soft = softness * self.shares
        soft[np.arange(len(self)), self.tops] += 1.0 - softness
        return soft


def folds(n: int, k: int, seed: int) -> Iterator[tuple[Indexes, Indexes]]:
    """(rest, part) for each of k parts of a shuffle of n people."""
    parts = np.array_split(np.random.default_rng(seed).permutation(n), k)
    for part in parts:
        rest = np.ones(n, dtype=bool)
        rest[part] = False
        yield np.flatnonzero(rest), np.sort(part)


def log_losses(scores: Array, tops: Indexes) -> Array:
    """(n,) minus the log of the probability given to the genre that it was."""
    losses: Array = -np.take_along_axis(log_probabilities(scores), tops[:, None], axis=1)[:, 0]
    return losses


def log_loss(scores: Array, tops: Indexes) -> float:
    """The mean of `log_losses`."""
    return float(log_losses(scores, tops).mean())
