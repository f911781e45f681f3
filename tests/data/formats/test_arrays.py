"""Arrow and NumPy arrays of the same memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from firstspin.data.formats.arrays import arrow_array, arrow_texts, numbers_of, numpy_array
from firstspin.simulation.world import write_world


@pytest.mark.parametrize("kind", [np.int8, np.int32, np.int64, np.float64])
def test_there_and_back_it_is_the_same_memory(kind: Any) -> None:
    numbers = np.arange(-2, 5).astype(kind)
    column = arrow_array(numbers)
    assert column.equals(pa.array([-2, -1, 0, 1, 2, 3, 4], pa.from_numpy_dtype(kind)))
    assert np.shares_memory(numpy_array(column, kind), numbers)
    assert numpy_array(column.slice(2, 3), kind).tolist() == [0, 1, 2]


def test_other_strides_and_no_values() -> None:
    assert arrow_array(np.arange(10)[::-3]).to_pylist() == [9, 6, 3, 0]
    assert arrow_array(np.array([], np.int32)).to_pylist() == []
    assert numpy_array(pa.array([], pa.int32()), np.int32).tolist() == []
    assert numpy_array(pa.nulls(0, pa.float64()), np.float64).tolist() == []


@pytest.mark.parametrize(
    ("column", "why"),
    [
        (pa.array([1, None]), "int64 with 1 nulls is no array of int64"),
        (pa.array([1], pa.int32()), "int32 with 0 nulls is no array of int64"),
        (pa.array([True]), "bool with 0 nulls is no array of int64"),
        (pa.nulls(2), "null with 2 nulls is no array of int64"),
        (pa.array([1.0]), "double with 0 nulls is no array of int64"),
        (pa.array(["1"]), "string with 0 nulls is no array of int64"),
    ],
)
def test_nulls_and_other_types_are_refused(column: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        numpy_array(column, np.int64)


def test_whole_numbers_times_and_truth_values() -> None:
    assert numbers_of(pa.array([3, None, -1], pa.int8()), np.int64, none=7).tolist() == [3, 7, -1]
    assert numbers_of(pa.array([True, False]), np.int8).tolist() == [1, 0]
    assert numbers_of(pa.array([2, None], pa.timestamp("s")).slice(0, 1), np.int64).tolist() == [2]
    with pytest.raises(ValueError, match="int64 with 1 nulls"):
        numbers_of(pa.array([2, None]), np.int64)


@pytest.mark.parametrize("texts", [[], [""], ["Rock", "", "Schlager für alle", "音楽"]])
def test_texts(texts: list[str]) -> None:
    column = arrow_texts(texts)
    column.validate(full=True)
    assert column.equals(pa.array(texts, pa.string()))


COMMANDS = """
import sys
from firstspin.__main__ import main
for words in sys.argv[1:]:
    sys.argv = ["firstspin", *words.split()]
    try:
        main()
    except SystemExit as end:
        assert not end.code, words
    assert "pandas" not in sys.modules, words
"""


def test_no_command_on_tables_imports_pandas(tmp_path: Path) -> None:
    write_world(tmp_path / "data", 300, 5)
    commands = [
        "label --data data --out labels.parquet",
        "train --data data --model logistic --out bundle",
        "score --registrations data/registrations.parquet --bundle bundle --out scores.csv",
        "score --registrations data/registrations.parquet --bundle bundle --out scores.parquet",
        "evaluate --data data --models popularity --folds 2",
    ]
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, *commands], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
