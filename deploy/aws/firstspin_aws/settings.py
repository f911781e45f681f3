"""settings.toml -> checked, frozen settings, and the figures derived from them."""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

MINUTE, TEN_SECONDS = "minute", "10 seconds"
LAMBDA, DIRECT = "lambda", "direct"


class SettingsError(Exception):
    """A setting that can't be used; the message names it."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What answers."""

    managed: bool = False
    variant: str = "AllTraffic"
    instance: str = "ml.c6i.large"
    challenger_share: float = 0.0


@dataclass(frozen=True, slots=True)
class Scaling:
    """How many instances answer. Rates in requests a second of one instance, times in seconds."""

    load_test_rps: float = 200.0
    load_test_seconds: float = 0.01
    safety: float = 0.5
    metric: str = MINUTE
    least_instances: int = 2
    most_instances: int = 10
    out_cooldown: int = 60
    in_cooldown: int = 600

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


@dataclass(frozen=True, slots=True)
class Alarms:
    """From when on someone is woken."""

    latency_p99_ms: float = 50.0
    fallback_percent: float = 1.0


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that differs between one service and another."""

    name: str = "firstspin"
    region: str = "eu-central-1"
    endpoint: Endpoint = field(default_factory=Endpoint)
    scaling: Scaling = field(default_factory=Scaling)
    front: Front = field(default_factory=Front)
    alarms: Alarms = field(default_factory=Alarms)

    def __post_init__(self) -> None:
        scaling, front = self.scaling, self.front
        _check("scaling.metric", scaling.metric in {MINUTE, TEN_SECONDS}, f"{MINUTE!r} or {TEN_SECONDS!r}")
        _check("scaling.safety", 0 < scaling.safety <= 1, "above 0 and at most 1")
        _check("scaling.load_test_rps", scaling.target > 0, "so much that the target is above 0")
        _check("scaling.most_instances", 1 <= scaling.least_instances <= scaling.most_instances, "at least the least")
        _check("endpoint.challenger_share", 0 <= self.endpoint.challenger_share < 1, "at least 0 and below 1")
        _check("front.route", front.route in {LAMBDA, DIRECT}, f"{LAMBDA!r} or {DIRECT!r}")
        _check("front.budget", 0 < front.budget <= 25, "at most 25 s: API Gateway waits 29")
        _check("front.consumers", bool(front.consumers), "one name at least")


PARTS: Final = {"endpoint": Endpoint, "scaling": Scaling, "front": Front, "alarms": Alarms}


def read_settings(path: Path) -> Settings:
    """The settings of a file; what it leaves out is as above. Raises SettingsError for a name or value that is none."""
    told = tomllib.loads(path.read_text(encoding="utf-8"))
    for name, part in PARTS.items():
        if name in told:
            told[name] = _made(part, told[name], f"{name}.")
    made: Settings = _made(Settings, told, "")
    return made


def _made(kind: type[Any], told: dict[str, Any], where: str) -> Any:
    if unknown := told.keys() - {known.name for known in fields(kind)}:
        raise SettingsError(f"{where}{min(unknown)} is no setting")
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in told.items()})


def _check(name: str, holds: bool, wanted: str) -> None:
    if not holds:
        raise SettingsError(f"{name} must be {wanted}")
