"""The options of `firstspin serve`, from the command line and the environment, checked before anything is started."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

from firstspin.environment import one_of, path, read, refuse_misspelt, seconds, variable, whole, words, yes_or_no
from firstspin.records import InputError
from firstspin.service.bundles.watch import TRIAL_SECONDS
from firstspin.service.http.connection import IN_FLIGHT
from firstspin.service.process.supervisor import MOST_WORKERS
from firstspin.serving.policy import ANSWER, MIN_AGE, read_min_age, read_under_age
from firstspin.serving.stored_answers import LOOKUP_SECONDS
from firstspin.serving.wire import LARGEST_BODY, MOST_INSTANCES

PORT: Final = whole(0, 65_535)
WORKERS: Final = whole(1, MOST_WORKERS)
LOG_LEVELS: Final = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True)
class Option:
    """One option: how its text is read on the command line and in the environment, and its default."""

    name: str
    convert: Callable[[str], object]
    default: object = None
    note: str | None = None

    @property
    def field(self) -> str:
        """Its name in the parsed options."""
        return self.name.replace("-", "_")


OPTIONS: Final = (
    Option("bundle", path, None, "folder written by `firstspin train`; another one there is taken up by itself"),
    Option("host", words, "127.0.0.1"),
    Option("port", PORT, 8080),
    Option("workers", WORKERS, 1, "processes that answer; as many as cores"),
    Option("state", path, None, "folder that keeps the last good bundles over a restart"),
    Option("least-age", read_min_age, MIN_AGE, "under it, age and gender are not used and nothing is kept"),
    Option("under-age", read_under_age, ANSWER, "answer by the rule, or refuse: 403"),
    Option("models", path, None, "serve many models, loaded by POST /models from this folder; --bundle is optional"),
    Option("models-memory", whole(1), None, "MB of memory for all of them; half of what the machine has if not given"),
    Option("allow-no-model", yes_or_no, False, "answer with an empty list while there is no model"),
    Option("keys", path, None, "file of API keys for /v1; without it anyone may call"),
    Option("events", words, None, "event store for /v1: sqlite:///PATH or postgresql://…"),
    Option("events-secret", path, None, "file with the store's secret; events.secret beside --state if not given"),
    Option("experiment", path, None, "sealed plan of the experiment that /v1/recommendations runs; needs --events"),
    Option("scores", words, None, "answers kept by `firstspin score`, for users of /v1: sqlite:PATH or dynamodb:TABLE"),
    Option("scores-first", yes_or_no, False, "they go before the model's; else only where the model fails"),
    Option("scores-seconds", seconds(), LOOKUP_SECONDS, "score-lookup timeout"),
    Option("clock", path, None, "for simulations: a file that tells the time of day, instead of the system"),
    Option("admin-port", PORT, None, "port for state, reload, rollback and erasure; none if not given"),
    Option("admin-host", words, "127.0.0.1"),
    Option("admin-names", words, None, "further names by which the admin port is called, with commas between"),
    Option("in-flight", whole(1), IN_FLIGHT, "registrations a worker takes at a time; beyond them it answers 503"),
    Option("connections", whole(1), 4096, "connections a worker keeps open"),
    Option("largest-body", whole(1), LARGEST_BODY, "bytes of a request's body"),
    Option("largest-answer", whole(1), None, "bytes of an answer about several; no limit if not given"),
    Option("most-newcomers", whole(0), MOST_INSTANCES, "newcomers in one request; 0 is no limit"),
    Option("head-seconds", seconds(), 10.0, "deadline for a request's headers"),
    Option("body-seconds", seconds(), 30.0, "deadline for a request's body"),
    Option("idle-seconds", seconds(), 75.0, "how long a connection may rest between requests"),
    Option("drain-delay", seconds(or_equal=True), 2.0, "seconds from readiness off to the end, after SIGTERM"),
    Option("trial-seconds", seconds(), TRIAL_SECONDS, "how long a new bundle may take to load"),
    Option("report", path, None, "page written by `firstspin report`, served at /report"),
    Option("log-level", one_of(*LOG_LEVELS), "info", ", ".join(LOG_LEVELS)),
)


def parse(arguments: Sequence[str], environment: Mapping[str, str]) -> argparse.Namespace:
    """The options of a service: the command line goes before the environment, that before the defaults.

    A setting that can't be read ends the process with status 2 and one line, which names the option or the variable. A
    variable whose option is on the command line is not read.
    """
    parser = _parser()
    given = vars(parser.parse_args(arguments))
    try:
        refuse_misspelt(environment, [variable(option.name) for option in OPTIONS])
        for option in OPTIONS:
            if option.field not in given:
                setting = read(environment, variable(option.name), option.convert)
                given[option.field] = option.default if setting is None else setting
    except InputError as problem:
        parser.error(str(problem))
    options = argparse.Namespace(**given)
    _check_together(parser, options)
    return options


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _parser() -> _Parser:
    parser = _Parser(
        "firstspin serve",
        description="Answer over HTTP. Every option can also be given in the environment, as in FIRSTSPIN_PORT=80.",
        argument_default=argparse.SUPPRESS,
    )
    for option in OPTIONS:
        if option.convert is yes_or_no:
            parser.add_argument(f"--{option.name}", action="store_true", default=argparse.SUPPRESS, help=option.note)
        else:
            parser.add_argument(f"--{option.name}", type=_argument(option.convert), help=option.note)
    return parser


def _argument(convert: Callable[[str], object]) -> Callable[[str], object]:
    """Reads an option as `convert` does, and fails as argparse wants it."""

    def read_argument(text: str) -> object:
        try:
            return convert(text)
        except InputError as problem:
            raise argparse.ArgumentTypeError(str(problem)) from None

    return read_argument


def _check_together(parser: _Parser, options: argparse.Namespace) -> None:
    """What options need of each other."""
    if options.bundle is None and options.models is None:
        parser.error("--bundle BUNDLE is needed")
    if options.events and not (options.events_secret or options.state):
        parser.error("--events needs --events-secret or --state, to keep the store's secret")
    if options.experiment and not options.events:
        parser.error("--experiment needs --events")
