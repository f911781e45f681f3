"""The sections on models: metrics, cohorts, calibration, confusion, and the value of questions."""

from __future__ import annotations

from typing import Final

import numpy as np

from firstspin.evaluation.ablation import Study
from firstspin.evaluation.metrics import HEADLINE, RULE
from firstspin.evaluation.report import charts
from firstspin.evaluation.report.parts import (
    HtmlTable,
    Material,
    Note,
    PageSection,
    Picture,
    percent,
    points,
    relative,
    with_interval,
)
from firstspin.evaluation.report.patterns import Grid
from firstspin.evaluation.scorecard import BASELINES, METRICS, Confusion, Reliability, Scorecard

IN_WORDS: Final = {
    "overall": "popular overall",
    "single_pick": "most popular pick",
    RULE: "picks by popularity",
    "age_gender": "popular by age and gender",
}
QUESTION: Final = {"genres": "genres picked"}
CELLS, FEW_CELLS = 20, 9


def sections(material: Material) -> list[PageSection]:
    """The sections of metrics on held-out users."""
    card = material.card
    return [
        PageSection("ladder", "Model comparison", (_ladder(card), _ladder_table(card), *_lifts(card))),
        PageSection("segments", "Accuracy by cohort", _segments(card)),
        PageSection("calibration", "Calibration and confusion", (_calibration(card), _confusion(card))),
        PageSection("questions", "Value of each question (ablation)", _questions(card.questions)),
    ]


def named(model: str) -> str:
    """A baseline in words, a model by its name."""
    return IN_WORDS.get(model, model)


def _ladder(card: Scorecard) -> Picture:
    ordered = sorted(card.figures, key=lambda name: card.figures[name][HEADLINE].value)
    kinds = {True: "baseline", False: "model"}
    rows = [
        charts.row_of(card.figures[name][HEADLINE], model=named(name), kind=kinds[name in BASELINES])
        for name in ordered
    ]
    best = card.figures[card.best][HEADLINE]
    title = f"{named(card.best)} has a hit@3 of {percent(best.value, 1)}"
    text = (
        f"hit@3 (the share of users whose top genre is among the first three) with 95% intervals; n = {card.people:,} "
        f"held-out users ({card.protocol.get('protocol')})."
    )
    if card.ceiling:
        text += (
            f" The dashed line is the Bayes-optimal hit@3 under the simulated ground truth, "
            f"{percent(card.ceiling.best.value, 1)}."
        )
    listed = "; ".join(f"{named(name)} {card.figures[name][HEADLINE].value:.3f}" for name in ordered)
    line = card.ceiling.best.value if card.ceiling else None
    return Picture(
        title=title,
        text=text,
        alt=f"Points with intervals, hit@3 by model: {listed}.",
        draw=lambda width: charts.intervals(
            rows, width, y="model", series="kind", title="hit@3", line=line, side_by_side=False
        ),
    )


def _ladder_table(card: Scorecard) -> HtmlTable:
    header = ("model", *METRICS, *(("fraction of Bayes-optimal",) if card.ceiling else ()))
    rows = [
        (
            named(name),
            *(with_interval(figures[metric]) for metric in METRICS),
            *((f"{percent(card.ceiling.share[name].value, 1)}",) if card.ceiling else ()),
        )
        for name, figures in card.figures.items()
    ]
    return HtmlTable("All metrics, ± half-width of the 95% interval", header, tuple(rows))


def _lifts(card: Scorecard) -> list[HtmlTable]:
    lifts = card.lifts.get(card.best, {})
    rows = tuple(
        (named(base), points(lift[HEADLINE].difference), relative(lift[HEADLINE].relative))
        for base, lift in lifts.items()
    )
    return (
        [HtmlTable(f"Lift of {card.best} in hit@3, paired by user", ("over", "difference", "relative"), rows)]
        if rows
        else []
    )


def _segments(card: Scorecard) -> tuple[Picture | Note, ...]:
    kinds = list(dict.fromkeys(segment.by for segment in card.segments))
    if not kinds:
        return (Note("There are too few users to compare cohorts."),)
    return tuple(_segment(card, by) for by in kinds)


def _segment(card: Scorecard, by: str) -> Picture:
    these = [segment for segment in card.segments if segment.by == by]
    rows = []
    for segment in these:
        group = f"{segment.name} ({segment.people:,})"
        for model in (card.best, RULE) if RULE in segment.figures and card.best != RULE else (card.best,):
            rows.append(charts.row_of(segment.figures[model], group=group, model=named(model)))
    high = max(these, key=lambda segment: segment.figures[card.best].value)
    low = min(these, key=lambda segment: segment.figures[card.best].value)
    word = {"picks": "number of picks", "month": "month of registration", "year": "year of registration"}.get(by, by)
    worst, best = (percent(segment.figures[card.best].value) for segment in (low, high))
    title = f"hit@3 by {word}: from {worst} ({low.name}) to {best} ({high.name})"
    if card.best != RULE and RULE in these[0].lifts:
        ahead = sum(segment.lifts[RULE].difference.low > 0 for segment in these)
        cohorts = f"{'all' if ahead == len(these) else f'{ahead} of'} {len(these)} cohorts"
        title += f"; significantly above the business rule in {cohorts}"
    return Picture(
        title=title,
        text=f"hit@3 of {named(card.best)} and of the business rule (picks by popularity), with 95% intervals; the "
        "number of users in brackets.",
        alt=f"Points with intervals, hit@3 by cohort. {title}.",
        draw=lambda width: charts.intervals(rows, width, y="group", series="model", title="hit@3"),
    )


