"""Charts as SVG, whose colours are classes of the stylesheet: bars by day, a line against a plan, the last minutes.

Every chart has a text alternative, and its numbers stand in a table beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Final

WIDTH, HEIGHT = 560, 240
LEFT, RIGHT, TOP, BOTTOM = 60, 12, 12, 28
NOW: Final = 200
"""Width of the text about the last day."""
PHONE, WIDE = 360, 1_140
"""Other widths to draw a chart at, so that its text has the same size on a phone and across a page."""


def bars(
    values: Sequence[Mapping[str, float]],
    days: int,
    classes: Mapping[str, str],
    expected: float,
    label: str,
    width: int = WIDTH,
) -> str:
    """A group of bars a day: `values` by arm of the days that have begun, of `days`; `classes` by arm.

    The days to come have a pale bar at the `expected` value of an arm.
    """
    top = _nice(max([expected, *(value for day in values for value in day.values())]))
    x, y = _scales(width, days, 0, top)
    step = (width - LEFT - RIGHT) / days
    bar = min(18.0, 0.8 * step / max(1, len(classes)))
    marks = [
        f'<rect class="future" x="{x(day) + 0.1 * step:.1f}" y="{y(expected):.1f}" width="{0.8 * step:.1f}" '
        f'height="{y(0) - y(expected):.1f}" rx="2"/>'
        for day in range(len(values), days)
    ]
    for day, of_day in enumerate(values):
        first = x(day) + (step - bar * len(classes)) / 2
        for place, (arm, kind) in enumerate(classes.items()):
            value = of_day.get(arm, 0)
            title = f"<title>{escape(arm)}, day {day + 1}: {value:,.0f}</title>"
            place_and_size = f'x="{first + place * bar:.1f}" y="{y(value):.1f}" width="{bar - 1:.1f}"'
            marks.append(f'<rect class="{kind}" {place_and_size} height="{y(0) - y(value):.1f}" rx="2">{title}</rect>')
    return _chart(width, label, _grid(width, y, [0, top / 2, top], "{:,.0f}".format) + _days(x, days, step / 2), marks)


def progress(totals: Sequence[float], days: int, expected: float, label: str, width: int = WIDTH) -> str:
    """The cumulated users by day, and the line of the plan that ends at `expected` after `days`."""
    top = _nice(max([expected, *totals]))
    x, y = _scales(width, days, 0, top)
    points = " ".join(f"{x(day):.1f},{y(total):.1f}" for day, total in enumerate((0, *totals)))
    marks = [
        f'<line class="planned" x1="{x(0):.1f}" y1="{y(0):.1f}" x2="{x(days):.1f}" y2="{y(expected):.1f}"/>',
        f'<polyline class="line model" points="{points}"/>',
    ]
    return _chart(
        width, label, _grid(width, y, [0, top / 2, top], "{:,.0f}".format) + _days(x, days, x(1) - x(0)), marks
    )


TICKS: Final = tuple(size * 10.0**power for power in range(-2, 5) for size in (1, 2, 5))
Interval = tuple[float, float, float]


def band(
    intervals: Sequence[Interval | None],
    days: int,
    label: str,
    form: Callable[[float], str],
    width: int = WIDE,
    kind: str = "model",
) -> str:
    """A relative lift by day with its interval (value, low, high), of `days` days; None where it is not defined.

    Ends of intervals above 200%, and above all lifts, are cut. `form` is the text of a lift, `kind` the class of
    the colour.
    """
    known = [(day, interval) for day, interval in enumerate(intervals) if interval]
    bottom = min([-0.1, *(low for _, (_, low, _) in known)])
    top = max([0.1, *(high for _, (_, _, high) in known)])
    bottom, top = max(bottom, -1.0), min(top, max([2.0, *(1.2 * value for _, (value, _, _) in known)]))
    tick = next(size for size in TICKS if (top - bottom) / size <= 6)
    bottom, top = max(tick * math.floor(bottom / tick), -1.0), tick * math.ceil(top / tick)
    x, y = _scales(width, days, bottom, top)
    step = (width - LEFT - RIGHT) / days
    at = {day: x(day) + step / 2 for day, _ in known}
    edge = [f"{at[day]:.1f},{y(min(high, top)):.1f}" for day, (_, _, high) in known]
    edge += [f"{at[day]:.1f},{y(min(max(low, bottom), top)):.1f}" for day, (_, low, _) in reversed(known)]
    line = " ".join(f"{at[day]:.1f},{y(value):.1f}" for day, (value, _, _) in known)
    marks = [
        f'<polygon class="interval {kind}" points="{" ".join(edge)}"/>',
        f'<line class="zero" x1="{LEFT}" y1="{y(0):.1f}" x2="{width - RIGHT}" y2="{y(0):.1f}"/>',
        f'<polyline class="line {kind}" points="{line}"/>',
        *(f'<circle class="{kind}" cx="{at[day]:.1f}" cy="{y(value):.1f}" r="4"/>' for day, (value, _, _) in known),
    ]
    if known:
        day, (value, low, high) = known[-1]
        middle = min(max(at[day], LEFT + NOW / 2), width - RIGHT - NOW / 2)  # the text must not leave the chart
        place = f'x="{middle:.1f}" y="{max(y(min(high, top)) - 8, TOP + 12):.1f}"'
        marks.append(f'<text class="now middle" {place}>{form(value)} ({form(low)} to {form(high)})</text>')
    ticks = [tick * number for number in range(math.ceil(bottom / tick - 1e-9), round(top / tick) + 1)]
    return _chart(width, label, _grid(width, y, ticks, "{:+.0%}".format) + _days(x, days, step / 2), marks)


def timeline(
    lines: Mapping[str, Sequence[float | None]],
    number: int,
    form: Callable[[float], str],
    label: str,
    times: tuple[str, str],
    *,
    filled: bool = False,
) -> str:
    """Lines over the last `number` bins, the newest at the right; `lines` by class, with a gap where a value is None.

    `form` is the text of a value on the axis, `times` that of the first and the last bin there is; `filled` shades the
    area below the lines.
    """
    top = _nice(max([value or 0.0 for values in lines.values() for value in values], default=0.0))
    x, y = _scales(WIDTH, number, 0, top)
    marks, first = [], number - max(map(len, lines.values()), default=0)
    for kind, values in lines.items():
        for run in _runs(values):
            points = [f"{x(first + place + 0.5):.1f},{y(value):.1f}" for place, value in run]
            if filled:
                ends = [f"{x(first + place + 0.5):.1f},{y(0):.1f}" for place, _ in (run[-1], run[0])]
                marks.append(f'<polygon class="interval {kind.split()[-1]}" points="{" ".join([*points, *ends])}"/>')
            marks.append(f'<polyline class="{kind}" points="{" ".join([*points, points[-1]])}"/>')
    shown = [("end", number, times[1])] if times[1] else []
    if number - first > number // 4:
        shown.append(("", first, times[0]))
    marks += [f'<text class="{kind}" x="{x(place):.1f}" y="{HEIGHT - 8}">{time}</text>' for kind, place, time in shown]
    return _chart(WIDTH, label, _grid(WIDTH, y, [0, top / 2, top], form), marks)


def _runs(values: Sequence[float | None]) -> list[list[tuple[int, float]]]:
    """The places and values of each stretch without a gap.

    >>> _runs([1, None, 2, 3])
    [[(0, 1)], [(2, 2), (3, 3)]]
    """
    runs: list[list[tuple[int, float]]] = [[]]
    for place, value in enumerate(values):
        if value is not None:
            runs[-1].append((place, value))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _scales(
    width: int, days: int, bottom: float, top: float
) -> tuple[Callable[[float], float], Callable[[float], float]]:
    def x(day: float) -> float:
        return LEFT + day * (width - LEFT - RIGHT) / days

    def y(value: float) -> float:
        return TOP + (top - value) / ((top - bottom) or 1) * (HEIGHT - TOP - BOTTOM)

    return x, y


def _nice(value: float) -> float:
    """The end of an axis: the next round number that is not below the value.

    >>> _nice(1_050), _nice(2_300), _nice(40), _nice(0)
    (1200, 3000, 40, 2)
    """
    power = 1
    while power * 100 < value:
        power *= 10
    steps = (2, 4, 6, 8, 10, 12, 16, 20, 30, 40, 50, 60, 80, 100)
    return next(step * power for step in steps if step * power >= value)


def _grid(width: int, y: Callable[[float], float], values: Sequence[float], form: Callable[[float], str]) -> list[str]:
    return [
        f'<line class="grid" x1="{LEFT}" y1="{y(value):.1f}" x2="{width - RIGHT}" y2="{y(value):.1f}"/>'
        f'<text class="end" x="{LEFT - 8}" y="{y(value) + 4:.1f}">{_tick(form(value))}</text>'
        for value in values
    ]


def _tick(text: str) -> str:
    """A value at an axis, with a true minus; zero has no sign.

    >>> _tick("-50%"), _tick("+0%"), _tick("-0%"), _tick("0")
    ('−50%', '0%', '0%', '0')
    """
    return text.lstrip("+-") if not text.strip("+-0%.") else text.replace("-", "−")


def _days(x: Callable[[float], float], days: int, shift: float) -> list[str]:
    every = max(1, math.ceil(40 * days / (x(days) - x(0))))
    return [
        f'<text class="middle" x="{x(day) + shift:.1f}" y="{HEIGHT - 8}">{day + 1 if day else "day 1"}</text>'
        for day in range(0, days, every)
    ]


def _chart(width: int, label: str, below: Sequence[str], marks: Sequence[str]) -> str:
    kind = {PHONE: "chart narrow", WIDE: "chart wide"}.get(width, "chart")
    return (
        f'<svg class="{kind}" viewBox="0 0 {width} {HEIGHT}" role="img" aria-label="{escape(label)}">'
        f"{''.join(below)}{''.join(marks)}</svg>"
    )
