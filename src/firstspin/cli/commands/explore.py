"""`firstspin experiment explore`: a month of the exploration slot on simulated users, beside other policies."""

from __future__ import annotations

from typing import Annotated

import typer

from firstspin.cli import terminal
from firstspin.cli.next_steps import next_command
from firstspin.cli.options import AsJson
from firstspin.records import MAX_SEED


def explore(
    context: typer.Context,
    users_a_day: Annotated[int, typer.Option(help="Simulated users a day.", min=10, max=20_000)] = 1_000,
    days: Annotated[int, typer.Option(help="Simulated days.", min=8, max=90)] = 30,
    seed: Annotated[int, typer.Option(help="Seed of the users, the stations and the slot.", min=0, max=MAX_SEED)] = 0,
    budget: Annotated[
        float, typer.Option(help="Max share of the clicks to give up for exploring.", min=0, max=1)
    ] = 0.05,
    floor: Annotated[
        float | None,
        typer.Option(help="Min probability of a new station, up to the budget. Default: 0.01.", min=0, max=1),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Simulate the exploration slot: its cost and regret beside other policies, and off-policy estimates from its log.

    A new station appears every week, and half-way the appeal of a third of the stations changes.
    """
    from firstspin.cli.output.verdict import show_slot
    from firstspin.serving.slot.exploration import FLOOR, SlotSettings
    from firstspin.simulation.exploration import SlotMonth, simulate_slot

    settings = SlotSettings(seed=seed, budget=budget, floor=min(FLOOR, budget) if floor is None else floor)
    month = SlotMonth(users_a_day, days, seed, slot=settings)
    with terminal.progress("simulation") as progress:
        simulated = simulate_slot(month, progress)
    if as_json:
        terminal.print_json(simulated, indent=2)
        return
    show_slot(simulated)
    another = seed + 1 if seed < MAX_SEED else 0
    again = next_command(
        context,
        "experiment explore",
        users_a_day=users_a_day,
        days=days,
        seed=another,
        budget=budget,
        floor=floor,
    )
    terminal.next_step(again)
