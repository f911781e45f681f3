"""What production does to a service, done to the real processes: kill, reload, corrupt, roll back, stop."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from forked_service import ForkedService, ended
from made_bundles import DAMAGE, pack
from made_service import (
    QUICK,
    Callers,
    Service,
    admin,
    exchange,
    kill_group,
    point,
    request,
    serving,
    until,
    wait_until_ready,
    workers,
)


def test_case_25_a_new_bundle_is_taken_up_under_load_without_a_failed_request(
    current: Path, bundles: tuple[Path, Path]
) -> None:
    with serving(current, "--workers", "2", *QUICK) as service:
        first = service.recommend(age=31)["model"]
        with Callers(service).calling() as callers:
            point(current, bundles[1])
            until(lambda: len(callers.answers) == 2)
            service.wait_for("a worker serves a model", times=4)
            point(current, bundles[0])
            service.wait_for("a worker serves a model", times=6)
        assert callers.failures == []
        assert service.recommend(age=31)["model"] == first


def test_cases_26_and_27_a_corrupt_bundle_is_refused_with_the_reason_and_the_old_one_serves_on(
    current: Path, bundles: tuple[Path, Path], tmp_path: Path
) -> None:
    with serving(current, *QUICK) as service:
        first = service.recommend(age=31)["model"]
        for name, harm in HARMS.items():
            bad = tmp_path / name
            shutil.copytree(bundles[1], bad)
            harm(bad)
            before = service.log.read_text().count("a bundle was refused")
            point(current, bad)
            service.process.send_signal(signal.SIGHUP)  # it is looked at now
            service.wait_for("a bundle was refused", times=before + 1)
            assert service.recommend(age=31)["model"] == first
        point(current, bundles[1])
        until(lambda: service.recommend(age=31)["model"] != first, 90)
        assert (
            f'firstspin_reloads_total{{outcome="refused"}} {len(HARMS)}.0' in service.ask("GET", "/metrics")[2].decode()
        )


def _largest(bundle: Path) -> Path:
    return max(bundle.glob("*.npy"), key=lambda path: path.stat().st_size)


def _zero(bundle: Path) -> None:
    path = _largest(bundle)
    path.write_bytes(bytes(path.stat().st_size))


def _outside(bundle: Path) -> None:
    path = _largest(bundle)
    path.rename(bundle.parent / "elsewhere.npy")
    path.symlink_to(bundle.parent / "elsewhere.npy")


HARMS: dict[str, Callable[[Path], object]] = {
    "truncated": lambda bundle: os.truncate(_largest(bundle), 100),
    "zeroed": _zero,
    "symlink": _outside,
    "pickle": lambda bundle: (bundle / "model.pkl").write_bytes(b"\x80\x04."),
    "half": lambda bundle: _largest(bundle).unlink(),
}


def test_case_31_sighup_reloads_and_case_28_the_copy_outlives_the_original(
    bundles: tuple[Path, Path], tmp_path: Path
) -> None:
    served = tmp_path / "b"
    shutil.copytree(bundles[0], served)
    with serving(served, *QUICK) as service:
        first = service.recommend(age=31)["model"]
        _zero(served)  # in place, while it is served
        service.process.send_signal(signal.SIGHUP)
        service.wait_for("a bundle was refused")
        for pid in workers(service):
            os.kill(pid, signal.SIGKILL)
        service.wait_for("a worker serves a model", times=2)
        assert service.recommend(age=31)["model"] == first


def test_case_22_a_killed_worker_comes_back_and_its_counts_are_kept(current: Path) -> None:
    with serving(current, "--workers", "2", *QUICK) as service:
        for _ in range(20):
            service.recommend(age=31)
        with Callers(service).calling() as callers:
            killed = workers(service)[0]
            os.kill(killed, signal.SIGKILL)
            service.wait_for("a worker serves a model", times=3)
            until(lambda: sum(callers.answers.values()) > 100)
        assert len(callers.failures) <= 4  # what that worker was answering
        assert len(workers(service)) == 2
        text = service.ask("GET", "/metrics")[2].decode()
        told = next(line for line in text.splitlines() if 'firstspin_answers_total{source="model"}' in line)
        assert float(told.split()[1]) >= 20 + sum(callers.answers.values())


def test_case_49_the_gauges_of_a_dead_worker_drop(current: Path) -> None:
    with serving(current, "--workers", "2", *QUICK) as service:
        until(lambda: b"firstspin_ready 2.0" in service.ask("GET", "/metrics")[2])
        for pid in workers(service):
            os.kill(pid, signal.SIGKILL)
        service.wait_for("a worker serves a model", times=4)
        until(lambda: b"firstspin_ready 2.0" in service.ask("GET", "/metrics")[2])


def test_case_24_a_worker_that_keeps_dying_starts_more_and_more_seldom(current: Path) -> None:
    with serving(current, *QUICK) as service:
        for times in range(1, 5):
            until(lambda: workers(service))
            os.kill(workers(service)[0], signal.SIGKILL)
            service.wait_for("a worker ended", times=times)
        waits = [line["starts_again_in"] for line in service.lines() if line["event"] == "a worker ended"]
        assert waits == sorted(waits)
        assert waits[-1] >= 4 * waits[0]


def test_case_20_sigterm_turns_readiness_off_finishes_and_exits_0(current: Path) -> None:
    with serving(current, "--workers", "2", "--drain-delay", "0.5") as service:
        with Callers(service).calling() as callers:
            until(lambda: sum(callers.answers.values()) > 50)
            service.process.send_signal(signal.SIGTERM)
            until(lambda: service.ask("GET", "/ping")[0] == 503)
            assert service.recommend(age=31)
            assert service.process.wait(28) == 0
        assert set(callers.failures) <= {"ConnectionRefusedError", "ConnectionResetError"}


def test_case_20_a_request_that_has_begun_is_finished(current: Path) -> None:
    with serving(current, "--drain-delay", "0") as service, service.connect() as connection:
        sent = request("POST", "/invocations", b'{"age":31}')
        connection.sendall(sent[:-3])
        time.sleep(0.2)
        service.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        status, headers, _ = exchange(connection, sent[-3:])
        assert (status, headers["connection"]) == (200, "close")
        assert service.process.wait(10) == 0


def test_case_21_a_second_sigterm_ends_at_once_and_sigint_is_as_sigterm(current: Path) -> None:
    with serving(current, "--drain-delay", "20") as service:
        service.process.send_signal(signal.SIGINT)
        service.wait_for("stopping")
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(2) == 128 + signal.SIGTERM


def test_case_23_a_killed_parent_takes_its_workers_along_and_the_last_good_bundle_is_served_again(
    bundles: tuple[Path, Path], tmp_path: Path
) -> None:
    served, state = tmp_path / "b", tmp_path / "state"
    shutil.copytree(bundles[0], served)
    with serving(served, "--state", str(state), "--workers", "2", *QUICK) as service:
        first = service.recommend(age=31)["model"]
        left = workers(service)
        service.process.kill()
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in left), 5)
    _zero(served)
    with serving(served, "--state", str(state), *QUICK) as again:
        assert again.recommend(age=31)["model"] == first


def test_case_30_a_service_without_a_model_waits_for_one(bundles: tuple[Path, Path], tmp_path: Path) -> None:
    with serving(tmp_path / "b", "--allow-no-model", *QUICK) as service:
        assert service.recommend(age=31)["source"] == "no-model"
        service.wait_for("a bundle was refused")
        shutil.copytree(bundles[0], tmp_path / "b")
        until(lambda: service.recommend(age=31)["source"] == "model")


def test_a_port_in_use_is_told_in_one_line(current: Path) -> None:
    with serving(current, *QUICK) as service:
        told = ended(["--bundle", current, "--port", service.port])
    assert told.returncode == 1
    assert "Address already in use" in told.stderr
    assert len(told.stderr.splitlines()) == 1


def test_settings_come_from_the_environment_too(current: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTSPIN_LEAST_AGE", "40")
    with serving(current, *QUICK) as service:
        wait_until_ready(service)
        assert service.recommend(age=31)["source"] == "under-age"


def test_case_31_rollback_is_one_call_and_needs_no_restart(current: Path, bundles: tuple[Path, Path]) -> None:
    with serving(current, "--workers", "2", "--admin-port", "0", *QUICK) as service:
        first = service.recommend(age=31)["model"]
        assert admin(service, "POST", "/rollback")[0] == 409
        point(current, bundles[1])
        service.wait_for("a worker serves a model", times=4)
        second = service.recommend(age=31)["model"]
        status, told = admin(service, "POST", "/rollback")
        assert (status, told["model"], told["previous"]) == (200, first, second)
        service.wait_for("a worker serves a model", times=6)
        assert {service.recommend(age=31)["model"] for _ in range(10)} == {first}
        time.sleep(1.5)  # what lies in the folder is not taken up again by itself
        assert service.recommend(age=31)["model"] == first
        assert admin(service, "POST", "/reload")[0] == 200
        service.wait_for("a worker serves a model", times=8)
        assert service.recommend(age=31)["model"] == second
        assert admin(service, "GET", "/state")[1]["model"] == second


def test_a_rollback_that_was_refused_because_the_supervisor_was_silent_is_not_carried_out_later(
    current: Path, bundles: tuple[Path, Path]
) -> None:
    with serving(current, "--admin-port", "0", *QUICK) as service:
        first = service.recommend(age=31)["model"]
        point(current, bundles[1])
        until(lambda: admin(service, "GET", "/state")[1]["previous"] == first)
        os.kill(service.process.pid, signal.SIGSTOP)
        try:
            assert admin(service, "POST", "/rollback", b"{}")[0] == 503
        finally:
            os.kill(service.process.pid, signal.SIGCONT)
        until(lambda: admin(service, "GET", "/state")[0] == 200)  # orders are read in their order
        state = admin(service, "GET", "/state")[1]
        assert state["previous"] == first
        assert "rollback" not in state["reloads"]  # type: ignore[operator]
        assert admin(service, "POST", "/rollback", b"{}")[1]["model"] == first


# ------------------------------------------------------------------------------------------------- bundles that do harm


@contextmanager
def never_opened(path: Path) -> Iterator[None]:
    """A file whose opening takes (nearly) for ever, as on a disk that does not answer: we hold a lease on it."""
    file = os.open(path, os.O_RDWR)
    try:
        fcntl.fcntl(file, 10, signal.SIGURG)  # F_SETSIG: the kernel's request to give it back, which we do not hear
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError as problem:
        os.close(file)
        pytest.skip(f"this file system has no leases ({problem.strerror})")
    try:
        yield
    finally:
        os.close(file)


def trying(service: Service) -> int:
    """The process that tries a bundle just now: the only child that is no worker."""
    told = {worker["pid"] for worker in admin(service, "GET", "/state")[1]["workers"]}  # type: ignore[attr-defined]
    told |= {line["admin_pid"] for line in service.lines() if line["event"] == "admin port"}
    until(lambda: len(set(workers(service)) - told) == 1)
    return (set(workers(service)) - told).pop()


def test_cases_26_and_50_a_bundle_that_hangs_or_crashes_in_loading_harms_nobody(
    bundles: tuple[Path, Path], current: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad"
    pack(bad, seed=5)
    with serving(current, "--trial-seconds", "2", "--admin-port", "0", "--drain-delay", "0.2") as service:
        first = service.recommend(age=31)["model"]
        with never_opened(next(bad.glob("predictor.*.npy"))), Callers(service, 2).calling() as callers:
            point(current, bad)
            service.wait_for("ended with -9: it crashed, or took over 2 s")
            until(lambda: admin(service, "GET", "/state")[1]["trying"])  # it is tried again
            assert service.ask("GET", "/ping")[0] == 200
            os.kill(trying(service), signal.SIGSEGV)
            service.wait_for("ended with -11: it crashed")
        assert set(callers.answers) == {first}
        assert callers.failures == []
        point(current, bundles[1])
        until(lambda: service.recommend(age=31)["model"] != first)


def test_case_26_a_service_stops_in_time_though_a_bundle_hangs(current: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    pack(bad, seed=5)
    options = ("--admin-port", "0", "--drain-delay", "0")
    with serving(current, *options) as service, never_opened(next(bad.glob("predictor.*.npy"))):
        point(current, bad)
        until(lambda: admin(service, "GET", "/state")[1]["trying"])
        hanging = trying(service)
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(20) == 0
        until(lambda: not Path(f"/proc/{hanging}").exists(), 5)


def test_case_27_a_valid_file_that_answers_otherwise_is_refused(
    current: Path, bundles: tuple[Path, Path], tmp_path: Path
) -> None:
    with serving(current, "--drain-delay", "0") as service:
        first = service.recommend(age=31)["model"]
        for number, reason in enumerate(("golden answers", "does not fit", "bundle format 99")):
            bad = tmp_path / str(number)
            shutil.copytree(bundles[1], bad)
            DAMAGE[reason](bad)
            point(current, bad)
            service.process.send_signal(signal.SIGHUP)
            service.wait_for(reason)
            assert service.recommend(age=31)["model"] == first


def test_cases_30_and_50_a_service_that_waits_for_its_first_model_says_so(
    bundles: tuple[Path, Path], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    link = tmp_path / "later"
    log = tmp_path / "log"
    command = ["--bundle", str(link), "--port", str(port), "--drain-delay", "0"]
    with log.open("w") as stderr:
        service = Service(process := ForkedService(command, stderr), port, log, link)
    try:
        service.wait_for("a bundle was refused")
        assert service.ask("GET", "/ping")[0] == 503
        status, headers, _ = service.ask("POST", "/invocations", b"{}")
        assert (status, headers["retry-after"]) == (503, "1")
        link.symlink_to(bundles[0])
        until(lambda: service.ask("GET", "/ping")[0] == 200)
        assert service.recommend(age=31)["source"] == "model"
        process.terminate()
        assert process.wait(20) == 0
    finally:
        kill_group(process.pid)
        process.communicate()
