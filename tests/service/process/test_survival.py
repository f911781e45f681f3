"""What the supervisor survives: full disks, no descriptor, no process, a dead admin process, garbage, a blocked log."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from made_service import QUICK, Callers, Service, admin, counted, point, request, serving, until, workers
from scarcity import descriptors, fill_pipe, limited
from small_disk import BALLAST, fill_up, small_disk

USER = "54321"  # that nothing else runs as: the limit of processes counts all of a user, and none of root
AS_ANOTHER_USER = (
    *("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"),
    *("--inh-caps=+dac_override", "--ambient-caps=+dac_override"),  # may read what is root's
)


def survived(service: Service, step: str) -> float:
    """Failures of a step that were counted."""
    return counted(service, f'firstspin_supervisor_errors_total{{step="{step}"}}')


def ticks(pid: int) -> int:
    """Hundredths of a second of CPU time."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


# -------------------------------------------------------------------------------------------- no descriptor, no process


def test_a_worker_that_dies_while_no_descriptor_is_left_is_started_as_soon_as_there_is_one(current: Path) -> None:
    with serving(current, "--workers", "2", *QUICK) as service:
        before = workers(service)
        with limited(service.process.pid, "nofile", descriptors(service.process.pid) - 1):
            os.kill(before[0], signal.SIGKILL)
            service.wait_for("OSError EMFILE")
            until(lambda: survived(service, "start") >= 3)
            assert workers(service) == before[1:]
            assert service.recommend(age=31)["source"] == "model"
        until(lambda: len(workers(service)) == 2, 60)
        assert descriptors(service.process.pid) < 64  # none was lost on the way


def test_a_worker_that_dies_while_no_process_can_be_forked_is_started_later(current: Path) -> None:
    if os.getuid() == 0 and not shutil.which("setpriv"):
        pytest.skip("root may fork without limit, and there is no setpriv to become another user")
    through = AS_ANOTHER_USER if os.getuid() == 0 else ()
    with serving(current, "--workers", "2", *QUICK, through=through) as service:
        before = workers(service)
        with limited(service.process.pid, "nproc", 1, through):
            os.kill(before[0], signal.SIGKILL)
            service.wait_for("BlockingIOError EAGAIN")
            until(lambda: survived(service, "start") >= 3)
            assert service.process.poll() is None
            assert service.recommend(age=31)["source"] == "model"
        until(lambda: len(workers(service)) == 2, 60)


def test_a_failure_that_lasts_costs_next_to_nothing_and_is_logged_at_times(current: Path) -> None:
    with serving(current, *QUICK) as service:
        pid, before = service.process.pid, ticks(service.process.pid)
        with limited(pid, "nofile", 0):  # so that it can not even wait
            until(lambda: survived(service, "listen") >= 20)
            assert ticks(pid) - before < 100
        assert service.log.read_text().count("a step of the supervisor failed") < 10


def test_a_service_that_may_open_nothing_any_more_ends_by_sigterm(current: Path) -> None:
    with serving(current, "--workers", "2", "--admin-port", "0", *QUICK) as service:
        subprocess.run(["prlimit", "--pid", str(service.process.pid), "--nofile=0:"], check=True)
        until(lambda: survived(service, "listen"))
        service.process.terminate()
        assert service.process.wait(20) == 0


# ------------------------------------------------------------------------------------------- words that nobody can read


