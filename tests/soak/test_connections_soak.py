"""Ten thousand clients that stay: connections are bounded, memory too, and who comes anew is served."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from made_bundles import pack
from made_service import exchange, request, resident, serving, until, workers

CLIENTS = 10_000


@pytest.fixture
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < CLIENTS + 500:
        pytest.skip(f"needs the right to open {CLIENTS + 500} files, and has {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (CLIENTS + 500, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.soak
@pytest.mark.usefixtures("many_files")
def test_case_17_ten_thousand_that_stay_keep_nobody_out(tmp_path: Path) -> None:
    pack(tmp_path / "b")
    with serving(tmp_path / "b", "--drain-delay", "0") as service, ExitStack() as stack:
        (pid,) = workers(service)
        before = resident(pid)
        for number in range(CLIENTS):
            client = stack.enter_context(service.connect())
            with suppress(OSError):  # the longest idle make room for those who come
                assert exchange(client, request("GET", "/ping"))[0] == 200
            if number % 1_000 == 0:
                assert service.recommend(age=31)["source"] == "model"
        assert service.ask("GET", "/ping")[0] == 200
        assert resident(pid) < before + 60
        until(lambda: 4_000 < open_connections(service.ask("GET", "/metrics")[2].decode()) <= 4_097)


def open_connections(metrics: str) -> float:
    return float(next(line.split()[1] for line in metrics.splitlines() if line.startswith("firstspin_connections ")))
