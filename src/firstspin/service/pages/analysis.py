"""The pages of experiments: event store -> figures -> files, which the workers serve.

The sealed plan of each is stored beside its figures, so that an experiment that ends while another one runs is still
analysed at its end. This runs in a process of its own, whose parent kills it when it takes too long: workers import
nothing of it.
"""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache, partial
from io import StringIO
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from firstspin.events.database import Database
from firstspin.events.schema import Unavailable
from firstspin.experiment import run
from firstspin.experiment.monitor import READ, Progress, csv_rows, monitor
from firstspin.experiment.plan import Plan, freeze, read_plan
from firstspin.experiment.rules import Metric
from firstspin.experiment.verdict import MetricResult, metric_table, signed_percent, true_minus
from firstspin.files import workspace, written_beside
from firstspin.records import InputError
from firstspin.service.challenger.canary import read_stop, stop_file
from firstspin.service.pages import charts
from firstspin.service.pages.experiments import LIST, READY, Figures, figures_in
from firstspin.serving.experiment import arm_policy

if TYPE_CHECKING:
    from jinja2 import Environment

log = logging.getLogger(__name__)

TONES: Final = {
    "unhealthy": "bad",
    "no users": "bad",
    "guardrail not kept": "bad",
    "control is better": "warn",
    "collecting": "warn",
    "stop the canary": "bad",
    "winner": "good",
    "promote the challenger": "good",
    READY: "good",
}


class Listed(Figures, frozen=True):
    """An experiment in the list, from its file of figures."""

    experiment: str
    status: str
    sentence: str
    users: int
    users_needed: int

    @property
    def name(self) -> str:
        """Its name, without the hash of its plan."""
        return self.experiment.partition("@")[0]


def analyse_store(
    database: Database,
    plan: Plan | None,
    folder: Path,
    *,
    now: datetime,
    tell: Callable[[Progress], object] = lambda _: None,
) -> None:
    """Write the pages of the running experiment, of those that ended since their last analysis, and the list.

    `tell` is called with the state of each. An experiment that can't be analysed does not stop the others. Raises
    InputError or Unavailable at the end where the figures of the running one can't be read.
    """
    running = plan.name if plan else ""
    try:
        if plan:
            _analyse_one(database, plan, folder, tell, now)
    finally:
        for path in sorted(folder.glob("*.toml")):
            if path.stem != running:
                _analyse_ended(database, path, folder, tell, now)
        write_list(folder, running, now=now)


def _analyse_ended(
    database: Database, path: Path, folder: Path, tell: Callable[[Progress], object], now: datetime
) -> None:
    """Analyse the experiment of a plan, if it has ended since its last analysis. Its failure is logged."""
    try:
        figures = figures_in(path.with_suffix(".json"), Listed)
        if figures is None or figures.is_unread(now):
            _analyse_one(database, read_plan(path), folder, tell, now)
    except (InputError, Unavailable) as problem:
        reason = problem.bare if isinstance(problem, InputError) else str(problem)
        log.warning("an ended experiment can't be analysed", extra={"plan": path.stem, "reason": reason})
    except Exception as problem:  # whatever is wrong with one, the others are analysed
        about = {"plan": path.stem, "problem": type(problem).__name__}
        log.error("the analysis of an ended experiment failed", extra=about, exc_info=True)


def _analyse_one(
    database: Database, plan: Plan, folder: Path, tell: Callable[[Progress], object], now: datetime
) -> None:
    with workspace("pages") as work:
        write_pages(run.read_log(database, plan, work), plan, folder, now=now, tell=tell)


def write_list(folder: Path, running: str, *, now: datetime) -> None:
    """Write the list of the experiments with figures in the folder, the running one first."""
    figures = {path.stem: figures_in(path, Listed) for path in folder.glob("*.json")}
    for name in [name for name, one in figures.items() if one is None]:
        log.warning("the figures of an experiment can't be read", extra={"plan": name})
    listed = [one for one in figures.values() if one]
    listed.sort(key=lambda one: one.name)
    listed.sort(key=lambda one: (one.name == running, one.reads_at), reverse=True)
    shown = [(one, READY if one.is_unread(now) else one.status) for one in listed]
    rows = [(one, status, TONES.get(status, ""), one.name == running) for one, status in shown]
    write_page(folder / LIST, rendered("experiment_list.html.jinja", {"experiments": rows}))


