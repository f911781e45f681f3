"""Terminal output of a verdict, a plan's sizing, and a simulated experiment beside its ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from firstspin.cli import terminal
from firstspin.experiment.verdict import Verdict, signed_percent, verdict_lines

if TYPE_CHECKING:
    from firstspin.experiment.plan import Plan
    from firstspin.experiment.stats.lift import Estimate
    from firstspin.experiment.stats.sizing import Point, Sizing
    from firstspin.simulation.exploration import SlotSimulated
    from firstspin.simulation.oracle import NeverShown
    from firstspin.simulation.run import Served, Simulated


def show(verdict: Verdict) -> None:
    """Print the decision, then the warnings, then the tables."""
    terminal.out.print(verdict.sentence, style="bold")
    for warning in verdict.warnings:
        terminal.out.print(f"Warning: {warning}")
    for section in verdict_lines(verdict):
        _print_table(section.title, section.columns, section.rows)


def show_sizing(plan: Plan, needed: Sizing) -> None:
    """Print the users and days that a plan needs, and its power for other durations and lifts."""
    users = ", ".join(f"{number:,} in {arm}" for arm, number in needed.users.items())
    is_canary = plan.harm_margin is not None
    lift = f"{'ruling out a loss' if is_canary else 'a lift'} of {plan.minimum_effect:.1%}"
    weeks = f"{needed.weeks_needed:,} week{'s' if needed.weeks_needed > 1 else ''}"
    rounded = ", rounded up" if needed.days_needed % 7 else ""
    terminal.out.print(f"  users for {lift} with {plan.power:.0%} power: {users}")
    terminal.out.print(f"  days needed: {needed.days_needed:,} days ({weeks}{rounded}); planned: {plan.days} days")
    if needed.power_at_days < plan.power and not is_canary:
        detectable = needed.detectable_effect
        what = "no lift" if detectable is None else f"a lift of {signed_percent(detectable)}"
        terminal.out.print(f"  in {plan.days} days {what} can be detected with {plan.power:.0%} power")
    by_days = [(f"{point.days} days", f"{point.users:,}", *_power(point)) for point in needed.by_days]
    by_effect = [(f"{point.effect:+.1%}", *_power(point)) for point in needed.by_effect]
    _print_table(f"Power for {lift}", ("after", "users", "power", ""), by_days)
    if not is_canary:
        _print_table(f"Power after {plan.days} days", ("true lift", "power", ""), by_effect)


def _power(point: Point) -> tuple[str, str]:
    share = min(point.power, 0.999)  # a power of 100% is never reached
    return f"{share:.1%}", ("█" * round(20 * share)).ljust(20, "░")


def show_simulated(simulated: Simulated) -> None:
    """Print a simulated experiment: the verdict, then estimates beside the ground truth."""
    alike = " (A/A test)" if simulated.arms_alike else ""
    days = f"{simulated.users:,} simulated users in {simulated.days} simulated days{alike}"
    terminal.out.print(f"{simulated.experiment}: {days}\n")
    show(simulated.verdict)
    columns = ("per user", "control", "treatment", "lift", "95% CI", "true lift")
    _print_table("Estimates and ground truth", columns, measured_rows(simulated))
    _print_table("Service", ("", ""), served_rows(simulated.served))
    if simulated.never_shown:
        columns = (
            "policy (clicks per user)",
            "users",
            "IPS",
            "self-normalised",
            "doubly robust",
            "truth",
        )
        _print_table("Off-policy evaluation", columns, [_never_shown_row(one) for one in simulated.never_shown])


def show_slot(simulated: SlotSimulated) -> None:
    """Cost and regret of every policy, and off-policy estimates from the slot's log beside the truth."""
    terminal.out.print(
        f"{simulated.users:,} simulated users in {simulated.days} days, {simulated.stations} stations; the oracle, "
        f"which knows every rate, would get {simulated.oracle_clicks:,.0f} clicks"
    )
    rows = [
        (one.policy, f"{one.clicks:,.0f}", f"{one.regret:,.0f}", f"{one.given_up:.1%}", f"{one.newest:.1%}")
        for one in simulated.policies
    ]
    title = "Expected clicks, and regret: clicks fewer than the oracle"
    _print_table(title, ("policy", "clicks", "regret", "given up", "new stations"), rows)
    terminal.out.print(
        "\ngiven up: share of the best station's clicks, by the knowledge at the time; new stations: share of users "
        "who saw one in its first week"
    )
    weeks = [(one.policy, *(f"{week:,.0f}" for week in one.regret_by_week)) for one in simulated.policies]
    _print_table("Regret by week", ("policy", *map(str, range(1, len(weeks[0])))), weeks)
    new = [
        (
            f"day {one.day + 1}",
            f"{one.shown:,}",
            f"{one.shown_by_greedy:,}",
            f"{one.rate:.2%}",
            f"{one.rate_by_greedy:.2%}",
            f"{one.truth:.2%}",
        )
        for one in simulated.new_stations
    ]
    learned = ("from", "users, slot", "users, greedy", "rate, slot", "rate, greedy", "truth")
    _print_table("What was learned about new stations: click rate if all users saw them", learned, new)
    estimates = [_never_shown_row(one) for one in simulated.off_policy]
    title = f"Off-policy evaluation from the log of the {simulated.policies[0].policy}"
    columns = ("policy", "users", "IPS", "self-normalised", "truth")
    _print_table(title, columns, [(*row[:4], row[-1]) for row in estimates])


