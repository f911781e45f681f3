"""The scorecard and the census as the terminal shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from firstspin.cli import terminal

if TYPE_CHECKING:
    from firstspin.evaluate import Figure, Scorecard
    from firstspin.records import Census

SHOWN = ("hit@1", "hit@3", "hit@5", "ndcg@5", "log_loss")


def print_census(census: Census, ignored: Mapping[str, int]) -> None:
    """Every user, kept or dropped by reason; and what was ignored."""
    terminal.out.print(f"{census.labelled:,} of {census.registered:,} registrations have a label", markup=False)
    terminal.counted("  dropped", census.dropped)
    terminal.counted("  ignored", ignored)


def print_scorecard(card: Scorecard) -> None:
    """A row a model; then the lift over each baseline."""
    title = f"{card.protocol['protocol']}, {card.people:,} people asked, ± half the 95% interval"
    figures = terminal.table(title, "model", *SHOWN)
    for name, row in card.figures.items():
        figures.add_row(name, *(_with_interval(row[metric]) for metric in SHOWN))
    terminal.out.print()
    terminal.out.print(figures)
    lifts = terminal.table("lift in hit@3", "model", *(f"over {baseline}" for baseline in _baselines(card)))
    for name, over in card.lifts.items():
        if name not in _baselines(card):
            lifts.add_row(name, *(_lift(over[baseline]["hit@3"].relative) for baseline in _baselines(card)))
    if lifts.row_count:
        terminal.out.print()
        terminal.out.print(lifts)


def _baselines(card: Scorecard) -> list[str]:
    return list(dict.fromkeys(baseline for over in card.lifts.values() for baseline in over))


def _with_interval(figure: Figure) -> str:
    return f"{figure.value:.3f} ±{(figure.high - figure.low) / 2:.3f}"


def _lift(figure: Figure) -> str:
    return f"{figure.value:+.1%} [{figure.low:+.1%}, {figure.high:+.1%}]"