def _calibration(card: Scorecard) -> Picture:
    calibration: Reliability = card.reliability[card.best]
    low, high = calibration.luck
    if calibration.error <= high:
        finding = "well calibrated"
    else:
        finding = "over-confident" if calibration.excess.value > 0 else "under-confident"
    return Picture(
        title=f"{named(card.best)} is {finding}: calibration error {calibration.error * 100:.1f} points",
        text="Users in ten bins by the probability of their first genre; on the line, probability and share of hits "
        f"agree. With perfect calibration, the error on as many users would be {low * 100:.1f} to {high * 100:.1f} "
        "points.",
        alt="Points near a diagonal: "
        + "; ".join(f"probability {percent(b['chance'])}, hits {percent(b['hit_rate'])}" for b in calibration.bins)
        + ".",
        draw=lambda width: charts.reliability(calibration.bins, width),
    )


def _confusion(card: Scorecard) -> Picture | Note:
    if card.confusion is None or len(card.confusion.genres) < 2:
        return Note("There are too few genres for a confusion matrix.")
    confusion = card.confusion
    grid = _confusion_grid(confusion)
    counts = np.array(confusion.counts)[:, :-1].copy()
    np.fill_diagonal(counts, 0)
    i, j = np.unravel_index(int(counts.argmax()), counts.shape)
    title = f"The most frequent error: {confusion.genres[j]} first for users whose top genre is {confusion.genres[i]}"
    return Picture(
        title=title,
        text="Confusion matrix: of the users whose top genre is that of the row, the share for whom the genre of the "
        "column is ranked first.",
        alt=f"Heat map of top genre against first genre. {title} ({counts[i, j]:,} users).",
        draw=lambda width: charts.heat_map(
            grid.first(*((FEW_CELLS,) * 2 if width < charts.SMALL else (CELLS,) * 2)),
            width,
            down="top genre",
            across="ranked first",
            legend="share of the row",
            form=".0%",
        ),
    )


def _confusion_grid(confusion: Confusion) -> Grid:
    counts = np.array(confusion.counts, dtype=np.float64)
    people = counts.sum(axis=1)
    order = [int(i) for i in np.argsort(-people, kind="stable") if people[i]]
    shares = counts[np.ix_(order, order)] / people[order][:, None]
    names = tuple(confusion.genres[i] for i in order)
    return Grid(names, names, shares, tuple(int(people[i]) for i in order))


def _questions(study: Study | None) -> tuple[Picture | HtmlTable | Note, ...]:
    if study is None or not study.questions:
        return (Note("The value of questions was not measured: firstspin evaluate --questions does."),)
    lost = [
        charts.row_of(question.lost, question=QUESTION.get(question.name, question.name), of="lost")
        for question in study.questions
    ]
    bare = charts.row_of(study.demographics_lost, question="age and gender", of="lost")
    lost += [bare] if {"age", "gender"} <= {question.name for question in study.questions} else []
    top = max(study.questions, key=lambda question: question.lost.value)
    clear = [question for question in study.questions if question.lost.low > 0]
    rest = [question.name for question in study.questions if question.lost.low <= 0]
    title = (
        f"Without {top.name}, hit@3 falls by {top.lost.value * 100:.1f} points"
        if clear
        else "No single question has a significant effect on hit@3"
    )
    title += f"; no significant effect of {', '.join(rest)}" if rest and clear else ""
    picture = Picture(
        title=title,
        text=f"hit@3 lost when {study.model} is trained without a question, over all {study.people:,} held-out users, "
        "with 95% intervals. Below zero: the model is better without the question.",
        alt="Points with intervals, hit@3 lost without each question: "
        + "; ".join(f"{row['question']} {float(row['value']):+.3f}" for row in lost)
        + ".",
        draw=lambda width: charts.intervals(
            lost, width, y="question", series="of", title="hit@3 lost", form="+.2f", line=0.0
        ),
    )
    return (picture, _changes(study), *_gaps(study))


def _changes(study: Study) -> Picture:
    ways = (("withheld", "withheld"), ("another user's answer", "changed"))
    rows = [
        charts.row_of(getattr(question, way), question=QUESTION.get(question.name, question.name), answer=words)
        for question in study.questions
        for words, way in ways
        if question.answered
    ]
    top = max(study.questions, key=lambda question: question.withheld.value if question.answered else -1)
    title = f"Withholding {top.name} changes the first three genres of {percent(top.withheld.value)} of the users"
    return Picture(
        title=title,
        text="Share of the users who answered whose set of first three genres changes when one answer is withheld, or "
        "replaced by a different answer of another user.",
        alt=f"Points with intervals by question. {title}.",
        draw=lambda width: charts.intervals(
            rows, width, y="question", series="answer", title="first three change", form=".0%"
        ),
    )


def _gaps(study: Study) -> list[HtmlTable | Note]:
    bare = {gap.by: gap for gap in study.gaps_without_demographics}
    rows = tuple(
        (gap.by, gap.best, gap.worst, points(gap.distance), points(bare[gap.by].distance)) for gap in study.gaps
    )
    header = ("cohorts by", "best", "worst", "gap in hit@3", "gap without age and gender")
    return [HtmlTable("Gaps between cohorts of at least 50 users", header, rows)] if rows else []
