"""The section on an A/B test: the result of `firstspin experiment analyse --json` or `simulate --json`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from firstspin.evaluation.report import charts
from firstspin.evaluation.report.parts import ExperimentResult, HtmlTable, Note, PageSection, Part, Picture
from firstspin.experiment.stats.lift import Estimate
from firstspin.experiment.verdict import Beside, MetricResult, level_words, p_words, signed_percent
from firstspin.records import InputError


def read_test_result(path: Path) -> ExperimentResult:
    """The result in a JSON file of `experiment analyse` or `simulate`. Raises InputError where it is another file."""
    try:
        content = msgspec.json.decode(path.read_bytes())
        verdict = content.get("verdict", content) if isinstance(content, dict) else content
        return msgspec.convert(verdict, ExperimentResult)
    except (msgspec.MsgspecError, UnicodeDecodeError) as problem:
        raise InputError(
            f"{path} is not a result of firstspin experiment analyse --json or simulate --json ({problem})"
        ) from None


def section(result: ExperimentResult) -> PageSection:
    """The decision, the lift of each metric as a chart and a table, and the warnings."""
    compared = list(_compared(result))
    parts: list[Part] = []
    rows: list[charts.Row] = [
        {"of": f"{metric.metric}: {_against(result, beside)}", "kind": metric.role, **_ends(beside.lift.relative)}
        for metric, beside in compared
        if _is_drawn(beside.lift.relative)
    ]
    if rows:
        level = 100 * (1 - min(beside.lift.alpha for _, beside in compared))
        parts.append(
            Picture(
                title=result.sentence,
                text="Relative lift of each metric with its confidence interval at the level of its test, up to "
                f"{level:.4g}%: the table has the levels. An interval across the dashed line shows no difference.",
                alt=f"Points with intervals, relative lift by metric and arm. {result.sentence}",
                draw=lambda width: charts.intervals(
                    rows,
                    width,
                    y="of",
                    series="kind",
                    title="relative lift",
                    form="+.0%",
                    line=0.0,
                    side_by_side=False,
                ),
            )
        )
    else:
        parts.append(Note(result.sentence))
    header = ("metric", "arms", "means", "relative lift", "interval", "p-value", "result")
    parts.append(HtmlTable(_sizes(result), header, tuple(_row(result, *pair) for pair in compared)))
    return PageSection("experiment", "A/B test", (*parts, *(Note(f"Warning: {one}") for one in result.warnings)))


def _compared(result: ExperimentResult) -> Iterator[tuple[MetricResult, Beside]]:
    for metric in result.metrics:
        for beside in (*metric.beside_control, *metric.between_treatments):
            yield metric, beside


def _against(result: ExperimentResult, beside: Beside) -> str:
    return f"{beside.arm} against {beside.against or result.control}"


def _is_drawn(relative: Estimate) -> bool:
    return None not in (relative.value, relative.low, relative.high)


def _ends(relative: Estimate) -> dict[str, charts.Value]:
    return {"value": relative.value or 0.0, "low": relative.low or 0.0, "high": relative.high or 0.0}


def _row(result: ExperimentResult, metric: MetricResult, beside: Beside) -> tuple[str, ...]:
    lift = beside.lift
    relative = lift.relative
    interval = "undefined"
    if relative.low is not None or relative.high is not None:
        low, high = ("unbounded" if end is None else signed_percent(end) for end in (relative.low, relative.high))
        interval = f"{low} to {high} ({100 * (1 - lift.alpha):.4g}%)"
    shown = "difference shown" if beside.significant else "undecided"
    if beside.non_inferiority is not None:
        kept = beside.non_inferiority.shown
        shown = f"a loss of {beside.non_inferiority.margin:.0%} is {'' if kept else 'not '}ruled out"
    return (
        f"{metric.metric} ({metric.role})",
        _against(result, beside),
        level_words(metric.kind, lift.control, lift.treatment),
        signed_percent(relative.value),
        interval,
        p_words(lift.p_value),
        shown,
    )


def _sizes(result: ExperimentResult) -> str:
    return "Users: " + ", ".join(f"{n:,} in {arm}" for arm, n in result.users.items())
