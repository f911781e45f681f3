"""`firstspin events …`: what is kept of users: erase it, export it, pass it on."""

from __future__ import annotations

import shlex
import signal
import sys
from codecs import BOM_UTF8
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Annotated, Final

import numpy as np
import typer

from firstspin import preflight
from firstspin.aws.clients import open_client
from firstspin.cli import terminal
from firstspin.cli.apps import command, new_app
from firstspin.cli.stored import Delivered, Events, EventsSecret, opened_store
from firstspin.events.erasure import erase as erase_users
from firstspin.events.firehose import SCOPE, FirehoseSink
from firstspin.events.firehose import forward as forward_rows
from firstspin.events.slot_log import GREEDY, SLOT
from firstspin.experiment.plan import experiment_key, read_plan
from firstspin.records import InputError

TIMEOUTS: Final = {"connect_timeout": 2, "read_timeout": 10, "retries": {"total_max_attempts": 1}}
"""Of a call to Firehose, in seconds; the forwarder itself tries again, and waits longer each time."""

app = new_app("firstspin events", "Exposures, clicks and listens: erase users, export an experiment, forward rows.")


@command(
    app,
    "erase",
    example=("firstspin events erase user-17 --events sqlite:///events.sqlite --events-secret events.secret"),
)
def erase(
    users: Annotated[list[str] | None, typer.Argument(help="Ids of the users to erase.")] = None,
    listed: Annotated[
        Path | None, typer.Option("--users", help="File with one id per line, erased in one batch.")
    ] = None,
    events: Events = "",
    events_secret: EventsSecret = None,
) -> None:
    """Erase users: delete their rows, refuse their later events, exclude them from training (--erased)."""
    named = [*(users or ()), *(_lines(listed) if listed else ())]
    if not named:
        raise typer.BadParameter("name at least one user, or a file of them with --users")
    with opened_store(events, events_secret) as (database, secret):
        done = erase_users(database, secret, named, now=datetime.now(UTC))
    deleted = f"{done.deleted.exposures:,} exposures and {done.deleted.events:,} events"
    terminal.out.print(f"{len(named):,} users are erased; {deleted} were deleted")
    if done.deleted.sent:
        terminal.out.print(f"{done.deleted.sent:,} of these rows had gone to a sink before: erase them there")
    if not done.compacted:
        terminal.out.print("bytes of them may lie in the store's files yet: run this again when it is idle")
    terminal.next_step("firstspin train --data DIR --out BUNDLE --erased STORE --events-secret FILE")


@command(
    app,
    "export",
    example=(
        "firstspin events export --out exported --plan experiment.toml --events sqlite:///events.sqlite "
        "--events-secret events.secret"
    ),
)
def export(
    out: Annotated[Path, typer.Option(help="Folder for exposures.parquet and events.parquet.")],
    plan: Annotated[Path | None, typer.Option(help="Sealed plan of the experiment.")] = None,
    slot: Annotated[bool, typer.Option("--slot", help="Export the exploration slot instead.")] = False,
    delivered: Delivered = None,
    events: Events = "",
    events_secret: EventsSecret = None,
) -> None:
    """Export an experiment's exposures and events to Parquet, without user ids, from a store or from Firehose.

    With --slot, those of the exploration slot of `serve --explore`.
    """
    from firstspin.events.delivered import export_delivered
    from firstspin.events.export import export as export_tables

    if (plan is None) is not slot:
        raise typer.BadParameter("give --plan PLAN, or --slot")
    known = read_plan(plan) if plan else None
    name, arms = (experiment_key(known), tuple(known.arms)) if known else (SLOT, (GREEDY,))
    preflight.folder(out)
    if delivered:
        done = export_delivered(delivered, out, name, arms=arms)
    else:
        with opened_store(events, events_secret) as (database, _):
            done = export_tables(database, out, name, arms=arms)
    terminal.out.print(f"{done.exposures:,} exposures and {sum(done.events.values()):,} events are in {out}")
    terminal.counted("flagged", {flag: n for flag, n in done.events.items() if flag})
    if plan is None:
        terminal.next_step("open /exploration of the service for the cost of exploring and the rates of stations")
        return
    files = shlex.join(["--exported", str(out), "--plan", str(plan)])
    terminal.next_step(f"firstspin experiment analyse {files}")


@command(
    app,
    "forward",
    example=(
        "firstspin events forward --exposures-stream exposures --events-stream events --events "
        "sqlite:///events.sqlite --events-secret events.secret"
    ),
)
def forward(
    exposures_stream: Annotated[str, typer.Option(help="Firehose delivery stream for exposures.")] = "",
    events_stream: Annotated[str, typer.Option(help="Firehose delivery stream for clicks and listens.")] = "",
    scope: Annotated[
        str, typer.Option(help="Scope of the user keys (per-export hashes), such as the sink's name.")
    ] = SCOPE,
    endpoint_url: Annotated[str | None, typer.Option(help="URL of Firehose; default: that of the AWS region.")] = None,
    once: Annotated[bool, typer.Option("--once", help="Exit when no row is unsent, or the sink fails.")] = False,
    events: Events = "",
    events_secret: EventsSecret = None,
) -> None:
    """Forward rows to Kinesis Data Firehose until SIGTERM or Ctrl-C. Run one forwarder per store."""
    given = {"exposures": exposures_stream, "events": events_stream}
    streams = {table: stream for table, stream in given.items() if stream}
    if not streams:
        raise typer.BadParameter("give --exposures-stream, --events-stream or both")
    sink = FirehoseSink(open_client("firehose", TIMEOUTS, endpoint_url), streams, scope)
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with opened_store(events, events_secret) as (database, _):
        pause = (lambda wait: wait > 0) if once else stop.wait
        done = forward_rows(database, sink, rng=np.random.default_rng(), pause=pause)
    terminal.out.print(f"{done.sent:,} rows sent")
    if once and done.failed:
        raise InputError(f"{done.failed:,} rows could not be sent; they wait in the store for the next time")
    terminal.next_step("firstspin events export --delivered DIR --plan PLAN --out DIR, once Firehose has written them")


def _lines(path: Path) -> list[str]:
    raw = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    lines = raw.removeprefix(BOM_UTF8).splitlines()  # of bytes: an id may hold U+0085 or U+2028
    try:
        return [line.decode() for line in lines if line]
    except UnicodeDecodeError as problem:
        raise InputError(f"{path} is not text in UTF-8") from problem
