"""settings.toml -> checked, frozen settings, and the figures derived from them."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, Final, get_type_hints

MINUTE, TEN_SECONDS = "minute", "10 seconds"
LAMBDA, DIRECT = "lambda", "direct"
AT_ONCE, CANARY, LINEAR = "at once", "canary", "linear"
SHIFTS: Final = (AT_ONCE, CANARY, LINEAR)
ANSWER, REFUSE = "answer", "refuse"

NAME: Final = "2 to 40 lower-case letters, digits and single hyphens inside, a letter first"
"""What every kind of name that is made of it may hold: an endpoint's, a table's or a stream's with a suffix."""


class SettingsError(Exception):
    """A setting that can't be used; the message names it."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What answers."""

    variant: str = "AllTraffic"
    instance: str = "ml.c6i.large"
    serverless: bool = False

    def __post_init__(self) -> None:
        variant = _matches(self.variant, r"[A-Za-z0-9](-?[A-Za-z0-9])*") and len(self.variant) <= 63
        _check("endpoint.variant", variant, "up to 63 letters, digits and single hyphens inside")
        _check(
            "endpoint.instance", _matches(self.instance, r"ml\.[a-z0-9-]+\.[a-z0-9-]+"), "a type such as ml.c6i.large"
        )


@dataclass(frozen=True, slots=True)
class Scaling:
    """How many instances answer. Rates in requests a second of one instance, times in seconds."""

    enabled: bool = True
    load_test_rps: float = 200.0
    load_test_seconds: float = 0.01
    safety: float = 0.5
    metric: str = MINUTE
    least_instances: int = 2
    most_instances: int = 10
    out_cooldown: int = 60
    in_cooldown: int = 600
    schedule: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check("scaling.metric", self.metric in {MINUTE, TEN_SECONDS}, f"{MINUTE!r} or {TEN_SECONDS!r}")
        _check("scaling.safety", 0 < self.safety <= 1, "above 0 and at most 1")
        _check("scaling.load_test_seconds", self.load_test_seconds > 0, "above 0")
        _check("scaling.load_test_rps", self.target > 0, "so much that the target is above 0")
        _check("scaling.least_instances", self.least_instances >= 1, "at least 1")
        _check("scaling.most_instances", self.most_instances >= self.least_instances, "at least least_instances")
        _check("scaling.out_cooldown", self.out_cooldown >= 0, "at least 0 seconds")
        _check(
            "scaling.schedule", all(map(_is_scheduled, self.schedule)), "a list such as ['4-10 at cron(0 17 * * ? *)']"
        )
        _check("scaling.in_cooldown", self.in_cooldown >= 0, "at least 0 seconds")

    @property
    def target(self) -> float:
        """What the policy holds each instance at.

        By the minute: invocations a minute, load_test_rps x 60 x safety (SageMaker's guide "Load testing your
        autoscaling configuration"). By ten seconds: requests under way at once, which at load_test_rps are
        load_test_rps x load_test_seconds (Little's law), times safety.
        """
        if self.metric == MINUTE:
            return math.floor(self.load_test_rps * 60 * self.safety)
        return round(self.load_test_rps * self.load_test_seconds * self.safety, 2)


@dataclass(frozen=True, slots=True)
class Front:
    """What callers meet."""

    route: str = LAMBDA
    budget: float = 0.6
    memory: int = 1024
    requests_a_second: int = 500
    burst: int = 1000
    quota_a_day: int = 10_000_000
    consumers: tuple[str, ...] = ("backend",)
    concurrency: int = 300
    account_role: bool = True
    waf: bool = False
    shift: str = AT_ONCE

    def __post_init__(self) -> None:
        _check("front.route", self.route in {LAMBDA, DIRECT}, f"{LAMBDA!r} or {DIRECT!r}")
        _check("front.budget", 0 < self.budget <= 25, "above 0 and at most 25 s: API Gateway waits 29")
        _check("front.memory", 128 <= self.memory <= 10_240, "128 to 10240 MB, what Lambda offers")
        _check("front.shift", self.shift in SHIFTS, f"one of {', '.join(map(repr, SHIFTS))}")
        _check("front.concurrency", self.concurrency >= 0, "at least 1, or 0 for none reserved")
        _check("front.requests_a_second", self.requests_a_second >= 1, "at least 1")
        _check("front.burst", self.burst >= 1, "at least 1")
        _check("front.quota_a_day", self.quota_a_day >= 1, "at least 1")
        _check("front.consumers", 0 < len(self.consumers) == len(set(self.consumers)), "one name at least, none twice")
        _check("front.consumers", all(map(_is_name, self.consumers)), f"names of {NAME}")


@dataclass(frozen=True, slots=True)
class Policy:
    """What the answering policy does about age, in the Lambda and in the endpoint's container alike."""

    least_age: int = 13
    under_age: str = ANSWER

    def __post_init__(self) -> None:
        _check("policy.least_age", 0 <= self.least_age <= 120, "0 to 120")
        _check("policy.under_age", self.under_age in {ANSWER, REFUSE}, f"{ANSWER!r} or {REFUSE!r}")

    @property
    def variables(self) -> dict[str, str]:
        """The same as environment variables."""
        return {"FIRSTSPIN_LEAST_AGE": str(self.least_age), "FIRSTSPIN_UNDER_AGE": self.under_age}


@dataclass(frozen=True, slots=True)
class Experiment:
    """Whether the Lambda runs the experiment whose sealed plan is in its zip."""

    running: bool = False


