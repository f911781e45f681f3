"""The rules of deploy/prometheus: each alert on its cause alone, in promtool and beside a running service."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from made_answers_of_days import answered, well_calibrated
from made_bundles import pack
from made_service import click, counted, point, send, serving, until, workers
from prometheus_server import PROMETHEUS, scraping

ROOT = Path(__file__).parents[2]
RULES = yaml.safe_load((PROMETHEUS / "rules.yml").read_text())
ALL = [rule for group in RULES["groups"] for rule in group["rules"]]
ALERTS = [rule for rule in ALL if "alert" in rule]
pytestmark = pytest.mark.skipif(not shutil.which("promtool"), reason="needs Prometheus (apt-get install prometheus)")

DASHBOARD = ROOT / "deploy" / "grafana" / "firstspin.json"

HERE = 'job="firstspin",instance="a"'
HEALTHY = {
    f"up{{{HERE}}}": "1x240",
    f"firstspin_ready{{{HERE}}}": "2x240",
    f"firstspin_compiled{{{HERE}}}": "1x240",
    f'firstspin_model_workers{{{HERE},model="0000000a"}}': "2x240",
    f'firstspin_requests_total{{{HERE},route="/v1/recommendations",status="200"}}': "0+100x240",
    f'firstspin_requests_total{{{HERE},route="/v1/recommendations",status="500"}}': "0x240",
    f'firstspin_requests_total{{{HERE},route="/ping",status="503"}}': "0+1x240",
    f'firstspin_answers_total{{{HERE},source="model"}}': "0+100x240",
    f'firstspin_answers_total{{{HERE},source="rule"}}': "0x240",
    f'firstspin_latency_seconds_bucket{{{HERE},hop="whole",le="0.0128"}}': "0+100x240",
    f'firstspin_latency_seconds_bucket{{{HERE},hop="whole",le="1.0"}}': "0+100x240",
    f'firstspin_latency_seconds_bucket{{{HERE},hop="whole",le="+Inf"}}': "0+100x240",
    f'firstspin_reloads_total{{{HERE},outcome="done"}}': "0x120 1x119",
    f'firstspin_reloads_total{{{HERE},outcome="refused"}}': "0x240",
    f"firstspin_worker_deaths_total{{{HERE}}}": "0x230 1x9",
    f"firstspin_admin_deaths_total{{{HERE}}}": "0x240",
    f'firstspin_supervisor_errors_total{{{HERE},step="listen"}}': "0x240",
    f"firstspin_exposures_dropped_total{{{HERE}}}": "0x240",
    f"firstspin_event_store_failures_total{{{HERE}}}": "0x240",
    f'firstspin_kept_answers_total{{{HERE},outcome="found"}}': "0+10x240",
    f'firstspin_kept_answers_total{{{HERE},outcome="failed"}}': "0x240",
    f'firstspin_listen_lookups_total{{{HERE},outcome="none"}}': "0+10x240",
    f'firstspin_listen_lookups_total{{{HERE},outcome="late"}}': "0x240",
    f"firstspin_drift_columns{{{HERE}}}": "0x240",
    f"firstspin_hits_differ{{{HERE}}}": "0x240",
    f"firstspin_below_rule{{{HERE}}}": "0x240",
    f'firstspin_webhooks_total{{{HERE},outcome="failed"}}': "0+1x240",
    f'firstspin_webhooks_total{{{HERE},outcome="dropped"}}': "0x240",
    f'firstspin_spans_total{{{HERE},outcome="exported"}}': "0+100x240",
    f'firstspin_spans_total{{{HERE},outcome="failed"}}': "0x120 9x119",
    f'firstspin_spans_total{{{HERE},outcome="dropped"}}': "0+900x240",
    f'firstspin_metric_exports_total{{{HERE},outcome="failed"}}': "0x240",
    f"firstspin_connections_closed_for_others_total{{{HERE}}}": "0x240",
    f"firstspin_log_lines_dropped_total{{{HERE}}}": "0x240",
}
"""Two hours at one sample in 30 s: one new bundle, one worker that ended, /ping 503 while draining, one batch of spans
lost, more answers than spans, and notices that are sent at the second attempt."""

STOPPED = {series: "_x240" for series in HEALTHY if series.startswith("firstspin_")}
CAUSES: dict[str, dict[str, str]] = {
    "FirstspinDown": STOPPED | {f"up{{{HERE}}}": "0x240"},
    "FirstspinMissing": STOPPED | {f"up{{{HERE}}}": "_x240"},
    "FirstspinNotReady": {f"firstspin_ready{{{HERE}}}": "0x240"},
    "FirstspinFailing": {f'firstspin_requests_total{{{HERE},route="/v1/recommendations",status="500"}}': "0+2x240"},
    "FirstspinFallback": {f'firstspin_answers_total{{{HERE},source="rule"}}': "0+2x240"},
    "FirstspinSlow": {f'firstspin_latency_seconds_bucket{{{HERE},hop="whole",le="0.0128"}}': "0+98x240"},
    "FirstspinQuiet": {
        f'firstspin_answers_total{{{HERE},source="model"}}': "7x240",
        f'firstspin_requests_total{{{HERE},route="/v1/recommendations",status="200"}}': "7x240",
    },
    "FirstspinBundleRefused": {f'firstspin_reloads_total{{{HERE},outcome="refused"}}': "0x230 1x9"},
    "FirstspinModelsDiffer": {f'firstspin_model_workers{{{HERE},model="0000000b"}}': "1x240"},
    "FirstspinWorkersEnd": {f"firstspin_worker_deaths_total{{{HERE}}}": "0x220 1x5 2x5 3x9"},
    "FirstspinContained": {f'firstspin_supervisor_errors_total{{{HERE},step="listen"}}': "0x230 1x9"},
    "FirstspinExposuresLost": {f"firstspin_exposures_dropped_total{{{HERE}}}": "0x230 5x9"},
    "FirstspinEventStoreFails": {f"firstspin_event_store_failures_total{{{HERE}}}": "0x210 0+1x29"},
    "FirstspinStoredAnswersFail": {f'firstspin_kept_answers_total{{{HERE},outcome="failed"}}': "0+2x240"},
    "FirstspinListenLookupsFail": {f'firstspin_listen_lookups_total{{{HERE},outcome="late"}}': "0+2x240"},
    "FirstspinDrift": {f"firstspin_drift_columns{{{HERE}}}": "0x230 1x9"},
    "FirstspinHitsDiffer": {f"firstspin_hits_differ{{{HERE}}}": "0x230 4x9"},
    "FirstspinBelowRule": {f"firstspin_below_rule{{{HERE}}}": "0x230 1x9"},
    "FirstspinCanaryStopped": {f"firstspin_canary_stopped{{{HERE}}}": "0x230 2x9"},
    "FirstspinNoticesLost": {f'firstspin_webhooks_total{{{HERE},outcome="dropped"}}': "0x230 1x9"},
    "FirstspinTelemetryLost": {f'firstspin_spans_total{{{HERE},outcome="failed"}}': "0x190 0+9x49"},
    "FirstspinConnectionsScarce": {f"firstspin_connections_closed_for_others_total{{{HERE}}}": "0x230 1x9"},
    "FirstspinLogsDropped": {f"firstspin_log_lines_dropped_total{{{HERE}}}": "0x230 9x9"},
    "FirstspinNotCompiled": {f"firstspin_compiled{{{HERE}}}": "0x240"},
}


def test_the_rules_and_the_configuration_are_valid() -> None:
    subprocess.run(["promtool", "check", "config", PROMETHEUS / "prometheus.yml"], check=True, capture_output=True)


def test_every_alert_fires_on_its_cause_and_only_then(tmp_path: Path) -> None:
    assert list(CAUSES) == [alert["alert"] for alert in ALERTS]
    firing = 'count by (alertname) (ALERTS{alertstate="firing"})'
    tests = [
        {
            "name": name,
            "interval": "30s",
            "input_series": [{"series": one, "values": values} for one, values in (HEALTHY | changed).items()],
            "promql_expr_test": [
                {
                    "expr": firing,
                    "eval_time": "119m",
                    "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1}] if changed else [],
                }
            ],
        }
        for name, changed in {"healthy": {}, **CAUSES}.items()
    ]
    file = {"rule_files": [str(PROMETHEUS / "rules.yml")], "evaluation_interval": "30s", "tests": tests}
    (tmp_path / "tests.yml").write_text(yaml.safe_dump(file))
    done = subprocess.run(["promtool", "test", "rules", tmp_path / "tests.yml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_leads_to_its_section_of_the_runbook() -> None:
    sections = re.findall(r"^## (Firstspin\w+)$", (ROOT / "docs" / "runbook.md").read_text(), re.MULTILINE)
    assert sections == [alert["alert"] for alert in ALERTS]
    for alert in ALERTS:
        assert alert["annotations"]["runbook_url"] == "{{ $externalLabels.runbook }}#" + alert["alert"].lower()
        assert alert["labels"]["severity"] in ("page", "ticket")


def panel_queries() -> list[str]:
    """The queries of the dashboard's panels, with a choice for each variable."""
    chosen = {"$job": "firstspin", "$instance": ".*", "$__rate_interval": "5s", "[1h]": "[1m]"}
    panels = json.loads(DASHBOARD.read_text())["panels"]
    queries = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    assert len(queries) >= 20
    return [re.sub("|".join(map(re.escape, chosen)), lambda found: chosen[found[0]], query) for query in queries]


