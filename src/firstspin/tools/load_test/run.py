"""A load test: the max rate that a server sustains within a latency objective, for `scaling.load_test_rps`.

Open loop: requests are sent on schedule, whether or not earlier ones are answered, because users are independent.
Latency counts from the scheduled time, so a server that falls behind is visible (no coordinated omission), and so is
this machine. The latter is identified by the delay with which requests are handed to a sender thread.
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
"""Max concurrent requests: 5,000 per second at 100 ms each need so many."""

LATE: Final = 0.1
"""Delay of 1 request in 100, as a fraction of the latency objective, from which the load generator may be the limit."""

SAFETY: Final = 0.5

Send = Callable[[Payload], str]
"""Sends one request, from any thread; returns the error, empty where the status is 2xx."""


class Limit(StrEnum):
    """The reason why a rate is not sustained: latency objective, errors, or the load generator."""

    PROMISE = "promise"
    ERROR = "error"
    GENERATOR = "generator"


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """Rates in requests per second: from `first`, multiplied by `factor`, up to `most`. Times in seconds.

    A rate is sustained if p99 is within the `promise` (the latency objective) and no response is an error. Raises
    InputError where a value is out of range.
    """

    promise: float = 0.05
    seconds: float = 60.0
    first: float = 10.0
    factor: float = 1.5
    most: float = 5000.0

    def __post_init__(self) -> None:
        positive = {"the latency": self.promise, "the seconds of a step": self.seconds, "the first rate": self.first}
        for name, value in positive.items():
            if not 0 < value < math.inf:
                raise InputError(f"{name} must be above 0")
        if not 1 < self.factor < math.inf:
            raise InputError("the step must be above 1: the factor from one rate to the next")
        if not self.first <= self.most < math.inf:
            raise InputError("the highest rate must be at least the first")


@dataclass(frozen=True, slots=True)
class LoadStep:
    """The result of one rate: rates in requests per second, times in seconds.

    `late` is the p99 of the delay between schedule and sending; `limit` is None, and `why` empty, where the rate is
    sustained.
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
    """The load generator: sends `bodies` in turn, on a clock in seconds; each step gets a new `pool`."""

    send: Send
    bodies: Sequence[Payload]
    rng: np.random.Generator
    clock: Callable[[], float]
    sleep: Callable[[float], None]
    pool: Callable[[], Executor] = lambda: ThreadPoolExecutor(THREADS, "load")


def search(plan: LoadPlan, rig: Rig) -> Iterator[LoadStep]:
    """Increase the rate until one is not sustained, then test one between it and the last sustained one."""
    rate, held = plan.first, 0.0
    while (step := run(rate, plan, rig)).limit is None and rate < plan.most:
        yield step
        rate, held = min(rate * plan.factor, plan.most), rate
    yield step
    if step.limit and held:
        yield run(math.sqrt(held * rate), plan, rig)


def run(rate: float, plan: LoadPlan, rig: Rig) -> LoadStep:
    """Send at one rate for the planned time, or until the rate is certainly not sustained."""
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
            return  # requests queued behind an overloaded server are not sent
        sent = rig.clock()
        error = rig.send(payload)
        answered = rig.clock()
        seconds = answered - moment
        took.append(seconds)
        alone.append(answered - sent)
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
    """Arrival times (n,) in [0, seconds), ascending: a Poisson process conditioned on its number of arrivals."""
    return np.sort(rng.uniform(0, seconds, max(1, round(rate * seconds))))


def quantile(values: Sequence[float], q: float) -> float:
    """The smallest value that at least a fraction `q` of the values does not exceed.

    >>> quantile([4.0, 1.0, 3.0, 2.0], 0.5)
    2.0
    """
    return float(np.quantile(values, q, method="inverted_cdf"))


def _judged(errors: Sequence[str], p99: float, alone: float, late: float, promise: float) -> tuple[Limit | None, str]:
    """The limit that was reached; `alone` is the p99 once a sender was free."""
    if errors:
        return Limit.ERROR, f"an answer was not 2xx: {errors[0]}"
    if p99 <= promise:
        return None, ""
    # A late request is also read late: would p99 be within the objective without twice the delay?
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
    """The step with the max sustained rate; None without one."""
    return max((step for step in steps if step.limit is None), key=lambda step: step.rate, default=None)


def worst(steps: Sequence[LoadStep]) -> LoadStep | None:
    """The step with the min rate that was not sustained; None without one."""
    return min((step for step in steps if step.limit), key=lambda step: step.rate, default=None)


def rps(step: LoadStep) -> float:
    """`load_test_rps`: the rate in requests per second, rounded down."""
    return math.floor(step.rate * 10) / 10


def a_minute(step: LoadStep) -> int:
    """The autoscaling target in invocations per minute and instance, at a safety of one half."""
    return math.floor(rps(step) * 60 * SAFETY)
