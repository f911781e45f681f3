"""The sections on users: label windows, listening by cohort, picks against top genres, effects of answers."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import numpy as np

from firstspin.evaluation.cohorts import MAX_MONTHS
from firstspin.evaluation.report import charts
from firstspin.evaluation.report.parts import HtmlTable, Material, Note, PageSection, Picture, percent
from firstspin.evaluation.report.patterns import (
    Grid,
    listening,
    listening_by_age,
    listening_by_gender,
    picked_and_played,
)
from firstspin.records import Examples

BARS: Final = 12
MAX_CELLS: Final = 24
FEW_CELLS: Final = 10


def sections(material: Material) -> list[PageSection]:
    """The sections about the users and their listening, and the effects of answers in a logistic model."""
    return [
        PageSection(
            "labels",
            "Labelled users and label windows",
            (_timeline(material), _arrivals(material.examples), _census(material)),
        ),
        PageSection(
            "listening", "Listening by gender and age", (_by_gender(material.examples), _by_age(material.examples))
        ),
        PageSection("picks", "Picks against listening", (_picks(material.examples),)),
        PageSection("answers", "Effect of each answer", (_answers(material),)),
    ]


def _timeline(material: Material) -> Picture:
    rule, examples = material.rule, material.examples
    gap, window = timedelta(days=rule.gap_days), timedelta(days=rule.window_days)
    ends = rule.data_ends or (examples.registered_at.max().item() + gap + window)
    inside = f"days {rule.gap_days} to {rule.gap_days + rule.window_days}: label window"
    before = f"first {rule.gap_days} days: not counted"
    registered = np.sort(examples.registered_at)
    shown = {
        "first registration": registered[0],
        "median registration": registered[len(registered) // 2],
        "last labelled registration": registered[-1],
    }
    rows: list[charts.Row] = []
    for who, moment in shown.items():
        at = moment.item()
        rows.append({"who": who, "what": before, "begin": at.isoformat(), "end": (at + gap).isoformat()})
        rows.append(
            {"who": who, "what": inside, "begin": (at + gap).isoformat(), "end": (at + gap + window).isoformat()}
        )
    labelled, everyone = len(examples), material.card.data.get("registered", len(examples))
    return Picture(
        title=f"{labelled:,} of {everyone:,} users have a label",
        text=f"The label is the genre with the most listening in the {rule.window_days} days that begin "
        f"{rule.gap_days} days after registration, for users with at least {rule.min_seconds / 60:.0f} minutes of "
        "listening there. The dashed line is the end of the data: users whose window ends later have no label yet, and "
        "do not count as inactive.",
        alt=f"Three bars along the calendar: the first, the median and the last labelled user, each with "
        f"{rule.gap_days} days that are not counted and a label window of {rule.window_days} days. The data end on "
        f"{ends:%d %B %Y}.",
        draw=lambda width: charts.timeline(rows, ends.date(), width),
    )


def _arrivals(examples: Examples) -> Picture:
    unit = "M" if len(np.unique(examples.registered_at.astype("datetime64[M]"))) <= MAX_MONTHS else "Y"
    when, count = np.unique(examples.registered_at.astype(f"datetime64[{unit}]"), return_counts=True)
    rows: list[charts.Row] = [{"when": str(moment), "people": int(n)} for moment, n in zip(when, count, strict=True)]
    busiest = int(count.argmax())
    word = "month" if unit == "M" else "year"
    return Picture(
        title=f"Registrations from {when[0]} to {when[-1]}, most in {when[busiest]}",
        text=f"Labelled users by {word} of registration.",
        alt=f"Columns: labelled users by {word} of registration; the highest is {when[busiest]} with "
        f"{count[busiest]:,}.",
        draw=lambda width: charts.columns(rows, width, x="when", y="people", title="users"),
    )


def _census(material: Material) -> HtmlTable:
    data = material.card.data
    counted: list[tuple[str, object]] = [
        ("registered", data.get("registered", "")),
        ("with a label", len(material.examples)),
    ]
    for reasons in (data.get("dropped"), data.get("ignored"), data.get("mismatches")):
        counted += list(reasons.items()) if isinstance(reasons, dict) else []
    rows = tuple((what, f"{n:,}" if isinstance(n, int) else str(n)) for what, n in counted)
    return HtmlTable("Census of the users", ("users", "number"), rows)


def _by_gender(examples: Examples) -> Picture:
    grid = listening_by_gender(examples)
    if len(grid.rows) < 2:
        return _overall(examples)
    grid = grid.first(4, BARS)
    rows: list[charts.Row] = [
        {"genre": genre, "gender": gender, "share": float(grid.values[i, j])}
        for j, genre in enumerate(grid.columns)
        for i, gender in enumerate(grid.rows)
    ]
    apart = int(np.ptp(grid.values, axis=0).argmax())
    high_row, low_row = int(grid.values[:, apart].argmax()), int(grid.values[:, apart].argmin())
    high, low = percent(grid.values[high_row, apart], 1), percent(grid.values[low_row, apart], 1)
    genre = grid.columns[apart]
    return Picture(
        title=f"{genre} differs most by gender: {high} of listening ({grid.rows[high_row]}), {low} "
        f"({grid.rows[low_row]})",
        text=f"Mean share of a user's listening in the label window, for the {len(grid.columns)} genres played most. "
        + ", ".join(f"{name}: {n:,} users" for name, n in zip(grid.rows, grid.people, strict=True))
        + ".",
        alt=f"Grouped bars of listening by genre and gender. {genre} differs most: {high} against {low}.",
        draw=lambda width: charts.bars(rows, width, y="genre", x="share", series="gender", title="share of listening"),
    )


def _overall(examples: Examples) -> Picture:
    grid = listening(examples).first(1, BARS)
    rows: list[charts.Row] = [
        {"genre": genre, "of": "everyone", "share": float(s)}
        for genre, s in zip(grid.columns, grid.values[0], strict=True)
    ]
    share = percent(grid.values[0, 0])
    return Picture(
        title=f"{grid.columns[0]} has {share} of all listening",
        text=f"Mean share of a user's listening in the label window, for the {len(grid.columns)} genres played most. "
        "There are too few answers on gender to compare genders.",
        alt=f"Bars of listening by genre. {grid.columns[0]} leads with {share}.",
        draw=lambda width: charts.bars(rows, width, y="genre", x="share", series="of", title="share of listening"),
    )


def _by_age(examples: Examples) -> Picture | Note:
    shares = listening_by_age(examples)
    if len(shares.rows) < 2:
        return Note("There are too few answers on age to compare age bands.")
    shares = shares.first(len(shares.rows), BARS)
    overall = examples.shares.mean(axis=0)[[examples.genres.index(genre) for genre in shares.columns]]
    grid = Grid(shares.rows, shares.columns, shares.values - overall, shares.people)
    i, j = np.unravel_index(int(grid.values.argmax()), grid.values.shape)
    extra = grid.values[i, j] * 100
    return Picture(
        title=f"{grid.columns[j]} has a share of listening {extra:.0f} points above average at ages {grid.rows[i]}",
        text="Share of listening in each age band minus that of all users, in percentage points. "
        + ", ".join(f"{band}: {n:,} users" for band, n in zip(grid.rows, grid.people, strict=True))
        + ".",
        alt=f"Heat map of age bands against genres. The largest difference: {grid.rows[i]} and {grid.columns[j]}, "
        f"{extra:+.0f} points.",
        draw=lambda width: charts.heat_map(
            _fitting(grid, width),
            width,
            down="age",
            across="genre",
            legend="difference from all users",
            form="+.0%",
            diverging=True,
        ),
    )


def _picks(examples: Examples) -> Picture | Note:
    grid = picked_and_played(examples)
    if not grid.rows:
        return Note("There are no picks to compare: the form has no question on genres, or too few users answered it.")
    true = [
        (float(grid.values[i, grid.columns.index(pick)]), pick)
        for i, pick in enumerate(grid.rows)
        if pick in grid.columns
    ]
    title = "No pick is the top genre of the users who picked it"
    if true and max(true)[0] > 0:
        (high, best), (low, worst) = max(true), min(true)
        title = (
            f"{best} is the top genre of {percent(high)} of the users who picked it, {worst} of {percent(low)} of its "
            "pickers"
        )
    return Picture(
        title=title,
        text="Of the users who picked the genre of the row, the share whose top genre is that of the column; on the "
        f"diagonal both are the same. Genres picked by at least {min(grid.people):,} users, the most played first.",
        alt=f"Heat map of picked genres against top genres. {title}.",
        draw=lambda width: charts.heat_map(
            _fitting(grid, width), width, down="picked", across="played most", legend="share of the row", form=".0%"
        ),
    )


def _answers(material: Material) -> Picture | Note:
    grid = material.answers
    if not grid.rows:
        return Note("There are too few answers to show their effects.")
    shown = grid.first(len(grid.rows), MAX_CELLS)
    i, j = np.unravel_index(int(shown.values.argmax()), shown.values.shape)
    title = f"The largest effect: “{shown.rows[i]}” on {shown.columns[j]}"
    return Picture(
        title=title,
        text="Effect of each answer on each genre in a logistic model: the sum of its weights in log-odds, relative to "
        "no answers and to the mean genre. Orange: the genre becomes more probable, blue: less probable.",
        alt=f"Heat map of answers against genres in diverging colours. {title} ({shown.values[i, j]:+.1f}).",
        draw=lambda width: charts.heat_map(
            _strongest(grid, width),
            width,
            down="answer",
            across="genre",
            legend="log-odds",
            form="+.1f",
            diverging=True,
        ),
    )


def _fitting(grid: Grid, width: int) -> Grid:
    cells = FEW_CELLS if width < charts.SMALL else MAX_CELLS
    return grid.first(cells, cells)


def _strongest(grid: Grid, width: int) -> Grid:
    """The answers that fit: on a phone, those with the largest effects, in their order."""
    if width >= charts.SMALL:
        return grid.first(40, MAX_CELLS)
    narrow = grid.first(len(grid.rows), FEW_CELLS)
    chosen = np.sort(np.argsort(-np.abs(narrow.values).max(axis=1), kind="stable")[:18])
    rows, people = tuple(grid.rows[i] for i in chosen), tuple(grid.people[i] for i in chosen)
    return Grid(rows, narrow.columns, narrow.values[chosen], people)
