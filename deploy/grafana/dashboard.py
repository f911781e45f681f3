"""The Grafana dashboard of a service, as code: `python dashboard.py > firstspin.json`.

Its queries read the recording rules of deploy/prometheus where there is one.
"""

from __future__ import annotations

import sys

from grafana_foundation_sdk.builders.common import ReduceDataOptions, VizLegendOptions
from grafana_foundation_sdk.builders.dashboard import Dashboard, DatasourceVariable, QueryVariable, Row
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.timeseries import Panel as Chart
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement
from grafana_foundation_sdk.models.dashboard import DataSourceRef, VariableRefresh

PROMETHEUS = DataSourceRef(type_val="prometheus", uid="${source}")
JOB = 'job="$job"'
ONE = f'{JOB},instance=~"$instance"'

STATS = (
    ("Instances reached", f"sum(up{{{JOB}}})", "short"),
    ("Workers ready", f"sum(firstspin_ready{{{JOB}}})", "short"),
    ("Requests a second", f"job:firstspin_requests_total:rate5m{{{JOB}}}", "reqps"),
    ("Requests failed", f"job:firstspin_requests_total:failed_ratio5m{{{JOB}}}", "percentunit"),
    ("Answers without a model", f"job:firstspin_answers_total:fallback_ratio5m{{{JOB}}}", "percentunit"),
    ("p99, whole", f'job_hop:firstspin_latency_seconds:p99_5m{{{JOB},hop="whole"}}', "s"),
)
"""Title, query and unit of each figure of the first row."""

Charts = tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...]
CHARTS: dict[str, Charts] = {
    "Answers": (
        (
            "Requests a second, by route",
            "reqps",
            ((f"job_route:firstspin_requests_total:rate5m{{{JOB}}}", "{{route}}"),),
        ),
        (
            "Registrations answered a second, by source",
            "cps",
            ((f"sum by (source) (rate(firstspin_answers_total{{{ONE}}}[$__rate_interval]))", "{{source}}"),),
        ),
        (
            "Time to answer: median and 99th percentile, by hop",
            "s",
            (
                (f"job_hop:firstspin_latency_seconds:p50_5m{{{JOB}}}", "{{hop}}, median"),
                (f"job_hop:firstspin_latency_seconds:p99_5m{{{JOB}}}", "{{hop}}, p99"),
            ),
        ),
        (
            "Requests a second, by status",
            "reqps",
            ((f"sum by (status) (rate(firstspin_requests_total{{{ONE}}}[$__rate_interval]))", "{{status}}"),),
        ),
    ),
    "Model": (
        ("Workers by bundle", "short", ((f"sum by (model) (firstspin_model_workers{{{ONE}}})", "{{model}}"),)),
        (
            "Changes of the bundle in an hour, by outcome",
            "short",
            ((f"sum by (outcome) (increase(firstspin_reloads_total{{{ONE}}}[1h]))", "{{outcome}}"),),
        ),
        (
            "Lookups of stored answers a second, by outcome",
            "cps",
            ((f"sum by (outcome) (rate(firstspin_kept_answers_total{{{ONE}}}[$__rate_interval]))", "{{outcome}}"),),
        ),
    ),
    "Quality of the answers": (
        (
            "Expected hit@k of the last complete week, hit@3 with its 95% interval",
            "percentunit",
            (
                (f'avg by (k) (firstspin_expected_hit_rate{{{ONE},bound="value"}})', "hit@{{k}}"),
                (f'avg(firstspin_expected_hit_rate{{{ONE},bound="low",k="3"}})', "hit@3, low"),
                (f'avg(firstspin_expected_hit_rate{{{ONE},bound="high",k="3"}})', "hit@3, high"),
            ),
        ),
        (
            "Columns that drift, comparisons that differ, models below the rule",
            "short",
            (
                (f"max(firstspin_drift_columns{{{ONE}}})", "columns that drift"),
                (f"max(firstspin_hits_differ{{{ONE}}})", "observed hits differ"),
                (f"max(firstspin_below_rule{{{ONE}}})", "below the business rule"),
            ),
        ),
        (
            "Age of the report about the answers",
            "s",
            ((f"time() - max by (instance) (firstspin_watch_timestamp_seconds{{{ONE}}} > 0)", "{{instance}}"),),
        ),
        (
            "Answers of the shadow bundle a second that agree, by what is the same",
            "cps",
            ((f"sum by (same) (rate(firstspin_shadow_agreement_total{{{ONE}}}[$__rate_interval]))", "{{same}}"),),
        ),
    ),
    "Processes and events": (
        (
            "Processes ended in an hour",
            "short",
            (
                (f"sum(increase(firstspin_worker_deaths_total{{{ONE}}}[1h]))", "workers"),
                (f"sum(increase(firstspin_admin_deaths_total{{{ONE}}}[1h]))", "admin process"),
            ),
        ),
        ("Open connections", "short", ((f"sum by (instance) (firstspin_connections{{{ONE}}})", "{{instance}}"),)),
        (
            "Exposures and events stored a second, exposures lost",
            "cps",
            (
                (f"sum(rate(firstspin_exposures_stored_total{{{ONE}}}[$__rate_interval]))", "exposures"),
                (f"sum(rate(firstspin_events_stored_total{{{ONE}}}[$__rate_interval]))", "clicks and listens"),
                (f"sum(rate(firstspin_exposures_dropped_total{{{ONE}}}[$__rate_interval]))", "exposures lost"),
            ),
        ),
        (
            "Contained failures in an hour, by step",
            "short",
            (
                (f"sum by (step) (increase(firstspin_supervisor_errors_total{{{ONE}}}[1h]))", "supervisor, {{step}}"),
                (f"sum by (step) (increase(firstspin_worker_errors_total{{{ONE}}}[1h]))", "worker, {{step}}"),
            ),
        ),
        (
            "Notices and spans in an hour, by outcome",
            "short",
            (
                (f"sum by (outcome) (increase(firstspin_webhooks_total{{{ONE}}}[1h]))", "notices, {{outcome}}"),
                (f"sum by (outcome) (increase(firstspin_spans_total{{{ONE}}}[1h]))", "spans, {{outcome}}"),
            ),
        ),
    ),
}


