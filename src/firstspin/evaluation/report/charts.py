"""Charts as SVG text, drawn for a given width (pixels) so that they are readable on a phone.

Colours become CSS variables of the page, so that the charts follow its light and dark mode.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any, Final

from firstspin.evaluation.bootstrap import Figure

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
SERIES: Final = (MODEL, BASELINE, THIRD, ACCENT)
VARIABLES: Final = {
    MODEL: "model",
    BASELINE: "baseline",
    ACCENT: "accent",
    THIRD: "third",
    INK: "ink",
    PALE: "pale",
    "#000": "ink",
}

_DEFAULTS: Final = re.compile(
    r' (?:font-family="[^"]*"|font-size="14px"|font-weight="normal"|text-anchor="start"|pointer-events="none"'
    r'|(?:fill-|stroke-)?opacity="1"|stroke-width="1")'
)
WIDE: Final = 720
NARROW: Final = 340
SMALL: Final = 480
"""A chart narrower than this has shorter lines of text."""
MEASURED: Final = 14
"""Pixels of text in the layout, which measures Liberation Sans; the page draws 12, in a font up to a sixth wider."""
LINE: Final = 14
"""Height of a line of text in pixels."""
LINES: Final = "split(datum.label, '\\n')"
"""Vega expression: a label of several lines."""


def svg(chart: alt.TopLevelMixin, name: str) -> str:
    """The chart as SVG for embedding in a page: without URLs, and with ids that begin with `name`.

    The renderer numbers its ids through the life of the process; here they are numbered anew, so that the same chart
    is the same text. The chart is not validated again: its parts were validated when they were made.
    """
    import vl_convert

    drawn = vl_convert.vegalite_to_svg(chart.to_dict(validate=False), allowed_base_urls=[])
    drawn = re.sub(r'\s(xmlns(:xlink)?|version|class|role|aria-[a-z]+)="[^"]*"', "", drawn)
    ids = {old: f"{name}-{i}" for i, old in enumerate(dict.fromkeys(re.findall(r'\sid="([^"]*)"', drawn)))}
    drawn = re.sub(r'(\sid="|url\(#|href="#)([^")]*)', lambda m: m[1] + ids.get(m[2], m[2]), drawn)
    drawn = re.sub(r'((?:fill|stroke)=")(#[0-9a-f]+)', lambda m: m[1] + _variable(m[2]), drawn)
    return re.sub(r"<[^/>][^>]*>", lambda tag: _shorter(tag[0]), drawn)


def _shorter(tag: str) -> str:
    """The tag without attributes with the default value or that of the page, and with a precision of 0.1 pixels."""
    if tag.startswith('<path d="" ') or tag.startswith('<path d="M0,0h0v0h0Z"'):
        return ""
    return re.sub(r"-?\d+\.\d{2,}", lambda number: f"{float(number[0]):.1f}".removesuffix(".0"), _DEFAULTS.sub("", tag))


def _variable(colour: str) -> str:
    return f"var(--{VARIABLES[colour]})" if colour in VARIABLES else colour


def bars(
    rows: Sequence[Row], width: int, *, y: str, x: str, series: str, title: str, form: str = ".0%"
) -> alt.LayerChart:
    """Grouped horizontal bars: `x` of each `y`, a bar for each of the `series`."""
    import altair as alt

    rows = _wrapped(rows, width, y, series)
    names = list(dict.fromkeys(str(row[series]) for row in rows))
    chart = (
        alt.Chart(_data(rows))
        .mark_bar(cornerRadiusEnd=2)
        .encode(
            y=_names(y, rows),
            x=alt.X(f"{x}:Q", title=title, axis=alt.Axis(format=form, tickCount=5)),
            yOffset=alt.YOffset(f"{series}:N", sort=names),
            color=_colour(series, names, width),
        )
    )
    return _finished([chart], width, _step(max(13 * len(names) + 8, _height(rows, y))))


def intervals(
    rows: Sequence[Row],
    width: int,
    *,
    y: str,
    series: str,
    title: str,
    kinds: Sequence[str] = (),
    form: str = ".2f",
    line: float | None = None,
    side_by_side: bool = True,
) -> alt.LayerChart:
    """Points with their 95% intervals (`value`, `low`, `high`) for each `y`, coloured by `series`.

    `kinds`: the series in the order of the colours; by default that of the rows. `line`: the position of a dashed
    reference line. `side_by_side`: the series of one `y` are drawn below each other; not needed where each `y` has a
    single point.
    """
    import altair as alt

    rows = _wrapped(rows, width, y, series)
    names = list(kinds or dict.fromkeys(str(row[series]) for row in rows))
    base = alt.Chart(_data(rows)).encode(y=_names(y, rows), color=_colour(series, names, width))
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
    step = 12 * len(names) + 8 if side_by_side else 24
    return _finished(layers, width, _step(max(step, _height(rows, y))))


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


def by_size(
    rows: Sequence[Row],
    width: int,
    *,
    x: str,
    series: str,
    title: str,
    form: str = ".2f",
    across: str = "training users",
    line: Sequence[Row] = (),
) -> alt.LayerChart:
    """Lines of `value` over the numbers `x` on a logarithmic scale, with 95% intervals (`low`, `high`).

    The scale is of 1 + x where there is a 0. `line`: rows of `x` and `value` for a dashed reference line.
    """
    import altair as alt

    sizes = sorted({int(row[x]) for row in rows})
    scale = alt.Scale(type="log", domain=[sizes[0] / 1.2, sizes[-1] * 1.2], nice=False)
    if not sizes[0]:
        scale = alt.Scale(type="symlog", constant=1, domain=[-0.15, max(sizes[-1], 1) * 1.15], nice=False)
    along = alt.X(f"{x}:Q", title=across, scale=scale, axis=alt.Axis(values=sizes, format=",d"))
    base = alt.Chart(_data(rows)).encode(
        x=along, color=_colour(series, list(dict.fromkeys(str(row[series]) for row in rows)), width)
    )
    up = alt.Y("low:Q", title=title, scale=alt.Scale(zero=False), axis=alt.Axis(format=form, tickCount=5))
    layers = [
        base.mark_rule(strokeWidth=2.5, opacity=0.55).encode(y=up, y2="high:Q"),
        base.mark_line(strokeWidth=2).encode(y="value:Q"),
        base.mark_point(filled=True, size=70, opacity=1).encode(y="value:Q"),
    ]
    if line:
        mark = alt.Chart(_data(line)).mark_line(strokeDash=[4, 3], strokeWidth=2, color=INK)
        layers.insert(0, mark.encode(x=along, y="value:Q"))
    return _finished(layers, width, 220)


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
            y=alt.Y("who:N", sort=who, title=None, axis=_label_axis()),
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


def columns(
    rows: Sequence[Row], width: int, *, x: str, y: str, series: str, kinds: Sequence[str], title: str
) -> alt.LayerChart:
    """A column chart of counts, in the order of the rows; the second of the `kinds` of the `series` is grey."""
    import altair as alt

    order = [str(row[x]) for row in rows]
    shown = [kind for kind in kinds if any(row[series] == kind for row in rows)]
    legend = alt.Legend(orient="top", title=None, labelLimit=0) if shown != list(kinds[:1]) else None
    colours = alt.Scale(domain=list(kinds), range=[MODEL, BASELINE])
    chart = (
        alt.Chart(_data(rows))
        .mark_bar(cornerRadiusEnd=2)
        .encode(
            x=alt.X(
                f"{x}:N",
                sort=order,
                title=None,
                axis=alt.Axis(labelAngle=-45 if len(order) > 6 else 0, labelOverlap=True),
            ),
            y=alt.Y(f"{y}:Q", title=title, axis=alt.Axis(format="~s", tickCount=4)),
            color=alt.Color(f"{series}:N", scale=colours, legend=legend),
        )
    )
    return _finished([chart], width, 150)


def row_of(figure: Figure, **names: str) -> dict[str, Value]:
    """A figure as a row of `intervals`."""
    return {**names, "value": figure.value, "low": figure.low, "high": figure.high}


def _data(rows: Iterable[Row]) -> alt.InlineData:
    import altair as alt

    return alt.InlineData(values=[dict(row) for row in rows])


def _names(field: str, rows: Sequence[Row]) -> alt.Y:
    import altair as alt

    order = list(dict.fromkeys(str(row[field]) for row in rows))
    return alt.Y(f"{field}:N", sort=order, title=None, axis=_label_axis())


def _label_axis() -> alt.Axis:
    """An axis of names in one or more lines, each name in the middle of its row."""
    import altair as alt

    # a name of several lines is drawn downwards from its first line
    offset = {
        "condition": {"test": f"length({LINES}) > 1", "expr": f"{-LINE / 2:g} * (length({LINES}) - 1)"},
        "value": 0,
    }
    return alt.Axis(
        labelLimit=0,
        labelExpr=LINES,
        labelLineHeight=LINE,
        labelOffset=offset,
        domain=False,
        ticks=False,
        labelPadding=6,
    )


def _wrapped(rows: Sequence[Row], width: int, *names: str) -> list[Row]:
    """The rows with long names of these fields in several lines."""
    characters = 16 if width < SMALL else 28

    def lines(name: Value) -> str:
        return "\n".join(textwrap.wrap(str(name), characters)) or str(name)

    return [{key: lines(of) if key in names else of for key, of in row.items()} for row in rows]


def _height(rows: Sequence[Row], field: str) -> int:
    """Pixels for the name of this field with the most lines."""
    return LINE * max(str(row[field]).count("\n") + 1 for row in rows) + 6


def _step(pixels: int) -> alt.Step:
    """The height of each name on the axis, however many series it holds."""
    import altair as alt

    return alt.Step(pixels, **{"for": "position"})


def _colour(series: str, names: Sequence[str], width: int) -> alt.Color:
    import altair as alt

    columns = 1 if width < SMALL else 2
    legend = alt.Legend(orient="top", title=None, columns=columns, labelLimit=0, labelExpr=LINES)
    return alt.Color(
        f"{series}:N",
        scale=alt.Scale(domain=list(names), range=list(SERIES[: len(names)])),
        legend=legend if len(names) > 1 else None,
    )


def _finished(layers: list[alt.Chart], width: int, height: int | alt.Step) -> alt.LayerChart:
    import altair as alt

    font = "Helvetica Neue, Helvetica, Arial, sans-serif"
    text: dict[str, Any] = {"labelFontSize": MEASURED, "titleFontSize": MEASURED, "titleFontWeight": "normal"}
    chart: alt.LayerChart = alt.LayerChart(  # at once: each change of a chart of layers would copy all of it
        layer=layers,
        width=width,
        height=height,
        autosize=alt.AutoSizeParams(type="fit-x", contains="padding"),
        config=alt.Config(
            font=font,
            background="transparent",
            padding=6,
            view=alt.ViewConfig(stroke=None),
            axis=alt.AxisConfig(
                **text, labelColor=INK, titleColor=INK, gridColor=PALE, domainColor=BASELINE, tickColor=BASELINE
            ),
            legend=alt.LegendConfig(**text),
        ),
    )
    return chart