def test_words_that_nobody_can_read_are_counted_and_endless_ones_cost_the_worker_its_life(tmp_path: Path) -> None:
    command = [sys.executable, str(Path(__file__).parent.parent.parent / "supervised_garbage.py"), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = [json.loads(process.stdout.readline()) for _ in range(4)]
        process.terminate()
        rest, _ = process.communicate(timeout=30)
    assert {"announced": True} in told  # by the worker in its place
    orders = [one for one in told if "order" in one]
    assert orders == [  # the others are no orders
        {"ok": True, "order": 7},
        {"ok": False, "order": 8},  # overdue
        {"ok": False, "order": 9},
    ]
    assert json.loads(rest) == {"words": 6, "starts": 2}
    assert process.returncode == 0


# ----------------------------------------------------------------------------------------------------------- full disks


def test_a_state_folder_that_is_full_is_told_and_the_model_stays(
    current: Path, bundles: tuple[Path, Path], tmp_path: Path
) -> None:
    with (
        small_disk(tmp_path / "disk", 4) as disk,
        serving(current, "--state", str(disk / "state"), "--admin-port", "0", *QUICK) as service,
    ):
        point(current, bundles[1])
        service.wait_for("a worker serves a model", times=2)
        model = service.recommend(age=31)["model"]
        fill_up(disk)
        status, told = admin(service, "POST", "/rollback")
        assert status == 409
        assert "No space left on device" in json.dumps(told)
        assert admin(service, "GET", "/state")[1]["model"] == model
        assert service.recommend(age=31)["model"] == model
        (disk / BALLAST).unlink()
        assert admin(service, "POST", "/rollback")[0] == 200
        service.wait_for("a worker serves a model", times=3)
        assert service.recommend(age=31)["model"] != model


def test_a_bundle_that_comes_while_the_state_folder_is_full_or_read_only_is_taken_later(
    current: Path, bundles: tuple[Path, Path], tmp_path: Path
) -> None:
    with (
        small_disk(tmp_path / "disk", 4) as disk,
        serving(current, "--state", str(disk / "state"), "--admin-port", "0", *QUICK) as service,
    ):
        first = service.recommend(age=31)["model"]
        fill_up(disk)
        point(current, bundles[1])
        service.wait_for("No space left on device")
        assert service.recommend(age=31)["model"] == first
        (disk / BALLAST).unlink()
        until(lambda: service.recommend(age=31)["model"] != first, 60)
        second = service.recommend(age=31)["model"]
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        assert admin(service, "POST", "/rollback")[0] == 409
        point(current, bundles[0])
        service.process.send_signal(signal.SIGHUP)
        service.wait_for("Read-only file system")
        os.kill(workers(service)[0], signal.SIGKILL)
        until(lambda: counted(service, "firstspin_worker_starts_total") == 2)
        assert service.recommend(age=31)["model"] == second
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        until(lambda: service.recommend(age=31)["model"] == first, 90)


def test_a_service_starts_from_a_state_folder_that_is_read_only(
    current: Path, bundles: tuple[Path, Path], tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", 4) as disk:
        state = ("--state", str(disk / "state"), *QUICK)
        with serving(current, *state) as service:
            first = service.recommend(age=31)["model"]
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        point(current, bundles[1])
        with serving(current, *state) as service:
            service.wait_for("Read-only file system")
            assert service.recommend(age=31)["model"] == first


def test_a_log_on_a_full_disk_loses_lines_and_nothing_else(current: Path, tmp_path: Path) -> None:
    with (
        small_disk(tmp_path / "disk", 1) as disk,
        (disk / "log").open("ab", buffering=0) as log,
        serving(current, "--workers", "2", *QUICK, stderr=log) as service,
    ):
        log.write(b"{}\n" + b"\n" * (-(disk / "log").stat().st_size % 4096 - 3))  # its last page too
        fill_up(disk)
        os.kill(workers(service)[0], signal.SIGKILL)
        until(lambda: counted(service, "firstspin_log_lines_dropped_total") >= 2)
        until(lambda: counted(service, "firstspin_worker_starts_total") == 3)
        (disk / BALLAST).unlink()
        os.kill(workers(service)[0], signal.SIGKILL)
        until(lambda: (disk / "log").read_text().count("a worker serves a model") >= 3)
        assert all(line[:1] in ("{", "") for line in (disk / "log").read_text().splitlines())


# ----------------------------------------------------------------------------------------------- logs that nobody reads


def test_a_log_that_nobody_reads_blocks_neither_the_supervisor_nor_the_workers(current: Path) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as log, serving(current, "--workers", "2", *QUICK, stderr=writing) as service:
        fill_pipe(writing)
        os.close(writing)
        for kills in range(1, 4):
            os.kill(workers(service)[0], signal.SIGKILL)
            until(lambda kills=kills: counted(service, "firstspin_worker_starts_total") == 2 + kills)  # type: ignore[misc]
        assert counted(service, "firstspin_log_lines_dropped_total") >= 3
        with Callers(service).calling() as callers:
            until(lambda: sum(callers.answers.values()) > 100)
        assert service.process.poll() is None
        os.read(reading, 65_536)  # somebody reads again
        service.process.terminate()
        assert service.process.wait(20) == 0
        assert b'"event":"stopping"' in log.read()


@pytest.mark.parametrize("redirected", [">/dev/full 2>/dev/full", ">&- 2>&-", "<&- 2>&-", "2>/dev/null >/dev/full"])
def test_a_service_without_a_place_to_write_to_answers(current: Path, redirected: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "firstspin.service", "--bundle", str(current), "--port", str(port), *QUICK]
    with subprocess.Popen(["sh", "-c", f'exec "$@" {redirected}', "sh", *command]) as process:
        service = Service(process, port, current.with_name("nothing"), current)  # type: ignore[arg-type]
        until(lambda: answers(service))
        os.kill(workers(service)[0], signal.SIGKILL)
        until(lambda: answers(service))
        process.terminate()
        assert process.wait(20) == 0


def answers(service: Service) -> bool:
    try:
        return service.ask("GET", "/ping")[0] == 200
    except OSError:
        return False


# ------------------------------------------------------------------------------------------------- a dead admin process


def test_an_admin_process_that_is_killed_with_an_order_in_flight_costs_the_supervisor_nothing(current: Path) -> None:
    with serving(current, "--admin-port", "0", *QUICK) as service:
        until(lambda: admin(service, "GET", "/state")[0] == 200)
        desk, port = next((line["admin_pid"], line["port"]) for line in service.lines() if "admin_pid" in line)
        os.kill(service.process.pid, signal.SIGSTOP)
        with service.connect(port) as connection:
            connection.sendall(request("POST", "/rollback"))
            time.sleep(1)  # until the order is on its way; where it is not, there is less to survive
            os.kill(desk, signal.SIGKILL)
            os.kill(service.process.pid, signal.SIGCONT)
            service.wait_for("admin port", times=2)
        assert service.process.poll() is None
        assert admin(service, "GET", "/state")[0] == 200
        assert service.recommend(age=31)["source"] == "model"
