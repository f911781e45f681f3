"""Many fuzzed inputs of every entry point, and the C code and crafted bundles under sanitizers.

FUZZ_COUNT and FUZZ_SEED say how many and which; `make fuzz` reproduces a failure.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from fuzz import entries, runs, sanitized
from fuzz.__main__ import described, summary

COUNT = int(os.environ.get("FUZZ_COUNT", "200000"))
SEED = int(os.environ.get("FUZZ_SEED", "1"))
PROCESSES = len(os.sched_getaffinity(0))


def check(entry: str, capsys: pytest.CaptureFixture[str], environment: dict[str, str] | None = None) -> None:
    found = runs.run([entry], range(COUNT), seed=SEED, processes=PROCESSES, environment=environment)
    with capsys.disabled():
        sys.stdout.write(f"\n{summary(found)}")
    assert not found.failures, "\n".join(described(failure, SEED) for failure in found.failures[:5])
    assert found.outcomes[entry].total() == COUNT


@pytest.mark.soak
@pytest.mark.parametrize("entry", list(entries.MODULES))
def test_no_input_breaks_an_entry_point(entry: str, capsys: pytest.CaptureFixture[str]) -> None:
    check(entry, capsys)


@pytest.mark.soak
@pytest.mark.skipif(bool(sanitized.missing()), reason=f"no sanitizers: {sanitized.missing()}")
@pytest.mark.parametrize("entry", entries.SANITIZED)
def test_nothing_in_c_and_no_crafted_bundle_is_reported_by_the_sanitizers(
    entry: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sanitized.build(tmp_path)
    check(entry, capsys, sanitized.environment(tmp_path))
