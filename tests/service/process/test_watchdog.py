"""Processes that hang or end are replaced, and nothing but SIGTERM and SIGINT ends the service."""

from __future__ import annotations

import json
import os
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from forked_service import ended
from made_bundles import pack
from made_experiments import PLAN
from made_service import (
    QUICK,
    Callers,
    Service,
    admin,
    ask_for,
    closes,
    counted,
    exchange,
    request,
    serving,
    until,
    wait_until_ready,
    workers,
)

from firstspin.experiment.plan import freeze


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("bundles") / "one"
    pack(folder)
    return folder


def pids(service: Service) -> dict[int, int]:
    """The process of each worker that answers, by its number."""
    told: list[dict[str, Any]] = admin(service, "GET", "/state")[1]["workers"]  # type: ignore[assignment]
    return {worker["worker"]: worker["pid"] for worker in told if worker["state"] == "answering"}


def admin_port(service: Service) -> int:
    return next(line["port"] for line in service.lines() if line["event"] == "admin port")


def admin_pids(service: Service) -> list[int]:
    """The admin processes so far."""
    return [line["admin_pid"] for line in service.lines() if line["event"] == "admin port"]


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


# ----------------------------------------------------------------------------------------------------------- heartbeats


def test_a_stopped_worker_is_replaced_and_the_others_answer_meanwhile(bundle: Path) -> None:
    with serving(bundle, "--workers", "2", "--admin-port", "0", *QUICK) as service, ExitStack() as connections:
        before = pids(service)
        os.kill(before[1], signal.SIGSTOP)
        until(lambda: state_of(before[1]) == "T")
        waiting = [connections.enter_context(service.connect()) for _ in range(16)]  # about half of them in its socket
        until(lambda: counted(service, "firstspin_worker_hangs_total") == 1)  # the other one says so
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


def test_processes_are_replaced_though_the_plan_and_the_keys_were_moved_since(bundle: Path, tmp_path: Path) -> None:
    plan, keys = tmp_path / "plan.toml", tmp_path / "keys.json"
    freeze(PLAN, plan)
    entry = {"name": "ops", "sha256": sha256(b"sesame").hexdigest(), "admin": True}
    keys.write_text(json.dumps({"keys": [entry]}))
    options = ("--experiment", str(plan), "--events", f"sqlite:///{tmp_path / 'events.sqlite'}", "--keys", str(keys))
    bearer = {"authorization": "Bearer sesame"}
    with serving(bundle, "--admin-port", "0", "--state", str(tmp_path / "state"), *options, *QUICK) as service:
        until(lambda: admin(service, "GET", "/state", **bearer)[0] == 200)
        state: Any = admin(service, "GET", "/state", **bearer)[1]
        plan.rename(tmp_path / "moved.toml")
        keys.rename(tmp_path / "moved.json")
        os.kill(admin_pids(service)[-1], signal.SIGKILL)
        os.kill(state["workers"][0]["pid"], signal.SIGKILL)
        service.wait_for("admin port", times=2)
        until(lambda: admin(service, "GET", "/state", **bearer)[0] == 200)
        assert admin(service, "GET", "/state")[0] == 401
        assert admin(service, "GET", "/ops.json", **bearer)[1]["experiment"]["name"] == PLAN.name  # type: ignore[index]
        until(lambda: ask_for(service, "anna", **bearer)[0] == 200)


def test_a_service_that_stood_still_as_a_whole_goes_on_with_the_same_workers(bundle: Path) -> None:
    with serving(bundle, "--workers", "2", "--admin-port", "0", *QUICK) as service:
        before, desk = pids(service), admin_pids(service)
        os.killpg(service.process.pid, signal.SIGSTOP)
        os.kill(desk[0], signal.SIGSTOP)  # in a group of its own
        time.sleep(4.5)  # longer than a heartbeat may be late, which is 3.5 s
        os.kill(desk[0], signal.SIGCONT)
        os.killpg(service.process.pid, signal.SIGCONT)
        service.wait_for("the service was paused")
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


# ---------------------------------------------------------------------------------------------------------- descriptors


def test_idle_connections_that_take_all_descriptors_make_room_for_new_clients(bundle: Path) -> None:
    options = ("--workers", "2", "--admin-port", "0", *QUICK)
    with serving(bundle, *options, preexec_fn=few_descriptors) as service, ExitStack() as connections:
        for asks in (False, True):
            for _ in range(120):
                idle = connections.enter_context(service.connect())
                if asks:
                    assert exchange(idle, request("GET", "/ping"))[0] == 200
            assert service.recommend(age=31)["source"] == "model"
        for _ in range(120):
            connections.enter_context(service.connect(admin_port(service)))
        assert len(pids(service)) == 2
        service.wait_for("idle connections were closed", times=2)
        service.wait_for("descriptors limit the connections", times=3)
        until(lambda: counted(service, "firstspin_connections_closed_for_others_total") > 100)


