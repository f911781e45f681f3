"""Whatever a file holds, read as counts or as events: a verdict, or one sentence in our words."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import made_outcomes
import msgspec
import pytest
from fuzz.commands import CONTROL, FOREIGN
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from firstspin.experiment.rules import Rules, parse_metric
from firstspin.experiment.run import Layout, analyse_table
from firstspin.records import InputError

USUAL = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
COUNTS = (
    Layout(counts=("arm", "sessions", "clicked")),
    Layout(counts=("arm", "age", "sessions", "clicked"), day="day"),
)
LOGS = (
    Layout(log=("user_id", "clicked", "day", "seconds")),
    Layout(log=("user_id", "arm"), arm="clicked", exposure="rule"),
)
NOW = datetime(2026, 3, 1, tzinfo=UTC)


@USUAL
@given(made_outcomes.FILES, st.sampled_from((*COUNTS, *LOGS)))
def test_any_bytes_give_a_verdict_or_a_sentence(tmp_path: Path, content: bytes, layout: Layout) -> None:
    path = tmp_path / "outcomes.csv"
    path.write_bytes(content)
    metrics = () if layout.counts else (parse_metric("1:continuous" if len(layout.log) > 2 else "model"),)
    try:
        verdict = analyse_table(path, Rules(control="rule", metrics=metrics), layout, now=NOW)
    except InputError as problem:
        for text in (str(problem), problem.bare):
            assert not FOREIGN.search(text), text
            assert not CONTROL.search(text), text
    else:
        json.loads(msgspec.json.encode(verdict), parse_constant=pytest.fail)


def test_the_good_file_among_them_has_a_verdict(tmp_path: Path) -> None:
    path = tmp_path / "outcomes.csv"
    path.write_bytes(made_outcomes.GOOD)
    rules = Rules(control="rule", metrics=())
    assert analyse_table(path, rules, COUNTS[0], now=NOW).users == {"rule": 12, "model": 12}
    events = Rules(control="rule", metrics=(parse_metric("1:continuous"),))
    assert analyse_table(path, events, LOGS[0], now=NOW).users == {"rule": 6, "model": 6}
