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
    """The sections that need no model, and the effects of answers in a logistic one."""
    return [
        PageSection(
            "labels", "Who is studied, and when", (_timeline(material), _arrivals(material.examples), _census(material))
        ),
        PageSection("listening", "Who listens to what", (_by_gender(material.examples), _by_age(material.examples))),
        PageSection("picks", "What was picked, what was played", (_picks(material.examples),)),
        PageSection("answers", "What each answer speaks for", (_answers(material),)),
    ]


def _timeline(material: Material) -> Picture:
    rule, examples = material.rule, material.examples
    gap, window = timedelta(days=rule.gap_days), timedelta(days=rule.window_days)
    ends = rule.data_ends or (examples.registered_at.max().item() + gap + window)
    inside = f"days {rule.gap_days} to {rule.gap_days + rule.window_days}: what counts"
    before = f"the first {rule.gap_days} days: not looked at"
    registered = np.sort(examples.registered_at)
    shown = {
        "first to register": registered[0],
        "in the middle": registered[len(registered) // 2],
        "last with a label": registered[-1],
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
        title=f"{labelled:,} of {everyone:,} people were heard through their second month",
        text=f"A label is the genre with most listening in the {rule.window_days} days that begin {rule.gap_days} "
        "days after "
        f"registration, of people with at least {rule.min_seconds / 60:.0f} minutes there. The dashed line is the "
        "end of the "
        "data: whose window runs past it has no label yet, and is not called inactive.",
        alt=f"Three bars along the calendar: the first, the middle and the last labelled person, each with "
        f"{rule.gap_days} days "
        f"that are not looked at and then {rule.window_days} days that count. Data end on {ends:%d %B %Y}.",
        draw=lambda width: charts.timeline(rows, ends.date(), width),
    )


def _arrivals(examples: Examples) -> Picture:
    unit = "M" if len(np.unique(examples.registered_at.astype("datetime64[M]"))) <= MAX_MONTHS else "Y"
    when, count = np.unique(examples.registered_at.astype(f"datetime64[{unit}]"), return_counts=True)
    rows: list[charts.Row] = [{"when": str(moment), "people": int(n)} for moment, n in zip(when, count, strict=True)]
    busiest = int(count.argmax())
    word = "month" if unit == "M" else "year"
    return Picture(
        title=f"They registered from {when[0]} to {when[-1]}, most in {when[busiest]}",
        text=f"Labelled people by {word} of registration.",
        alt=f"Columns: labelled people by {word} of registration; the highest is {when[busiest]} with "
        f"{count[busiest]:,}.",
        draw=lambda width: charts.columns(rows, width, x="when", y="people", title="people"),
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
    return HtmlTable("Everyone is counted, by reason", ("users", "number"), rows)


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
    most, least = int(grid.values[:, apart].argmax()), int(grid.values[:, apart].argmin())
    high, low = percent(grid.values[most, apart], 1), percent(grid.values[least, apart], 1)
    genre = grid.columns[apart]
    return Picture(
        title=f"{genre} sets genders apart most: {high} of listening ({grid.rows[most]}), {low} ({grid.rows[least]})",
        text=f"Mean share of a person's listening in their window, the {len(grid.columns)} genres played most. "
        + ", ".join(f"{name}: {n:,} people" for name, n in zip(grid.rows, grid.people, strict=True))
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
        title=f"{grid.columns[0]} takes {share} of all listening",
        text=f"Mean share of a person's listening in their window, the {len(grid.columns)} genres played most. Too "
        "few people "
        "told a gender here to compare genders.",
        alt=f"Bars of listening by genre. {grid.columns[0]} leads with {share}.",
        draw=lambda width: charts.bars(rows, width, y="genre", x="share", series="of", title="share of listening"),
    )


def _by_age(examples: Examples) -> Picture | Note:
    shares = listening_by_age(examples)
    if len(shares.rows) < 2:
        return Note("Too few people told their age here to compare ages.")
    shares = shares.first(len(shares.rows), BARS)
    overall = examples.shares.mean(axis=0)[[examples.genres.index(genre) for genre in shares.columns]]
    grid = Grid(shares.rows, shares.columns, shares.values - overall, shares.people)
    i, j = np.unravel_index(int(grid.values.argmax()), grid.values.shape)
    extra = grid.values[i, j] * 100
    return Picture(
        title=f"Ages {grid.rows[i]} give {grid.columns[j]} {extra:.0f} points more of their listening than everyone "
        "does",
        text="Share of listening of each age band minus that of everyone, in percentage points. "
        + ", ".join(f"{band}: {n:,} people" for band, n in zip(grid.rows, grid.people, strict=True))
        + ".",
        alt=f"Heat map of age bands against genres. The strongest: {grid.rows[i]} and {grid.columns[j]}, "
        f"{extra:+.0f} points.",
        draw=lambda width: charts.heat_map(
            _fitting(grid, width),
            width,
            down="age",
            across="genre",
            legend="beside everyone",
            form="+.0%",
            diverging=True,
        ),
    )


def _picks(examples: Examples) -> Picture | Note:
    grid = picked_and_played(examples)
    if not grid.rows:
        return Note("Nobody was asked for genres here (or too few answered), so there are no picks to compare.")
    true = [
        (float(grid.values[i, grid.columns.index(pick)]), pick)
        for i, pick in enumerate(grid.rows)
        if pick in grid.columns
    ]
    said = "Picks are never what is played most"
    if true and max(true)[0] > 0:
        (high, best), (low, worst) = max(true), min(true)
        said = f"A pick of {best} comes true for {percent(high)} of its pickers, one of {worst} for {percent(low)}"
    return Picture(
        title=said,
        text="Of those who picked the genre of a row, the share who then played the genre of a column most. On the "
        "diagonal picks "
        f"come true. Genres picked by {min(grid.people):,} people or more; the most played come first.",
        alt=f"Heat map of picked against played genres. {said}.",
        draw=lambda width: charts.heat_map(
            _fitting(grid, width), width, down="picked", across="played most", legend="share of pickers", form=".0%"
        ),
    )


def _answers(material: Material) -> Picture | Note:
    grid = material.answers
    if not grid.rows:
        return Note("Too few people answered anything here.")
    shown = grid.first(len(grid.rows), MAX_CELLS)
    i, j = np.unravel_index(int(shown.values.argmax()), shown.values.shape)
    said = f"“{shown.rows[i]}” speaks for {shown.columns[j]} more than any answer for any genre"
    return Picture(
        title=said,
        text="Weights of a logistic model, summed over what each answer switches on: by how much it moves a genre in "
        "log-odds, "
        "against the mean genre, relative to no answers. Orange favours a genre, blue disfavours it.",
        alt=f"Heat map of answers against genres in diverging colours. {said} ({shown.values[i, j]:+.1f}).",
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
    most = FEW_CELLS if width < charts.SMALL else MAX_CELLS
    return grid.first(most, most)


def _strongest(grid: Grid, width: int) -> Grid:
    """On a phone, the answers with the largest effects, in their order."""
    if width >= charts.SMALL:
        return grid.first(40, MAX_CELLS)
    narrow = grid.first(len(grid.rows), FEW_CELLS)
    kept = np.sort(np.argsort(-np.abs(narrow.values).max(axis=1), kind="stable")[:18])
    rows, people = tuple(grid.rows[i] for i in kept), tuple(grid.people[i] for i in kept)
    return Grid(rows, narrow.columns, narrow.values[kept], people)
