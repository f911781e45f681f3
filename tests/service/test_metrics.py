"""The metrics have the names that the documentation gives them, and a bounded number of series."""

from __future__ import annotations

import re
from pathlib import Path

from made_app import new_app

from firstspin.service.metrics import SharedMetrics

ROOT = Path(__file__).parents[2]
NO_METRICS = {"firstspin_aws", "firstspin_daily", "firstspin_export"}
"""Names of other things in the documentation: packages and DAGs."""


def names(text: str) -> set[str]:
    return set(re.findall(r"\bfirstspin_[a-z_]+[a-z]\b", text))


def real_names() -> set[str]:
    """The names of a service's metrics as a dashboard uses them; the parts of a histogram count as one."""
    lines = new_app()._tallies.text().decode().splitlines()
    kinds = dict(line.split()[2:4] for line in lines if line.startswith("# TYPE"))
    return {name for name in kinds if not name.endswith("_created")}


def test_the_documented_metrics_are_the_real_ones() -> None:
    text = (ROOT / "docs" / "http-api.md").read_text(encoding="utf-8")
    [table] = re.findall(r"\| metric \| meaning \|\n(.*?)\n\n", text, re.DOTALL)
    documented = [name for row in table.splitlines()[1:] for name in names(row.split(" | ")[0])]
    assert sorted(documented) == sorted(real_names())


def test_no_page_and_no_deployment_names_a_metric_that_is_not_there() -> None:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *(ROOT / "deploy").glob("*/[!.]*.*")]
    real = real_names() | NO_METRICS | {"firstspin_latency_seconds_bucket"}
    for page in (page for page in pages if page.is_file()):  # `make synth` leaves a folder cdk.out
        assert names(page.read_text(encoding="utf-8")) <= real, page


def test_a_counter_is_0_before_its_first_step() -> None:
    metrics = SharedMetrics(1)
    assert 'firstspin_reloads_total{outcome="refused"} 0.0' in metrics.text().decode()
    metrics.row(0).count("firstspin_reloads", "refused")
    assert 'firstspin_reloads_total{outcome="refused"} 1.0' in metrics.text().decode()


def served(metrics: SharedMetrics) -> list[str]:
    return [line for line in metrics.text().decode().splitlines() if line.startswith("firstspin_model_workers{")]


def test_the_bundle_in_service_is_a_label_and_a_replaced_one_leaves_no_series() -> None:
    metrics = SharedMetrics(3)
    first, second, admin = map(metrics.row, range(3))
    assert served(metrics) == []
    for number in range(1_000):  # as after many reloads
        for row in (first, second):
            row.serves(f"{number:08x}")
    assert served(metrics) == ['firstspin_model_workers{model="000003e7"} 2.0']
    first.serves("ffffffff")
    assert served(metrics) == [
        'firstspin_model_workers{model="000003e7"} 1.0',
        'firstspin_model_workers{model="ffffffff"} 1.0',
    ]
    second.died()
    admin.died()
    assert served(metrics) == ['firstspin_model_workers{model="ffffffff"} 1.0']
