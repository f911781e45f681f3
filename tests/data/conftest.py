"""All tests have one folder: the instance of DuckDB of the test before, which costs 30 ms, is open for it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Empty, at the same path for all tests of a process."""
    folder: Path = tmp_path_factory.getbasetemp() / "of_each_test"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(exist_ok=True)
    return folder
