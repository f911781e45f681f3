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
    """The sections measured on held-out users."""
    card = material.card
    return [
        PageSection("ladder", "How good the models are", (_ladder(card), _ladder_table(card), *_lifts(card))),
        PageSection("segments", "For whom it works", _segments(card)),
        PageSection("calibration", "Whether its probabilities can be believed", (_calibration(card), _confusion(card))),
        PageSection("questions", "What each question buys", _questions(card.questions)),
    ]


def named(model: str) -> str:
    """A baseline in words, a model by its name."""
    return IN_WORDS.get(model, model)


def _ladder(card: Scorecard) -> Picture:
    ordered = sorted(card.figures, key=lambda name: card.figures[name][HEADLINE].value)
    kinds = {True: "a rule anyone can follow", False: "a model"}
    rows = [
        charts.row_of(card.figures[name][HEADLINE], model=named(name), kind=kinds[name in BASELINES])
        for name in ordered
    ]
    best = card.figures[card.best][HEADLINE]
    title = f"{named(card.best)} finds the favourite among its first three for {percent(best.value, 1)} of newcomers"
    text = (
        f"hit@3 with 95% intervals: {card.people:,} people, each asked of models that had not seen them "
        f"({card.protocol.get('protocol')})."
    )
    if card.ceiling:
        text += (
            f" The dashed line is the best possible under the simulated truth, {percent(card.ceiling.best.value, 1)}."
        )
    said = "; ".join(f"{named(name)} {card.figures[name][HEADLINE].value:.3f}" for name in ordered)
    line = card.ceiling.best.value if card.ceiling else None
    return Picture(
        title=title,
        text=text,
        alt=f"Points with intervals, hit@3 by model: {said}.",
        draw=lambda width: charts.intervals(
            rows, width, y="model", series="kind", title="hit@3", line=line, side_by_side=False
        ),
    )


def _ladder_table(card: Scorecard) -> HtmlTable:
    header = ("model", *METRICS, *(("of the best possible",) if card.ceiling else ()))
    rows = [
        (
            named(name),
            *(with_interval(figures[metric]) for metric in METRICS),
            *((f"{percent(card.ceiling.share[name].value, 1)}",) if card.ceiling else ()),
        )
        for name, figures in card.figures.items()
    ]
    return HtmlTable("All figures, ± half the 95% interval", header, tuple(rows))


def _lifts(card: Scorecard) -> list[HtmlTable]:
    lifts = card.lifts.get(card.best, {})
    rows = tuple(
        (named(base), points(lift[HEADLINE].difference), relative(lift[HEADLINE].relative))
        for base, lift in lifts.items()
    )
    return (
        [HtmlTable(f"Lift of {card.best} in hit@3, paired by person", ("over", "difference", "relative"), rows)]
        if rows
        else []
    )


def _segments(card: Scorecard) -> tuple[Picture | Note, ...]:
    kinds = list(dict.fromkeys(segment.by for segment in card.segments))
    if not kinds:
        return (Note("There are too few people here to look at groups."),)
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
    said = f"By {word}, it finds the favourite of {worst} ({low.name}) to {best} ({high.name})"
    if card.best != RULE and RULE in these[0].lifts:
        sure = sum(segment.lifts[RULE].difference.low > 0 for segment in these)
        said += f"; surely ahead of the rule in {'all' if sure == len(these) else f'{sure} of'} {len(these)} groups"
    return Picture(
        title=said,
        text=f"hit@3 of {named(card.best)} and of the rule (picks by popularity); in brackets how many people. Wide "
        "intervals mean few people.",
        alt=f"Points with intervals, hit@3 by group. {said}.",
        draw=lambda width: charts.intervals(rows, width, y="group", series="model", title="hit@3"),
    )


def _calibration(card: Scorecard) -> Picture:
    found: Reliability = card.reliability[card.best]
    low, high = found.luck
    if found.error <= high:
        said = "can be taken at their word"
    else:
        said = "promise too much" if found.excess.value > 0 else "promise too little"
    return Picture(
        title=f"Its probabilities {said}: off by {found.error * 100:.1f} points on average",
        text="People in ten groups by the chance their first genre was given; the line is where chance and outcome "
        "agree. Perfect "
        f"probabilities would still seem off by {low * 100:.1f} to {high * 100:.1f} points on so many people.",
        alt="Points near a diagonal: "
        + "; ".join(f"given {percent(b['chance'])}, right {percent(b['hit_rate'])}" for b in found.bins)
        + ".",
        draw=lambda width: charts.reliability(found.bins, width),
    )


