"""`python -m fuzz`: fuzz entry points, and print what came of it."""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from fuzz import entries, runs, sanitized
from fuzz.worker import Failure


def main() -> None:
    told = _arguments()
    names = tuple(told.entry.split(",")) if told.entry else tuple(entries.MODULES)
    if unknown := [name for name in names if name not in entries.MODULES | entries.HARNESS]:
        sys.exit(f"no entry is called {unknown[0]!r}; there are {', '.join(entries.MODULES)}")
    indexes = range(told.index, told.index + 1) if told.index is not None else range(told.count)
    with ExitStack() as stack:
        environment = {}
        if told.sanitized:
            if why := sanitized.missing():
                sys.exit(f"nothing can be sanitized here: {why}")
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="firstspin-sanitized-")))
            sanitized.build(folder)
            environment = sanitized.environment(folder)
        found = runs.run(
            names, indexes, seed=told.seed, processes=told.processes, seconds=told.seconds, environment=environment
        )
    for failure in found.failures:
        sys.stdout.write(described(failure, told.seed))
    sys.stdout.write(summary(found))
    sys.exit(1 if found.failures else 0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--entry", default="", help=f"names with commas between; all: {', '.join(entries.MODULES)}")
    parser.add_argument("--count", type=int, default=1_000, help="inputs of each entry")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--index", type=int, help="only this input, to reproduce a failure")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--sanitized", action="store_true", help="the C code built with sanitizers")
    parser.add_argument("--seconds", type=float, default=runs.SECONDS, help="an input that takes longer is a hang")
    return parser.parse_args()


def summary(found: runs.Found) -> str:
    """A line an entry: how many inputs, and how they ended."""
    lines = []
    for entry, outcomes in found.outcomes.items():
        told = ", ".join(f"{name} {count:,}" for name, count in outcomes.most_common())
        lines.append(f"{entry}: {outcomes.total():,} inputs ({told}); {found.megabytes[entry]} MB")
    return "\n".join([*lines, f"{len(found.failures)} failures in {found.seconds:,.0f} s\n"])


def described(failure: Failure, seed: int) -> str:
    """A failure, what the input was, and how to make that one input again."""
    notes = "".join(f"  {note[:3000]}\n" for note in failure.notes)
    again = f"make fuzz ENTRY={failure.entry} SEED={seed} INDEX={failure.index}"
    return f"{failure.entry} {failure.index}: {failure.said}\n{notes}again: {again}\n\n"


if __name__ == "__main__":
    main()
