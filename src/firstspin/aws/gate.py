"""The promotion gate: a bundle may replace another one only where its scorecard is better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from firstspin.evaluation.metrics import RankingMetric
from firstspin.models.predictor import RULE
from firstspin.records import InputError
from firstspin.serving.bundle import Manifest


class GatedFigure(msgspec.Struct, frozen=True):
    """A metric of a scorecard with its confidence interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} ({self.low:.4f} to {self.high:.4f})"


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """The decision and its reason, as a sentence."""

    passes: bool
    why: str


def judge(candidate: Manifest, serving: Manifest, metric: RankingMetric = RankingMetric.HIT_3) -> GateVerdict:
    """A candidate passes where it beats the business rule on its own data, and the bundle in service."""
    new, rule, old = _figure(candidate, metric), _figure(candidate, metric, RULE), _figure(serving, metric)
    if new is None or rule is None:
        return GateVerdict(False, f"the bundle carries no {metric} of its own: it was never measured")
    if not _better(new, rule, metric):
        return GateVerdict(False, f"its {metric} of {new} does not beat the business rule's {rule} on the same people")
    if old is None:
        return GateVerdict(True, f"its {metric} is {new}; the bundle that serves carries none")
    same = candidate.data.get("fingerprint") == serving.data.get("fingerprint")
    people = "measured on the same people" if same else "each measured on people of its own"
    if not _better(new, old, metric):
        return GateVerdict(False, f"its {metric} of {new} does not beat the {old} of the bundle that serves, {people}")
    return GateVerdict(True, f"its {metric} of {new} beats the {old} of the bundle that serves, {people}")


def must_accept(accepted: Manifest, candidate: Manifest, where: str) -> None:
    """Raises InputError where a bundle has other extra fields than the Lambda accepts, which checks every request.

    `accepted` is the manifest of the bundle in its zip, or of the one in service; `where` names it in the message.
    """
    if candidate.extra == accepted.extra:
        return
    new, old = (", ".join(f"{name} ({kind})" for name, kind in one.extra.items()) for one in (candidate, accepted))
    raise InputError(
        f"the bundle's extra fields are {new or 'none'}, and those of {where} {old or 'none'}: the Lambda would refuse "
        "requests. Deploy a zip with the new bundle first, and name it with --zip; --other-fields promotes without"
    )


def _better(one: GatedFigure, other: GatedFigure, metric: RankingMetric) -> bool:
    return one.value < other.value if metric.lower_is_better else one.value > other.value


def _figure(manifest: Manifest, metric: RankingMetric, model: str = "") -> GatedFigure | None:
    """The metric of the bundle's model, or of another model in its scorecard."""
    card: Any = manifest.scorecard or {}
    try:
        return msgspec.convert(card["figures"][model or manifest.predictor.model][metric.value], GatedFigure)
    except (KeyError, TypeError, msgspec.ValidationError):
        return None
