"""The options of `firstspin serve`, from the command line and the environment, checked before anything is started."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

from firstspin.records import MAX_SEED, InputError
from firstspin.service.bundles.watch import PROBE_SECONDS
from firstspin.service.http.cross_origin import is_loopback
from firstspin.service.http.hub import IN_FLIGHT
from firstspin.service.process.supervisor import MAX_WORKERS
from firstspin.serving.bodies.limits import MAX_BODY_BYTES, MAX_INSTANCES
from firstspin.serving.lookups import LOOKUP_SECONDS
from firstspin.serving.policy import ANSWER, MIN_AGE, read_min_age, read_under_age
from firstspin.serving.slot.exploration import SlotSettings
from firstspin.serving.stations import CAROUSELS
from firstspin.settings.environment import (
    SETTINGS_FILE,
    WEBHOOK_SECRET,
    one_of,
    path,
    read,
    refuse_misspelt,
    seconds,
    settings_file,
    share,
    variable,
    whole,
    words,
    yes_or_no,
)
from firstspin.settings.file import FileSetting, read_settings
from firstspin.settings.helptext import example, section

PORT: Final = whole(0, 65_535)
WORKERS: Final = whole(1, MAX_WORKERS)
LOG_LEVELS: Final = ("debug", "info", "warning", "error")
SLOT: Final = SlotSettings()
DESCRIPTION: Final = (
    "Serve recommendations over HTTP. Every option can also be set in the environment, as in FIRSTSPIN_PORT=80, and in "
    "the section [service] of the settings file; the command line takes precedence, then the environment. A switch "
    "is turned off by --no- and its name."
)
MAX_HELP_WIDTH: Final = 80


@dataclass(frozen=True, slots=True)
class Option:
    """An option of the command line and the environment: its name, parser, default and help."""

    name: str
    convert: Callable[[str], object]
    default: object
    help: str

    @property
    def field(self) -> str:
        """The attribute of the parsed options."""
        return self.name.replace("-", "_")

    @property
    def switch(self) -> bool:
        """Whether it takes no value on the command line."""
        return self.convert is yes_or_no

    @property
    def kind(self) -> str:
        """The type of its values, as help shows it."""
        return str(self.convert.__annotations__["return"]).lower()

    def row(self) -> tuple[str, str]:
        """The row in the help text, in the style of Typer's: name and type, help and default."""
        name = f"--{self.name}"
        if self.switch:
            return name, self.help
        default = "" if self.default is None else f"  [default: {self.default}]"
        return f"{name} <{self.kind}>", f"{self.help}{default}"


