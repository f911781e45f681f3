"""The sections on models: metrics, cohorts, calibration, confusion, and the value of questions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import comb
from typing import Final

import numpy as np

from firstspin.evaluation.ablation import DEMOGRAPHICS, MIN_IN_GAP, Gap, QuestionValue, Study
from firstspin.evaluation.bootstrap import Figure
from firstspin.evaluation.cohorts import OTHER
from firstspin.evaluation.metrics import HEADLINE, SEEN_SHARE
from firstspin.evaluation.report import charts
from firstspin.evaluation.report.findings import (
    MIN_NAMED,
    SIMULTANEOUS,
    among,
    apart,
    is_clear,
    leaders,
    listed,
    simultaneous,
)
from firstspin.evaluation.report.parts import (
    HeatMap,
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
from firstspin.evaluation.report.patterns import Grid, has_open_windows
from firstspin.evaluation.scorecard import BASELINES, METRICS, CohortResult, Confusion, Reliability, Scorecard
from firstspin.models.predictor import RULE, in_words

IN_WORDS: Final = {
    "overall": "popular overall",
    "single_pick": "most popular pick",
    "age_gender": "popular by age and gender",
}
BY: Final = {"picks": "number of picks", "month": "month of registration", "year": "year of registration"}
QUESTION: Final = {"genres": "genres picked"}
CELLS: Final = 20


def sections(material: Material) -> list[PageSection]:
    """The sections of metrics on held-out users."""
    card = material.card
    return [
        PageSection("ladder", "Model comparison", (_ladder(card), _ladder_table(card), *_lifts(card))),
        PageSection("segments", "Accuracy by cohort", _segments(material)),
        PageSection("calibration", "Calibration and confusion", (_calibration(card), _confusion(card))),
        PageSection("questions", "Value of each question (ablation)", (*_questions(card.questions), *_gaps(card))),
    ]


def named(model: str) -> str:
    """A baseline in words, a model by its name."""
    return IN_WORDS.get(model) or in_words(model)


def measured_users(card: Scorecard) -> str:
    """Which users the figures are about, with their number."""
    if SEEN_SHARE not in card.protocol:
        return f"{card.people:,} held-out users ({card.protocol.get('protocol')})"
    seen = " on whom it was trained, so its figures are too high" if card.warning() else ""
    return f"{card.people:,} users{seen}"


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
        f"hit@3 (the share of users whose top genre is among the first three) with 95% intervals; "
        f"{measured_users(card)}."
    )
    if card.ceiling:
        text += (
            f" The dashed line is the Bayes-optimal hit@3 given the answers, under the simulated ground truth: "
            f"{percent(card.ceiling.best.value, 1)}."
        )
    values = "; ".join(f"{named(name)} {card.figures[name][HEADLINE].value:.3f}" for name in ordered)
    line = card.ceiling.best.value if card.ceiling else None
    return Picture(
        title=title,
        text=text,
        alt=f"Points with intervals, hit@3 by model: {values}.",
        draw=lambda width: charts.intervals(
            rows,
            width,
            y="model",
            series="kind",
            kinds=("model", "baseline"),
            title="hit@3",
            line=line,
            side_by_side=False,
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
        [HtmlTable(f"Lift of {named(card.best)} in hit@3, paired by user", ("over", "difference", "relative"), rows)]
        if rows
        else []
    )


def _segments(material: Material) -> tuple[Picture | Note, ...]:
    card = material.card
    kinds = list(dict.fromkeys(segment.by for segment in card.segments))
    if not kinds:
        return (Note("There are too few users to compare cohorts."),)
    lifts = cohort_lifts(card)
    return tuple(_segment(material, by, lifts) for by in kinds)


def cohort_lifts(card: Scorecard) -> dict[tuple[str, str], Figure]:
    """The lift in hit@3 over the rule in each cohort of at least MIN_NAMED users, with simultaneous intervals."""
    named = [one for one in card.segments if one.people >= MIN_NAMED and RULE in one.lifts]
    widened = simultaneous([one.lifts[RULE].difference for one in named])
    return {(one.by, one.name): figure for one, figure in zip(named, widened, strict=True)}


def _segment(material: Material, by: str, lifts: Mapping[tuple[str, str], Figure]) -> Picture:
    card = material.card
    these = [segment for segment in card.segments if segment.by == by]
    rows = []
    for segment in these:
        is_open = by in ("month", "year") and has_open_windows(segment.name, material.rule)
        group = f"{segment.name} ({segment.people:,}{', incomplete' if is_open else ''})"
        for model in (card.best, RULE) if RULE in segment.figures and card.best != RULE else (card.best,):
            rows.append(charts.row_of(segment.figures[model], group=group, model=named(model)))
    title = f"hit@3 by {BY.get(by, by)}: {_ends(card, these)}"
    text = f"hit@3 of {named(card.best)} with 95% intervals, each cohort by itself; the number of users in brackets."
    if own := [figure for (of, _), figure in lifts.items() if of == by]:
        ahead, behind = sum(figure.low > 0 for figure in own), sum(figure.high < 0 for figure in own)
        cohorts = f"{'all' if ahead == len(own) else f'{ahead} of'} {len(own)} cohorts"
        title += f"; above the business rule in {cohorts}" + (f", below it in {behind}" if behind else "")
        text += (
            f" The title compares with the business rule in cohorts of at least {MIN_NAMED} "
            f"users, by {SIMULTANEOUS} over all cohorts of this report."
        )
    return Picture(
        title=title,
        text=text,
        alt=f"Points with intervals, hit@3 by cohort. {title}.",
        draw=lambda width: charts.intervals(rows, width, y="group", series="model", title="hit@3"),
    )


def _ends(card: Scorecard, these: Sequence[CohortResult]) -> str:
    """The lowest and the highest hit@3 of the large cohorts, where they differ clearly."""
    figures = {one.name: one.figures[card.best] for one in these if one.people >= MIN_NAMED}
    if len(figures) < 2:
        return f"fewer than two cohorts of {MIN_NAMED} users"
    high = leaders({name: figure.value for name, figure in figures.items()}, 2)
    low = leaders({name: -figure.value for name, figure in figures.items()}, 2)
    if not is_clear(among(apart(figures[high[0]], figures[low[0]]), comb(len(figures), 2))):
        return "no clear difference between cohorts"
    worst, best = (percent(figures[names[0]].value) for names in (low, high))
    return f"from {worst} ({listed(low)}) to {best} ({listed(high)})"


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


def _confusion(card: Scorecard) -> HeatMap | Note:
    if card.confusion is None or len(card.confusion.genres) < 2:
        return Note("There are too few genres for a confusion matrix.")
    confusion = card.confusion
    counts = np.array(confusion.counts)[:, :-1].copy()
    np.fill_diagonal(counts, 0)
    errors = {
        f"{confusion.genres[j]} first for users whose top genre is {confusion.genres[i]}": float(counts[i, j])
        for i, j in np.argwhere(counts)
    }
    title = "No error: the first genre is the top genre of every user"
    if errors:
        frequent = leaders(errors, 0)
        word = "The most frequent error" if len(frequent) == 1 else "The most frequent errors"
        title = (
            f"{word}: {listed(frequent, 2)} ({errors[frequent[0]]:,.0f} users{' each' if len(frequent) > 1 else ''})"
        )
    return HeatMap(
        title=title,
        text="Confusion matrix: of the users whose top genre is that of the row, the share for whom the genre of the "
        "column is ranked first.",
        down="top genre",
        across="ranked first",
        grid=_confusion_grid(confusion).first(CELLS, CELLS),
        form="{:.0%}",
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
    lost += [bare] if set(DEMOGRAPHICS) <= {question.name for question in study.questions} else []
    picture = Picture(
        title=_lost_title(study),
        text=f"hit@3 lost when {named(study.model)} is trained without a question, over all {study.people:,} held-out "
        f"users, with 95% intervals, each question by itself. The title compares by {SIMULTANEOUS}. Below zero: the "
        "model is better without the question.",
        alt="Points with intervals, hit@3 lost without each question: "
        + "; ".join(f"{row['question']} {float(row['value']):+.3f}" for row in lost)
        + ".",
        draw=lambda width: charts.intervals(
            lost, width, y="question", series="of", title="hit@3 lost", form="+.2f", line=0.0
        ),
    )
    return (picture, _changes(study.questions))


def _lost_title(study: Study) -> str:
    names = [QUESTION.get(question.name, question.name) for question in study.questions]
    lost = dict(zip(names, simultaneous([question.lost for question in study.questions]), strict=True))
    rest = [name for name, figure in lost.items() if not is_clear(figure)]
    falls = {name: figure.value * 100 for name, figure in lost.items() if figure.low > 0}
    rises = [name for name, figure in lost.items() if figure.high < 0]
    if not falls:
        title = "No single question clearly raises hit@3"
    else:
        highest = leaders(falls, 1)
        each = " alike" if len(highest) > 1 else ""
        title = f"Without {listed(highest)}, hit@3 falls by {falls[highest[0]]:.1f} points{each}"
        title += f"; no clear effect of {listed(rest)}" if rest else ""
    return title + (f"; hit@3 is higher without {listed(rises)}" if rises else "")


def _changes(questions: Sequence[QuestionValue]) -> Picture:
    ways = (("withheld", "withheld"), ("another user's answer", "changed"))
    rows = [
        charts.row_of(getattr(question, way), question=QUESTION.get(question.name, question.name), answer=words)
        for question in questions
        for words, way in ways
        if question.answered
    ]
    large = {
        QUESTION.get(question.name, question.name): question.withheld.value
        for question in questions
        if question.answered >= MIN_NAMED
    }
    title = f"How often one answer changes the first three genres; no question was answered by {MIN_NAMED} users"
    if large:
        highest = leaders(large, 2)
        changed = percent(large[highest[0]])
        title = f"Withholding {listed(highest)} changes the first three genres of {changed} of the users who answered"
        title += " each" if len(highest) > 1 else ""
    return Picture(
        title=title,
        text="Share of the users who answered whose set of first three genres changes when one answer is withheld, or "
        f"replaced by a different answer of another user. The title is about questions that at least {MIN_NAMED} users "
        "answered.",
        alt=f"Points with intervals by question. {title}.",
        draw=lambda width: charts.intervals(
            rows, width, y="question", series="answer", title="first three change", form=".0%"
        ),
    )


def _gaps(card: Scorecard) -> list[HtmlTable]:
    """Best and worst cohort, with an interval that allows for their choice among all pairs of cohorts."""
    study = card.questions
    if study is None or not study.gaps:
        return []
    large = Counter(one.by for one in card.segments if one.people >= MIN_IN_GAP and one.name != OTHER)
    bare = {gap.by: gap for gap in study.gaps_without_demographics}
    asked = bool(set(DEMOGRAPHICS) & {question.name for question in study.questions})

    def corrected(gap: Gap) -> str:
        return points(among(gap.distance, comb(large[gap.by], 2)))

    rows = tuple(
        (BY.get(gap.by, gap.by), gap.best, gap.worst, corrected(gap), *([corrected(bare[gap.by])] if asked else []))
        for gap in study.gaps
    )
    header = ("cohorts by", "best", "worst", "gap in hit@3", *(["gap without age and gender"] if asked else []))
    text = (
        f"Some gap is expected by chance, since the two are chosen: the intervals allow for every pair of the cohorts "
        f"({SIMULTANEOUS})."
    )
    if asked:
        text += " Without age and gender: of that model's own best and worst cohort."
    return [HtmlTable(f"Gaps between cohorts of at least {MIN_IN_GAP} users", header, rows, text)]
