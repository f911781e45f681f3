"""What the check found, as plain data: for a reader, for a program, and as an exit status."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

import msgspec

from firstspin.tools.sagemaker_check.facts import FACTS, PROMISED, Fact, Severity


class FactOutcome(StrEnum):
    PASS = "pass"
    MISS = "miss"
    UNTESTABLE = "not testable here"


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of one fact; `detail` gives the figure or the reason."""

    outcome: FactOutcome
    detail: str


@dataclass(frozen=True, slots=True)
class FactResult:
    fact: Fact
    finding: Finding


@dataclass(frozen=True, slots=True)
class Report:
    """Every fact of the contract in order, each with its finding; `subject` is the command or the address checked.

    `left` is the check's folder where it could not be removed, and empty where it was.
    """

    subject: str
    results: tuple[FactResult, ...]
    left: str = ""

    def of(self, outcome: FactOutcome) -> tuple[FactResult, ...]:
        return tuple(result for result in self.results if result.finding.outcome == outcome)

    @property
    def broken(self) -> tuple[FactResult, ...]:
        """The misses that cost something: of facts that are required or expected."""
        return tuple(result for result in self.of(FactOutcome.MISS) if result.fact.severity != Severity.OPTIONAL)


def passed(detail: str) -> Finding:
    return Finding(FactOutcome.PASS, detail)


def missed(detail: str) -> Finding:
    return Finding(FactOutcome.MISS, detail)


def untestable(why: str) -> Finding:
    return Finding(FactOutcome.UNTESTABLE, why)


def judged(holds: bool, detail: str) -> Finding:
    """A pass where it holds, a miss where not, with the same figure."""
    return passed(detail) if holds else missed(detail)


def assemble(subject: str, findings: Mapping[str, Finding], *, left: str = "") -> Report:
    """All facts in the contract's order with what was found; facts beyond any container carry their own reason.

    An optional fact is expected where the image's label promises it.
    """
    kept = {fact for fact, label in PROMISED.items() if findings[label].outcome == FactOutcome.PASS}
    facts = [replace(fact, severity=Severity.EXPECTED) if fact.number in kept else fact for fact in FACTS]
    return Report(
        subject,
        tuple(FactResult(fact, untestable(fact.beyond) if fact.beyond else findings[fact.number]) for fact in facts),
        left,
    )


def exit_status(report: Report) -> int:
    """0 where nothing required or expected is missed, else 1. What could not be tested is not a miss."""
    return int(bool(report.broken))


def summary(report: Report) -> str:
    counts = ", ".join(f"{len(report.of(outcome))} {outcome}" for outcome in FactOutcome)
    optional = len(report.of(FactOutcome.MISS)) - len(report.broken)
    return f"{report.subject}: {counts}" + (f" ({optional} of the misses optional)" if optional else "")


def as_text(report: Report) -> str:
    """A table for the terminal, a line a fact, misses marked so that the eye finds them."""
    marks = {FactOutcome.PASS: "  ", FactOutcome.MISS: "✗ ", FactOutcome.UNTESTABLE: "· "}
    lines = [
        f"{marks[r.finding.outcome]}{r.fact.number:<5} {r.finding.outcome:<17} {r.fact.severity:<8} {r.fact.title}"
        + (f": {r.finding.detail}" if r.finding.detail else "")
        for r in report.results
    ]
    return "\n".join([*lines, "", summary(report)])


def as_markdown(report: Report) -> str:
    """The table as it stands in docs/sagemaker-check.md, without the facts no container can be asked about."""
    lines = ["| fact | what SageMaker relies on | if missing | outcome | found |", "|---|---|---|---|---|"]
    for result in report.results:
        if not result.fact.beyond:
            outcome = (
                f"**{result.finding.outcome}**"
                if result.finding.outcome == FactOutcome.MISS
                else result.finding.outcome
            )
            cells = (result.fact.number, result.fact.title, result.fact.severity, outcome, result.finding.detail)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def as_json(report: Report) -> bytes:
    """The same for a program: `{"subject", "exit_status", "results": [{"fact", "title", ...}]}`."""
    results = [
        {
            "fact": result.fact.number,
            "title": result.fact.title,
            "source": result.fact.source,
            "severity": result.fact.severity,
            "outcome": result.finding.outcome,
            "detail": result.finding.detail,
        }
        for result in report.results
    ]
    return msgspec.json.encode({"subject": report.subject, "exit_status": exit_status(report), "results": results})
