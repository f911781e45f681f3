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


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two different bundles that nobody changes."""
    folder: Path = tmp_path_factory.mktemp("bundles")
    pack(folder / "one")
    pack(folder / "two", seed=3)
    return folder / "one", folder / "two"


@pytest.fixture
def current(bundles: tuple[Path, Path], tmp_path: Path) -> Path:
    """A link that names the bundle to serve, as deployments do it."""
    link = tmp_path / "current"
    link.symlink_to(bundles[0])
    return link
