"""The table of claims: the article's value, this run's value, and the command that reproduces it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from firstspin.cli import terminal
from firstspin.evaluation.metrics import HEADLINE
from firstspin.experiment.verdict import signed_percent
from firstspin.models.predictor import RULE

if TYPE_CHECKING:
    from firstspin.evaluation.scorecard import Scorecard
    from firstspin.experiment.stats.lift import Estimate
    from firstspin.simulation.run import Simulated


@dataclass(frozen=True, slots=True)
class Claim:
    """One claim: the article's value, the value on simulated users, and the command whose output has it."""

    claim: str
    article: str
    here: str
    command: str


def entries(card: Scorecard, data: Path, bundle: Path) -> list[Claim]:
    """The offline claims, from the scorecard of the training of a bundle."""
    seed = card.protocol["seed"]
    again = f"firstspin train --data {_quoted(data)} --out {_quoted(bundle)} --seed {seed}"
    hits = str(card.figures[card.best][HEADLINE])
    claims = [Claim(f"favourite in the top 3 ({HEADLINE})", ".77", hits, again)]
    if RULE in card.lifts.get(card.best, {}):
        lift = card.lifts[card.best][RULE][HEADLINE].relative.percent()
        claims.append(Claim("lift over the business rule", "+15%", lift, again))
    return claims


def tested(simulated: Simulated, bundle: Path) -> list[Claim]:
    """The claims about the A/B test, from a simulated one."""
    again = simulation_command(simulated.users, simulated.days, simulated.seed, bundle)
    clicks, listening = (measured.beside_control[0].lift.relative for measured in simulated.verdict.metrics)
    return [
        Claim(f"A/B test on {simulated.users:,}: lift in clicks", "+8.7%", _interval(clicks), again),
        Claim("  true lift", "", signed_percent(simulated.truth.lift), again),
        Claim("  lift in listening", "as strong", _interval(listening), again),
        Claim("  errors of the service", "", f"{simulated.served.errors:,}", again),
    ]


def simulation_command(users: int, days: int, seed: int, bundle: Path) -> str:
    """The command of the A/B test on so many simulated users."""
    return f"firstspin experiment simulate --users {users} --days {days} --seed {seed} --bundle {_quoted(bundle)}"


def show(claims: Sequence[Claim]) -> None:
    """Print a row per claim, then the commands, each once, under the number that the rows name."""
    title = "Claims on simulated users (± half-width of the 95% CI, or the CI)"
    table = terminal.table(title, "claim", "article", "here", "shown by")
    commands = list(dict.fromkeys(entry.command for entry in claims))
    for entry in claims:
        table.add_row(entry.claim, entry.article, entry.here, f"[{commands.index(entry.command) + 1}]")
    terminal.show(table)
    terminal.out.print()
    for number, command in enumerate(commands, 1):
        terminal.out.print(f"  [{number}] shown by: {command}")


def show_power(simulated: Simulated, power: float, effect: float, needed: int, bundle: Path) -> None:
    """Print whether the test was large enough to detect the lift `effect`, and the command of one that is."""
    detects = f"detect a lift of {effect:.1%} with a probability (power) of {power:.0%}"
    text = f"{simulated.users:,} users {detects}."
    if simulated.users < needed:
        command = simulation_command(needed, simulated.days, simulated.seed, bundle)
        text += f" They can't show it; {needed:,} can (power 80%): {command}"
    terminal.out.print(f"\n{text}")


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def _interval(lift: Estimate) -> str:
    if lift.value is None:
        return lift.reason
    value, low, high = map(signed_percent, (lift.value, lift.low, lift.high))
    return f"{value} ({low} to {high})"
