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

from firstspin.environment import PREFIX
from firstspin.experiment.plan import Plan, freeze
from firstspin.records import InputError

HOST: Final = "127.0.0.1"
END_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class SimulationPaths:
    """The folder of a simulation and the paths in it."""

    folder: Path

    @property
    def plan(self) -> Path:
        return self.folder / "experiment.toml"

    @property
    def clock(self) -> Path:
        return self.folder / "clock"

    @property
    def secret(self) -> Path:
        return self.folder / "events.secret"

    @property
    def store(self) -> str:
        return f"sqlite:///{self.folder / 'events.sqlite'}"

    @property
    def log(self) -> Path:
        return self.folder / "service.log"


@contextmanager
def serving(bundle: Path, plan: Plan, premises: SimulationPaths, workers: int) -> Iterator[int]:
    """The port of a `firstspin serve` that runs the plan by the simulated clock.

    At the end it is stopped by SIGTERM and has everything on the disk. Raises InputError where it does not start.
    """
    freeze(plan, premises.plan)
    with premises.log.open("w") as log:
        process = subprocess.Popen(
            [*_command(bundle, premises), "--workers", str(workers)],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={name: value for name, value in os.environ.items() if not name.startswith(PREFIX)},
        )
        with process:
            try:
                yield _port(process, premises)
            finally:
                process.terminate()
                try:
                    process.wait(END_SECONDS)
                finally:
                    process.kill()


def _command(bundle: Path, premises: SimulationPaths) -> list[str]:
    kept = [
        "--events",
        premises.store,
        "--events-secret",
        str(premises.secret),
        "--state",
        str(premises.folder / "state"),
    ]
    run = ["--experiment", str(premises.plan), "--clock", str(premises.clock)]
    quiet = ["--port", "0", "--host", HOST, "--drain-delay", "0", "--log-level", "warning"]
    return [sys.executable, "-m", "firstspin.service", "--bundle", str(bundle), *kept, *run, *quiet]


def _port(process: subprocess.Popen[str], premises: SimulationPaths) -> int:
    assert process.stdout is not None
    announced = process.stdout.readline()  # nothing, where the process ended instead
    if not announced:
        said = premises.log.read_text(encoding="utf-8").strip().splitlines()
        raise InputError(f"the simulated experiment's service did not start: {said[-1] if said else 'it said nothing'}")
    return int(announced.rstrip("/\n").rsplit(":", 1)[1])
