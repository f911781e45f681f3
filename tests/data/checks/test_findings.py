"""Every kind of bad row has advice, and docs/own-data.md explains each message."""

from __future__ import annotations

from pathlib import Path

from firstspin.data.checks.findings import ADVICE, MALFORMED
from firstspin.data.formats.columns import ANY_FURTHER, FURTHER, KINDS, Cell

PAGE = Path(__file__).parents[3] / "docs" / "own-data.md"


def test_every_problem_of_a_value_has_advice() -> None:
    kinds = [kind for table in KINDS.values() for kind in table.values()] + [*FURTHER.values(), ANY_FURTHER]
    complaints = {
        problem.complaint
        for kind in kinds
        for shape in kind.shapes
        for problem in kind.problems(Cell("column", shape, "value"))
    }
    assert complaints <= ADVICE.keys()


def test_every_message_about_a_row_is_explained() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for complaint in ADVICE.keys() - {MALFORMED}:
        assert f"`{complaint}`" in page, complaint
