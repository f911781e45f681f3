"""The pages `/experiments`: the running experiment and ended ones, without results before the end."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, time, timedelta
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from firstspin.experiment.plan import Plan, reads_at
from firstspin.service.http.messages import Reply, Request
from firstspin.service.pages.site import HTML, Site
from firstspin.serving.refusal import Refusal

if TYPE_CHECKING:
    from firstspin.serving.experiment import Running

PATH: Final = "/experiments"
BELOW: Final = f"{PATH}/"
NAME: Final = re.compile("[a-z0-9][a-z0-9-]{0,59}")
WANTED: Final = "wanted"
"""The file that asks for an analysis."""

STALE_AFTER: Final = timedelta(minutes=15)
STALE: Final = """<p class="note" role="alert">These figures are old: no analysis has ended for 15 minutes. The log of
the service has the reason.</p>"""
READY: Final = "ready to read"
"""The status of an experiment that has ended since its last analysis."""
UNREAD: Final = """<p class="note" role="alert">Ready to read: this experiment has ended, and these figures are older.
This service analyses it within five minutes where its event store has the users; elsewhere
<code>firstspin experiment analyse --plan</code> does.</p>"""
UNDATED: Final = """<p class="note" role="alert">The time of these figures can't be read. The log of the service has the
reason.</p>"""
NOT_RUNNING: Final = """<p class="note">This experiment is not running here; these are its figures when it last
was.</p>"""
LIST: Final = "_list.html"
"""The list of all experiments. No experiment has this name."""

KINDS: Final = {"": HTML, "memo": HTML, "json": b"application/json", "csv": b"text/csv; charset=utf-8"}
"""The content type of a path below /experiments by its suffix."""

NO_PEEKING: Final = """<p class="muted">Who is ahead is shown after the planned end, or where the plan allows interim
looks: stopping a test as soon as it looks good produces false winners.</p>"""
NOTHING: Final = """<p>No experiment is running here. Plan one with <code>firstspin experiment plan</code>, then
start the service with <code>--experiment experiment.toml --events sqlite:///events.sqlite</code>.</p>"""
COUNTED: Final = {
    "firstspin_exposures_stored": "Messages decided and stored",
    "firstspin_events_stored": "Clicks and listens stored",
    "firstspin_exposures_dropped": "Messages that could not be stored",
}


def written(site: Site, folder: Path, request: Request, running: str, now: datetime) -> Reply | None:
    """The page, memo or file that the last analysis wrote for this path, if there is one; the next one is asked for.

    The page of an experiment says so where its figures are old, or not those of its end.
    """
    name, _, suffix = request.path.removeprefix(PATH).removeprefix("/").partition(".")
    kind = KINDS.get(suffix)
    if kind is None or (not NAME.fullmatch(name) and (name or suffix)):
        return None
    with suppress(OSError):
        (folder / WANTED).touch()
    try:
        content = (folder / (f"{name}.{suffix or 'html'}" if name else LIST)).read_bytes()
    except FileNotFoundError:
        return _awaited(site, name, kind) if name and name == running else None
    if kind is not HTML:
        return Reply(200, content, kind, b"cache-control: no-cache\r\nx-content-type-options: nosniff\r\n")
    page = content.decode(errors="replace")
    if name:
        page = _note(folder / f"{name}.json", now, is_running=name == running) + page
    elif not running:
        page += f'<section class="card prose">{NOTHING}</section>'
    return site.page(name or "Experiments", page, PATH)


def _awaited(site: Site, name: str, kind: bytes) -> Reply:
    """Before the first analysis has ended: a page that reloads itself. Raises Refusal 503 for a file."""
    if kind is not HTML:
        raise Refusal(503, "not_ready", "the first analysis has not ended; try again in a moment")
    content = f'<section class="card notice"><h1>{name}</h1><p>The figures are being computed.</p></section>'
    page = site.page(name, content, PATH)
    return page._replace(headers=page.headers + b"refresh: 2\r\n")


class Figures(msgspec.Struct, frozen=True):
    """The times of an analysis: of its figures, and of the planned reading."""

    as_of: datetime
    reads_at: datetime

    def is_unread(self, now: datetime) -> bool:
        """Whether the experiment has ended since."""
        return self.as_of < self.reads_at <= now


FiguresKind = TypeVar("FiguresKind", bound=Figures)


def figures_in(path: Path, kind: type[FiguresKind]) -> FiguresKind | None:
    """The figures in a file of JSON; None where there is no such file, or it can't be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError):
        return None


def _note(path: Path, now: datetime, *, is_running: bool) -> str:
    figures = figures_in(path, Figures)
    if figures is None:
        return UNDATED
    if is_running:
        return STALE if now - figures.as_of > STALE_AFTER else ""
    return UNREAD if figures.is_unread(now) else NOT_RUNNING if figures.as_of < figures.reads_at else ""


def page(
    site: Site, running: Running | None, totals: Mapping[str, int], now: datetime, *, has_figures: bool = False
) -> Reply:
    """The page without an analysis. `totals` are the counts of `ExposureLog.counts` over all workers.

    `now` is the time of day; `has_figures`: there are analyses, on the experiment's own page.
    """
    if running is None:
        return _page(site, NOTHING)
    plan = running.plan
    arms = "".join(
        f"<tr><td>{escape(arm)}</td><td>{escape(running.policies[arm])}</td><td>{share:.0%}</td></tr>"
        for arm, share in _shares(plan).items()
    )
    facts = {
        "Primary metric": f"{plan.metrics[0].name}, to find a lift of {plan.minimum_effect:.1%} or more"
        if plan.harm_margin is None
        else f"{plan.metrics[0].name}; a loss above {plan.harm_margin:.1%} stops the canary",
        "Population": f"users who register in the {plan.days} days from {plan.starts_on}, {plan.coverage:.0%} of them",
        "Control": plan.control,
        "Now": _stage(plan, now),
    }
    key = escape(running.key)
    if has_figures:
        key = f'<a href="{BELOW}{plan.name}">{key}</a>'
    facts |= {word: f"{totals.get(name, 0):,}" for name, word in COUNTED.items()}
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    return _page(
        site,
        f"<h2>{key}</h2><table><tr><th>Arm</th><th>Answered by</th><th>Share</th></tr>{arms}</table><dl>{rows}</dl>"
        f"{NO_PEEKING}",
    )


def _page(site: Site, content: str) -> Reply:
    return site.page("Experiments", f'<section class="card prose"><h1>Experiments</h1>{content}</section>', PATH)


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
