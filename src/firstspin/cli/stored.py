"""The event store, as the commands name it: where it is, and the file of its secret."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from firstspin.experiment.database import Database
from firstspin.experiment.events import Secret, read_secret
from firstspin.experiment.store import open_database

Events = Annotated[
    str, typer.Option(envvar="FIRSTSPIN_EVENTS", help="Event store: sqlite:///PATH or postgresql://… as for `serve`.")
]
EventsSecret = Annotated[
    Path | None, typer.Option(envvar="FIRSTSPIN_EVENTS_SECRET", help="File with the store's secret, as for `serve`.")
]


def open_store(events: str, events_secret: Path | None) -> tuple[Database, Secret]:
    """The store's database, ready to use, and its secret."""
    if not events or events_secret is None:
        raise typer.BadParameter("an event store needs its address and --events-secret")
    secret = read_secret(events_secret)
    database = open_database(events, secret)
    database.open()
    return database, secret
