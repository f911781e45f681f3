"""Whatever a file of outcomes holds: a verdict, or one sentence in our words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import made_outcomes
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fuzz.commands import CONTROL, FOREIGN
from hypothesis import HealthCheck, given, settings

from firstspin.experiment.analyse import analyse
from firstspin.experiment.outcomes import read_outcomes
from firstspin.experiment.rules import Rules, parse_metric
from firstspin.records import InputError


def verdict_or_sentence(source: Path | pa.Table, options: dict[str, Any]) -> None:
    """Raises for anything but a verdict that is JSON, and an InputError of one line without a library's words."""
    try:
        metrics = tuple(map(parse_metric, options["metrics"]))
        covariates, day = options["covariates"], options["day"]
        found = read_outcomes(source, arm="arm", metrics=metrics, unit=options["unit"], day=day, covariates=covariates)
        verdict = analyse(found, Rules(control="rule", metrics=found.metrics, covariates=covariates))
    except InputError as problem:
        for said in (str(problem), problem.bare):
            assert "\n" not in said
            assert not FOREIGN.search(said), said
            assert not CONTROL.search(said), said
            assert len(said) < 2_000
    else:
        json.loads(msgspec.json.encode(verdict), parse_constant=pytest.fail)


few_or_many = pytest.mark.parametrize("examples", [40, pytest.param(1_000, marks=pytest.mark.soak)])


def usual(examples: int) -> settings:
    return settings(max_examples=examples, suppress_health_check=[HealthCheck.too_slow])


@few_or_many
def test_any_bytes_give_a_verdict_or_a_sentence(tmp_path: Path, examples: int) -> None:
    path = tmp_path / "outcomes.csv"

    @usual(examples)
    @given(made_outcomes.FILES, made_outcomes.OPTIONS)
    def ends_well(content: bytes, options: dict[str, Any]) -> None:
        path.write_bytes(content)
        verdict_or_sentence(path, options)

    ends_well()


@few_or_many
def test_columns_of_any_type_give_a_verdict_or_a_sentence(tmp_path: Path, examples: int) -> None:
    path = tmp_path / "outcomes.parquet"

    @usual(examples)
    @given(made_outcomes.tables(), made_outcomes.OPTIONS)
    def ends_well(table: pa.Table, options: dict[str, Any]) -> None:
        try:
            pq.write_table(table, path)
        except pa.ArrowException:  # Parquet has no such type
            verdict_or_sentence(table, options)
            return
        verdict_or_sentence(path, options)

    ends_well()


def test_the_good_file_among_them_has_a_verdict(tmp_path: Path) -> None:
    path = tmp_path / "outcomes.csv"
    path.write_bytes(made_outcomes.GOOD)
    metrics = (parse_metric("clicked:binary"),)
    found = read_outcomes(path, arm="arm", metrics=metrics, unit="user_id", day="day", covariates=("age",))
    assert sorted(analyse(found, Rules(control="rule", metrics=metrics)).users.items()) == [("model", 6), ("rule", 6)]
