"""The promotion gate as commands use it: champion and challenger are compared, and the verdict is shown."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import msgspec
import typer

from firstspin.cli import terminal
from firstspin.cli.next_steps import next_command
from firstspin.cli.options import ComparisonOptions, ErasureOptions, GateOptions
from firstspin.cli.output.scorecard import print_census, signed
from firstspin.evaluation.bootstrap import bare
from firstspin.evaluation.promotion import PromotionDecision, PromotionVerdict
from firstspin.files import written_beside
from firstspin.models.predictor import in_words

if TYPE_CHECKING:
    from firstspin.data.dataset import Dataset, Reading

STATUS: Final = {PromotionDecision.PROMOTE: 0, PromotionDecision.KEEP: 3, PromotionDecision.MORE_USERS: 4}
"""Exit status of a comparison; 1 is a failure and 2 wrong usage, as everywhere."""


def compared(
    data: Path, champion: Path, challenger: Path, gate: GateOptions, chosen: Reading, erasure: ErasureOptions
) -> tuple[PromotionVerdict, Dataset]:
    """The verdict of the gate on the users of these tables. Raises as `learn.compare_bundles`."""
    from firstspin import learn

    with terminal.progress("promotion gate") as progress, erasure.without_erased(chosen) as reading:
        return learn.compare_bundles(
            data, champion, challenger, reading=reading, metric=gate.metric, margin=gate.margin, progress=progress
        )


def compare_and_exit(
    context: typer.Context,
    data: Path,
    champion: Path,
    challenger: Path,
    options: ComparisonOptions,
    chosen: Reading,
    erasure: ErasureOptions,
    out: Path | None,
) -> NoReturn:
    """Compare two bundles, show and write the verdict, and exit with its status."""
    verdict, dataset = compared(data, champion, challenger, options, chosen, erasure)
    if out:
        with written_beside(out, shared=True) as beside:
            beside.write_bytes(msgspec.json.format(msgspec.json.encode(verdict), indent=2) + b"\n")
    if options.as_json:
        terminal.print_json(verdict)
    else:
        print_census(dataset.census, dataset.ignored)
        show(verdict)
        better = challenger if verdict.passes else champion
        terminal.next_step(next_command(context, "serve", bundle=better))
    sys.exit(STATUS[verdict.decision])


def show(verdict: PromotionVerdict) -> None:
    """Print the decision and its reason, then a row a requirement."""
    terminal.out.print(f"\nDecision: {verdict.decision}. {verdict.why}", style="bold")
    title = (
        f"{verdict.users:,} hold-out users, registered since {verdict.since}; segments by {verdict.metric}; margin "
        f"{verdict.margin:.0%}; gain: ± half-width of the {1 - verdict.alpha:.0%} CI"
    )
    table = terminal.table(title, "", "segment", "users", "champion", "challenger", "gain", "outcome")
    last = ""
    for one in verdict.requirements:
        subject, last = ("" if one.by and one.by == last else one.by or one.metric.value), one.by
        segment = one.segment or (f"against the {in_words(one.over)}" if one.over else "all")
        figures = bare(one.champion), bare(one.challenger), signed(one.difference)
        outcome = f"open: {one.needed:,} users" if one.needed else one.outcome
        table.add_row(subject, segment, f"{one.users:,}", *figures, outcome)
    table.columns[1].justify = "left"
    terminal.show(table)