def write_pages(
    log: Path, plan: Plan, folder: Path, *, now: datetime, tell: Callable[[Progress], object] = lambda _: None
) -> Progress:
    """Analyse a log (see `run.read_log`) as known at `now`; write JSON, the page, the memo, CSV and the plan.

    The plan is last, so that each plan in the folder has figures. `tell` is called with the state before anything is
    written: a full disk must not delay a stop. A stop of the canary in the folder beside it (see
    `canary`) stands, whatever the figures are. Raises InputError where the log can't be read, does not fit the plan, or
    has none of the users of an earlier one.
    """
    state = monitor(log, plan, now)
    if stop := read_stop(stop_file(folder.parent, state.experiment)):
        status, following = READ["stop the canary"]
        by_rule = stop.reason.startswith("Stop the canary: ")
        sentence = stop.reason if by_rule else f"Stop the canary: {stop.reason.removesuffix('.')}."
        state = msgspec.structs.replace(
            state, status=status, sentence=sentence, next=following.format(control=plan.control)
        )
    earlier = figures_in(folder / f"{plan.name}.json", Listed)
    if not state.users and (earlier.users if earlier else (folder / f"{plan.name}.html").exists()):
        raise InputError(f"the event store has none of the users of {plan.name}")
    tell(state)
    about = _about(state, plan)
    figures = StringIO()
    csv.writer(figures).writerows(csv_rows(state))
    for suffix, text in {
        "json": msgspec.json.format(msgspec.json.encode(state), indent=2).decode(),  # first: pages read it
        "html": rendered("experiment.html.jinja", about),
        "memo": rendered("memo.html.jinja", about),
        "csv": figures.getvalue(),
    }.items():
        write_page(folder / f"{plan.name}.{suffix}", text)
    with written_beside(folder / f"{plan.name}.toml", shared=True) as beside:
        freeze(plan, beside)
    return state


def write_page(path: Path, text: str) -> None:
    """Write a page's file for the workers, who see it whole."""
    with written_beside(path, shared=True) as beside:
        beside.write_text(text, encoding="utf-8")


def rendered(template: str, values: Mapping[str, Any]) -> str:
    """A template of this folder with these values, which are escaped."""
    return _templates().get_template(template).render(values)


