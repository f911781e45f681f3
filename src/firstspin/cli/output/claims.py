"""The table of claims: the article's value, this run's value, and the command that reproduces it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from firstspin.cli import terminal
from firstspin.evaluation.metrics import HEADLINE, RULE
from firstspin.experiment.verdict import signed_percent

if TYPE_CHECKING:
    from firstspin.evaluation.bootstrap import Figure
    from firstspin.evaluation.scorecard import Scorecard
    from firstspin.experiment.stats.lift import Estimate
    from firstspin.simulation.run import Simulated


@dataclass(frozen=True, slots=True)
class Claim:
    """One claim: the article's value, the value on simulated users, and the command that reproduces it."""

    claim: str
    article: str
    here: str
    command: str


def entries(card: Scorecard, data: Path) -> list[Claim]:
    """The offline claims, from a scorecard."""
    again = f"firstspin evaluate --data {data} --models {card.best} --out scorecard.json"
    claims = [
        Claim(f"favourite among the first three ({HEADLINE})", "77%", _share(card.figures[card.best][HEADLINE]), again)
    ]
    if RULE in card.lifts.get(card.best, {}):
        lift = card.lifts[card.best][RULE][HEADLINE].relative
        claims.append(Claim("lift over picks by popularity", "+15%", _share(lift, "+"), again))
    return claims


def tested(simulated: Simulated, bundle: Path) -> list[Claim]:
    """The claims about the A/B test, from a simulated one."""
    again = f"firstspin experiment simulate --users 100000 --seed {simulated.seed} --bundle {bundle}"
    clicks, listening = (measured.beside_control[0].lift.relative for measured in simulated.verdict.metrics)
    served = simulated.served
    latency = f"{served.p50_ms:.1f} / {served.p99_ms:.1f} ms"
    return [
        Claim(f"lift in clicks, A/B test on {simulated.users:,}", "+8.7%", _interval(clicks), again),
        Claim("  true lift in the simulation", "", signed_percent(simulated.truth.lift), again),
        Claim("lift in listening per user", "as strong", _interval(listening), again),
        Claim("errors of the service, events included", "", f"{served.errors:,}", again),
        Claim(f"latency p50 / p99, {served.connections} at a time", "real time", latency, again),
    ]


def show(claims: Sequence[Claim]) -> None:
    """Print a row per claim, then the commands, each once."""
    table = terminal.table(
        "Claims on simulated users (± half-width of the 95% CI, or the CI)", "claim", "article", "here"
    )
    for entry in claims:
        table.add_row(entry.claim, entry.article, entry.here)
    terminal.show(table)
    for command in dict.fromkeys(entry.command for entry in claims):
        terminal.out.print(f"  reproduce: {command}", markup=False, soft_wrap=True)


def _interval(lift: Estimate) -> str:
    if lift.value is None:
        return lift.reason
    value, low, high = map(signed_percent, (lift.value, lift.low, lift.high))
    return f"{value} ({low} to {high})"


def _share(figure: Figure, sign: str = "") -> str:
    return f"{figure.value:{sign}.1%} ±{(figure.high - figure.low) * 50:.1f}"
