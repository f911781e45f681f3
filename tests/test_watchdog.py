"""Processes that hang or end are replaced, and nothing but SIGTERM and SIGINT ends the service."""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from made_bundles import pack
from made_service import QUICK, Callers, Service, admin, serving, until


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("bundles") / "one"
    pack(folder)
    return folder


def pids(service: Service) -> dict[int, int]:
    """The process of each worker that answers, by its number."""
    told: list[dict[str, Any]] = admin(service, "GET", "/state")[1]["workers"]  # type: ignore[assignment]
    return {worker["worker"]: worker["pid"] for worker in told if worker["state"] == "answering"}


def admin_pids(service: Service) -> list[int]:
    """The admin processes so far."""
    return [line["admin_pid"] for line in service.lines() if line["event"] == "admin port"]


def counted(service: Service, name: str) -> float:
    """A metric without labels."""
    text = service.ask("GET", "/metrics")[2].decode()
    return float(next(line.split()[1] for line in text.splitlines() if line.startswith(f"{name} ")))


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


# ----------------------------------------------------------------------------------------------------------- heartbeats


def test_a_stopped_worker_is_replaced_and_the_others_answer_meanwhile(bundle: Path) -> None:
    with serving(bundle, "--workers", "2", "--admin-port", "0", *QUICK) as service, ExitStack() as connections:
        before = pids(service)
        os.kill(before[1], signal.SIGSTOP)
        until(lambda: state_of(before[1]) == "T")
        waiting = [connections.enter_context(service.connect()) for _ in range(16)]  # about half of them in its socket
        answered = 0
        while counted_or_none(service, "firstspin_worker_hangs_total") != 1:
            answered += 1
        assert answered
        until(lambda: pids(service).get(1, before[1]) != before[1])
        assert pids(service)[0] == before[0]
        for connection in waiting:
            connection.sendall(b"GET /ping HTTP/1.1\r\nhost: test\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
        line = next(line for line in service.lines() if line["event"] == "a process hangs and is killed")
        assert line["worker"] == 1
        assert line["silent_for"] < 5
        workers: list[dict[str, Any]] = admin(service, "GET", "/state")[1]["workers"]  # type: ignore[assignment]
        assert [worker["restarts"] for worker in workers] == [0, 1]
        assert all(worker["heartbeat_age"] < 5 for worker in workers)


def counted_or_none(service: Service, name: str) -> float | None:
    """A metric, where a worker answers within a second: a connection may wait at the one that is stopped."""
    try:
        with service.connect() as connection:
            connection.settimeout(1)
            connection.sendall(b"GET /metrics HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")
            text = b"".join(iter(lambda: connection.recv(65536), b""))
    except OSError:
        return None
    found = [line for line in text.decode().splitlines() if line.startswith(f"{name} ")]
    return float(found[0].split()[1]) if found else None


def test_the_admin_process_is_replaced_when_it_is_stopped_or_killed(bundle: Path) -> None:
    with serving(bundle, "--admin-port", "0", *QUICK) as service:
        for number, how in enumerate((signal.SIGKILL, signal.SIGSTOP), 1):
            until(lambda: admin(service, "GET", "/state")[0] == 200)
            os.kill(admin_pids(service)[-1], how)
            service.wait_for("admin port", times=number + 1)
            told: dict[str, Any] = admin(service, "GET", "/state")[1]["admin"]  # type: ignore[assignment]
            assert told["restarts"] == number
        assert counted(service, "firstspin_admin_hangs_total") == 1
        assert service.recommend(age=31)["source"] == "model"


def test_a_service_that_stood_still_as_a_whole_goes_on_with_the_same_workers(bundle: Path) -> None:
    with serving(bundle, "--workers", "2", "--admin-port", "0", *QUICK) as service:
        before, desk = pids(service), admin_pids(service)
        os.killpg(service.process.pid, signal.SIGSTOP)
        os.kill(desk[0], signal.SIGSTOP)  # in a group of its own
        time.sleep(6)  # longer than a heartbeat may be late
        os.kill(desk[0], signal.SIGCONT)
        os.killpg(service.process.pid, signal.SIGCONT)
        service.wait_for("the service stood still")
        time.sleep(1)
        assert pids(service) == before
        assert admin_pids(service) == desk


# -------------------------------------------------------------------------------------------------------------- signals

CRASHES = {signal.SIGILL, signal.SIGTRAP, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGSEGV, signal.SIGSYS}
ENDS = {signal.SIGTERM, signal.SIGINT, signal.SIGKILL}
STOPS = {signal.SIGSTOP, signal.SIGTSTP}


def test_no_other_signal_ends_a_process_of_the_service(bundle: Path) -> None:
    with serving(bundle, "--admin-port", "0", *QUICK) as service:
        before = pids(service)
        until(lambda: admin(service, "GET", "/state")[0] == 200)
        harmless = signal.valid_signals() - CRASHES - ENDS - STOPS
        assert {signal.SIGHUP, signal.SIGUSR1, signal.SIGPIPE, signal.SIGALRM, signal.SIGQUIT} <= harmless
        for number in harmless:
            for pid in (service.process.pid, *before.values(), *admin_pids(service)):
                os.kill(pid, number)
        with Callers(service).calling() as callers:
            until(lambda: sum(callers.answers.values()) > 50)
        assert callers.failures == []
        assert pids(service) == before
        assert len(admin_pids(service)) == 1
