"""A feed-forward network: one hidden layer (ReLU) with a skip connection, trained with Adam on soft labels.

It is numpy, because libraries train on one true class per user, not on shares of listening
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

from firstspin.models.coded_rows import CodedRows
from firstspin.models.linear.logistic import COLUMNS
from firstspin.models.popularity import log_popularity
from firstspin.models.predictor import Array
from firstspin.models.scorers import Network
from firstspin.models.task import Indexes, Task

Single = NDArray[np.float32]

BATCH: Final = 256
WARM_UP: Final = 100
ONE_AT_A_TIME: Final = Lock()
"""The number of BLAS threads is a setting of the process: of two trainings at once, the first to end would reset it."""


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """`hidden`: units of the hidden layer. `epochs`: passes over all users, in at most `max_steps` batches.

    `penalty` and `soft_label_weight` as for the logistic model; the skip connection is not penalised.
    """

    hidden: int = 128
    epochs: int = 40
    max_steps: int = 12_000
    learning_rate: float = 0.005
    penalty: float = 10.0
    soft_label_weight: float | None = None


def network(task: Task) -> Network:
    """The network with minimal cross entropy to the soft labels.

    BLAS runs in one thread: the result is the same on every run, and training is ten times faster than on two threads.
    """
    settings = task.chosen(NetworkSettings) or NetworkSettings()
    columns = task.encoder.of_kind(*COLUMNS)
    encoded = task.rows if isinstance(task.rows, CodedRows) else task.rows[:, columns].astype(np.float32)
    target = task.targets(settings.soft_label_weight).astype(np.float32)
    rng = np.random.default_rng(task.seed)
    layers = first_layers(len(columns), settings.hidden, log_popularity(task), rng)
    steps = min(settings.epochs * -(-len(task) // BATCH), settings.max_steps)
    with ONE_AT_A_TIME, threadpool_limits(1, "blas"):
        adam = Adam(layers)
        for step, batch in enumerate(_batches(len(task), steps, rng)):
            schedule = min(1.0, (step + 1) / WARM_UP) * (1.0 - step / steps)
            values = encoded[batch][:, columns].astype(np.float32) if isinstance(encoded, CodedRows) else encoded[batch]
            gradient = gradients(layers, values, target[batch], settings.penalty / len(task))
            adam.step(gradient, settings.learning_rate * schedule)
    return Network(columns, *(layer.astype(np.float64) for layer in layers))


def first_layers(m: int, hidden: int, start: Array, rng: np.random.Generator) -> list[Single]:
    """Initial layers: hidden weights (m, hidden) and bias, output weights (hidden, k) and bias, skip weights (m, k)."""
    k = len(start)
    inward = rng.standard_normal((m, hidden), dtype=np.float32) * np.float32(0.4)
    outward = rng.standard_normal((hidden, k), dtype=np.float32) * np.float32(0.3 / np.sqrt(hidden))
    skip = np.zeros((m, k), np.float32)
    return [inward, np.zeros(hidden, np.float32), outward, start.astype(np.float32), skip]


def gradients(layers: Sequence[Single], values: Single, target: Single, decay: float) -> list[Single]:
    """Gradients of the mean cross entropy to `target` (n, k) plus decay/2 x squared weights, by back-propagation.

    `values` (n, m); each gradient has the shape of its layer.
    """
    inward, bias_inward, outward, bias, skip = layers
    inside = values @ inward + bias_inward
    active = np.maximum(inside, 0)
    scores = active @ outward + values @ skip + bias
    p = np.exp(scores - scores.max(axis=1, keepdims=True))
    excess = (p / p.sum(axis=1, keepdims=True) - target) / np.float32(len(values))
    back = (excess @ outward.T) * (inside > 0)
    return [
        values.T @ back + decay * inward,
        back.sum(axis=0),
        active.T @ excess + decay * outward,
        excess.sum(axis=0),
        values.T @ excess,
    ]


class Adam:
    """Adam (Kingma and Ba, ICLR 2015) with beta 0.9 and 0.99; updates the layers in place."""

    def __init__(self, layers: Sequence[Single]) -> None:
        self._layers = layers
        self._mean = [np.zeros_like(layer) for layer in layers]
        self._square = [np.zeros_like(layer) for layer in layers]

    def step(self, gradients: Sequence[Single], learning_rate: float) -> None:
        """Update the layers by one step; each gradient has the shape of its layer, such as (m, hidden)."""
        for layer, gradient, mean, square in zip(self._layers, gradients, self._mean, self._square, strict=True):
            mean += 0.1 * (gradient - mean)
            square += 0.01 * (gradient * gradient - square)
            layer -= learning_rate * mean / (np.sqrt(square) + 1e-8)


def _batches(n: int, steps: int, rng: np.random.Generator) -> Iterator[Indexes]:
    """`steps` batches of positions of n users, shuffled anew in every epoch."""
    while steps > 0:
        shuffled = rng.permutation(n)
        for start in range(0, min(n, steps * BATCH), BATCH):
            yield shuffled[start : start + BATCH]
            steps -= 1