def query(expression: str, legend: str = "", letter: str = "A") -> Dataquery:
    return Dataquery().datasource(PROMETHEUS).ref_id(letter).expr(expression).legend_format(legend)


def stat(title: str, expression: str, unit: str) -> Stat:
    last = ReduceDataOptions().calcs(["lastNotNull"])
    panel = Stat().title(title).unit(unit).datasource(PROMETHEUS).span(4).height(4).reduce_options(last)
    return panel.with_target(query(expression))


def chart(title: str, unit: str, queries: tuple[tuple[str, str], ...]) -> Chart:
    legend = VizLegendOptions().show_legend(True).display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
    panel = Chart().title(title).unit(unit).datasource(PROMETHEUS).span(12).height(8).min(0).legend(legend)
    for letter, (expression, name) in zip("ABC", queries, strict=False):
        panel = panel.with_target(query(expression, name, letter))
    return panel


def dashboard() -> Dashboard:
    """Figures in one row, then a row of charts for each part of the service."""
    board = (
        Dashboard("firstspin")
        .uid("firstspin")
        .tags(["firstspin"])
        .refresh("30s")
        .time("now-6h", "now")
        .with_variable(DatasourceVariable("source").label("Prometheus").type("prometheus"))
    )
    for name, label in (("job", "Job"), ("instance", "Instance")):
        within = f"{{{JOB}}}" if name == "instance" else ""
        variable = (
            QueryVariable(name).label(label).datasource(PROMETHEUS).refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        )
        variable = variable.query(f"label_values(firstspin_ready{within}, {name})")
        if name == "instance":
            variable = variable.multi(True).include_all(True).all_value(".*")
        board = board.with_variable(variable)
    for number, figure in enumerate(STATS, 1):
        board = board.with_panel(stat(*figure).id(number))
    for row, (part, charts) in enumerate(CHARTS.items(), 1):
        board = board.with_row(Row(part).id(100 * row))
        for number, one in enumerate(charts, 1):
            board = board.with_panel(chart(*one).id(100 * row + number))
    return board


if __name__ == "__main__":
    sys.stdout.write(JSONEncoder(sort_keys=True, indent=2).encode(dashboard().build()) + "\n")
