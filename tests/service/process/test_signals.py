"""Signals wait for the end of a step."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Any

import pytest
from made_bundles import pack

from firstspin.service.process.clock import set_clock
from firstspin.service.process.signals import held_signals
from firstspin.simulation.run import Setting, simulated_plan
from firstspin.simulation.service import SimulationPaths, serving


@pytest.fixture(autouse=True)
def _interrupts() -> Iterator[None]:
    """Ctrl-C interrupts, also where the tests run in the background and ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_signal_during_the_step_is_handled_at_its_end() -> None:
    steps = []

    def interrupted() -> None:
        with held_signals():
            os.kill(os.getpid(), signal.SIGINT)
            steps.extend(["one", "two"])

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert steps == ["one", "two"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with held_signals():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_in_another_thread_nothing_is_held() -> None:
    seen: list[Any] = []

    def run() -> None:
        with held_signals():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]


def test_an_interrupt_while_the_simulated_service_starts_stops_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[str]] = []

    class Interrupted(subprocess.Popen[str]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            started.append(self)
            os.kill(os.getpid(), signal.SIGINT)

    pack(tmp_path / "b")
    paths, plan = SimulationPaths(tmp_path), simulated_plan(Setting(users=100, days=1))
    set_clock(paths.clock, datetime.combine(plan.starts_on, time(), UTC))
    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt), serving(tmp_path / "b", plan, paths, 1):
        pytest.fail("the interrupt came before the service was ready")
    assert started[0].poll() is not None