def test_a_real_prometheus_sees_a_real_service_and_its_trouble(tmp_path: Path) -> None:
    (tmp_path / "prometheus").mkdir()
    made = pack(tmp_path / "good", calibration=well_calibrated())
    store = answered(tmp_path, made, days=[datetime.now(UTC).date() - timedelta(days=ago) for ago in range(14)])
    (tmp_path / "bad").mkdir()
    current = tmp_path / "current"
    current.symlink_to(tmp_path / "good")
    with (
        serving(current, *store, "--log-level", "warning") as service,
        scraping({"firstspin": [service.port]}, tmp_path / "prometheus") as server,
    ):

        def recorded() -> bool:
            for _ in range(20):
                service.recommend(age=31, genres=["Jazz"])
            return all(server.query(rule["expr"].replace("[5m]", "[5s]")) for rule in ALL if "record" in rule)

        until(recorded, 60)
        until(lambda: all(map(server.query, panel_queries())), 120)  # the report runs where the core is idle
        assert server.firing() - {"FirstspinSlow", "FirstspinNotCompiled"} == set()  # a busy machine; no compiler
        point(current, tmp_path / "bad")
        until(lambda: "FirstspinBundleRefused" in server.firing(), 60)

        def watched_after_another_death() -> bool:
            deaths = counted(service, "firstspin_worker_deaths_total")
            os.kill(workers(service)[0], signal.SIGKILL)
            until(lambda: counted(service, "firstspin_worker_deaths_total") > deaths, 60)
            return "FirstspinWorkersEnd" in server.firing()

        point(current, tmp_path / "good")
        until(lambda: len(workers(service)) == 1, 60)  # no probe of a bundle
        until(watched_after_another_death, 90)
        service.process.terminate()
        until(lambda: "FirstspinDown" in server.firing(), 60)


def test_a_real_prometheus_sees_a_service_without_a_model_and_without_its_store(tmp_path: Path) -> None:
    (tmp_path / "prometheus").mkdir()
    options = ("--allow-no-model", "--events", "postgresql://127.0.0.1:1/none", "--state", str(tmp_path / "state"))
    with (
        serving(tmp_path / "none", *options, "--log-level", "error") as service,
        scraping({"firstspin": [service.port]}, tmp_path / "prometheus") as server,
    ):
        expected = {"FirstspinFallback", "FirstspinFailing"}

        def watched_while_it_is_asked() -> bool:
            assert service.recommend(age=31)["source"] == "no-model"
            assert send(service, click("one"))[0] == 503
            time.sleep(0.2)
            return expected <= server.firing()

        until(watched_while_it_is_asked, 90)
        assert (
            server.firing() & {"FirstspinDown", "FirstspinMissing", "FirstspinNotReady", "FirstspinWorkersEnd"} == set()
        )
