"""A feed-forward network: one hidden layer beside a straight path, taught by Adam.

Our own few lines of numpy, because libraries learn one right genre a person and not shares of listening
(docs/decisions/0011-a-network-of-our-own.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Final

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from firstspin.features import CATEGORY, HAT, MISSING, PICKED, RANK
from firstspin.models.popularity import log_popularity
from firstspin.models.predictor import Array
from firstspin.models.scorers import Network
from firstspin.models.task import Indexes, Task

Single = NDArray[np.float32]

COLUMNS: Final = (HAT, MISSING, CATEGORY, PICKED, RANK)
BATCH: Final = 256
WARM_UP: Final = 100
ONE_AT_A_TIME: Final = Lock()
"""How many threads BLAS has is a matter of the whole process: of two trainings, the first to end would change it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """`hidden`: units of the hidden layer. `epochs`: how often it sees everyone, in `most_steps` batches at most.

    `penalty` and `softness` as for the logistic model; the straight path is not penalised.
    """

    hidden: int = 128
    epochs: int = 40
    most_steps: int = 12_000
    learning_rate: float = 0.005
    penalty: float = 10.0
    softness: float = 0.5


def network(task: Task) -> Network:
    """The network under which people's top genres, and the shares of their listening, are likely.

    One thread, one order of adding: the same network on every run, and ten times sooner than on two.
    """
    settings = task.chosen(Settings) or Settings()
    columns = task.encoder.of_kind(*COLUMNS)
    values = task.rows[:, columns].astype(np.float32)
    goal = task.targets(settings.softness).astype(np.float32)
    rng = np.random.default_rng(task.seed)
    layers = first_layers(len(columns), settings.hidden, log_popularity(task), rng)
    steps = min(settings.epochs * -(-len(task) // BATCH), settings.most_steps)
    with ONE_AT_A_TIME, threadpool_limits(1, "blas"):
        taught = Adam(layers)
        for step, batch in enumerate(_batches(len(task), steps, rng)):
            pace = min(1.0, (step + 1) / WARM_UP) * (1.0 - step / steps)
            slope = slopes(layers, values[batch], goal[batch], settings.penalty / len(task))
            taught.step(slope, settings.learning_rate * pace)
    return Network(columns, *(layer.astype(np.float64) for layer in layers))


def first_layers(m: int, hidden: int, start: Array, rng: np.random.Generator) -> list[Single]:
    """Weights and bias into the hidden layer, weights out of it, bias, weights of the straight path."""
    k = len(start)
    inward = rng.standard_normal((m, hidden), dtype=np.float32) * np.float32(0.4)
    outward = rng.standard_normal((hidden, k), dtype=np.float32) * np.float32(0.3 / np.sqrt(hidden))
    straight = np.zeros((m, k), np.float32)
    return [inward, np.zeros(hidden, np.float32), outward, start.astype(np.float32), straight]


def slopes(layers: Sequence[Single], values: Single, goal: Single, decay: float) -> list[Single]:
    """How the cross entropy to `goal` plus decay/2 x squared weights changes with each layer (back-propagation)."""
    inward, bias_inward, outward, bias, straight = layers
    inside = values @ inward + bias_inward
    active = np.maximum(inside, 0)
    scores = active @ outward + values @ straight + bias
    chances = np.exp(scores - scores.max(axis=1, keepdims=True))
    excess = (chances / chances.sum(axis=1, keepdims=True) - goal) / np.float32(len(values))
    back = (excess @ outward.T) * (inside > 0)
    return [
        values.T @ back + decay * inward,
        back.sum(axis=0),
        active.T @ excess + decay * outward,
        excess.sum(axis=0),
        values.T @ excess,
    ]


class Adam:
    """Changes layers in steps that are scaled to each weight's own past slopes (Kingma and Ba, ICLR 2015)."""

    def __init__(self, layers: Sequence[Single]) -> None:
        self._layers = layers
        self._mean = [np.zeros_like(layer) for layer in layers]
        self._square = [np.zeros_like(layer) for layer in layers]

    def step(self, slopes: Sequence[Single], length: float) -> None:
        """One step of about this length downhill."""
        for layer, slope, mean, square in zip(self._layers, slopes, self._mean, self._square, strict=True):
            mean += 0.1 * (slope - mean)
            square += 0.01 * (slope * slope - square)
            layer -= length * mean / (np.sqrt(square) + 1e-8)


def _batches(n: int, steps: int, rng: np.random.Generator) -> Iterator[Indexes]:
    """So many batches of n people, everyone once before anyone again."""
    while steps > 0:
        shuffled = rng.permutation(n)
        for start in range(0, min(n, steps * BATCH), BATCH):
            yield shuffled[start : start + BATCH]
            steps -= 1
