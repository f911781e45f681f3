"""Quality by the number of early listens known: the model with evidence, the model, the history, and a hard switch.

By group of users too, with a test that evidence is nowhere worse than its parents, the model and the history alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final

import msgspec
import numpy as np

from firstspin.data.ground_truth import GroundTruth
from firstspin.data.labels.early_listens import EarlyListens
from firstspin.evaluation import metrics
from firstspin.evaluation.bootstrap import Figure, Resampled, resample
from firstspin.evaluation.cohorts import cohorts
from firstspin.evaluation.cross_validation import Split
from firstspin.evaluation.metrics import HEADLINE, RankingMetric
from firstspin.experiment.stats.holm import holm_p_values
from firstspin.models.evidence.training import HeldOut, Indexes, fit_settings, log_ratios, moved
from firstspin.models.predictor import Array, Predictor, order
from firstspin.models.task import Progress, log_losses, silent
from firstspin.records import MAX_LISTENS, Examples, InputError

EVIDENCE: Final = "evidence"
MODEL: Final = "model"
HISTORY: Final = "history"
SWITCH: Final = "switch"
STRATEGIES: Final = (EVIDENCE, MODEL, HISTORY, SWITCH)
PARENTS: Final = (MODEL, HISTORY)

SWITCH_AT: Final = 2
"""The hard switch answers by the history from so many listens on."""

OPTIMUM, EXPECTED = "optimum", "expected"
ALPHA: Final = 0.05
"""Probability that the test names a place where evidence is worse, if there is none."""

METRICS: Final = (HEADLINE, RankingMetric.NDCG_5.value, RankingMetric.LOG_LOSS.value)


class ListensPoint(msgspec.Struct, frozen=True):
    """The figures of each strategy by metric, with the first `listens` early listens of each user, or all there are.

    `users` have that many. `over_better`: evidence minus the better of model and history, by metric. On a simulated
    service, `optimum`: the Bayes-optimal hit@3 given the answers and these listens; `of_optimum`: the share of it that
    evidence reaches.
    """

    listens: int
    users: int
    figures: dict[str, dict[str, Figure]]
    over_better: dict[str, Figure]
    optimum: Figure | None = None
    of_optimum: Figure | None = None


class ListensGroup(msgspec.Struct, frozen=True):
    """The points of the `people` whose attribute `by` has the value `name`."""

    by: str
    name: str
    people: int
    points: tuple[ListensPoint, ...]


class WorseThanParent(msgspec.Struct, frozen=True):
    """A place where evidence is significantly worse than a parent. `p`: adjusted for all comparisons of the curve.

    `by` and `name` are empty for all users; `difference` is evidence minus the parent.
    """

    by: str
    name: str
    listens: int
    metric: str
    parent: str
    difference: float
    p: float


class ListensCurve(msgspec.Struct, frozen=True):
    """The points by rising number of listens, on `held_out` users who have early listens, and those of each group.

    `worse`: every place where evidence is worse than the model or the history alone by more than noise, of so many
    `comparisons`.
    """

    model: str
    held_out: int
    points: Annotated[tuple[ListensPoint, ...], msgspec.Meta(min_length=1)]
    groups: tuple[ListensGroup, ...]
    comparisons: int
    worse: tuple[WorseThanParent, ...]
    fingerprint: str = ""

    def sentence(self) -> str:
        """Where evidence is worse than a parent by more than noise."""
        among = f"{len(self.groups)} groups, {self.comparisons:,} comparisons, Holm's correction at {ALPHA:.0%}"
        if not self.worse:
            return f"Evidence is nowhere worse than the model or the history alone by more than noise ({among})."
        first = self.worse[0]
        where = f"{first.by} {first.name}" if first.by else "all users"
        return (
            f"Evidence is worse than a parent by more than noise in {len(self.worse)} places ({among}); first {where}, "
            f"{first.listens} listens: {first.metric} {first.difference:+.3f} against the {first.parent} alone."
        )


def parse_numbers(text: str) -> tuple[int, ...]:
    """The numbers of listens in a list such as "0,1,2,5", rising. Raises InputError where it is not one."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() and len(word) < 4 and int(word) <= MAX_LISTENS for word in words):
        raise InputError(f"--listens takes numbers of listens from 0 to {MAX_LISTENS}, as in 0,1,2,5")
    return tuple(sorted({int(word) for word in words}))


