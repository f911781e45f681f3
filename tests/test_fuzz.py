"""Some fuzzed inputs of every entry point, 20 or 100; `make fuzz` checks as many as there is time for."""

from __future__ import annotations

from decimal import Decimal
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fuzz import entries, files, runs
from fuzz.__main__ import described
from fuzz.inputs import Input
from fuzz.worker import Failure

SLOW = ("label", "score", "analyse", "recommend", "plan", "bundle", "sockets")
"""Entries of which an input costs more than a few milliseconds."""
QUICK = tuple(name for name in entries.MODULES if name not in SLOW)


def told(failures: list[Failure], seed: int = 0) -> str:
    return "\n".join(described(failure, seed) for failure in failures)


@pytest.mark.parametrize(("names", "count"), [(SLOW, 20), (QUICK, 100)], ids=["slow", "quick"])
def test_no_input_breaks_an_entry_point(names: tuple[str, ...], count: int) -> None:
    found = runs.run(names, range(count), seed=0)  # one process: its imports are most of the time
    assert not found.failures, told(found.failures)
    assert {name: outcomes.total() for name, outcomes in found.outcomes.items()} == dict.fromkeys(names, count)
    alike = [name for name, outcomes in found.outcomes.items() if len(outcomes) == 1]
    assert alike == []


def test_an_input_is_made_again_from_its_seed_and_index() -> None:
    first, again = (runs.run(["wrong"], range(i, 3), seed=5).failures for i in (1, 2))
    assert [(one.index, one.said.splitlines()[-1]) for one in first] == [
        (1, "this does not hold"),
        (2, "KeyError: 'this was not expected'"),
    ]
    assert again == first[1:]
    assert "make fuzz ENTRY=wrong SEED=5 INDEX=2" in told(again, seed=5)


def test_a_hang_and_a_crash_are_found_and_the_inputs_after_them_are_checked() -> None:
    found = runs.run(["wrong"], range(3, 6), seed=0, seconds=1.0)
    assert [(one.index, one.said.splitlines()[0]) for one in found.failures] == [
        (3, "hangs"),
        (4, "ends the process with status -11"),
    ]
    assert found.outcomes == {"wrong": {"fine": 1}}


def test_files_that_inputs_leave_open_are_found() -> None:
    [failure] = runs.run(["wrong"], range(6, 7), seed=0).failures
    assert "50 files" in failure.said


def test_each_process_checks_its_share() -> None:
    found = runs.run(["wrong"], range(0, 3), seed=0, processes=3)
    assert sorted(failure.index for failure in found.failures) == [1, 2]
    assert found.outcomes["wrong"].total() == 1


def test_a_further_column_that_parquet_cannot_hold_leaves_the_others_as_they_are() -> None:
    made = Input("any", 0, 0, Path())
    negative_scale = pa.array([None, Decimal(700)], pa.decimal128(5, -2))
    content = files.parquet(made, ["age", "further"], [pa.array([31, None]), negative_scale])
    assert pq.read_table(BytesIO(content)).to_pylist() == [
        {"age": 31, "further": None},
        {"age": None, "further": "7E+2"},
    ]


def test_a_table_that_means_the_same_has_no_bare_carriage_return_in_a_cell() -> None:
    table = files.Table(("user_id", "note"), (("1", "a\rb"),))
    for index in range(20):
        content = files.same_csv(Input("any", 0, index, Path()), table)
        assert b'"a\rb"' in content
