"""Learning curve: a model and the business rule on the same held-out users, by the number of training users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final

import msgspec
import numpy as np

from firstspin.evaluation import metrics
from firstspin.evaluation.bootstrap import Figure, Resampled, figure, resample
from firstspin.evaluation.cross_validation import Fit, HoldOutAnswers, Prepare, Split, cross_validate
from firstspin.evaluation.metrics import HEADLINE, RankingMetric
from firstspin.files import written_beside
from firstspin.models.predictor import RULE, in_words
from firstspin.models.task import Progress, stage
from firstspin.records import Examples, InputError

LOSS: Final = RankingMetric.LOG_LOSS.value
SHOWN: Final = (HEADLINE, LOSS)
TREND: Final = 3
"""The trend is that of this many last points."""


class CurvePoint(msgspec.Struct, frozen=True):
    """Figures of the model and the rule by metric, both trained on `users` users, and the model minus the rule."""

    users: Annotated[int, msgspec.Meta(gt=0)]
    model: dict[str, Figure]
    rule: dict[str, Figure]
    difference: dict[str, Figure]


class LearningCurve(msgspec.Struct, frozen=True):
    """The points of `model` by rising number of users, on `held_out` users of the tables of this `fingerprint`.

    `better_from`: from this point on, the model's log loss is significantly below the rule's (95% intervals); None
    where the last point's is not. `doubled`: change of each metric of the model with twice the users of the last point,
    if the trend of the last points over the logarithm of the number of users goes on; empty for a single point.
    """

    model: str
    held_out: int
    points: Annotated[tuple[CurvePoint, ...], msgspec.Meta(min_length=1)]
    better_from: int | None
    doubled: dict[str, Figure]
    fingerprint: str = ""

    def better(self) -> str:
        """From how many training users on the model is better than the rule, or how it compares at the last point."""
        name, rule, last = in_words(self.model), in_words(RULE), self.points[-1]
        if self.better_from:
            users = f"{self.better_from:,} training users"
            return f"From {users} on, {name} has a significantly lower log loss than the {rule}."
        if last.difference[LOSS].low > 0:
            return f"With {last.users:,} training users, {name} has a significantly higher log loss than the {rule}."
        return f"No significant difference in log loss to the {rule} with {last.users:,} training users."

    def trend(self) -> str:
        """The effect of twice as many users, as a sentence; empty for a single point."""
        if not self.doubled:
            return ""
        hits, loss = self.doubled[HEADLINE], self.doubled[LOSS]
        return (
            f"If the trend of the last points goes on, {2 * self.points[-1].users:,} users would change {HEADLINE} by "
            f"{hits.value:+.3f} ({hits.low:+.3f} to {hits.high:+.3f}) and log loss by {loss.value:+.3f} "
            f"({loss.low:+.3f} to {loss.high:+.3f})."
        )

    def sentence(self) -> str:
        """Both sentences."""
        return " ".join(filter(None, (self.better(), self.trend())))


def parse_sizes(text: str) -> tuple[int, ...]:
    """The numbers of training users in a list such as "100,200,400", rising. Raises InputError where it is not one."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() and len(word) < 10 and int(word) > 0 for word in words):
        raise InputError("a curve takes numbers of training users, as in 100,200,400")
    return tuple(sorted({int(word) for word in words}))


