"""Charts as SVG text, drawn for a given width (pixels) so that they are readable on a phone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from firstspin.evaluation.bootstrap import Figure
from firstspin.evaluation.report.patterns import Grid

if TYPE_CHECKING:
    import altair as alt

Value = str | float | int
Row = Mapping[str, Value]

MODEL: Final = "#0b6e69"
BASELINE: Final = "#8a94a3"
ACCENT: Final = "#d4572a"
THIRD: Final = "#5b4b9a"
INK: Final = "#24292f"
PALE: Final = "#e4e8ec"
SERIES: Final = (MODEL, ACCENT, THIRD, BASELINE)

WIDE: Final = 720
NARROW: Final = 340
SMALL: Final = 480
"""A chart narrower than this leaves out the numbers in its cells and shortens its labels."""


def svg(chart: alt.TopLevelMixin, name: str) -> str:
    """The chart as SVG for embedding in a page: without URLs, and with ids that begin with `name`."""
    import vl_convert

    drawn = vl_convert.vegalite_to_svg(chart.to_dict(), allowed_base_urls=[])
    drawn = re.sub(r'\s(xmlns(:xlink)?|version|class|role|aria-[a-z]+)="[^"]*"', "", drawn)
    drawn = re.sub(r'\bid="', f'id="{name}-', drawn)
    return drawn.replace("url(#", f"url(#{name}-").replace('href="#', f'href="#{name}-')


def bars(
    rows: Sequence[Row], width: int, *, y: str, x: str, series: str, title: str, form: str = ".0%"
) -> alt.LayerChart:
    """Grouped horizontal bars: `x` of each `y`, a bar for each of the `series`."""
    import altair as alt

    names = list(dict.fromkeys(str(row[series]) for row in rows))
    chart = (
        alt.Chart(_data(rows))
        .mark_bar(cornerRadiusEnd=2)
        .encode(
            y=_names(y, rows, width),
            x=alt.X(f"{x}:Q", title=title, axis=alt.Axis(format=form, tickCount=5)),
            yOffset=alt.YOffset(f"{series}:N", sort=names),
            color=_colour(series, names),
        )
    )
    return _finished([chart], width, _step(13 * len(names) + 8))


def intervals(
    rows: Sequence[Row],
    width: int,
    *,
    y: str,
    series: str,
    title: str,
    form: str = ".2f",
    line: float | None = None,
    side_by_side: bool = True,
) -> alt.LayerChart:
    """Points with their 95% intervals (`value`, `low`, `high`) for each `y`, coloured by `series`.

    `line`: the position of a dashed reference line. `side_by_side`: the series of one `y` are drawn below each other;
    not needed where each `y` has a single point.
    """
    import altair as alt

    names = (
        sorted({str(row[series]) for row in rows})
        if not side_by_side
        else list(dict.fromkeys(str(row[series]) for row in rows))
    )
    base = alt.Chart(_data(rows)).encode(y=_names(y, rows, width), color=_colour(series, names))
    if side_by_side:
        base = base.encode(yOffset=alt.YOffset(f"{series}:N", sort=names))
    axis = alt.Axis(format=form, tickCount=5)
    spread = base.mark_rule(strokeWidth=2.5, opacity=0.55).encode(
        x=alt.X("low:Q", title=title, axis=axis, scale=alt.Scale(zero=False, nice=True)), x2="high:Q"
    )
    points = base.mark_point(filled=True, size=70, opacity=1).encode(x="value:Q")
    layers: list[alt.Chart] = [spread, points]
    if line is not None:
        mark = alt.Chart(_data([{"at": line}])).mark_rule(strokeDash=[4, 3], color=INK).encode(x="at:Q")
        layers.insert(0, mark)
    return _finished(layers, width, _step(12 * len(names) + 8 if side_by_side else 24))


def heat_map(
    grid: Grid, width: int, *, down: str, across: str, legend: str, form: str, diverging: bool = False
) -> alt.LayerChart:
    """A heat map, with the numbers in the cells where there is room."""
    import altair as alt

    cells: list[Row] = [
        {"row": row, "column": column, "value": float(grid.values[i, j])}
        for i, row in enumerate(grid.rows)
        for j, column in enumerate(grid.columns)
    ]
    max_value = float(np.abs(grid.values).max(initial=0.0)) or 1.0
    scale = (
        alt.Scale(scheme="blueorange", domain=[-max_value, max_value])
        if diverging
        else alt.Scale(range=["#f1f6f6", "#0a4f4c"], domain=[0, max_value])
    )
    label = alt.Axis(labelAngle=-60, labelLimit=110, orient="top", domain=False, ticks=False, labelPadding=3)
    base = alt.Chart(_data(cells)).encode(
        x=alt.X("column:N", sort=list(grid.columns), title=across, axis=label),
        y=alt.Y("row:N", sort=list(grid.rows), title=down, axis=_label_axis(width)),
    )
    bar = alt.Legend(orient="bottom", direction="horizontal", gradientLength=min(200, width // 2), format=form)
    layers = [
        base.mark_rect(stroke="white", strokeWidth=1).encode(
            color=alt.Color("value:Q", title=legend, scale=scale, legend=bar)
        )
    ]
    if len(grid.columns) * 34 <= width - 130:
        light = abs(alt.datum.value) > max_value * 0.55
        layers.append(
            base.mark_text(fontSize=9).encode(
                text=alt.Text("value:Q", format=form),
                color=alt.when(light).then(alt.value("white")).otherwise(alt.value(INK)),
            )
        )
    return _finished(layers, width, _step(17))


def reliability(rows: Sequence[Row], width: int) -> alt.LayerChart:
    """Reliability diagram: probability against share of hits, with intervals and the diagonal."""
    import altair as alt

    max_value = max(max(float(row["chance"]), float(row["high"])) for row in rows)
    domain = alt.Scale(domain=[0, min(1.0, max_value * 1.05)], nice=False)
    base = alt.Chart(_data(rows))
    across = alt.X(
        "chance:Q", title="probability of the first genre", scale=domain, axis=alt.Axis(format=".0%", tickCount=5)
    )
    up = alt.Axis(format=".0%", tickCount=5)
    perfect = alt.Chart(_data([{"at": 0.0}, {"at": min(1.0, max_value * 1.05)}])).mark_line(
        strokeDash=[4, 3], color=BASELINE
    )
    layers = [
        perfect.encode(x=alt.X("at:Q", scale=domain), y=alt.Y("at:Q", scale=domain)),
        base.mark_rule(color=MODEL, strokeWidth=2.5, opacity=0.55).encode(
            x=across, y=alt.Y("low:Q", title="share of hits", scale=domain, axis=up), y2="high:Q"
        ),
        base.mark_point(filled=True, size=70, color=MODEL, opacity=1).encode(x=across, y="hit_rate:Q"),
    ]
    return _finished(layers, min(width, 460), 260)


def timeline(rows: Sequence[Row], ends: date, width: int) -> alt.LayerChart:
    """Bars (`who`, `what`, `begin`, `end`) along the calendar, and a line at the end of the data."""
    import altair as alt

    who = list(dict.fromkeys(str(row["who"]) for row in rows))
    what = list(dict.fromkeys(str(row["what"]) for row in rows))
    legend = alt.Legend(orient="bottom", title=None, columns=1 if width < SMALL else 3, labelLimit=320)
    colours = alt.Scale(domain=what, range=[PALE, MODEL, ACCENT][: len(what)])
    spans = (
        alt.Chart(_data(rows))
        .mark_bar(height=16)
        .encode(
            y=alt.Y("who:N", sort=who, title=None, axis=_label_axis(width)),
            x=alt.X(
                "begin:T",
                title=None,
                axis=alt.Axis(tickCount=4 if width < SMALL else 8, labelAngle=0, format="%b %Y", labelOverlap=True),
            ),
            x2="end:T",
            color=alt.Color("what:N", scale=colours, legend=legend),
        )
    )
    end = alt.Chart(_data([{"at": ends.isoformat()}])).mark_rule(color=INK, strokeDash=[4, 3], strokeWidth=1.5)
    return _finished([spans, end.encode(x="at:T")], width, _step(30))


def columns(rows: Sequence[Row], width: int, *, x: str, y: str, title: str) -> alt.LayerChart:
    """A column chart of counts, in the order of the rows."""
    import altair as alt

    order = [str(row[x]) for row in rows]
    chart = (
        alt.Chart(_data(rows))
        .mark_bar(color=MODEL, cornerRadiusEnd=2)
        .encode(
            x=alt.X(
                f"{x}:N",
                sort=order,
                title=None,
                axis=alt.Axis(labelAngle=-45 if len(order) > 6 else 0, labelOverlap=True),
            ),
            y=alt.Y(f"{y}:Q", title=title, axis=alt.Axis(format="~s", tickCount=4)),
        )
    )
    return _finished([chart], width, 150)


def row_of(figure: Figure, **names: str) -> dict[str, Value]:
    """A figure as a row of `intervals`."""
    return {**names, "value": figure.value, "low": figure.low, "high": figure.high}


def _data(rows: Iterable[Row]) -> alt.InlineData:
    import altair as alt

    return alt.InlineData(values=[dict(row) for row in rows])


def _names(field: str, rows: Sequence[Row], width: int) -> alt.Y:
    import altair as alt

    order = list(dict.fromkeys(str(row[field]) for row in rows))
    return alt.Y(f"{field}:N", sort=order, title=None, axis=_label_axis(width))


def _label_axis(width: int) -> alt.Axis:
    import altair as alt

    return alt.Axis(labelLimit=130 if width < SMALL else 190, domain=False, ticks=False, labelPadding=6)


def _step(pixels: int) -> alt.Step:
    """The height of each name on the axis, however many series it holds."""
    import altair as alt

    return alt.Step(pixels, **{"for": "position"})


def _colour(series: str, names: Sequence[str]) -> alt.Color:
    import altair as alt

    legend = alt.Legend(orient="top", title=None, columns=2, labelLimit=200) if len(names) > 1 else None
    return alt.Color(
        f"{series}:N", scale=alt.Scale(domain=list(names), range=list(SERIES[: len(names)])), legend=legend
    )


def _finished(layers: list[alt.Chart], width: int, height: int | alt.Step) -> alt.LayerChart:
    import altair as alt

    font = "Helvetica Neue, Helvetica, Arial, sans-serif"
    axis: dict[str, Any] = {"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal", "labelColor": INK}
    chart: alt.LayerChart = (
        alt.LayerChart(layer=layers)
        .properties(width=width, height=height, autosize=alt.AutoSizeParams(type="fit-x", contains="padding"))
        .configure(font=font, background="transparent", padding=4)
        .configure_view(stroke=None)
        .configure_axis(**axis, titleColor=INK, gridColor=PALE, domainColor=BASELINE, tickColor=BASELINE)
        .configure_legend(labelFontSize=12, titleFontSize=12, titleFontWeight="normal")
    )
    return chart