def _confusion(card: Scorecard) -> Picture | Note:
    if card.confusion is None or len(card.confusion.genres) < 2:
        return Note("There are too few genres here to mistake one for another.")
    confusion = card.confusion
    grid = _confusion_grid(confusion)
    counts = np.array(confusion.counts)[:, :-1].copy()
    np.fill_diagonal(counts, 0)
    i, j = np.unravel_index(int(counts.argmax()), counts.shape)
    said = (
        f"Its commonest mistake is to show {confusion.genres[j]} first to people who come to love {confusion.genres[i]}"
    )
    return Picture(
        title=said,
        text="Of those whose favourite became the genre of a row, the share who were shown the genre of a column "
        "first.",
        alt=f"Heat map of favourite against first genre shown. {said} ({counts[i, j]:,} people).",
        draw=lambda width: charts.heat_map(
            grid.first(*((FEW_CELLS,) * 2 if width < charts.SMALL else (CELLS,) * 2)),
            width,
            down="favourite",
            across="shown first",
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
        return (Note("What questions buy was not measured here: firstspin evaluate --questions does."),)
    lost = [
        charts.row_of(question.lost, question=QUESTION.get(question.name, question.name), of="lost")
        for question in study.questions
    ]
    bare = charts.row_of(study.demographics_lost, question="age and gender", of="lost")
    lost += [bare] if {"age", "gender"} <= {question.name for question in study.questions} else []
    most = max(study.questions, key=lambda question: question.lost.value)
    clear = [question for question in study.questions if question.lost.low > 0]
    rest = [question.name for question in study.questions if question.lost.low <= 0]
    said = (
        f"Asking for {most.name} buys {most.lost.value * 100:.1f} hits in 100 newcomers"
        if clear
        else "No single question buys hits beyond doubt"
    )
    said += f"; no gain is certain from {', '.join(rest)}" if rest and clear else ""
    picture = Picture(
        title=said,
        text=f"hit@3 lost when {study.model} is trained without a question, over all {study.people:,} people, with "
        "95% intervals. "
        "Left of zero: the model does better without it.",
        alt="Points with intervals, hit@3 lost without each question: "
        + "; ".join(f"{row['question']} {float(row['value']):+.3f}" for row in lost)
        + ".",
        draw=lambda width: charts.intervals(
            lost, width, y="question", series="of", title="hit@3 lost", form="+.2f", line=0.0
        ),
    )
    return (picture, _changes(study), *_gaps(study))


def _changes(study: Study) -> Picture:
    ways = (("not given", "withheld"), ("somebody else's answer", "changed"))
    rows = [
        charts.row_of(getattr(question, way), question=QUESTION.get(question.name, question.name), answer=words)
        for question in study.questions
        for words, way in ways
        if question.answered
    ]
    most = max(study.questions, key=lambda question: question.withheld.value if question.answered else -1)
    said = (
        f"Without their answer on {most.name}, {percent(most.withheld.value)} of those who "
        "gave it "
        "would be shown other genres"
    )
    return Picture(
        title=said,
        text="How often the set of the first three genres changes when one answer alone changes: when it is not "
        "given, and when it is "
        "that of someone else who answered differently.",
        alt=f"Points with intervals by question. {said}.",
        draw=lambda width: charts.intervals(
            rows, width, y="question", series="answer", title="first three change", form=".0%"
        ),
    )


def _gaps(study: Study) -> list[HtmlTable | Note]:
    bare = {gap.by: gap for gap in study.gaps_without_demographics}
    rows = tuple(
        (gap.by, gap.best, gap.worst, points(gap.distance), points(bare[gap.by].distance)) for gap in study.gaps
    )
    header = ("groups by", "served best", "served worst", "gap in hit@3", "gap without age and gender")
    return [HtmlTable("Gaps between groups of 50 people or more", header, rows)] if rows else []
