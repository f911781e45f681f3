"""All tests have one folder: the instance of DuckDB of the test before, which costs 30 ms, is open for it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def emptied(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Empties the folder: for each example of a test too."""
    folder: Path = tmp_path_factory.getbasetemp() / "of_each_test"

    def empty() -> Path:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(exist_ok=True)
        return folder

    return empty


@pytest.fixture
def tmp_path(emptied: Callable[[], Path]) -> Path:
    """An empty folder, at the same path for all tests of a process."""
    return emptied()
