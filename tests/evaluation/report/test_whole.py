"""The report from the tables: repeatable to the byte, with progress that never goes back."""

from __future__ import annotations

from datetime import date
from itertools import pairwise
from pathlib import Path

import made_people

from firstspin import learn
from firstspin.evaluation.report import story


def test_the_same_tables_bundle_and_date_give_the_same_bytes(tmp_path: Path) -> None:
    data = made_people.tables(tmp_path / "data", 60)
    learn.train(data, tmp_path / "b", "logistic")
    seen: list[tuple[str, float]] = []
    for page in ("one.html", "two.html"):
        story.report(
            data,
            tmp_path / "b",
            tmp_path / page,
            written=date(2026, 2, 1),
            progress=lambda step, done: seen.append((step, done)),
        )
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()
    first = [done for _, done in seen[: len(seen) // 2]]
    assert (first[0], first[-1]) == (0.0, 1.0)
    assert all(before <= after for before, after in pairwise(first))
    steps = " ".join(step for step, _ in seen)
    assert all(part in steps for part in ("reading the tables", "models trained", "questions: ", "drawing: "))
    assert "data, 1 February 2026" in (tmp_path / "one.html").read_text()
