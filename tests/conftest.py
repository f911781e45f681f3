"""What many tests stand on."""

from __future__ import annotations

import gc
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from made_bundles import pack
from made_spark import local_spark

from firstspin.events.databases.sqlite import ABANDONED

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CHROMIUM = [Path("/usr/bin/chromium-headless-shell"), Path("/usr/bin/chromium")]
"""The first that is installed. The headless shell uses no CPU while a page is idle, Chromium half a core."""
CHROMIUM_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]

settings.register_profile("ours", deadline=None)  # no test asserts a time
settings.load_profile("ours")


def pytest_collection_finish() -> None:
    """The modules and thousands of collected tests stay, so the garbage collector need not traverse them."""
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Else libraries would report what stays as leaks."""
    gc.unfreeze()


class Watched(sqlite3.Connection):
    """A connection that can tell whether it was closed: before Python 3.13 nothing warns of one that was not."""

    closed = False

    def close(self) -> None:
        super().close()
        self.closed = True


@pytest.fixture(autouse=True)
def _sqlite_connections_are_closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    opened: list[sqlite3.Connection] = []
    connect = sqlite3.connect

    def watched(*where: Any, **how: Any) -> sqlite3.Connection:
        opened.append(connect(*where, **{"factory": Watched} | how))
        return opened[-1]

    monkeypatch.setattr(sqlite3, "connect", watched)
    yield
    left = [one for one in opened if not getattr(one, "closed", True) and one not in ABANDONED]
    for one in left:
        one.close()
    assert left == []


@pytest.fixture(scope="session")
def spark_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A user's session of Spark, for the tests of `make test-spark`."""
    with local_spark(tmp_path_factory.mktemp("warehouse")) as session:
        yield session


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


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium. While it is open, its driver has the event loop of this thread."""
    executable = next(filter(Path.exists, CHROMIUM), None)
    if not executable:
        pytest.skip(f"no browser: neither of {', '.join(map(str, CHROMIUM))}")
    with pytest.importorskip("playwright.sync_api").sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=executable, args=CHROMIUM_FLAGS)
        yield started
        started.close()
