"""A load test: which rate a server holds within a promised latency, for `scaling.load_test_rps` of deploy/aws.

Open loop: requests leave when the schedule says so, whether or not those before them are answered, for newcomers do not
wait for one another. A latency counts from the scheduled moment, so a server that falls behind shows it, and so does
this machine. That one is told apart by how late requests were handed to a sender, which waits for no server.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from firstspin.records import InputError
from firstspin.tools.sagemaker_check.payloads import Payload

THREADS: Final = 500
"""Requests under way at once at most: it takes 5,000 a second of 100 ms each to need so many."""

LATE: Final = 0.1
"""Part of the promise by which one request in a hundred may leave late before this machine may be to blame."""

SAFETY: Final = 0.5

Send = Callable[[Payload], str]
"""Asks once, from any thread: what went wrong, empty where the answer is 2xx."""


class Limit(StrEnum):
    """What gave way at a rate that does not hold."""

    PROMISE = "promise"
    ERROR = "error"
    GENERATOR = "generator"


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """Rates in requests a second: the `first`, each next one `factor` times as high, up to `most`. Times in seconds.

    A rate holds when 99 of 100 answers come within the `promise` and none is an error. Raises InputError for a plan
    that leads nowhere.
    """

    promise: float = 0.05
    seconds: float = 60.0
    first: float = 10.0
    factor: float = 1.5
    most: float = 5000.0

    def __post_init__(self) -> None:
        told = {"the latency": self.promise, "the seconds of a step": self.seconds, "the first rate": self.first}
        for name, value in told.items():
            if not 0 < value < math.inf:
                raise InputError(f"{name} must be above 0")
        if not 1 < self.factor < math.inf:
            raise InputError("the step must be above 1: the factor from one rate to the next")
        if not self.first <= self.most < math.inf:
            raise InputError("the highest rate must be at least the first")


@dataclass(frozen=True, slots=True)
class LoadStep:
    """What one rate showed: rates in requests a second, times in seconds.

    `late` is what 99 of 100 requests left within of their moment; `limit` is None, and `why` empty, where the rate
    holds.
    """

    rate: float
    done: float
    p50: float
    p99: float
    late: float
    errors: int
    limit: Limit | None
    why: str


@dataclass(frozen=True, slots=True)
class Rig:
    """What sends: `bodies` one after the other, on a clock in seconds; `pool` is made anew for each step."""

    send: Send
    bodies: Sequence[Payload]
    rng: np.random.Generator
    clock: Callable[[], float]
    sleep: Callable[[float], None]
    pool: Callable[[], Executor] = lambda: ThreadPoolExecutor(THREADS, "load")


def search(plan: LoadPlan, rig: Rig) -> Iterator[LoadStep]:
    """Rates step by step until one does not hold, then one between it and the last that did."""
    rate, held = plan.first, 0.0
    while (step := run(rate, plan, rig)).limit is None and rate < plan.most:
        yield step
        rate, held = min(rate * plan.factor, plan.most), rate
    yield step
    if step.limit and held:
        yield run(math.sqrt(held * rate), plan, rig)


def run(rate: float, plan: LoadPlan, rig: Rig) -> LoadStep:
    """Send at one rate until the time is over, or until it is plain that the rate does not hold."""
    moments = arrivals(rate, plan.seconds, rig.rng)
    took: list[float] = []  # what threads append to: an append is atomic
    alone: list[float] = []
    slow: list[float] = []
    late: list[float] = []
    errors: list[str] = []

    def lost() -> bool:
        return bool(errors) or len(slow) > len(moments) // 100

    def ask(moment: float, payload: Payload) -> None:
        if lost():
            return  # what waits behind a server that is overrun is not sent after all
        asked = rig.clock()
        error = rig.send(payload)
        answered = rig.clock()
        seconds = answered - moment
        took.append(seconds)
        alone.append(answered - asked)
        if error:
            errors.append(error)
        elif seconds > plan.promise:
            slow.append(seconds)

    began = rig.clock()
    with rig.pool() as pool:
        for number, moment in enumerate(began + moments):
            if (ahead := moment - rig.clock()) > 0:
                rig.sleep(ahead)
            late.append(rig.clock() - moment)
            pool.submit(ask, moment, rig.bodies[number % len(rig.bodies)])
            if lost():
                break
    assert lost() or len(took) == len(moments), "a sender must not raise"
    elapsed = rig.clock() - began
    done = len(took) / (elapsed if lost() else max(elapsed, plan.seconds))
    p50, p99, p99_late = quantile(took, 0.5), quantile(took, 0.99), quantile(late, 0.99)
    limit, why = _judged(errors, p99, quantile(alone, 0.99), p99_late, plan.promise)
    return LoadStep(rate, done, p50, p99, p99_late, len(errors), limit, why)


def arrivals(rate: float, seconds: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Moments in [0, seconds) at which people come who don't know of one another: a Poisson process of known number."""
    return np.sort(rng.uniform(0, seconds, max(1, round(rate * seconds))))


def quantile(values: Sequence[float], q: float) -> float:
    """The least value that so large a part of them does not exceed.

    >>> quantile([4.0, 1.0, 3.0, 2.0], 0.5)
    2.0
    """
    return float(np.quantile(values, q, method="inverted_cdf"))


def _judged(errors: Sequence[str], p99: float, alone: float, late: float, promise: float) -> tuple[Limit | None, str]:
    """What gave way; `alone` is the p99 from when a sender was free."""
    if errors:
        return Limit.ERROR, f"an answer was not 2xx: {errors[0]}"
    if p99 <= promise:
        return None, ""
    # What leaves late is read late too: without twice that, would the promise have been kept?
    if late > promise * LATE and p99 - 2 * late <= promise:
        return Limit.GENERATOR, (
            f"this machine could not send more: 1 request in 100 left {late * 1e3:.1f} ms late or later; "
            "that is not the instance's limit"
        )
    if alone <= promise:
        return Limit.GENERATOR, (
            f"this machine could not send more: of its {THREADS} senders none was free in time; "
            "that is not the instance's limit"
        )
    return Limit.PROMISE, f"p99 was {p99 * 1e3:.1f} ms, over the promise of {promise * 1e3:g} ms"


def best(steps: Sequence[LoadStep]) -> LoadStep | None:
    """The highest rate that held."""
    return max((step for step in steps if step.limit is None), key=lambda step: step.rate, default=None)


def worst(steps: Sequence[LoadStep]) -> LoadStep | None:
    """The lowest rate that did not hold."""
    return min((step for step in steps if step.limit), key=lambda step: step.rate, default=None)


def rps(step: LoadStep) -> float:
    """`load_test_rps`: the rate, never rounded up."""
    return math.floor(step.rate * 10) / 10


def a_minute(step: LoadStep) -> int:
    """The target of deploy/aws in invocations a minute and instance, at a safety of one half."""
    return math.floor(rps(step) * 60 * SAFETY)
