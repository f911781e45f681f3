"""Quality by the number of early listens known: the model with evidence, the model, the history, and a hard switch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np

from firstspin.data.labels.early_listens import EarlyListens
from firstspin.evaluation import metrics
from firstspin.evaluation.bootstrap import Figure, Resampled, resample
from firstspin.evaluation.cross_validation import Split
from firstspin.evaluation.metrics import HEADLINE, RankingMetric
from firstspin.models.evidence.training import HeldOut, fit_settings, log_ratios, moved
from firstspin.models.predictor import Array, Predictor, order
from firstspin.models.task import log_losses
from firstspin.records import MAX_LISTENS, Examples, InputError

EVIDENCE: Final = "evidence"
MODEL: Final = "model"
HISTORY: Final = "history"
SWITCH: Final = "switch"
STRATEGIES: Final = (EVIDENCE, MODEL, HISTORY, SWITCH)

SWITCH_AT: Final = 2
"""The hard switch answers by the history from so many listens on."""

METRICS: Final = (HEADLINE, RankingMetric.NDCG_5.value, RankingMetric.LOG_LOSS.value)


class ListensPoint(msgspec.Struct, frozen=True):
    """The figures of each strategy by metric, with the first `listens` early listens of each user, or all there are.

    `users` have that many. `over_better`: evidence minus the better of model and history, by metric.
    """

    listens: int
    users: int
    figures: dict[str, dict[str, Figure]]
    over_better: dict[str, Figure]


class ListensCurve(msgspec.Struct, frozen=True):
    """The points by rising number of listens, on `held_out` users who have early listens."""

    model: str
    held_out: int
    points: tuple[ListensPoint, ...]


def parse_numbers(text: str) -> tuple[int, ...]:
    """The numbers of listens in a list such as "0,1,2,5", rising. Raises InputError where it is not one."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() and len(word) < 4 and int(word) <= MAX_LISTENS for word in words):
        raise InputError(f"--listens takes numbers of listens from 0 to {MAX_LISTENS}, as in 0,1,2,5")
    return tuple(sorted({int(word) for word in words}))


def listens_curve(
    examples: Examples,
    early: EarlyListens,
    splits: Sequence[Split],
    predictors: Sequence[Predictor],
    numbers: Sequence[int],
    model: str,
    *,
    seed: int,
) -> ListensCurve:
    """Score each strategy on the held-out users of each split who have early listens.

    `predictors` are the model trained on each split. What the listens are worth is fitted on held-out users of other
    splits, or of the other half where there is one split. All points share the bootstrap resamples, so differences are
    paired. Raises InputError where no user has early listens.
    """
    parts = [(_held_out(examples, early, *at), at[0]) for at in zip(splits, predictors, strict=True)]
    if len(parts) == 1:
        parts = _halves(*parts[0], seed)
    if not sum(len(part.tops) for part, _ in parts):
        raise InputError("no labelled user has listens between the registration and the label window")
    per_user: dict[str, list[Array]] = {}
    for i, (users, split) in enumerate(parts):
        trained = examples.tops[split.train]
        ratios = log_ratios(early.take(split.train), trained, len(examples.genres))
        others = _together([part for j, (part, _) in enumerate(parts) if j != i])
        settings = fit_settings(others, ratios, np.random.default_rng(seed))
        popularity = np.bincount(trained, minlength=len(examples.genres)) + 0.5
        for number in numbers:
            known = users.early.first(number)
            history = _history(known, popularity / popularity.sum(), len(users.tops))
            listened = np.bincount(known.users, minlength=len(users.tops))
            switched = np.where((listened < SWITCH_AT)[:, None], users.scores, history)
            evident = moved(users.scores, known, ratios, settings)
            for name, scores in zip(STRATEGIES, (evident, users.scores, history, switched), strict=True):
                for metric, values in _per_user(scores, users.tops).items():
                    per_user.setdefault(_key(number, name, metric), []).append(values)
    means = resample({key: np.concatenate(of) for key, of in per_user.items()}, np.random.default_rng(seed))
    lengths = np.concatenate([np.bincount(part.early.users, minlength=len(part.tops)) for part, _ in parts])
    points = tuple(_point(number, int((lengths >= number).sum()), means) for number in numbers)
    return ListensCurve(model, len(lengths), points)


def _held_out(examples: Examples, early: EarlyListens, split: Split, predictor: Predictor) -> HeldOut:
    """The held-out users of a split who have early listens."""
    which = split.hold_out[np.isin(split.hold_out, early.users)]
    users = examples.take(which)
    return HeldOut(predictor.scores(users.registrations), users.tops, early.take(which))


def _halves(users: HeldOut, split: Split, seed: int) -> list[tuple[HeldOut, Split]]:
    half = np.random.default_rng(seed).permutation(len(users.tops)) % 2
    return [(users.take(np.flatnonzero(half == part)), split) for part in (0, 1)]


def _together(parts: Sequence[HeldOut]) -> HeldOut:
    starts = np.cumsum([0, *(len(part.tops) for part in parts)])
    return HeldOut(
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.tops for part in parts]),
        EarlyListens(
            np.concatenate([part.early.users + start for part, start in zip(parts, starts, strict=False)]),
            np.concatenate([part.early.genres for part in parts]),
            np.concatenate([part.early.seconds for part in parts]),
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


def _point(number: int, users: int, means: Mapping[str, Resampled]) -> ListensPoint:
    of = {name: {metric: means[_key(number, name, metric)] for metric in METRICS} for name in STRATEGIES}
    return ListensPoint(
        number,
        users,
        {name: {metric: mean.figure() for metric, mean in by.items()} for name, by in of.items()},
        {metric: of[EVIDENCE][metric].over(_better(of, metric)).difference for metric in METRICS},
    )


def _better(of: Mapping[str, Mapping[str, Resampled]], metric: str) -> Resampled:
    best = min if RankingMetric(metric).lower_is_better else max
    return best((of[MODEL][metric], of[HISTORY][metric]), key=lambda mean: mean.mean)
