"""Cost per month of the architecture, as the Markdown table of docs/sagemaker.md: `python costs.py`.

PRICES are of us-east-1, on demand, without free tiers, each with its source and date. AWS's price list itself could not
be reached: what is marked AWS is from copies of its own pages, the rest from articles and the calculator Infracost.
Replace them with those of your region, and run this again.
"""

from __future__ import annotations

from typing import NamedTuple

HOURS = 730
RATES = (10, 100, 1000)
"""Registrations a minute."""


class Price(NamedTuple):
    """In US dollars, with the page that says so, and the date of that page."""

    usd: float
    source: str
    date: str


READ = "read 2026-11-29"
"""Of a page without a date of its own, in a copy that others have kept."""

INFRACOST = "https://github.com/infracost/infracost/pull/3567"
PRICES = {
    "instance hour, ml.c6i.large": Price(
        0.102,
        "derived: EC2's c6i.large, 0.085 (https://gist.github.com/alikhajeh1/6107727c5218382b9cc6af69be562111), "
        f"x 1.2, which is ml.m5.large, 0.115 ({INFRACOST}), to EC2's m5.large, 0.096",
        "2026-05-07",
    ),
    "serverless second, 2 GB": Price(0.00004, INFRACOST, "2026-05-07"),
    "serverless GB in and out": Price(0.016, "https://github.com/infracost/infracost/pull/3502", "2026-02-15"),
    "API Gateway, million REST requests": Price(
        3.50,
        "AWS: https://docs.aws.amazon.com/whitepapers/latest/best-practices-api-gateway-private-apis-integration/cost-optimization.html",
        READ,
    ),
    "Lambda, million requests": Price(
        0.20, "AWS: https://docs.aws.amazon.com/whitepapers/latest/how-aws-pricing-works/lambda.html", READ
    ),
    "Lambda, GB-second": Price(
        0.0000166667,
        "AWS: https://aws.amazon.com/lambda/pricing/ (there rounded to 0.00001667)",
        READ,
    ),
    "interface endpoint hour, a zone": Price(
        0.01, "https://awsnegotiations.com/privatelink-cost-analysis.html", "2026-05"
    ),
    "interface endpoint, GB": Price(0.01, "AWS: https://aws.amazon.com/privatelink/pricing/", READ),
    "GB out to the internet": Price(0.09, "https://leanopstech.com/blog/aws-data-transfer-pricing-2026/", "2026-04-27"),
    "alarm": Price(0.10, "https://c3x.dev/resources/aws/aws_cloudwatch_metric_alarm", READ),
    "metric": Price(0.30, "https://signoz.io/guides/cloudwatch-pricing", "2026-02-15"),
    "dashboard": Price(
        3.00,
        "https://www.factualminds.com/blog/amazon-cloudwatch-pricing-metrics-logs-alarms-dashboards/",
        "2026-06-13",
    ),
    "log GB": Price(
        0.50,
        "https://www.factualminds.com/blog/amazon-cloudwatch-pricing-metrics-logs-alarms-dashboards/",
        "2026-06-13",
    ),
}

INSTANCES, ZONES, ALARMS, METRICS = 2, 2, 14, 5
FURTHER_ALARMS = 2 + 4 + 1
"""Billed beside those of the stack: autoscaling's own two, the copies of a release, the second metric of one alarm."""

ENDPOINT_SECONDS = 0.02  # billed a serverless invocation, warm
LAMBDA_SECONDS, LAMBDA_GB = 0.03, 1.0
ANSWER_GB, QUESTION_GB = 3e-6, 2e-7
ACCESS_LOG_GB, LAMBDA_LOG_GB = 2.5e-7, 3.5e-7
"""A request: a line of API Gateway's access log, and Lambda's own START, END and REPORT."""


def price(of: str) -> float:
    return PRICES[of].usd


def front(requests: float) -> float:
    """API Gateway, Lambda, the network, logs and alarms: the same for both kinds of endpoint."""
    lambda_seconds = requests * LAMBDA_SECONDS * LAMBDA_GB
    return (
        requests / 1e6 * (price("API Gateway, million REST requests") + price("Lambda, million requests"))
        + lambda_seconds * price("Lambda, GB-second")
        + ZONES * HOURS * price("interface endpoint hour, a zone")
        + requests * (ANSWER_GB + QUESTION_GB) * price("interface endpoint, GB")
        + requests * ANSWER_GB * price("GB out to the internet")
        + requests * (ACCESS_LOG_GB + LAMBDA_LOG_GB) * price("log GB")
        + (ALARMS + FURTHER_ALARMS) * price("alarm")
        + METRICS * price("metric")
        + price("dashboard")
    )


def instances() -> float:
    """The two that always run: 1,000 registrations a minute are 17 a second, and one instance holds 200."""
    return INSTANCES * HOURS * price("instance hour, ml.c6i.large")


def serverless(requests: float) -> float:
    """What warm invocations cost; nothing while none come."""
    return requests * (
        ENDPOINT_SECONDS * price("serverless second, 2 GB")
        + (ANSWER_GB + QUESTION_GB) * price("serverless GB in and out")
    )


def table() -> str:
    """Rows by rate: requests, the endpoint of both kinds, the front, and both totals."""
    kinds = ("two instances", "serverless", "front, network, alarms", "total, instances", "total, serverless")
    columns = ("registrations a minute", "requests a month", *kinds)
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for rate in RATES:
        requests = rate * 60 * HOURS
        costs = [instances(), serverless(requests), front(requests)]
        costs += [costs[0] + costs[2], costs[1] + costs[2]]
        lines.append(f"| {rate:,} | {requests:,} | " + " | ".join(f"{cost:,.0f}" for cost in costs) + " |")
    return "\n".join(lines)


def sources() -> str:
    """The prices, each with its source and date."""
    rows = [
        f"| {of} | {price.usd:.10f}".rstrip("0").rstrip(".") + f" | {price.source} | {price.date} |"
        for of, price in PRICES.items()
    ]
    return "\n".join(["| price | USD | source | date |", "|---|---|---|---|", *rows])


if __name__ == "__main__":
    print(table(), sources(), sep="\n\n")  # noqa: T201
