"""The explanation of a recommendation, as a table in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firstspin.cli import terminal
from firstspin.records import answered_by

if TYPE_CHECKING:
    from firstspin.serving.explanations import Explanation


def show(explanation: Explanation, *, as_json: bool) -> None:
    """Print a row per genre: baseline probability, effect of each answer in percentage points, probability."""
    if as_json:
        terminal.print_json(explanation)
        return
    terminal.out.print(f"model {explanation.model}, {answered_by(explanation.source)}")
    questions = list(explanation.genres[0].moved) if explanation.genres else []
    table = terminal.table("effect of each answer (points)", "genre", "no answers", *questions, "probability")
    for reason in explanation.genres:
        moved = (f"{value * 100:+.1f}" for value in reason.moved.values())
        table.add_row(reason.genre, f"{reason.without_answers:.1%}", *moved, f"{reason.probability:.1%}")
    terminal.show(table)
