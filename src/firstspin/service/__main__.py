"""`firstspin serve`: answer over HTTP. Only here does the service read the environment, the clock and signals."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import sys
from pathlib import Path
from time import perf_counter_ns

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy: one worker is one thread

import uvloop

from firstspin.recommender import LEAST_AGE
from firstspin.records import InputError
from firstspin.service.app import App
from firstspin.service.connection import Limits
from firstspin.service.metrics import Tallies
from firstspin.service.worker import load, run


def main() -> None:
    """The command."""
    options = _options(sys.argv[1:])
    try:
        uvloop.run(_serve(options))
    except (InputError, OSError) as problem:
        sys.exit(f"firstspin serve: {problem}")


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("firstspin serve", description="Answer over HTTP.")
    parser.add_argument("--bundle", type=Path, required=True, help="folder written by `firstspin train`")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--least-age", type=int, default=LEAST_AGE, help="under it, age and gender are not used")
    return parser.parse_args(arguments)


async def _serve(options: argparse.Namespace) -> None:
    listener = socket.create_server((options.host, options.port), backlog=2048)
    tallies = Tallies(1)
    app = App(tallies, tallies.row(0), perf_counter_ns)
    app.serve(load(options.bundle, options.least_age))
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    address = f"http://{options.host}:{listener.getsockname()[1]}"
    await run(listener, app, Limits(), lambda: print_ready(address), stop)


def print_ready(address: str) -> None:
    """Tell that requests may come."""
    sys.stdout.write(f"firstspin answers at {address}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
