"""`firstspin demo`: the whole story on a simulated service."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Final

import typer

from firstspin.cli import terminal
from firstspin.cli.apps import command, new_app
from firstspin.cli.options import Seed

NEWCOMERS: Final = 8_000
"""Simulated newcomers in the demo's A/B test: a few seconds of them, and far too few to be sure of 8.7%."""

Port = Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65_535)]

app = new_app()


@command(app, "demo", example="firstspin demo --users 5000 --port 8081")
def demo(
    users: Annotated[int, typer.Option(help="Number of simulated users.", min=100)] = 12_000,
    seed: Seed = 0,
    port: Port = 8080,
    no_serve: Annotated[bool, typer.Option("--no-serve", help="Stop after the scorecard.")] = False,
) -> None:
    """The complete workflow on a simulated service, then the live page."""
    from firstspin.cli.commands.learning import train_and_show
    from firstspin.cli.output import claims
    from firstspin.data.dataset import Reading
    from firstspin.models.registry import Learning
    from firstspin.service import options
    from firstspin.simulation import run as simulation
    from firstspin.simulation.world import write_world

    if not no_serve:
        options.parse(["--bundle", "bundle", "--port", str(port)], os.environ)
    folder = Path(tempfile.mkdtemp(prefix="firstspin-demo-"))
    with terminal.progress("simulated service") as progress:
        write_world(folder, users, seed, progress)
    terminal.out.print(f"A simulated service with {users:,} registrations is in {folder}", markup=False)
    card = train_and_show(folder, folder / "bundle", "auto", Reading(), Learning(seed=seed))
    setting = simulation.Setting(users=NEWCOMERS, seed=seed)
    with terminal.progress(f"A/B test on {NEWCOMERS:,} simulated users") as progress:
        simulated = simulation.simulate(
            folder / "bundle", setting, folder / "experiment", now=time.perf_counter_ns, progress=progress
        )
    claims.show([*claims.entries(card, folder), *claims.tested(simulated, folder / "bundle")])
    if not no_serve:
        terminal.out.print(f"\nServing on http://127.0.0.1:{port} (Ctrl-C stops)", markup=False)
        sys.stdout.flush()
        command = [sys.executable, "-m", "firstspin.service", "--bundle", str(folder / "bundle"), "--port", str(port)]
        os.execv(sys.executable, command)  # the lean process, without what training imported