def test_new_clients_are_served_though_others_took_the_descriptors(bundle: Path) -> None:
    with serving(bundle, "--admin-port", "0", *QUICK) as service, ExitStack() as connections:
        before = pids(service)
        for _ in range(60):
            assert exchange(connections.enter_context(service.connect()), request("GET", "/ping"))[0] == 200
        with files(before[0], len(list(Path(f"/proc/{before[0]}/fd").iterdir()))):
            service.wait_for("idle connections were closed")
            for _ in range(60):
                assert exchange(connections.enter_context(service.connect()), request("GET", "/ping"))[0] == 200
        assert pids(service) == before


def test_keys_that_can_not_be_read_for_a_moment_are_read_later(bundle: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    keys.write_text('{"keys": []}')
    with serving(bundle, "--keys", str(keys), *QUICK) as service:
        status = partial(service.ask, "POST", "/v1/recommendations", b'{"user_id": "anna"}', x_api_key="key of ours")
        assert status()[0] == 401
        keys.unlink()
        os.mkfifo(keys)  # opening it would take for ever
        service.wait_for("is not a regular file")
        assert status()[0] == 401
        keys.unlink()
        made = tmp_path / "made.json"
        made.write_text(json.dumps({"keys": [{"name": "app", "sha256": sha256(b"key of ours").hexdigest()}]}))
        with files(workers(service)[0], 3):
            made.rename(keys)
            service.wait_for("Too many open files")
        until(lambda: status()[0] == 200)


@contextmanager
def files(pid: int, number: int) -> Iterator[None]:
    """A process that may have so many descriptors for a while; those it has it keeps."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (number, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def few_descriptors() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))


# ------------------------------------------------------------------------------------------ a port and who is behind it


def end_until_it_waits(service: Service, number: int) -> None:
    """Kill a worker whenever it is back, until it is not for longer than connections wait for it."""

    def waits() -> bool:
        lines = [line for line in service.lines() if line["event"] == "a worker ended"]
        return bool(lines) and lines[-1]["starts_again_in"] > 3

    def kill() -> bool:
        if (pid := pids(service).get(number)) and not waits():
            with suppress(ProcessLookupError):  # the one killed before may still be in the state
                os.kill(pid, signal.SIGKILL)
        return waits()

    until(kill, 60)


def refused(service: Service) -> bool:
    """Whether a connection is refused; one that is accepted is answered or ends, and does not hang."""
    try:
        service.ask("GET", "/ping")
    except ConnectionError as problem:
        return isinstance(problem, ConnectionRefusedError)
    return False


def test_while_no_worker_can_run_connections_are_refused_and_the_port_is_kept(bundle: Path) -> None:
    with serving(bundle, "--admin-port", "0", *QUICK) as service:
        waiting = service.connect()
        end_until_it_waits(service, 0)
        until(lambda: refused(service))
        assert closes(waiting)
        waiting.close()
        second = ended(["--bundle", bundle, "--port", service.port])
        assert (second.returncode, len(second.stderr.splitlines())) == (1, 1)
        assert "Address already in use" in second.stderr
        wait_until_ready(service)
        assert service.recommend(age=31)["source"] == "model"


def test_while_one_worker_can_not_run_the_others_get_its_connections(bundle: Path) -> None:
    with serving(bundle, "--workers", "2", "--admin-port", "0", *QUICK) as service:
        end_until_it_waits(service, 1)
        service.wait_for("a worker's socket is shut")
        for _ in range(40):
            assert service.recommend(age=31)["source"] == "model"
        until(lambda: 1 in pids(service))
        with Callers(service, requests_a_connection=1).calling() as callers:
            until(lambda: sum(callers.answers.values()) > 100)
        assert callers.failures == []


def test_a_worker_that_finishes_what_has_begun_accepts_nothing_more(bundle: Path) -> None:
    with serving(bundle, "--workers", "2", "--drain-delay", "0") as service, service.connect() as begun:
        sent = request("POST", "/invocations", b'{"age":31}')
        begun.sendall(sent[:-3])
        time.sleep(0.5)  # until it has arrived
        service.process.terminate()
        until(lambda: refused(service))
        assert exchange(begun, sent[-3:])[0] == 200
        assert service.process.wait(20) == 0
