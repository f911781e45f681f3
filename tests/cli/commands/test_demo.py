"""`firstspin demo`: its port, its folder, and figures that the commands beside them reproduce."""

from __future__ import annotations

import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command_line import failed

from firstspin.cli.commands import demo
from firstspin.cli.main import app


@pytest.fixture
def busy() -> Iterator[int]:
    """A port that another process listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def until(holds: Callable[[], object]) -> None:
    end = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_busy_port_is_noticed_before_the_work_and_a_free_one_is_named(busy: int, tmp_path: Path) -> None:
    problem = failed("demo", "--port", busy, "--out", tmp_path / "demo")
    named = re.fullmatch(rf"port {busy} is in use; the next free one: firstspin demo --port (\d+)", problem)
    assert named
    assert int(named[1]) > busy
    with socket.create_server(("127.0.0.1", int(named[1]))):
        pass
    assert not list(tmp_path.iterdir())


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "listens.csv").write_text("mine")
    assert "has other files; name another folder" in failed("demo", "--no-serve", "--out", tmp_path)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def output(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    app(list(words), standalone_mode=False)
    return capsys.readouterr().out


def test_every_command_reproduces_the_figures_beside_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "NEWCOMERS", 700)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    out = tmp_path / "a demo"
    (out / "data").mkdir(parents=True)
    (out / demo.MARK).touch()
    (out / "data" / "old.csv").touch()  # of an earlier demo
    text = output(capsys, "demo", "--users", "500", "--seed", "3", "--no-serve", "--out", str(out))
    assert {path.name for path in out.iterdir()} == {demo.MARK, "data", "bundle", "experiment"}
    assert not (out / "data" / "old.csv").exists()
    assert f"All files are in {out}" in text
    commands = dict(re.findall(r"\[(\d)\] shown by: (.*)", text))
    rows = re.findall(r"^(.*\S)\s+\[(\d)\]$", text, re.MULTILINE)
    assert len(rows) == 6
    again = {number: output(capsys, *shlex.split(command)[1:]) for number, command in commands.items()}
    for row, number in rows:
        figures = re.findall(r"[+-]?[\d,]*\.?\d+%?(?: ±[\d.]+)?", re.split(r"\s{2,}", row)[-1])
        assert figures
        for figure in figures:
            assert figure in again[number], (row, commands[number])
    [(power, needed)] = re.findall(r"700 users detect a lift of 8.7% .* of (\d+)%\. .*; ([\d,]+) can", text)
    assert int(power) < 10
    assert needed == "82,048"
    assert not list((tmp_path / "temporary").iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_stopped_leaves_no_process_and_no_temporary_folder(number: int, tmp_path: Path) -> None:
    out, temporary = tmp_path / "out", tmp_path / "temporary"
    temporary.mkdir()
    words = ["demo", "--users", "100", "--no-serve", "--out", str(out)]
    process = subprocess.Popen(
        [sys.executable, "-m", "firstspin", *words],
        env={"TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests in the background ignore it
    )
    until(lambda: children(out) or process.poll() is not None)
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == (130 if number == signal.SIGINT else 128 + number)
    assert b"Traceback" not in err
    until(lambda: not children(out))  # the service may take a moment to end
    assert not list(temporary.iterdir())


def children(out: Path) -> list[str]:
    """The services of the demo that run."""
    running = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except OSError:  # it has ended
            continue
        if b"firstspin.service" in words and str(out).encode() in words:
            running.append(path.parent.name)
    return running


def test_a_settings_file_does_not_reach_the_service_of_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "firstspin.toml").write_text("[service]\nworkers = 0\n")
    monkeypatch.chdir(tmp_path)
    executed: list[list[str]] = []
    monkeypatch.setattr("os.execv", lambda _, words: executed.append(words))
    with demo._reserved(0) as reserved:  # the port is checked with the options of the service
        demo._serve(reserved, Path("b"), Path("s"))
    assert executed[0][-2:] == ["--settings", "/dev/null"]
