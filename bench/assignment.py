"""Claim: assigning a user costs microseconds. Beside it, the GrowthBook SDK on the same ids."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from growthbook import core as growthbook

from firstspin.experiment.assign import assign, split

USERS = [f"{i:08x}-59ab-4f6e-9d0c-{i * 7919:012x}" for i in range(20_000)]
REPEATS = 7
SPLIT = split("first-message@3f2a9c1b", {"rule": 1, "model": 1})
RANGES = growthbook.getBucketRanges(2, 1, [0.5, 0.5])


def ours(user: str) -> object:
    return assign(SPLIT, user)


def sdk(user: str) -> object:
    return growthbook.chooseVariation(growthbook.gbhash("first-message@3f2a9c1b", user, 2) or 0.0, RANGES)


def microseconds(choose: Callable[[str], object]) -> float:
    began = time.perf_counter()
    for user in USERS:
        choose(user)
    return (time.perf_counter() - began) / len(USERS) * 1e6


def main() -> None:
    pairs = [(microseconds(ours), microseconds(sdk)) for _ in range(REPEATS)]
    print(f"assigning one user of {len(USERS):,} (36-character ids), median of {REPEATS}")
    print(f"  firstspin       {statistics.median(a for a, _ in pairs):6.2f} microseconds")
    print(f"  growthbook SDK  {statistics.median(b for _, b in pairs):6.2f} microseconds")
    print(f"  ratio           {statistics.median(b / a for a, b in pairs):6.2f}")


if __name__ == "__main__":
    main()
