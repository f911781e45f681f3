"""The sections on users: label windows, listening by gender and age, picks against top genres, effects of answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from itertools import combinations
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from firstspin.evaluation.bootstrap import Figure
from firstspin.evaluation.cohorts import MAX_MONTHS
from firstspin.evaluation.metrics import wilson
from firstspin.evaluation.report import charts, patterns
from firstspin.evaluation.report.findings import (
    MIN_NAMED,
    SIMULTANEOUS,
    apart,
    difference,
    is_clear,
    leaders,
    listed,
    simultaneous,
)
from firstspin.evaluation.report.parts import HeatMap, HtmlTable, Material, Note, PageSection, Picture, percent, points
from firstspin.evaluation.report.patterns import Grid
from firstspin.records import Examples

BARS: Final = 12
MAX_CELLS: Final = 24
MAX_ANSWERS: Final = 40
MAX_GENDERS: Final = 4
COMPLETE, INCOMPLETE = "complete", "incomplete"
SHARE: Final = "mean share per user"

Key = TypeVar("Key")


def sections(material: Material) -> list[PageSection]:
    """The sections about the users and their listening, and the effects of answers in a logistic model."""
    return [
        PageSection(
            "labels", "Labelled users and label windows", (_timeline(material), _arrivals(material), _census(material))
        ),
        PageSection(
            "listening", "Listening by gender and age", (_by_gender(material.examples), _by_age(material.examples))
        ),
        PageSection("picks", "Picks against listening", (_picks(material.examples),)),
        PageSection("answers", "Effect of each answer", (_answers(material),)),
    ]


# ------------------------------------------------------------------------------------------- labels


def _timeline(material: Material) -> Picture:
    rule, examples = material.rule, material.examples
    gap, window = timedelta(days=rule.gap_days), timedelta(days=rule.window_days)
    ends = rule.data_ends or (examples.registered_at.max().item() + gap + window)
    inside = f"days {rule.gap_days} to {rule.gap_days + rule.window_days}: label window"
    before = f"first {rule.gap_days} days: not counted"
    registered = np.sort(examples.registered_at)
    shown = {
        "first labelled": registered[0],
        "median": registered[len(registered) // 2],
        "last labelled": registered[-1],
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


def _arrivals(material: Material) -> Picture:
    examples, unit = material.examples, "month"
    if len(np.unique(examples.registered_at.astype("datetime64[M]"))) > MAX_MONTHS:
        unit = "year"
    count = patterns.arrivals(examples.registered_at, unit)
    is_open = {when for when in count if patterns.has_open_windows(when, material.rule)}
    closed = {when: n for when, n in count.items() if when not in is_open}
    rows: list[charts.Row] = [
        {"when": when, "people": n, "windows": INCOMPLETE if when in is_open else COMPLETE} for when, n in count.items()
    ]
    title = f"Labelled users by {unit} of registration, {min(count)} to {max(count)}"
    highest = leaders({when: float(n) for when, n in closed.items()}, 0) if len(closed) > 1 else []
    if highest and len(highest) == len(closed):
        title += f": {closed[highest[0]]:,} in each {unit}"
    elif highest:
        title += f": the highest number, {closed[highest[0]]:,}, in {listed(highest)}"
    text = f"Labelled users by {unit} of registration."
    if is_open:
        text += (
            f" {listed(sorted(is_open))}: incomplete, since the data end before all label windows of the {unit} do. "
            "The low number is no decline."
        )
    return Picture(
        title=title,
        text=text,
        alt=f"Columns: {title}. {text}",
        draw=lambda width: charts.columns(
            rows, width, x="when", y="people", series="windows", kinds=(COMPLETE, INCOMPLETE), title="users"
        ),
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


# ---------------------------------------------------------------------------------------- listening


def _by_gender(examples: Examples) -> Picture:
    groups = dict(list(patterns.genders(examples).items())[:MAX_GENDERS])
    if len(groups) < 2:
        return _overall(examples)
    grid = patterns.mean_shares(examples, groups).first(MAX_GENDERS, BARS)
    rows: list[charts.Row] = [
        {"genre": genre, "gender": gender, "share": float(grid.values[i, j])}
        for j, genre in enumerate(grid.columns)
        for i, gender in enumerate(grid.rows)
    ]
    title = _gender_title(examples, groups, grid)
    return Picture(
        title=title,
        text=f"Each genre's share of a user's listening in the label window, as the mean over users, for the "
        f"{len(grid.columns)} genres with the highest means. {_sizes(grid)} Brackets: {SIMULTANEOUS}.",
        alt=f"Grouped bars of the mean share per user by genre and gender. {title}.",
        draw=lambda width: charts.bars(rows, width, y="genre", x="share", series="gender", title=SHARE),
    )


def _gender_title(examples: Examples, groups: Mapping[str, NDArray[np.int64]], grid: Grid) -> str:
    named = {name: members for name, members in groups.items() if len(members) >= MIN_NAMED}
    compared = {
        (genre, a, b): difference(*(examples.shares[named[group], examples.genres.index(genre)] for group in (a, b)))
        for genre in grid.columns
        for a, b in combinations(named, 2)
    }
    if not compared:
        return f"Listening by gender; fewer than two genders have {MIN_NAMED} users, too few to compare"
    clear = _clear(compared)
    if not clear:
        return "No genre's mean share per user differs clearly by gender"
    texts = {f"{genre} ({a} against {b})": figure for (genre, a, b), figure in clear.items()}
    return f"The largest clear difference by gender in the mean share per user: {_largest(texts)}"


def _overall(examples: Examples) -> Picture:
    grid = patterns.mean_shares(examples, {"everyone": np.arange(len(examples))}).first(1, BARS)
    shares = dict(zip(grid.columns, grid.values[0].tolist(), strict=True))
    rows: list[charts.Row] = [{"genre": genre, "of": "everyone", "share": share} for genre, share in shares.items()]
    highest = leaders(shares, 2)
    title = f"{listed(highest)}: {percent(shares[highest[0]])} of an average user's listening"
    return Picture(
        title=title + (" each" if len(highest) > 1 else ""),
        text=f"Each genre's share of a user's listening in the label window, as the mean over users, for the "
        f"{len(grid.columns)} genres with the highest means. There are too few answers on gender to compare genders.",
        alt=f"Bars of the mean share per user by genre. {title}.",
        draw=lambda width: charts.bars(rows, width, y="genre", x="share", series="of", title=SHARE),
    )


def _by_age(examples: Examples) -> HeatMap | Note:
    groups = patterns.ages(examples)
    if len(groups) < 2:
        return Note("There are too few answers on age to compare age bands.")
    shown = patterns.mean_shares(examples, groups).first(len(groups), BARS)
    compared = {
        (band, genre): _against_others(examples, members, genre)
        for band, members in groups.items()
        for genre in shown.columns
    }
    values = np.array([[compared[band, genre].value for genre in shown.columns] for band in groups])
    clear = _clear({(band, genre): of for (band, genre), of in compared.items() if len(groups[band]) >= MIN_NAMED})
    title = "No genre's mean share per user differs clearly by age"
    if clear:
        texts = {f"{genre} at ages {band}": figure for (band, genre), figure in clear.items()}
        title = f"The largest clear difference by age in the mean share per user: {_largest(texts)}"
    return HeatMap(
        title=title,
        text="Each genre's share of a user's listening, as the mean over the users of the age band minus the mean over "
        f"all others, in percentage points. Coloured: clear differences ({SIMULTANEOUS}, bands of at least "
        f"{MIN_NAMED} users). Orange: above the others, blue: below. {_sizes(shown)}",
        down="age",
        across="genre",
        grid=Grid(shown.rows, shown.columns, values, shown.people),
        form="{:+.1%}",
        coloured=np.array([[(band, genre) in clear for genre in shown.columns] for band in groups]),
    )


def _against_others(examples: Examples, members: NDArray[np.int64], genre: str) -> Figure:
    shares = examples.shares[:, examples.genres.index(genre)]
    others = np.delete(shares, members)
    return difference(shares[members], others) if len(others) else Figure(0.0, 0.0, 0.0)


def _clear(compared: Mapping[Key, Figure]) -> dict[Key, Figure]:
    """The differences whose simultaneous interval excludes zero."""
    widened = dict(zip(compared, simultaneous(list(compared.values())), strict=True))
    return {key: figure for key, figure in widened.items() if is_clear(figure)}


def _largest(texts: Mapping[str, Figure]) -> str:
    """The largest differences in words, with the interval where it is a single one."""
    highest = leaders({name: abs(figure.value) * 100 for name, figure in texts.items()}, 1)
    if len(highest) == 1:
        return f"{highest[0]}, {points(texts[highest[0]])}"
    return f"{listed(highest)}, {abs(texts[highest[0]].value) * 100:.1f} points each"


def _sizes(grid: Grid) -> str:
    return ", ".join(f"{name}: {n:,} users" for name, n in zip(grid.rows, grid.people, strict=True)) + "."


# ------------------------------------------------------------------------------------ picks, answers


def _picks(examples: Examples) -> HeatMap | Note:
    grid = patterns.picked_and_played(examples)
    if not grid.rows:
        return Note("There are no picks to compare: the form has no question on genres, or too few users answered it.")
    return HeatMap(
        title=_picks_title(grid),
        text="Of the users who picked the genre of the row, the share whose top genre is that of the column; on the "
        f"diagonal both are the same. Genres picked by at least {min(grid.people):,} users, the most played first. "
        f"Brackets: {SIMULTANEOUS}, of genres picked by at least {MIN_NAMED} users.",
        down="picked",
        across="top genre",
        grid=grid.first(MAX_CELLS, MAX_CELLS),
        form="{:.0%}",
    )


def _picks_title(grid: Grid) -> str:
    diagonal = {
        pick: (float(grid.values[i, grid.columns.index(pick)]), grid.people[i])
        for i, pick in enumerate(grid.rows)
        if pick in grid.columns and grid.people[i] >= MIN_NAMED
    }
    if not diagonal:
        return f"Picked genres against top genres; no genre was picked by {MIN_NAMED} users, too few to compare"
    shares = {pick: share for pick, (share, _) in diagonal.items()}
    if not any(shares.values()):
        return "No pick is the top genre of the users who picked it"
    figures = simultaneous([Figure(share, *wilson(share * n, n)) for share, n in diagonal.values()])
    of = dict(zip(diagonal, figures, strict=True))
    high, low = leaders(shares, 2), leaders({pick: -share for pick, share in shares.items()}, 2)
    mean = sum(share * n for share, n in diagonal.values()) / sum(n for _, n in diagonal.values())
    title = f"A pick is the top genre of {percent(mean)} of the users who picked it"
    if not is_clear(apart(of[high[0]], of[low[0]])):
        return f"{title}, without a clear difference between genres"

    def ended(names: Sequence[str]) -> str:
        figure = of[names[0]]
        interval = f"{percent(max(0.0, figure.low))}, {percent(min(1.0, figure.high))}"
        return f"{percent(figure.value)} [{interval}] ({listed(names)})"

    return f"{title}, from {ended(low)} to {ended(high)}"


def _answers(material: Material) -> HeatMap | Note:
    grid = material.answers
    if not grid.rows:
        return Note("There are too few answers to show their effects.")
    shown = grid.first(MAX_ANSWERS, MAX_CELLS)
    effects = {
        f"“{row}” on {column}": float(shown.values[i, j])
        for i, row in enumerate(shown.rows)
        for j, column in enumerate(shown.columns)
        if shown.people[i] >= MIN_NAMED
    }
    title = f"Effects of single answers; no answer was given by {MIN_NAMED} users"
    if effects:
        highest = leaders(effects, 1)
        each = "s" if len(highest) > 1 else ""
        title = f"The largest effect{each} in the logistic model: {listed(highest)} ({effects[highest[0]]:+.1f})"
    return HeatMap(
        title=title,
        text="Effect of each answer on each genre in a logistic model: the sum of its weights in log-odds, relative to "
        f"no answers and to the mean genre. The title is about answers of at least {MIN_NAMED} users. Orange: the "
        "genre becomes more probable, blue: less probable.",
        down="answer",
        across="genre",
        grid=shown,
        form="{:+.1f}",
    )
