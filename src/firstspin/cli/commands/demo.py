"""`firstspin demo`: the whole story on a simulated service."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from firstspin import files, preflight
from firstspin.cli import terminal
from firstspin.cli.apps import command, new_app
from firstspin.cli.options import Seed
from firstspin.records import InputError
from firstspin.service import options
from firstspin.service.process import listening

if TYPE_CHECKING:
    from firstspin.cli.output.claims import Claim

NEWCOMERS: Final = 8_000
"""Simulated newcomers in the demo's A/B test: a few seconds of them, and far too few to be sure of 8.7%."""

EARLY_LOYALTY: Final = 0.3
"""Share of the first month's listens that are to the later top genre, so that listens move the live page's bars."""

FOLDER: Final = Path("firstspin-demo")
PARTS: Final = ("data", "bundle", "experiment", "state")
MARK: Final = ".firstspin-demo"
"""An empty file in the folder of a demo, which holds its lock."""

UNSET: Final = ("--settings", os.devnull)
"""The settings file of the working directory is not for simulated users: it may name the event store of real ones."""

PORTS: Final = 100  # that are tried after one that is in use

Port = Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65_535)]
Out = Annotated[Path, typer.Option(help="Folder for tables, bundle and experiment; an earlier demo there is replaced.")]

app = new_app()


@command(app, "demo", example="firstspin demo --users 5000 --port 8081")
def demo(
    users: Annotated[int, typer.Option(help="Number of simulated users.", min=100)] = 12_000,
    seed: Seed = 0,
    port: Port = 8080,
    no_serve: Annotated[bool, typer.Option("--no-serve", help="Stop after the scorecard.")] = False,
    out: Out = FOLDER,
) -> None:
    """The complete workflow on a simulated service, then the live page."""
    from firstspin.cli.commands.learning import train_and_show
    from firstspin.cli.output import claims
    from firstspin.data.dataset import Reading
    from firstspin.models.registry import Learning
    from firstspin.simulation.world import write_world

    data, bundle = out / "data", out / "bundle"
    reserved = None if no_serve else _reserved(port)
    _claim_folder(out)
    with terminal.progress("simulated service") as progress:
        write_world(data, users, seed, progress, EARLY_LOYALTY)
    terminal.out.print(f"A simulated service with {users:,} registrations is in {data}")
    _, card = train_and_show(data, bundle, "auto", Reading(), Learning(seed=seed))
    claimed = claims.entries(card, data, bundle)
    _show_test(claimed, bundle, seed, out / "experiment")
    terminal.out.print(f"\nAll files are in {out}")
    if reserved is None:
        terminal.next_step(f"firstspin serve --bundle {shlex.quote(str(bundle))}")
    else:
        _serve(reserved, bundle, out / "state")


def _show_test(claimed: list[Claim], bundle: Path, seed: int, folder: Path) -> None:
    """Run the A/B test, and print all claims and the power of this test."""
    from firstspin.cli.output import claims
    from firstspin.experiment.stats.sizing import plan_sizing
    from firstspin.simulation import run as simulation

    setting = simulation.Setting(users=NEWCOMERS, seed=seed)
    with terminal.progress(f"A/B test on {NEWCOMERS:,} simulated users") as progress:
        simulated = simulation.simulate(bundle, setting, folder, now=time.perf_counter_ns, progress=progress)
    claims.show([*claimed, *claims.tested(simulated, bundle)])
    sizing = plan_sizing(simulation.simulated_plan(setting))
    needed = sum(sizing.users.values())
    claims.show_power(simulated, sizing.power_at_days, simulation.EFFECT, needed, bundle)


def _reserved(port: int) -> socket.socket:
    """A socket that holds the port until the service has it. Raises InputError, with a free one, where it is in use."""
    host = options.parse(["--bundle", "bundle", "--port", str(port), *UNSET], os.environ).host
    try:
        return listening.reserve(host, port)
    except OSError as problem:
        if problem.errno != errno.EADDRINUSE:
            raise InputError(f"can't listen on {host}:{port}: {problem.strerror}") from None
    for free in range(port + 1, min(port + 1 + PORTS, 65_536)):
        with suppress(OSError):
            listening.reserve(host, free).close()
            raise InputError(f"port {port} is in use; the next free one: firstspin demo --port {free}")
    raise InputError(f"port {port} is in use; any free one: firstspin demo --port 0")


def _claim_folder(out: Path) -> None:
    """Empty the folder of an earlier demo, and lock it until this process and the service in its place have ended.

    Raises InputError where the folder has files of something else, or another demo uses it.
    """
    preflight.folder(out)
    if out.is_dir() and any(out.iterdir()) and not (out / MARK).is_file():
        raise InputError(f"{out} has other files; name another folder, as in firstspin demo --out demo")
    out.mkdir(parents=True, exist_ok=True)
    lock = os.open(out / MARK, os.O_RDONLY | os.O_CREAT, 0o600)
    if files.locked(lock) is False:
        raise InputError(f"another demo uses {out}; name another folder, as in firstspin demo --out demo")
    os.set_inheritable(lock, True)  # the service keeps it
    for part in PARTS:
        shutil.rmtree(out / part, ignore_errors=True)


def _serve(reserved: socket.socket, bundle: Path, state: Path) -> None:
    """Become the service: the lean process, without what training imported."""
    host, port = reserved.getsockname()[:2]
    terminal.out.print(f"\nServing on http://{host}:{port} (Ctrl-C stops)")
    sys.stdout.flush()
    serve = [sys.executable, "-m", "firstspin.service", "--bundle", str(bundle), "--port", str(port)]
    os.execv(sys.executable, [*serve, "--state", str(state), *UNSET])
