"""The report of a check as plain data: text, Markdown, JSON and exit status."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

import msgspec

from firstspin.tools.sagemaker_check.facts import FACTS, PROMISED, Fact, Severity


class FactOutcome(StrEnum):
    """The outcome of one fact."""

    PASS = "pass"
    MISS = "miss"
    UNTESTABLE = "not testable here"


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one fact; `detail` is the measured value or the reason."""

    outcome: FactOutcome
    detail: str


@dataclass(frozen=True, slots=True)
class FactResult:
    """A fact and its finding."""

    fact: Fact
    finding: Finding


@dataclass(frozen=True, slots=True)
class Report:
    """Every fact of the contract in order, with its finding; `subject` is the checked command or URL.

    `left` is the check's temporary folder where it could not be removed; empty otherwise.
    """

    subject: str
    results: tuple[FactResult, ...]
    left: str = ""

    def of(self, outcome: FactOutcome) -> tuple[FactResult, ...]:
        """The results with this outcome."""
        return tuple(result for result in self.results if result.finding.outcome == outcome)

    @property
    def broken(self) -> tuple[FactResult, ...]:
        """The misses of required and expected facts."""
        return tuple(result for result in self.of(FactOutcome.MISS) if result.fact.severity != Severity.OPTIONAL)


def passed(detail: str) -> Finding:
    """A fulfilled fact."""
    return Finding(FactOutcome.PASS, detail)


def missed(detail: str) -> Finding:
    """A violated fact."""
    return Finding(FactOutcome.MISS, detail)


def untestable(why: str) -> Finding:
    """A fact that can't be tested here, and why."""
    return Finding(FactOutcome.UNTESTABLE, why)


def judged(holds: bool, detail: str) -> Finding:
    """A pass where `holds`, otherwise a miss, with the same detail."""
    return passed(detail) if holds else missed(detail)


def assemble(subject: str, findings: Mapping[str, Finding], *, left: str = "") -> Report:
    """The report of all facts in the contract's order; facts outside any container have their own reason.

    An optional fact is expected where the image's label declares it.
    """
    declared = {fact for fact, label in PROMISED.items() if findings[label].outcome == FactOutcome.PASS}
    facts = [replace(fact, severity=Severity.EXPECTED) if fact.number in declared else fact for fact in FACTS]
    return Report(
        subject,
        tuple(FactResult(fact, untestable(fact.beyond) if fact.beyond else findings[fact.number]) for fact in facts),
        left,
    )


def exit_status(report: Report) -> int:
    """0 without misses of required or expected facts, else 1. Untestable facts are not misses."""
    return int(bool(report.broken))


def summary(report: Report) -> str:
    """One line with the number of facts by outcome."""
    counts = ", ".join(f"{len(report.of(outcome))} {outcome}" for outcome in FactOutcome)
    optional = len(report.of(FactOutcome.MISS)) - len(report.broken)
    return f"{report.subject}: {counts}" + (f" ({optional} of the misses optional)" if optional else "")


def as_text(report: Report) -> str:
    """A table for the terminal, one line per fact, with marks at misses and untestable facts."""
    marks = {FactOutcome.PASS: "  ", FactOutcome.MISS: "✗ ", FactOutcome.UNTESTABLE: "· "}
    lines = [
        f"{marks[r.finding.outcome]}{r.fact.number:<5} {r.finding.outcome:<17} {r.fact.severity:<8} {r.fact.title}"
        + (f": {r.finding.detail}" if r.finding.detail else "")
        for r in report.results
    ]
    return "\n".join([*lines, "", summary(report)])


def as_markdown(report: Report) -> str:
    """The table of docs/sagemaker-check.md, without the facts outside any container."""
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
    """The report as JSON: `{"subject", "exit_status", "results": [{"fact", "title", ...}]}`."""
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
