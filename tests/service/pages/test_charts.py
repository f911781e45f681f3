"""The lines of the last minutes: the newest at the right, a gap where nothing was measured, the scale by the max."""

from __future__ import annotations

import re

from firstspin.service.pages.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, timeline


def points(svg: str) -> list[list[tuple[float, float]]]:
    lines = re.findall(r'<polyline class="[^"]*" points="([^"]*)"', svg)
    return [[tuple(map(float, point.split(","))) for point in line.split()] for line in lines]  # type: ignore[misc]


def test_the_newest_bin_is_at_the_right_and_the_max_on_the_scale() -> None:
    [line] = points(timeline({"line": [0, 5, 10]}, 6, "{:.0f}".format, "label", ("10:00", "10:01")))
    step = (WIDTH - LEFT - RIGHT) / 6
    assert [round((x - LEFT) / step, 2) for x, _ in line] == [3.5, 4.5, 5.5, 5.5]
    assert [y for _, y in line[:3]] == [HEIGHT - BOTTOM, (HEIGHT - BOTTOM + TOP) / 2, TOP]


def test_a_gap_ends_a_line_and_a_single_value_is_a_point() -> None:
    svg = timeline({"line": [1, None, 2, 3, None]}, 5, "{:.0f}".format, "<label>", ("", ""))
    first, second = points(svg)
    assert first[0] == first[1]
    assert len(set(second)) == 2
    assert 'aria-label="&lt;label&gt;"' in svg


def test_without_a_value_there_is_no_line() -> None:
    assert points(timeline({"line": []}, 5, "{:.0f}".format, "label", ("", ""))) == []
    assert points(timeline({"line": [None, None]}, 5, "{:.0f}".format, "label", ("", ""))) == []