@dataclass(frozen=True, slots=True)
class Retention:
    """After how many days what may hold personal data expires."""

    events_days: int = 400
    tables_days: int = 90
    transform_days: int = 30
    capture_days: int = 30

    def __post_init__(self) -> None:
        for name in ("events_days", "tables_days", "transform_days", "capture_days"):
            _check(f"retention.{name}", getattr(self, name) >= 1, "at least 1 day")


@dataclass(frozen=True, slots=True)
class Alarms:
    """From when on someone is woken."""

    latency_p99_ms: float = 50.0
    latency_mean_ms: float = 25.0
    failed_percent: float = 5.0
    fallback_percent: float = 1.0
    answers_hours: float = 48.0
    quiet_minutes: int = 60
    email: str = ""

    def __post_init__(self) -> None:
        _check("alarms.failed_percent", 0 <= self.failed_percent <= 100, "0 to 100")
        email = not self.email or _matches(self.email, r"[^@\s]+@[^@\s]+\.[^@\s]+")
        _check("alarms.email", email, "an address to write to, or empty")
        _check("alarms.latency_p99_ms", self.latency_p99_ms > 0, "above 0")
        _check("alarms.latency_mean_ms", self.latency_mean_ms > 0, "above 0")
        _check("alarms.answers_hours", 0 < self.answers_hours < 14 * 24, "above 0 and under 336: answers expire then")
        quiet = self.quiet_minutes % 5 == 0 and 0 <= self.quiet_minutes <= 1440
        _check("alarms.quiet_minutes", quiet, "a multiple of 5, at most 1440; 0 for none")
        _check("alarms.fallback_percent", 0 <= self.fallback_percent <= 100, "0 to 100")


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that differs between one service and another."""

    name: str = "firstspin"
    region: str = "eu-central-1"
    key_arn: str = ""
    endpoint: Endpoint = field(default_factory=Endpoint)
    scaling: Scaling = field(default_factory=Scaling)
    front: Front = field(default_factory=Front)
    policy: Policy = field(default_factory=Policy)
    experiment: Experiment = field(default_factory=Experiment)
    retention: Retention = field(default_factory=Retention)
    alarms: Alarms = field(default_factory=Alarms)

    def __post_init__(self) -> None:
        _check("name", _is_name(self.name), NAME)
        _check("region", _matches(self.region, r"[a-z]{2,4}(-[a-z]+)+-[0-9]+"), "as AWS writes it: eu-central-1")
        key = not self.key_arn or _matches(self.key_arn, r"arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{12}:key/[A-Za-z0-9-]+")
        _check("key_arn", key, "the ARN of a KMS key, or empty")
        fixed = not (self.endpoint.serverless and self.scaling.enabled)
        _check("scaling.enabled", fixed, "false where endpoint.serverless is true: it scales by itself")
        has_lambda = self.front.route == LAMBDA
        _check(
            "experiment.running", has_lambda or not self.experiment.running, f"false unless front.route is {LAMBDA!r}"
        )


LARGEST: Final = 2**31 - 1
"""What CloudFormation takes for a whole number; far from what any setting needs."""

TYPES: Final[dict[Any, tuple[Callable[[Any], bool], str]]] = {
    bool: (lambda told: isinstance(told, bool), "true or false"),
    int: (lambda told: type(told) is int and abs(told) <= LARGEST, f"a whole number, at most {LARGEST}"),
    float: (lambda told: type(told) in (int, float) and abs(told) <= LARGEST, f"a number, at most {LARGEST}"),
    str: (lambda told: isinstance(told, str), "text"),
    tuple[str, ...]: (
        lambda told: isinstance(told, list) and all(isinstance(one, str) for one in told),
        "a list of texts",
    ),
}
"""What TOML may give for a field of each type, and how that is called."""


def read_settings(path: Path) -> Settings:
    """The settings of a file; what it leaves out is as above. Raises SettingsError for a name or value that is none."""
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise SettingsError(f"{path} can't be read: {problem.strerror}") from None
    except (ValueError, RecursionError) as problem:  # what is not UTF-8 is a ValueError too
        raise SettingsError(f"{path} is not TOML: {problem}") from None
    made: Settings = _made(Settings, told, "")
    return made


def _made(kind: type[Any], told: dict[str, Any], where: str) -> Any:
    wanted = get_type_hints(kind)
    if unknown := told.keys() - wanted.keys():
        raise SettingsError(f"{where}{min(unknown)} is no setting")
    return kind(**{name: _value(wanted[name], value, f"{where}{name}") for name, value in told.items()})


def _value(wanted: Any, told: Any, name: str) -> Any:
    if is_dataclass(wanted):
        _check(name, isinstance(told, dict), "a table")
        return _made(wanted, told, f"{name}.")
    fits, words = TYPES[wanted]
    _check(name, fits(told), words)
    return tuple(told) if isinstance(told, list) else told


SCHEDULED: Final = re.compile(r"(?P<least>[1-9][0-9]*)-(?P<most>[1-9][0-9]*) at (?P<when>(?:cron|rate|at)\([^()]+\))")
"""Min and max of instances from a time on, as Application Auto Scaling writes times."""


def _is_scheduled(text: str) -> bool:
    found = SCHEDULED.fullmatch(text)
    return found is not None and int(found["least"]) <= int(found["most"])


def _is_name(text: str) -> bool:
    return len(text) <= 40 and _matches(text, r"[a-z](-?[a-z0-9])+")


def _matches(text: str, pattern: str) -> bool:
    return re.fullmatch(pattern, text) is not None


def _check(name: str, holds: bool, wanted: str) -> None:
    if not holds:
        raise SettingsError(f"{name} must be {wanted}")
