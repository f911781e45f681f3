"""The training task: encoded registrations and what these users listened to."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from firstspin.models.coded_rows import AT_ONCE, CodedRows, parts
from firstspin.models.features import Encoder
from firstspin.models.predictor import Array, log_probabilities

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Indexes = NDArray[np.int64]
Progress = Callable[[str, float], None]
Settings = TypeVar("Settings")
Trained = TypeVar("Trained")


def silent(step: str, done: float) -> None:
    """A `Progress` that reports nothing."""


def stage(progress: Progress, begin: float, end: float) -> Progress:
    """The `Progress` of one stage of a longer piece of work: its fraction done runs from `begin` to `end`."""
    return lambda step, done: progress(step, begin + done * (end - begin))


@dataclass(frozen=True, slots=True)
class Tuned:
    """The settings that tuning chose for the model of this name, after `trials` trials."""

    name: str
    settings: Any
    trials: int

    def __str__(self) -> str:
        chosen = ", ".join(f"{name}={value}" for name, value in asdict(self.settings).items())
        return f"{self.name} tuned in {self.trials} trials ({chosen})"


@dataclass(frozen=True, slots=True)
class Task:
    """n users as `rows` (n, c), their top genre `tops` (n,) and listening `shares` (n, k).

    The rows of many users are codes, of which `rows[which]` is an array. Where settings have no `soft_label_weight`,
    this is it: 0 trains on the top genre alone, 1 on the listening shares alone. `tuned` holds the settings that tuning
    chose, each of its model's own type. `progress` receives the name of a step and the fraction done, from 0 to 1.
    """

    encoder: Encoder
    genres: tuple[str, ...]
    rows: Array | CodedRows
    tops: Indexes
    shares: Array
    seed: int = 0
    soft_label_weight: float = 0.5
    tuned: tuple[Tuned, ...] = ()
    progress: Progress = silent
    _trained: dict[str, Any] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, which: Indexes) -> Task:
        """The task of the users at positions `which` (m,)."""
        rows = self.rows.take(which) if isinstance(self.rows, CodedRows) else self.rows[which]
        if isinstance(rows, CodedRows) and len(which) <= AT_ONCE:
            rows = rows[:]
        return replace(self, rows=rows, tops=self.tops[which], shares=self.shares[which])

    def sample(self, users: int) -> Task:
        """The task of so many random users, or itself where it has no more. The seed determines who they are."""
        if len(self) <= users:
            return self
        return self.take(np.sort(np.random.default_rng(self.seed).permutation(len(self))[:users]))

    def without(self, questions: Collection[str]) -> Task:
        """The task without the answers to these questions: as encoded without them, but only columns are selected."""
        if isinstance(self.rows, CodedRows):
            rows: Array | CodedRows = self.rows.without(questions)
        else:
            rows = self.rows[:, self.encoder.columns_without(questions)]
        return replace(self, encoder=self.encoder.without(questions), rows=rows)

    def sparse(self, columns: Indexes) -> csr_matrix:
        """(n, p) the values of these columns as a sparse matrix: a few of a row's cells are not zero."""
        from scipy.sparse import csr_matrix, vstack

        blocks = [csr_matrix(self.rows[part][:, columns]) for part in parts(len(self))]
        return vstack(blocks, format="csr") if len(blocks) > 1 else blocks[0]

    def once(self, name: str, train: Callable[[Task], Trained]) -> Trained:
        """What `train` makes of this task, which is trained once under this name: an ensemble shares its members.

        A task that is changed (`take`, `without`, `replace`) shares nothing. Two threads may train the same twice.
        """
        if name not in self._trained:
            self._trained[name] = train(self)
        trained: Trained = self._trained[name]
        return trained

    def chosen(self, kind: type[Settings]) -> Settings | None:
        """The settings of this type that tuning chose, if it did."""
        return next((tuned.settings for tuned in self.tuned if isinstance(tuned.settings, kind)), None)

    def targets(self, soft_label_weight: float | None = None) -> Array:
        """(n, k) soft labels of this weight, or of the task's own. Rows sum to 1."""
        weight = self.soft_label_weight if soft_label_weight is None else soft_label_weight
        soft = weight * self.shares
        soft[np.arange(len(self)), self.tops] += 1.0 - weight
        return soft


def folds(n: int, k: int, seed: int) -> Iterator[tuple[Indexes, Indexes]]:
    """(train, hold-out) positions of each of k folds of n users, shuffled."""
    parts = np.array_split(np.random.default_rng(seed).permutation(n), k)
    for part in parts:
        rest = np.ones(n, dtype=bool)
        rest[part] = False
        yield np.flatnonzero(rest), np.sort(part)


def log_losses(scores: Array, tops: Indexes) -> Array:
    """(n,) -log(probability of the true genre), of `scores` (n, k) and true genres `tops` (n,)."""
    losses: Array = -np.take_along_axis(log_probabilities(scores), tops[:, None], axis=1)[:, 0]
    return losses


def mean_log_loss(scores: Array, tops: Indexes) -> float:
    """Mean of `log_losses`, of `scores` (n, k) and true genres `tops` (n,)."""
    return float(log_losses(scores, tops).mean())


def best_loss(scores: Array, tops: Indexes) -> float:
    """The log loss of `scores` (n, k) at the best temperature (Guo et al., On calibration, ICML 2017); `tops` (n,)."""
    from scipy.optimize import minimize_scalar

    solution = minimize_scalar(
        lambda log_scale: mean_log_loss(scores * np.exp(log_scale), tops), bounds=(-2.0, 2.0), method="bounded"
    )
    return float(solution.fun)