def read_listens_curve(path: Path) -> ListensCurve:
    """The curve in a file of `evaluate --listens --out`. Raises InputError where it is another file."""
    what = f"{path} is not a curve that firstspin evaluate --listens wrote"
    try:
        curve = msgspec.json.decode(path.read_bytes(), type=ListensCurve)
    except (msgspec.MsgspecError, UnicodeDecodeError) as problem:
        raise InputError(f"{what} ({problem})") from None
    of_groups = [point for group in curve.groups for point in group.points]
    for point in (*curve.points, *of_groups):
        figures = [point.figures.get(name, {}) for name in STRATEGIES]
        if any(metric not in of for of in (*figures, point.over_better) for metric in METRICS):
            raise InputError(f"{what} (a point without one of {', '.join((*STRATEGIES, *METRICS))})")
    return curve


def listens_curve(
    examples: Examples,
    early: EarlyListens,
    splits: Sequence[Split],
    predictors: Sequence[Predictor],
    numbers: Sequence[int],
    model: str,
    *,
    seed: int,
    truth: GroundTruth | None = None,
    progress: Progress = silent,
) -> ListensCurve:
    """Score each strategy on the held-out users of each split who have early listens.

    `predictors` are the model trained on each split; `truth` is that of all examples. What the listens are worth is
    fitted on held-out users of other splits, or of the other half where there is one split. All points share the
    bootstrap resamples, so differences are paired. Raises InputError where no user has early listens.
    """
    parts = [_held_out(examples, early, *at) for at in zip(splits, predictors, strict=True)]
    if len(parts) == 1:
        parts = _halves(*parts[0], seed)
    if not sum(len(which) for _, which in parts):
        raise InputError("no labelled user has listens between the registration and the label window")
    scored = [
        _scored(examples, early, parts, at, splits[min(at, len(splits) - 1)], numbers, truth, seed)
        for at in range(len(parts))
    ]
    values = {key: np.concatenate([of[key] for of in scored]) for key in scored[0]}
    users = examples.take(np.concatenate([which for _, which in parts]))
    lengths = np.concatenate([np.bincount(part.early.users, minlength=len(which)) for part, which in parts])
    groups, found = [], cohorts(users)
    for at, cohort in enumerate(found):
        progress("groups", at / len(found))
        points = _points(
            {key: of[cohort.members] for key, of in values.items()}, lengths[cohort.members], numbers, seed
        )
        groups.append(ListensGroup(cohort.by, cohort.name, len(cohort.members), points))
    members = {("", ""): np.arange(len(users))} | {(one.by, one.name): one.members for one in found}
    comparisons, worse = _worse(values, members, numbers)
    return ListensCurve(model, len(users), _points(values, lengths, numbers, seed), tuple(groups), comparisons, worse)


Part = tuple[HeldOut, Indexes]
"""Held-out users, and their positions among all examples."""


def _held_out(examples: Examples, early: EarlyListens, split: Split, predictor: Predictor) -> Part:
    """The held-out users of a split who have early listens."""
    which = split.hold_out[np.isin(split.hold_out, early.users)]
    users = examples.take(which)
    return HeldOut(predictor.scores(users.registrations), users.tops, early.take(which)), which


def _halves(users: HeldOut, which: Indexes, seed: int) -> list[Part]:
    half = np.random.default_rng(seed).permutation(len(which)) % 2
    return [(users.take(np.flatnonzero(half == part)), which[half == part]) for part in (0, 1)]


def _scored(
    examples: Examples,
    early: EarlyListens,
    parts: Sequence[Part],
    at: int,
    split: Split,
    numbers: Sequence[int],
    truth: GroundTruth | None,
    seed: int,
) -> dict[str, Array]:
    """The values (n,) of the n users of part `at`, by key: number, strategy, metric."""
    users, which = parts[at]
    trained, k = examples.tops[split.train], len(examples.genres)
    ratios = log_ratios(early.take(split.train), trained, k)
    others = _together([part for i, (part, _) in enumerate(parts) if i != at])
    settings = fit_settings(others, ratios, np.random.default_rng(seed))
    popularity = np.bincount(trained, minlength=k) + 0.5
    values = {}
    for number in numbers:
        known = users.early.first(number)
        history = _history(known, popularity / popularity.sum(), len(which))
        listened = np.bincount(known.users, minlength=len(which))
        switched = np.where((listened < SWITCH_AT)[:, None], users.scores, history)
        evident = moved(users.scores, known, ratios, settings)
        for name, scores in zip(STRATEGIES, (evident, users.scores, history, switched), strict=True):
            for metric, of in _per_user(scores, users.tops).items():
                values[_key(number, name, metric)] = of
        if truth and truth.first_month:
            some = examples.take(which)
            then = truth.take(which).after(known, examples.genres, some.registrations)
            values[_key(number, OPTIMUM, HEADLINE)] = then.best_hits(3)
            values[_key(number, EXPECTED, HEADLINE)] = then.expected_hits(examples.genres, order(evident)[:, :3])
    return values


