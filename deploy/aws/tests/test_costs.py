"""The cost table of docs/sagemaker.md is the script's, and the script's sums are those of a pocket calculator."""

from __future__ import annotations

import re
from pathlib import Path

import costs
import pytest

ROOT = Path(__file__).parents[3]


def test_the_docs_have_the_table_and_every_price() -> None:
    page = (ROOT / "docs" / "sagemaker.md").read_text(encoding="utf-8")
    assert costs.table() in page
    assert costs.sources() in page


def test_every_price_has_a_page_and_a_date() -> None:
    for name, price in costs.PRICES.items():
        assert price.usd > 0, name
        assert "https://" in price.source, name
        assert re.search(r"\b202[56]-\d\d(-\d\d)?$", price.date), name


def test_two_instances_for_a_month() -> None:
    assert costs.instances() == pytest.approx(148.92)  # 2 x 730 x 0.102


def test_serverless_for_a_hundred_registrations_a_minute() -> None:
    # 4.38 million x 0.02 s x 0.00004, and 4.38 million x 3.2 kB x 0.016 a GB
    assert costs.serverless(4_380_000) == pytest.approx(3.504 + 0.224, abs=0.01)


def test_the_front_without_a_request() -> None:
    # two zones of an interface endpoint, 14 + 7 alarms, 5 metrics, a dashboard
    assert costs.front(0) == pytest.approx(14.60 + 2.10 + 1.50 + 3.00)


def test_every_copy_of_a_release_and_each_metric_of_an_alarm_is_billed() -> None:
    copies = re.findall(r'"endpoint-[a-z0-9-]+"', (ROOT / "deploy/aws/firstspin_aws/watch.py").read_text())
    assert 2 + len(copies) + 1 == costs.FURTHER_ALARMS


def test_lambdas_own_lines_are_log_too() -> None:
    report = "\n".join(
        (
            "START RequestId: 8f5c2e0e-0000-0000-0000-000000000000 Version: $LATEST",
            "END RequestId: 8f5c2e0e-0000-0000-0000-000000000000",
            "REPORT RequestId: 8f5c2e0e-0000-0000-0000-000000000000\tDuration: 24.12 ms\tBilled Duration: 25 ms\t"
            "Memory Size: 1024 MB\tMax Memory Used: 128 MB\t",
        )
    )
    with_overhead = len(report) + 3 * 26  # CloudWatch adds 26 bytes a line
    assert pytest.approx(with_overhead / 1e9, rel=0.1) == costs.LAMBDA_LOG_GB


def test_the_front_for_a_million_requests_more() -> None:
    requests, gb_seconds, private, out, logs = 3.70, 0.50, 0.032, 0.27, 0.30
    assert costs.front(1e6) - costs.front(0) == pytest.approx(requests + gb_seconds + private + out + logs, abs=0.001)