def measured_rows(simulated: Simulated) -> list[tuple[str, ...]]:
    """Means of each metric by arm, the lift with its interval, and the true lift (the same for both)."""
    rows = []
    for measured in simulated.verdict.metrics:
        lift = measured.beside_control[0].lift
        binary = measured.kind == "binary"
        means = (_mean(value, binary) for value in (lift.control, lift.treatment))
        name = "clicks" if binary else "seconds listened"
        ends = f"{signed_percent(lift.relative.low)} to {signed_percent(lift.relative.high)}"
        rows.append((name, *means, signed_percent(lift.relative.value), ends, signed_percent(simulated.truth.lift)))
    return rows


def served_rows(served: Served) -> list[tuple[str, ...]]:
    """Counts, rate and latency, as text."""
    return [
        ("recommendations", f"{served.recommendations:,}"),
        ("events", f"{served.events:,}"),
        ("errors", f"{served.errors:,}"),
        ("recommendations/s", f"{served.a_second:,.0f}"),
        (f"latency p50, {served.connections} at a time", f"{served.p50_ms:.1f} ms"),
        (f"latency p99, {served.connections} at a time", f"{served.p99_ms:.1f} ms"),
    ]


def _never_shown_row(policy: NeverShown) -> tuple[str, ...]:
    back = policy.lookback
    robust = back.doubly_robust
    estimates = (back.ips.value, back.self_normalised.value, robust.value if robust else None)
    return policy.policy, f"{back.support:.0%}", *map(estimate_text, estimates), _truth(policy.truth)


def _truth(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"


def estimate_text(estimate: Estimate | None) -> str:
    """A share with the half-width of its interval, both in percent."""
    if estimate is None or estimate.value is None:
        return "-"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.2%}, no interval"
    return f"{estimate.value:.2%} ±{(estimate.high - estimate.low) * 50:.2f}"


def _mean(value: float | None, share: bool) -> str:
    return "-" if value is None else f"{value:.3%}" if share else f"{value:.1f}"


def _print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    shown = terminal.table("", *columns)
    shown.columns[-1].no_wrap = False  # the note of a row may wrap
    for row in rows:
        shown.add_row(*row)
    if rows:
        terminal.out.print(f"\n{title}", style="italic")
        terminal.out.print(shown)
