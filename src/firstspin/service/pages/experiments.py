"""The page `/experiments`: the running experiment, its arms and its time, without results before the end."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, time, timedelta
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Final

from firstspin.experiment.plan import Plan, reads_at
from firstspin.service.http.messages import Reply, Request
from firstspin.service.pages.site import HTML, Site

if TYPE_CHECKING:
    from firstspin.serving.experiment import Running

PATH: Final = "/experiments"
BELOW: Final = f"{PATH}/"
NAME: Final = re.compile("[a-z0-9][a-z0-9-]{0,59}")
WANTED: Final = "wanted"
"""The file that asks for an analysis."""

LIST: Final = "_list.html"
"""The list of all experiments. No experiment has this name."""

KINDS: Final = {"": HTML, "memo": HTML, "json": b"application/json", "csv": b"text/csv; charset=utf-8"}
"""The content type of a path below /experiments by its suffix."""

NO_PEEKING: Final = """<p class="muted">Interim results are not shown: stopping a test as soon as it looks good produces
false winners.</p>"""
NOTHING: Final = """<p>No experiment is running here. Plan one with <code>firstspin experiment plan</code>, then
start the service with <code>--experiment experiment.toml --events sqlite:///events.sqlite</code>.</p>"""
COUNTED: Final = {
    "firstspin_exposures_stored": "messages decided and stored",
    "firstspin_events_stored": "clicks and listens stored",
    "firstspin_exposures_dropped": "messages that could not be stored",
}


def written(site: Site, folder: Path, request: Request) -> Reply | None:
    """The page, memo or file that the last analysis wrote for this path, if there is one; the next one is asked for."""
    name, _, suffix = request.path.removeprefix(PATH).removeprefix("/").partition(".")
    kind = KINDS.get(suffix)
    if kind is None or (not NAME.fullmatch(name) and (name or suffix)):
        return None
    with suppress(OSError):
        (folder / WANTED).touch()
    try:
        content = (folder / (f"{name}.{suffix or 'html'}" if name else LIST)).read_bytes()
    except FileNotFoundError:
        return None
    if kind is not HTML:
        return Reply(200, content, kind, b"cache-control: no-cache\r\nx-content-type-options: nosniff\r\n")
    return site.page(name or "Experiments", content.decode(), PATH)


def page(site: Site, running: Running | None, totals: Mapping[str, int], now: datetime) -> Reply:
    """The page. `totals` are the counts of `ExposureLog.counts` over all workers; `now` is the time of day."""
    if running is None:
        return _page(site, NOTHING)
    plan = running.plan
    arms = "".join(
        f"<tr><td>{escape(arm)}</td><td>{escape(running.policies[arm])}</td><td>{share:.0%}</td></tr>"
        for arm, share in _shares(plan).items()
    )
    facts = {
        "Primary metric": f"{plan.metrics[0].column}, to find a lift of {plan.minimum_effect:.1%} or more",
        "Population": f"users who register in the {plan.days} days from {plan.starts_on}, {plan.coverage:.0%} of them",
        "Control": plan.control,
        "Now": _stage(plan, now),
    }
    facts |= {word: f"{totals.get(name, 0):,}" for name, word in COUNTED.items()}
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    return _page(
        site,
        f"<h2>{escape(running.key)}</h2><table><tr><th>Arm</th><th>Answered by</th><th>Share</th></tr>{arms}"
        f"</table><dl>{rows}</dl>",
    )


def _page(site: Site, content: str) -> Reply:
    return site.page(
        "Experiments", f'<section class="card prose"><h1>Experiments</h1>{content}{NO_PEEKING}</section>', PATH
    )


def _shares(plan: Plan) -> dict[str, float]:
    total = sum(plan.arms.values())
    return {arm: weight / total for arm, weight in plan.arms.items()}


def _stage(plan: Plan, now: datetime) -> str:
    """The stage of the experiment, as text: registrations first, then the windows of the last users' events."""
    begins = datetime.combine(plan.starts_on, time(), UTC)
    reads = f"{reads_at(plan):%Y-%m-%d %H:%M} UTC"
    if now < begins:
        return f"not started: it starts on {plan.starts_on}"
    if now >= reads_at(plan):
        return "ended: analyse it with firstspin experiment analyse"
    day = (now - begins) // timedelta(days=1) + 1
    stage = (
        f"day {day} of {plan.days}" if day <= plan.days else "no more users; the last ones may still click and listen"
    )
    return f"{stage}; no verdict before {reads}"
