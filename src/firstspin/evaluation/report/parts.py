"""The parts of the page: sections of charts, heat maps and tables, each with a title that states the finding."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from firstspin.evaluation.bootstrap import Figure
from firstspin.evaluation.learning_curve import LearningCurve
from firstspin.evaluation.listens_curve import ListensCurve
from firstspin.evaluation.report.patterns import Grid
from firstspin.evaluation.scorecard import Scorecard
from firstspin.experiment.verdict import Decision, MetricResult
from firstspin.records import Examples, LabelRule, Registration
from firstspin.serving.explanations import Explanation

if TYPE_CHECKING:
    from altair import LayerChart


@dataclass(frozen=True, slots=True)
class BundleFacts:
    """Facts about a bundle for the page. `asks`: the questions it uses; `genres`: their number."""

    bundle: str
    model: str
    made_of: str
    created_by: str
    genres: int
    asks: tuple[str, ...]
    data: dict[str, object]


@dataclass(frozen=True, slots=True)
class ExampleUser:
    """A typical registration, the bundle's explained answer, and the genres of the business rule, best first."""

    registration: Registration
    explanation: Explanation | None
    of_rule: tuple[str, ...]


class ExperimentResult(msgspec.Struct, frozen=True):
    """What the report shows of an experiment's verdict. `metrics` begins with the primary."""

    decision: Decision
    winner: str | None
    sentence: str
    warnings: tuple[str, ...]
    control: str
    users: dict[str, int]
    metrics: tuple[MetricResult, ...]


@dataclass(frozen=True, slots=True)
class Material:
    """The input of the report. `answers`: log-odds of each answer for each genre in a logistic model.

    `name` of the data and `written` (date) stand in the header. Optional: a learning `curve`, a curve by early
    `listens`, and the result of an A/B `test`.
    """

    examples: Examples
    rule: LabelRule
    card: Scorecard
    answers: Grid
    manifest: BundleFacts
    name: str
    written: date
    example: ExampleUser | None = None
    curve: LearningCurve | None = None
    listens: ListensCurve | None = None
    test: ExperimentResult | None = None


@dataclass(frozen=True, slots=True)
class Picture:
    """A chart that can be drawn at any width; `title` states the finding, `alt` describes it for screen readers."""

    title: str
    text: str
    alt: str
    draw: Callable[[int], LayerChart]


@dataclass(frozen=True, slots=True)
class HeatMap:
    """A grid as a table with coloured cells. `form` formats a value, as in "{:+.0%}"; with a sign it has two colours.

    `down` and `across` name rows and columns. `coloured` (r, c): which cells have a colour; all where it is None.
    """

    title: str
    text: str
    down: str
    across: str
    grid: Grid
    form: str
    coloured: NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True)
class HtmlTable:
    """Rows of text under a header; the first column names the row."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text: str = ""


@dataclass(frozen=True, slots=True)
class Note:
    """A paragraph of text."""

    text: str


Part = Picture | HeatMap | HtmlTable | Note


@dataclass(frozen=True, slots=True)
class PageSection:
    """A section of the page, with an entry in the contents."""

    anchor: str
    name: str
    parts: tuple[Part, ...]


def percent(value: float, digits: int = 0) -> str:
    """A share in percent: 0.152 is 15%."""
    return f"{value:.{digits}%}"


def unsigned_zero(text: str) -> str:
    """A formatted number, zero without a sign.

    >>> unsigned_zero("-0.0"), unsigned_zero("+0%"), unsigned_zero("-0.1")
    ('0.0', '0%', '-0.1')
    """
    return re.sub(r"^[+-](0(?:\.0+)?%?)$", r"\1", text)


def points(figure: Figure) -> str:
    """A difference of shares in percentage points with its interval."""
    return f"{figure.value * 100:+.1f} points [{figure.low * 100:+.1f}, {figure.high * 100:+.1f}]"


def with_interval(figure: Figure) -> str:
    """A figure ± the half-width of its interval; '–' where it is undefined."""
    if figure.value != figure.value:
        return "–"
    return f"{figure.value:.3f} ±{(figure.high - figure.low) / 2:.3f}"


def relative(figure: Figure) -> str:
    """A relative lift with its interval."""
    if figure.value != figure.value:
        return "undefined"
    return f"{figure.value:+.1%} [{figure.low:+.1%}, {figure.high:+.1%}]"
