"""What many tests stand on."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings
from made_bundles import pack

settings.register_profile("ours", deadline=None)  # no test asserts a time
settings.load_profile("ours")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that nobody changes."""
    made: Path = tmp_path_factory.mktemp("bundle") / "b"
    pack(made)
    return made