@cache
def _templates() -> Environment:
    """The templates of this folder, each compiled once."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent)
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, finalize=_shown)


def _shown(value: object) -> object:
    """A value in a template: text with true minus signs, and a dash for none."""
    return (true_minus(value) if value != "-" else "–") if type(value) is str else value  # and no Markup


def _about(state: Progress, plan: Plan) -> dict[str, Any]:
    """What the templates show beside the figures themselves."""
    classes = _classes(plan.arms)
    days = _by_day(state)
    totals = list(accumulate(sum(day.values()) for day in days))
    a_day = state.users_expected / state.days
    dates = [state.starts_on + timedelta(days=number) for number in range(len(days))]
    roles = [(metric.name, _role(metric, is_primary=not place)) for place, metric in enumerate(plan.metrics)]
    left = max(0, math.ceil((state.reads_at - state.as_of) / timedelta(days=1)))
    shares = [arm.users / state.users for arm in state.arms] if state.users else []
    return {
        "state": state,
        "plan": plan,
        "name": plan.name,
        "tone": TONES.get(state.status, ""),
        "treatments": " or ".join(arm for arm in plan.arms if arm != plan.control),
        "classes": classes,
        "arm_names": " / ".join(plan.arms),
        "split": " / ".join(f"{100 * share:.1f}" for share in shares) or "–",
        "e_value": None if state.e_value is None else f"{state.e_value:.2g}",
        "fallbacks": " / ".join(f"{arm.fallback_share:.1%}" for arm in state.arms),
        "exposures": _drawn(charts.bars, days, state.days, classes, a_day / len(classes), "Exposures a day, by arm"),
        "cumulative": _drawn(
            charts.progress,
            totals,
            state.days,
            state.users_expected,
            f"{state.users:,} users so far, of {state.users_expected:,} planned",
        ),
        "interims": [
            (
                arm,
                _drawn(partial(charts.band, kind=classes[arm]), *_interims(state, arm), _signed, widest=charts.WIDE),
                _by_analysis(state, arm),
            )
            for arm in _compared(state)
        ],
        "rows": [
            row for measured, (_, role) in zip(state.metrics, roles, strict=False) for row in _rows(measured, role)
        ],  # none while they are hidden
        "roles": roles,
        "by_day": [(day.day, *(f"{day.users.get(arm, 0):,}" for arm in classes)) for day in state.daily],
        "totals": [
            (date, f"{total:,}", f"{a_day * number:,.0f}")
            for number, (date, total) in enumerate(zip(dates, totals, strict=True), 1)
        ],
        "left": left,
        "left_words": f"days until it is read, on {state.reads_at:%-d %B %Y}" if left else "days left: it has ended",
    }


def _drawn(draw: Callable[..., str], *about: object, widest: int = charts.WIDTH) -> list[str]:
    """A chart at each width up to `widest`; the stylesheet shows one of them."""
    return [draw(*about, width=width) for width in (charts.PHONE, charts.WIDTH, charts.WIDE) if width <= widest]


def _role(metric: Metric, *, is_primary: bool) -> str:
    if is_primary:
        return "decides"
    return "secondary" if metric.margin is None else f"guardrail, margin {100 * metric.margin:g}%"


def _rows(measured: MetricResult, role: str) -> list[tuple[str, ...]]:
    """Metric, its role, arm, mean, lift, interval and note of each arm."""
    return [
        (measured.metric, role, arm, mean, lift, interval, note)
        for arm, _, mean, lift, interval, _, note in metric_table(measured, levels=True).rows
    ]


def _classes(arms: Mapping[str, float]) -> dict[str, str]:
    """The colour of each arm: the rule's, the model's for the first arm of a model, then the challenger's."""
    models = iter(("model", "challenger"))
    rules = iter(("rule",))
    return {arm: next(rules if arm_policy(arm) == "rule" else models, "other") for arm in arms}


def _by_day(state: Progress) -> list[dict[str, int]]:
    """The users of every day of the plan up to the last with a user; days without one are empty."""
    by_day = {(day.day - state.starts_on).days: day.users for day in state.daily}
    return [by_day.get(number, {}) for number in range(max(by_day, default=-1) + 1)]


def _compared(state: Progress) -> Sequence[str]:
    return list(state.interims[0].lifts) if state.interims else []


def _by_analysis(state: Progress, arm: str) -> list[tuple[str, ...]]:
    """Day, users, lift and ends of the interval of each interim analysis."""
    return [
        (f"{interim.day}", f"{sum(interim.users.values()):,}", *map(_share, (lift.value, lift.low, lift.high)))
        for interim in state.interims
        for lift in [interim.lifts[arm].relative]
    ]


def _share(share: float | None) -> str:
    return "–" if share is None else _signed(share)


def _signed(share: float) -> str:
    """A lift in the digits of the sentence and the table of metrics."""
    return true_minus(signed_percent(share))


def _interims(state: Progress, arm: str) -> tuple[list[charts.Interval | None], int, str]:
    lifts = [interim.lifts[arm].relative for interim in state.interims]
    intervals = [
        None if lift.value is None or lift.low is None or lift.high is None else (lift.value, lift.low, lift.high)
        for lift in lifts
    ]
    last = next((interval for interval in reversed(intervals) if interval), None)
    ends = "not defined yet" if last is None else "{}, from {} to {}".format(*map(_signed, last))
    return intervals, state.days, f"Lift of {arm} over {state.control} by day; now {ends}"