PANELS: Final[dict[str, tuple[Option, ...]]] = {
    "Options": (
        Option("bundle", path, None, "Folder written by `firstspin train`; a new bundle in it is loaded at once."),
        Option("host", words, "127.0.0.1", "Address to listen on."),
        Option("port", PORT, 8080, "Port to listen on."),
        Option("workers", WORKERS, 1, "Number of worker processes, such as one per core."),
        Option("state", path, None, "Folder for the last good bundles, across restarts."),
        Option("pages", yes_or_no, None, "Serve the pages also where --host is no loopback address."),
        Option("report", path, None, "Page of `firstspin report` for /report; default: the one beside the bundle."),
        Option("settings", path, None, f"Settings file; default: ./{SETTINGS_FILE} if there is one."),
    ),
    "Policy": (
        Option("least-age", read_min_age, MIN_AGE, "Below it, age and gender are not used and nothing is stored."),
        Option("under-age", read_under_age, ANSWER, "Below it: `answer` by the business rule, or `refuse` with 403."),
        Option("calibrated-rows", yes_or_no, False, "Say how many genres contain the favourite with 90% probability."),
        Option("allow-no-model", yes_or_no, False, "Answer with an empty list while there is no model."),
        Option("scores", words, None, "Score store for /v1, from `firstspin score`: sqlite:PATH or dynamodb:TABLE."),
        Option("scores-first", yes_or_no, False, "Prefer stored answers to the model; else use them where it fails."),
        Option("scores-seconds", seconds(), LOOKUP_SECONDS, "Score-lookup timeout in seconds."),
    ),
    "Users and experiments, /v1": (
        Option("keys", path, None, "File of API keys for /v1; without it /v1 needs no key."),
        Option("events", words, None, "Event store for /v1: sqlite:///PATH or postgresql://HOST/NAME."),
        Option("events-secret", path, None, "File with the store's secret; events.secret in --state if not given."),
        Option("listens-from-events", yes_or_no, False, "Use the user's listens in --events for recommendations."),
        Option("labels", path, None, "File of `firstspin label`, for observed hits on /metrics and /ops."),
        Option("experiment", path, None, "Sealed plan of the experiment of /v1/recommendations; needs --events."),
        Option("challenger", path, None, "Bundle of the experiment's arm named challenger; needs --state."),
        Option("explore", whole(1, CAROUSELS), None, "Carousel of /v1/recommendations that explores; needs --events."),
        Option("explore-budget", share, SLOT.budget, "Max share of the slot's clicks that exploring may give up."),
        Option("explore-floor", share, SLOT.floor, "Min probability of a new station; at most the budget."),
        Option("explore-seed", whole(0, MAX_SEED), SLOT.seed, "Seed of the slot's choices."),
        Option("clock", path, None, "For simulations: file with the simulated time of day."),
    ),
    "Shadow scoring": (
        Option("shadow", path, None, "Bundle that scores a share of the registrations too; its answers go nowhere."),
        Option("shadow-share", share, 0.1, "Share of the registrations that --shadow scores, from 0 to 1."),
    ),
    "Webhooks": (
        Option("webhook-url", words, None, "POST signed notices there, as of experiments; needs --state."),
        Option("webhook-secret-file", path, None, f"File with their secret; if not given, {WEBHOOK_SECRET} has it."),
    ),
    "Several models": (
        Option("models", path, None, "Folder of many models, loaded by POST /models; --bundle is then optional."),
        Option("models-memory", whole(1), None, "Memory for all models in MB; default: half of the machine's."),
    ),
    "Administration": (
        Option("admin-port", PORT, None, "Port for the page /ops, reload, rollback and erasure; none if not given."),
        Option("admin-host", words, "127.0.0.1", "Address that the admin port listens on."),
        Option("admin-names", words, None, "Further host names of the admin port, separated by commas."),
        Option("log-level", one_of(*LOG_LEVELS), "info", f"{', '.join(LOG_LEVELS[:-1])} or {LOG_LEVELS[-1]}."),
    ),
    "Limits": (
        Option("in-flight", whole(1), IN_FLIGHT, "Max registrations in work per worker; above it 503."),
        Option("connections", whole(1), 4096, "Max open connections per worker."),
        Option("largest-body", whole(1), MAX_BODY_BYTES, "Max bytes of a request's body."),
        Option("largest-answer", whole(1), None, "Max bytes of an answer about several; no limit if not given."),
        Option("most-newcomers", whole(0), MAX_INSTANCES, "Max registrations in one request; 0 is no limit."),
        Option("head-seconds", seconds(), 10.0, "Timeout for a request's headers, in seconds."),
        Option("body-seconds", seconds(), 30.0, "Timeout for a request's body, in seconds."),
        Option("idle-seconds", seconds(), 75.0, "Keep-alive timeout of an idle connection, in seconds."),
        Option("drain-delay", seconds(or_equal=True), 2.0, "Seconds from SIGTERM and not ready to no new connections."),
        Option("trial-seconds", seconds(), PROBE_SECONDS, "Timeout for loading a new bundle, in seconds."),
    ),
}
"""The options by their section in the help text."""

OPTIONS: Final = tuple(option for panel in PANELS.values() for option in panel)
EXAMPLE: Final = "firstspin serve --bundle bundle --port 8080 --workers 2"


