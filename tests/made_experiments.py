"""An experiment of two halves, a canary, the secret of its ids, and logs of it."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from msgspec.structs import replace

from firstspin.events.schema import Secret
from firstspin.experiment.plan import Plan, experiment_key
from firstspin.experiment.rules import Metric
from firstspin.serving.experiment import running

SECRET = Secret(bytes(32))
PLAN = Plan(
    name="first",
    starts_on=date(2026, 1, 26),
    control="rule",
    arms={"rule": 1.0, "model": 1.0},
    metrics=(Metric("clicked", "binary"),),
    registrations_a_day=1_000,
    baseline=0.05,
    minimum_effect=0.1,
)
HALVES = running(PLAN)
CANARY = replace(
    PLAN,
    name="canary",
    control="model",
    arms={"model": 1.0, "challenger": 1.0},
    harm_margin=0.1,
    peeking="always-valid",
    registrations_a_day=200,
)
START = datetime(2026, 1, 26, tzinfo=UTC)
CLICKERS = {"rule": 5, "model": 40}  # of a hundred users a day


def log(
    folder: Path,
    plan: Plan,
    days: int,
    *,
    clickers: dict[str, int] = CLICKERS,
    rule_users: int = 100,
    source: str = "model",
) -> Path:
    """The log of so many days: a hundred users a day in each arm, exposed at 6:00, of whom some click an hour later."""
    shown, clicked, key = [], [], experiment_key(plan)
    for day in range(days):
        at = START + timedelta(days=day, hours=6)
        for arm, of in clickers.items():
            for number in range(rule_users if arm == "rule" else 100):
                user = f"{arm}-{day}-{number}"
                answered = "rule" if arm == "rule" else source
                shown.append(
                    {
                        "experiment": key,
                        "user_key": user,
                        "arm": arm,
                        "decided_at": at,
                        "source": answered,
                    }
                )
                if number < of:
                    click = {"event_id": user, "type": "click", "user_key": user, "at": at + timedelta(hours=1)}
                    clicked.append(click | {"seconds": None, "station_id": "1"})
    for name, rows in (("exposures", shown), ("events", clicked)):
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")
    return folder
