"""The section on early listens: the curve of `firstspin evaluate --listens`."""

from __future__ import annotations

from typing import Final

from firstspin.evaluation.learning_curve import LOSS
from firstspin.evaluation.listens_curve import EVIDENCE, MODEL, STRATEGIES, SWITCH_AT, ListensCurve
from firstspin.evaluation.metrics import HEADLINE
from firstspin.evaluation.report import charts
from firstspin.evaluation.report.parts import Note, PageSection, Part, Picture
from firstspin.evaluation.report.quality import BY
from firstspin.models.predictor import in_words

NAMES: Final = {
    EVIDENCE: "model with evidence",
    MODEL: "model alone",
    "history": "history alone",
    "switch": f"history from {SWITCH_AT} listens on",
}
TIMES: Final = ("month", "year")


def section(curve: ListensCurve) -> PageSection:
    """hit@3 and log loss of each strategy by the number of early listens, by group after the last number."""
    last = curve.points[-1]
    with_listens, alone = (last.figures[name] for name in (EVIDENCE, MODEL))
    listens = f"after {last.listens} listens" if last.listens != 1 else "after one listen"
    of_hits = (
        f"{in_words(curve.model)} with evidence has a hit@3 of {with_listens[HEADLINE].value:.1%} {listens}, "
        f"{alone[HEADLINE].value:.1%} without"
    )
    of_loss = f"Its log loss is {with_listens[LOSS].value:.2f} {listens}, {alone[LOSS].value:.2f} without"
    parts: list[Part] = [
        _picture(curve, HEADLINE, of_hits, ".0%"),
        _picture(curve, LOSS, of_loss, ".2f"),
        Note(curve.sentence()),
    ]
    return PageSection("listens", "Number of early listens", (*parts, *_groups(curve, listens)))


def _picture(curve: ListensCurve, metric: str, title: str, form: str) -> Picture:
    rows = [
        {**charts.row_of(point.figures[name][metric], strategy=NAMES[name]), "listens": point.listens}
        for name in STRATEGIES
        for point in curve.points
    ]
    optimal = [point for point in curve.points if point.optimum] if metric == HEADLINE else []
    line = [{"listens": point.listens, "value": point.optimum.value} for point in optimal if point.optimum]
    values = "; ".join(f"{row['strategy']} after {row['listens']} {row['value']:.3f}" for row in rows)
    words = metric.replace("_", " ")
    text = (
        f"{words} on {curve.held_out:,} held-out users who have early listens, with 95% intervals, by the number of "
        "their first listens that are known (logarithmic scale)."
    )
    if line:
        text += " The dashed line is the Bayes-optimal hit@3 given answers and listens, under the simulated truth."
        values += "; " + "; ".join(f"optimum after {row['listens']} {row['value']:.3f}" for row in line)
    return Picture(
        title=title,
        text=text,
        alt=f"Lines with intervals, {words} by number of early listens: {values}.",
        draw=lambda width: charts.by_size(
            rows, width, x="listens", series="strategy", title=words, form=form, across="early listens", line=line
        ),
    )


def _groups(curve: ListensCurve, listens: str) -> list[Part]:
    """hit@3 of evidence minus that of the better parent; groups by time are left to the JSON file."""
    groups = [group for group in curve.groups if group.by not in TIMES]
    if not groups:
        return []
    rows = [
        charts.row_of(
            group.points[-1].over_better[HEADLINE], group=f"{BY.get(group.by, group.by)}: {group.name}", kind=""
        )
        for group in groups
    ]
    values = "; ".join(f"{row['group']} {row['value']:+.3f}" for row in rows)
    behind = sum(bool(one.by) and one.by not in TIMES for one in curve.worse)
    picture = Picture(
        title=f"Gain of evidence over the better of model and history alone by group, {listens}",
        text=f"hit@3 of the model with evidence minus that of the better of model and history alone in {len(groups)} "
        f"groups of held-out users, with 95% intervals that are not corrected for their number. After that correction "
        f"evidence is worse in {behind or 'no'} place{'s' if behind > 1 else ''}.",
        alt=f"Points with intervals, difference in hit@3 by group: {values}.",
        draw=lambda width: charts.intervals(
            rows,
            width,
            y="group",
            series="kind",
            title="difference in hit@3",
            form="+.0%",
            line=0.0,
            side_by_side=False,
        ),
    )
    return [picture]
