"""The section on the number of training users: the learning curve of `firstspin evaluate --curve`."""

from __future__ import annotations

from firstspin.evaluation.learning_curve import LOSS, LearningCurve
from firstspin.evaluation.metrics import HEADLINE
from firstspin.evaluation.report import charts
from firstspin.evaluation.report.parts import Note, PageSection, Part, Picture
from firstspin.models.predictor import RULE, in_words


def section(curve: LearningCurve) -> PageSection:
    """hit@3 and log loss of the model and the rule by training users, and the effect of twice as many users."""
    first, last = curve.points[0], curve.points[-1]
    begin, end = first.model[HEADLINE].value, last.model[HEADLINE].value
    of_hits = f"{in_words(curve.model)} has a hit@3 of {end:.1%} with {last.users:,} training users"
    if last is not first:
        of_hits += f", {begin:.1%} with {first.users:,}"
    parts: list[Part] = [
        _picture(curve, HEADLINE, of_hits, ".0%"),
        _picture(curve, LOSS, curve.better().removesuffix("."), ".2f"),
    ]
    parts += [Note(trend)] if (trend := curve.trend()) else []
    return PageSection("curve", "Number of training users", tuple(parts))


def _picture(curve: LearningCurve, metric: str, title: str, form: str) -> Picture:
    rows = [
        {**charts.row_of(figures[metric], model=in_words(name)), "users": point.users}
        for point in curve.points
        for name, figures in ((curve.model, point.model), (RULE, point.rule))
    ]
    values = "; ".join(f"{row['model']} with {row['users']:,} users {row['value']:.3f}" for row in rows)
    words = metric.replace("_", " ")
    return Picture(
        title=title,
        text=f"{words} on {curve.held_out:,} held-out users with 95% intervals, by the number of training users "
        "(logarithmic scale). The comparison is paired by user, so it can be significant where intervals overlap.",
        alt=f"Lines with intervals, {words} by number of training users: {values}.",
        draw=lambda width: charts.by_size(rows, width, x="users", series="model", title=words, form=form),
    )
