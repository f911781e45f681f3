"""The event store, as the commands name it: where it is, and the file of its secret."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated

import typer

from firstspin.cli.from_settings import SERVICE
from firstspin.events.database import Database
from firstspin.events.schema import Secret, Unavailable, read_secret
from firstspin.events.store import open_database
from firstspin.records import InputError

Events = Annotated[
    str,
    typer.Option(
        envvar="FIRSTSPIN_EVENTS",
        help="Event store: sqlite:///PATH or postgresql://HOST/NAME, as for `serve`.",
        rich_help_panel=SERVICE,
    ),
]
EventsSecret = Annotated[
    Path | None,
    typer.Option(
        envvar="FIRSTSPIN_EVENTS_SECRET",
        help="File with the store's secret, as for `serve`.",
        rich_help_panel=SERVICE,
    ),
]


Delivered = Annotated[
    Path | None, typer.Option(help="Instead: folder of the files that Kinesis Data Firehose wrote, for --plan.")
]


@contextmanager
def opened_store(events: str, events_secret: Path | None) -> Iterator[tuple[Database, Secret]]:
    """The store's database and its secret, closed at the end.

    Raises InputError where the store does not exist (a new, empty one would give wrong answers) or is unavailable.
    """
    if not events or events_secret is None:
        raise typer.BadParameter("an event store needs its address and --events-secret")
    secret = read_secret(events_secret)
    try:
        with closing(open_database(events, secret, create=False)) as database:
            database.open()
            yield database, secret
    except Unavailable as problem:
        raise InputError(f"the event store can't be used just now: {problem}") from problem
