"""`firstspin watch`: expected hits of a service's answers, before and beside their labels, and drift of its inputs."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from firstspin.cli import terminal
from firstspin.cli.apps import command, new_app
from firstspin.cli.from_settings import MODEL
from firstspin.cli.options import AsJson
from firstspin.cli.output import watched
from firstspin.cli.stored import Events, EventsSecret, opened_store
from firstspin.records import MAX_AGE
from firstspin.serving.policy import MIN_AGE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firstspin.records import Examples
    from firstspin.serving.bundle import Bundle

app = new_app()


@command(
    app,
    "watch",
    example=(
        "firstspin watch sqlite:///events.sqlite --events-secret events.secret --bundle bundle --labels labels.parquet"
    ),
)
def watch(
    bundle: Annotated[
        list[Path],
        typer.Option(help="Bundle that has answered; give the option once for each of several.", rich_help_panel=MODEL),
    ],
    store: Annotated[str, typer.Argument(help="Event store of the service. Default: --events.")] = "",
    labels: Annotated[
        Path | None, typer.Option(help="File of `firstspin label`, to show observed hits beside expected ones.")
    ] = None,
    least_age: Annotated[int, typer.Option(help="As for `serve`.", min=0, max=MAX_AGE)] = MIN_AGE,
    events: Events = "",
    events_secret: EventsSecret = None,
    as_json: AsJson = False,
) -> None:
    """Expected hit@1, 3 and 5 of each week's answers, when its labels are complete, and then the observed hits.

    Then drift: whether a column of the registrations, or the answers, differ from training and from earlier weeks, with
    at most one false alarm a year per bundle. The event store has the counts, from `serve --events`. The first --bundle
    has the label rule.
    """
    from firstspin.events.answer_counts import read_counts
    from firstspin.serving.bundle import load
    from firstspin.serving.policy import PolicySettings
    from firstspin.watch.drift import bundle_drift
    from firstspin.watch.quality import quality

    bundles = list({one.id: one for one in map(load, bundle)}.values())
    labelled = _labels(labels, bundles) if labels else None
    with opened_store(store or events, events_secret) as (database, _):
        counts = read_counts(database)
    now = datetime.now(UTC)
    drifts = bundle_drift(counts, bundles, now)
    with terminal.progress("watch") as progress:
        report = quality(
            counts,
            bundles,
            bundles[0].label_rule(),
            now,
            labelled,
            settings=PolicySettings(min_age=least_age),
            progress=progress,
        )
    if as_json:
        terminal.print_json(msgspec.structs.asdict(report) | {"drift": drifts}, indent=2)
        return
    watched.show(report)
    watched.show_drift(drifts)
    terminal.next_step(watched.next_step(report, drifts, has_labels=labelled is not None))


def _labels(path: Path, bundles: Sequence[Bundle]) -> Examples:
    """The labelled users, with a warning for each bundle that was trained on some of them."""
    from firstspin.data.labels.label_file import read_labels

    extra = dict.fromkeys(name for one in bundles for name in one.manifest.extra)
    users = read_labels(path, tuple(extra))
    for one in bundles:
        if (share := one.training_share(users.user_ids)) > watched.MAX_TRAINED:
            terminal.warn(
                f"bundle {one.id} was trained on about {share:.0%} of the labelled users; those who registered on days "
                "on which it answered should not be among them"
            )
    return users