def parse(arguments: Sequence[str], environment: Mapping[str, str]) -> argparse.Namespace:
    """The options of a service: command line before environment, before settings file, before defaults.

    An invalid value ends the process with status 2 and one line, which names the option, the variable or the place in
    the file. A variable whose option is on the command line is not read.
    """
    parser = _parser()
    given = vars(parser.parse_args(arguments))
    try:
        refuse_misspelt(environment, [*(variable(option.name) for option in OPTIONS), WEBHOOK_SECRET])
        in_file = read_settings(given.get("settings") or settings_file(environment)).of_service()
        for option in OPTIONS:
            if option.field not in given:
                setting = read(environment, variable(option.name), option.convert)
                if setting is None:
                    setting = option.default if (of := in_file.get(option.name)) is None else _converted(option, of)
                given[option.field] = setting
    except InputError as problem:
        parser.error(str(problem))
    options = argparse.Namespace(**given)
    _check_together(parser, options)
    return options


def _converted(option: Option, setting: FileSetting) -> object:
    text = setting.text(option.kind)
    try:
        return option.convert(text)
    except InputError as problem:
        raise InputError(f"{setting}: {problem}") from None


def slot_settings(options: argparse.Namespace) -> SlotSettings:
    """The settings of the exploration slot. Raises InputError where the floor is above the budget."""
    return SlotSettings(options.explore_seed, options.explore_budget, options.explore_floor)


def has_pages(options: argparse.Namespace) -> bool:
    """Whether the service has pages: as set, or else where it listens on a loopback address."""
    return is_loopback(options.host) if options.pages is None else bool(options.pages)


class _Parser(argparse.ArgumentParser):
    """Prints errors in one line, and help in the style of the other commands (Typer)."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")

    def format_help(self) -> str:
        width = min(shutil.get_terminal_size().columns, MAX_HELP_WIDTH) - 2
        intro = textwrap.fill(DESCRIPTION, width, initial_indent="  ", subsequent_indent="  ")
        panels = {panel: [option.row() for option in options] for panel, options in PANELS.items()}
        panels["Options"].append(("--help", "Show this message and exit."))
        sections = [section(panel, rows, width) for panel, rows in panels.items()]
        return "\n".join([f"Usage: {self.prog} [OPTIONS]\n\n{intro}\n", *sections, example(EXAMPLE, width)])


def _parser() -> _Parser:
    parser = _Parser("firstspin serve", argument_default=argparse.SUPPRESS, add_help=False)
    parser.add_argument("--help", "-h", action="help")
    for option in OPTIONS:
        if option.switch:
            parser.add_argument(f"--{option.name}", action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS)
        else:
            parser.add_argument(f"--{option.name}", type=_argument(option.convert))
    return parser


def _argument(convert: Callable[[str], object]) -> Callable[[str], object]:
    """`convert` as a parser of argparse."""

    def read_argument(text: str) -> object:
        try:
            return convert(text)
        except InputError as problem:
            raise argparse.ArgumentTypeError(str(problem)) from None

    return read_argument


def _check_together(parser: _Parser, options: argparse.Namespace) -> None:
    """Check the options that need each other."""
    if options.bundle is None and options.models is None:
        parser.error("--bundle BUNDLE is required")
    if options.events and not (options.events_secret or options.state):
        parser.error("--events needs --events-secret or --state, to keep the store's secret")
    for name in ("experiment", "listens-from-events", "explore"):
        if getattr(options, name.replace("-", "_")) and not options.events:
            parser.error(f"--{name} needs --events")
    if options.challenger and not (options.experiment and options.state and options.bundle):
        parser.error("--challenger needs --bundle, --experiment, and --state, to keep a stop of the canary")
    if options.webhook_url and not options.state:
        parser.error("--webhook-url needs --state, to keep the notices that wait to be sent")
    if options.explore and options.explore_floor > options.explore_budget:
        parser.error("--explore-floor is above --explore-budget, of which floors are a part")