def learning_curve(
    examples: Examples,
    splits: Sequence[Split],
    sizes: Sequence[int],
    model: str,
    prepare: Prepare,
    fit: Fit,
    progress: Progress,
    *,
    seed: int,
) -> LearningCurve:
    """Train the model and the rule on `sizes` users of each split, and score both on its held-out users.

    The users of a smaller size are among those of a larger one. All points share the bootstrap resamples of the
    held-out users, so their differences are paired. Raises InputError where a split has fewer users than a size.
    """
    available = min(len(split.train) for split in splits)
    if sizes[-1] > available:
        raise InputError(f"{sizes[-1]:,} training users: there are {available:,} in a split; leave out larger numbers")
    models = list(dict.fromkeys([RULE, model]))
    per_user: dict[str, metrics.Array] = {}
    for number, size in enumerate(sizes):
        part = stage(progress, number / len(sizes), (number + 1) / len(sizes))
        smaller = [_first(split, size, seed) for split in splits]
        for name, one in cross_validate(examples, smaller, models, prepare, fit, part).items():
            for metric, values in _per_user(one.answers).items():
                per_user[_key(size, name, metric)] = values
    means = resample(per_user, np.random.default_rng(seed))
    points = tuple(_point(size, model, means) for size in sizes)
    doubled = {metric: _doubled(sizes, [means[_key(size, model, metric)] for size in sizes]) for metric in SHOWN}
    return LearningCurve(
        model,
        sum(len(split.hold_out) for split in splits),
        points,
        _better_from(points),
        doubled if len(sizes) > 1 else {},
    )


def write_curve(curve: msgspec.Struct, out: Path) -> None:
    """Write a curve as JSON. Raises OSError where `out` can't be written."""
    with written_beside(out, shared=True) as beside:
        beside.write_bytes(msgspec.json.format(msgspec.json.encode(curve), indent=2) + b"\n")


def read_curve(path: Path) -> LearningCurve:
    """The curve in a file of `evaluate --curve --out`. Raises InputError where it is another file."""
    what = f"{path} is not a curve that firstspin evaluate --curve wrote"
    try:
        curve = msgspec.json.decode(path.read_bytes(), type=LearningCurve)
    except (msgspec.MsgspecError, UnicodeDecodeError) as problem:
        raise InputError(f"{what} ({problem})") from None
    figures = [curve.doubled or dict.fromkeys(SHOWN)]
    figures += [of for point in curve.points for of in (point.model, point.rule, point.difference)]
    if lacking := [metric for metric in SHOWN for of in figures if metric not in of]:
        raise InputError(f"{what} (a point without {lacking[0]})")
    return curve


def _first(split: Split, size: int, seed: int) -> Split:
    """The split with the first `size` of its training users in a random order that depends on the seed alone."""
    shuffled = np.random.default_rng((seed, len(split.train))).permutation(split.train)
    return Split(np.sort(shuffled[:size]), split.hold_out)


def _per_user(answers: HoldOutAnswers) -> dict[str, metrics.Array]:
    return {HEADLINE: metrics.hit(answers.position, 3), LOSS: metrics.log_loss(answers.probability)}


def _key(size: int, model: str, metric: str) -> str:
    return f"{size}/{model}/{metric}"


def _point(size: int, model: str, means: Mapping[str, Resampled]) -> CurvePoint:
    of_model = {metric: means[_key(size, model, metric)] for metric in SHOWN}
    of_rule = {metric: means[_key(size, RULE, metric)] for metric in SHOWN}
    return CurvePoint(
        size,
        {metric: mean.figure() for metric, mean in of_model.items()},
        {metric: mean.figure() for metric, mean in of_rule.items()},
        {metric: mean.over(of_rule[metric]).difference for metric, mean in of_model.items()},
    )


def _better_from(points: Sequence[CurvePoint]) -> int | None:
    best = None
    for point in reversed(points):
        if point.difference[LOSS].high >= 0:
            break
        best = point.users
    return best


def _doubled(sizes: Sequence[int], values: Sequence[Resampled]) -> Figure:
    """The slope of a metric over log2 of the number of users, by least squares on the last points."""
    at = np.log2(np.array(sizes[-TREND:], dtype=np.float64))
    weights = (at - at.mean()) / (((at - at.mean()) ** 2).sum() or 1.0)
    last = values[-TREND:]
    mean = sum(weight * one.mean for weight, one in zip(weights, last, strict=True))
    return figure(mean, np.sum([weight * one.resamples for weight, one in zip(weights, last, strict=True)], axis=0))
