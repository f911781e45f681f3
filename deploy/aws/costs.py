"""Cost per month of the architecture, as the Markdown table of docs/sagemaker.md: `python costs.py`.

PRICES are assumptions in US dollars, of 29 November 2026: AWS's price list could not be reached when this was written.
Replace each with that of your region from the page beside it, and run this again.
"""

from __future__ import annotations

HOURS = 730
RATES = (10, 100, 1000)
"""Registrations a minute."""

PRICES = {
    "instance hour, ml.c6i.large": (0.12, "aws.amazon.com/sagemaker/ai/pricing, real-time inference"),
    "serverless second, 2 GB": (0.00004, "aws.amazon.com/sagemaker/ai/pricing, serverless inference"),
    "serverless GB in and out": (0.016, "aws.amazon.com/sagemaker/ai/pricing, serverless inference"),
    "API Gateway, million REST requests": (3.70, "aws.amazon.com/api-gateway/pricing"),
    "Lambda, million requests": (0.20, "aws.amazon.com/lambda/pricing"),
    "Lambda, GB-second": (0.0000166667, "aws.amazon.com/lambda/pricing"),
    "interface endpoint hour, a zone": (0.012, "aws.amazon.com/privatelink/pricing"),
    "interface endpoint, GB": (0.01, "aws.amazon.com/privatelink/pricing"),
    "GB out to the internet": (0.09, "aws.amazon.com/ec2/pricing/on-demand, data transfer"),
    "alarm": (0.10, "aws.amazon.com/cloudwatch/pricing"),
    "metric": (0.30, "aws.amazon.com/cloudwatch/pricing"),
    "dashboard": (3.00, "aws.amazon.com/cloudwatch/pricing"),
    "log GB": (0.63, "aws.amazon.com/cloudwatch/pricing"),
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
    return PRICES[of][0]


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


def assumptions() -> str:
    """The prices, each with the page that has the right one."""
    rows = [f"| {of} | {usd:g} | {page} |" for of, (usd, page) in PRICES.items()]
    return "\n".join(["| assumed price | USD | look it up at |", "|---|---|---|", *rows])


if __name__ == "__main__":
    print(table(), assumptions(), sep="\n\n")  # noqa: T201
