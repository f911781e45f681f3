"""Why one newcomer is shown what they are, as the terminal says it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firstspin.cli import terminal

if TYPE_CHECKING:
    from firstspin.serving.explanations import Explanation


def show(found: Explanation, *, as_json: bool) -> None:
    """A row a genre: its probability, from which it started, and what each answer added, in percentage points."""
    if as_json:
        terminal.print_json(found)
        return
    terminal.out.print(f"model {found.model}, answered by: {found.source}", markup=False)
    told = list(found.genres[0].moved) if found.genres else []
    table = terminal.table("points that each answer added", "genre", "told nothing", *told, "probability")
    for reason in found.genres:
        moved = (f"{value * 100:+.1f}" for value in reason.moved.values())
        table.add_row(reason.genre, f"{reason.without_answers:.1%}", *moved, f"{reason.probability:.1%}")
    terminal.show(table)
