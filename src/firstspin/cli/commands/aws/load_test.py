"""`firstspin sagemaker load-test`: which rate one instance holds, as the lines that deploy/aws/settings.toml wants."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import typer

from firstspin.cli import terminal
from firstspin.records import InputError
from firstspin.tools.load_test import run, senders
from firstspin.tools.sagemaker_check import payloads
from firstspin.tools.sagemaker_check.payloads import Payload

BODIES: Final = 500
GIVEN_UP: Final = 2.0
"""Seconds beyond the promise in which an answer may still come, so that the table tells how late."""

HONESTLY: Final = (
    "This is one instance's figure only if the endpoint has one instance, and this command runs in its region; "
    "measured on the server's own machine it is too low. load_test_seconds has the way there and back in it."
)


def load_test(
    endpoint: Annotated[str, typer.Option(help="Name of the endpoint; it must have one instance.")] = "",
    url: Annotated[str, typer.Option(help="Instead: URL of a running server, as in http://127.0.0.1:8080.")] = "",
    p99: Annotated[float, typer.Option(help="Latency objective (p99) in milliseconds.")] = 50,
    seconds: Annotated[float, typer.Option(help="Duration of each step in seconds.")] = 60,
    first: Annotated[float, typer.Option("--from", help="First rate in requests per second.")] = 10,
    step: Annotated[float, typer.Option(help="Factor from one rate to the next.")] = 1.5,
    most: Annotated[float, typer.Option(help="Max rate in requests per second.")] = 5000,
    payload: Annotated[
        Path | None, typer.Option(help="File with the request body; default: simulated registrations.")
    ] = None,
    content_type: Annotated[str, typer.Option(help="The content type of the payload.")] = "",
    seed: Annotated[int, typer.Option(help="The same seed sends the same requests at the same times.", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Find the max rate that an endpoint or a server sustains within a latency objective.

    The rate rises step by step. AWS bills every request to an endpoint. The exit status is 1 where even the first rate
    fails.
    """
    if bool(endpoint) == bool(url):
        raise typer.BadParameter("either --endpoint or --url is needed, and not both")
    if bool(payload) != bool(content_type):
        raise typer.BadParameter("--payload and --content-type need each other")
    try:
        plan = run.LoadPlan(p99 / 1e3, seconds, first, step, most)
    except InputError as problem:
        raise typer.BadParameter(str(problem)) from None
    rng = np.random.default_rng(seed)
    bodies = [payloads.read(payload, content_type)] if payload else senders.registrations(rng, BODIES)
    steps = measure(plan, bodies, rng, endpoint=endpoint, url=url)
    show(steps, as_json=as_json)
    sys.exit(0 if run.best(steps) else 1)


def measure(
    plan: run.LoadPlan, bodies: Sequence[Payload], rng: np.random.Generator, *, endpoint: str = "", url: str = ""
) -> list[run.LoadStep]:
    """The steps of the search, each printed on stderr. Raises InputError where the first request fails."""
    timeout = plan.promise + GIVEN_UP
    steps = []
    with senders.over_http(url, timeout) if url else senders.through_aws(endpoint, timeout) as send:
        if wrong := send(bodies[0]):
            raise InputError(f"{url or endpoint}: {wrong}")
        for step in run.search(plan, run.Rig(send, bodies, rng, time.monotonic, time.sleep)):
            outcome = step.why or f"holds, p50 {step.p50 * 1e3:.1f} ms, p99 {step.p99 * 1e3:.1f} ms"
            terminal.err.print(f"{step.rate:,.1f} a second: {outcome}")
            steps.append(step)
    return steps


def show(steps: Sequence[run.LoadStep], *, as_json: bool = False) -> None:
    """Print the table, the reason for the end of the search, and the lines for settings.toml."""
    best, worst = run.best(steps), run.worst(steps)
    if as_json:
        summary: dict[str, object] = {"steps": steps, "limit": worst and worst.limit, "why": worst.why if worst else ""}
        summary |= {"load_test_rps": best and run.rps(best), "load_test_seconds": best and round(best.p50, 5)}
        summary |= {"invocations_a_minute": best and run.a_minute(best)}
        terminal.print_json(summary)
        return
    table = terminal.table("", "rate asked", "rate done", "p50 ms", "p99 ms", "errors", "")
    for step in sorted(steps, key=lambda step: step.rate):
        figures = (f"{step.rate:,.1f}", f"{step.done:,.1f}", f"{step.p50 * 1e3:.1f}", f"{step.p99 * 1e3:.1f}")
        table.add_row(*figures, str(step.errors), step.limit or "holds")
    terminal.show(table)
    lines = [f"At {worst.rate:,.1f} a second {worst.why}." if worst else "The highest rate asked for held: see --most."]
    if best:
        lines += ["", f"load_test_rps = {run.rps(best)}", f"load_test_seconds = {round(best.p50, 5)}", ""]
        lines += [f"Target by the minute at safety {run.SAFETY}: {run.a_minute(best):,} invocations an instance."]
        lines += [HONESTLY]
    terminal.out.print("", *lines, sep="\n")
    terminal.next_step(
        "put these lines into deploy/aws/settings.toml" if best else "try a lower --from or a larger --p99"
    )