def _together(parts: Sequence[HeldOut]) -> HeldOut:
    starts = np.cumsum([0, *(len(part.tops) for part in parts)])
    return HeldOut(
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.tops for part in parts]),
        EarlyListens(
            np.concatenate([part.early.users + start for part, start in zip(parts, starts, strict=False)]),
            np.concatenate([part.early.genres for part in parts]),
            np.concatenate([part.early.seconds for part in parts]),
            np.concatenate([part.early.picked for part in parts]),
        ),
    )


def _history(known: EarlyListens, popularity: Array, n: int) -> Array:
    """(n, k) log of the share of listens by genre, with one more listen by popularity (k,)."""
    k = len(popularity)
    counts = np.bincount(known.users * k + known.genres, minlength=n * k).reshape(n, k) + popularity
    scores: Array = np.log(counts / counts.sum(axis=1, keepdims=True))
    return scores


def _per_user(scores: Array, tops: metrics.Positions) -> dict[str, Array]:
    position = np.argsort(order(scores), axis=1)[np.arange(len(tops)), tops]
    of = (metrics.hit(position, 3), metrics.ndcg(position, 5), log_losses(scores, tops))
    return dict(zip(METRICS, of, strict=True))


def _key(number: int, strategy: str, metric: str) -> str:
    return f"{number}/{strategy}/{metric}"


def _points(
    values: Mapping[str, Array], lengths: Indexes, numbers: Sequence[int], seed: int
) -> tuple[ListensPoint, ...]:
    means = resample(values, np.random.default_rng(seed))
    return tuple(_point(number, int((lengths >= number).sum()), means) for number in numbers)


def _point(number: int, users: int, means: Mapping[str, Resampled]) -> ListensPoint:
    of = {name: {metric: means[_key(number, name, metric)] for metric in METRICS} for name in STRATEGIES}
    best, expected = (means.get(_key(number, name, HEADLINE)) for name in (OPTIMUM, EXPECTED))
    return ListensPoint(
        number,
        users,
        {name: {metric: mean.figure() for metric, mean in by.items()} for name, by in of.items()},
        {metric: of[EVIDENCE][metric].over(_better(of, metric)).difference for metric in METRICS},
        best.figure() if best else None,
        expected.share_of(best) if best and expected else None,
    )


def _better(of: Mapping[str, Mapping[str, Resampled]], metric: str) -> Resampled:
    best = min if RankingMetric(metric).lower_is_better else max
    return best((of[parent][metric] for parent in PARENTS), key=lambda mean: mean.mean)


def _worse(
    values: Mapping[str, Array], members: Mapping[tuple[str, str], Indexes], numbers: Sequence[int]
) -> tuple[int, tuple[WorseThanParent, ...]]:
    """Paired one-sided t-tests of evidence against both parents, for each number, metric and group, and their number.

    Evidence below the better parent is below one of the two, so that no parent is chosen by the data. Holm's correction
    is over all of them.
    """
    from scipy.special import stdtr

    losses, p_values = [], []
    for (by, name), which in members.items():
        for number in numbers:
            for metric in METRICS:
                sign = -1.0 if RankingMetric(metric).lower_is_better else 1.0
                for parent in PARENTS:
                    gain = values[_key(number, EVIDENCE, metric)][which] - values[_key(number, parent, metric)][which]
                    error = float(gain.std(ddof=1)) / np.sqrt(len(gain))
                    t = sign * float(gain.mean()) / error if error else 0.0
                    p_values.append(float(stdtr(len(gain) - 1, t)))
                    losses.append(WorseThanParent(by, name, number, metric, parent, round(float(gain.mean()), 6), 1.0))
    adjusted = zip(losses, holm_p_values(p_values), strict=True)
    worse = [msgspec.structs.replace(one, p=round(p, 6)) for one, p in adjusted if p < ALPHA]
    return len(losses), tuple(sorted(worse, key=lambda one: one.p))
