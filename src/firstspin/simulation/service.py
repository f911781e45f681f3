"""The real service as a child process for the time of a simulation."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from firstspin.experiment.plan import Plan, freeze
from firstspin.records import InputError
from firstspin.service.process.signals import held_signals
from firstspin.settings.environment import PREFIX, SETTINGS

HOST: Final = "127.0.0.1"
END_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class SimulationPaths:
    """The folder of a simulation and its paths: sealed plan, clock file, secret, event store's URL, service log."""

    folder: Path

    @property
    def plan(self) -> Path:
        """The sealed plan."""
        return self.folder / "experiment.toml"

    @property
    def clock(self) -> Path:
        """The file with the simulated time."""
        return self.folder / "clock"

    @property
    def secret(self) -> Path:
        """The event store's key."""
        return self.folder / "events.secret"

    @property
    def store(self) -> str:
        """The event store's URL."""
        return f"sqlite:///{self.folder / 'events.sqlite'}"

    @property
    def log(self) -> Path:
        """The service's log."""
        return self.folder / "service.log"


@contextmanager
def serving(bundle: Path, plan: Plan, paths: SimulationPaths, workers: int) -> Iterator[int]:
    """The port of a `firstspin serve` that runs the plan on the simulated clock.

    On exit it is stopped by SIGTERM, with all events durable. Raises InputError where it does not start.
    """
    freeze(plan, paths.plan)
    others = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    process: subprocess.Popen[str] | None = None
    try:
        with paths.log.open("w") as log, held_signals():
            process = subprocess.Popen(
                [*_command(bundle, paths), "--workers", str(workers)],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=others | {SETTINGS: os.devnull},
            )
        yield _port(process, paths)
    finally:
        if process is not None:
            _stop(process)


def _stop(process: subprocess.Popen[str]) -> None:
    with process:
        process.terminate()
        try:
            process.wait(END_SECONDS)
        finally:
            process.kill()


def _command(bundle: Path, paths: SimulationPaths) -> list[str]:
    state = [
        "--events",
        paths.store,
        "--events-secret",
        str(paths.secret),
        "--state",
        str(paths.folder / "state"),
    ]
    run = ["--experiment", str(paths.plan), "--clock", str(paths.clock)]
    quiet = ["--port", "0", "--host", HOST, "--drain-delay", "0", "--log-level", "warning"]
    return [sys.executable, "-m", "firstspin.service", "--bundle", str(bundle), *state, *run, *quiet]


def _port(process: subprocess.Popen[str], paths: SimulationPaths) -> int:
    assert process.stdout is not None
    address = process.stdout.readline()  # empty where the process ended
    if not address:
        log = paths.log.read_text(encoding="utf-8").strip().splitlines()
        raise InputError(f"the service of the simulated experiment did not start: {log[-1] if log else 'no log'}")
    return int(address.rstrip("/\n").rsplit(":", 1)[1])
