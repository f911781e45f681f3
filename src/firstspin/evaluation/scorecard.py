"""The scorecard: metrics of hold-out answers with 95% intervals, and each model's paired lift over the baselines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from firstspin.data.ground_truth import GroundTruth
from firstspin.evaluation import metrics
from firstspin.evaluation.ablation import Study
from firstspin.evaluation.bootstrap import Figure, PairedLift, resample
from firstspin.evaluation.cohorts import cohorts
from firstspin.evaluation.cross_validation import HoldOutAnswers
from firstspin.evaluation.metrics import HEADLINE, SEEN_SHARE, RankingMetric
from firstspin.evaluation.row_coverage import RowCoverage, row_coverage
from firstspin.files import written_beside
from firstspin.models.evidence.scoring import EvidenceSettings
from firstspin.models.prediction_sets import PredictionSets
from firstspin.models.predictor import RULE, in_words, members_of
from firstspin.records import Examples, InputError

Array = NDArray[np.float64]

ALL_BUT_CHANCE: Final = 0.95
"""A share estimated above it may be all users."""

OVERALL: Final = "overall"
BASELINES: Final = (OVERALL, "single_pick", RULE, "age_gender")
"""Overall popularity, the most popular single pick, all picks by popularity (the business rule), and popularity within
age band and gender."""

METRICS: Final[Mapping[str, Callable[[HoldOutAnswers], Array]]] = {
    RankingMetric.HIT_1.value: lambda outcome: metrics.hit(outcome.position, 1),
    RankingMetric.HIT_3.value: lambda outcome: metrics.hit(outcome.position, 3),
    RankingMetric.HIT_5.value: lambda outcome: metrics.hit(outcome.position, 5),
    RankingMetric.NDCG_5.value: lambda outcome: metrics.ndcg(outcome.position, 5),
    RankingMetric.LOG_LOSS.value: lambda outcome: metrics.log_loss(outcome.probability),
}


@dataclass(frozen=True, slots=True)
class CohortResult:
    """hit@3 within one cohort: of every model, and the lift of the best one over each baseline."""

    by: str
    name: str
    people: int
    figures: dict[str, Figure]
    lifts: dict[str, PairedLift]


@dataclass(frozen=True, slots=True)
class Reliability:
    """Calibration of the probability of the first genre.

    `bins` are of equal size, see `metrics.calibration`. `error` is the expected calibration error, and `luck` its 95%
    range under perfect calibration. `excess` is the mean probability minus the share of hits: above zero the model is
    over-confident.
    """

    bins: list[dict[str, float]]
    error: float
    luck: tuple[float, float]
    excess: Figure


@dataclass(frozen=True, slots=True)
class Confusion:
    """`counts[i][j]`: users with top genre i whose first genre shown is j; the last j is any other genre."""

    model: str
    genres: tuple[str, ...]
    counts: list[list[int]]


@dataclass(frozen=True, slots=True)
class Ceiling:
    """Expected hit@3 under a simulation's truth: optimal given the answers (`best`), each model's, and its `share`."""

    best: Figure
    expected: dict[str, Figure]
    share: dict[str, Figure]


@dataclass(frozen=True, slots=True)
class Scorecard:
    """All figures of an evaluation, as in the terminal and in scorecard.json.

    `best` is the model named by the caller, or else the one with the highest hit@3 that is not a baseline; `data` has
    the census of the users.
    """

    protocol: dict[str, object]
    data: dict[str, object]
    people: int
    best: str
    figures: dict[str, dict[str, Figure]]
    lifts: dict[str, dict[str, dict[str, PairedLift]]]
    segments: list[CohortResult] = field(default_factory=list)
    reliability: dict[str, Reliability] = field(default_factory=dict)
    confusion: Confusion | None = None
    ceiling: Ceiling | None = None
    questions: Study | None = None
    evidence: EvidenceSettings | None = None
    rows: RowCoverage | None = None

    def __repr__(self) -> str:
        """The headline as two aligned tables, below the warning if there is one."""
        parts = [f"{title}\n{_aligned(rows)}" for title, rows in self.headline_tables() if len(rows) > 1]
        return "\n\n".join(filter(None, [self.warning(), *parts, self.advice()]))

    def _repr_html_(self) -> str:
        """The headline as notebooks show it."""
        tables = "".join(_as_html(title, rows) for title, rows in self.headline_tables() if len(rows) > 1)
        advice = f"<p>{escape(self.advice())}</p>" if self.advice() else ""
        return f"<p>{escape(self.warning())}</p>{tables}{advice}"

    def warning(self) -> str:
        """The warning that a bundle was trained on users of its evaluation; empty where none of them is known."""
        share = self.protocol.get(SEEN_SHARE, 0.0)
        if not isinstance(share, float) or share <= 0:
            return ""
        whom = "these very users" if share > ALL_BUT_CHANCE else f"about {share:.0%} of these users"
        return f"Warning: {self.best} was trained on {whom}, so its figures are too high."

    def advice(self) -> str:
        """That the best model is the business rule, or not shown to beat it; empty where it is, or is not compared."""
        if members_of(str(self.protocol.get("made_of", ""))) == in_words(RULE):
            return (
                f"{self.best} is the business rule, because no ensemble has a lower log loss on held-out users. "
                "More labelled users can change this: firstspin evaluate --curve shows the trend."
            )
        if RULE not in self.lifts.get(self.best, {}) or SEEN_SHARE in self.protocol:
            return ""
        lift = self.lifts[self.best][RULE][HEADLINE]
        if lift.difference.low > 0:
            return ""
        shown = "is worse than" if lift.difference.high < 0 else "is not shown to be better than"
        percent = lift.relative.percent()
        return (
            f"{self.best} {shown} the business rule (lift in {HEADLINE} {percent}): keep the rule, "
            "or collect more labelled users."
        )

    def headline_tables(self) -> list[tuple[str, list[list[str]]]]:
        """Two tables, each a title and its rows, the header first: metrics by model, and lift over each baseline."""
        users = "users" if SEEN_SHARE in self.protocol else "held-out users"
        about = f"{self.protocol['protocol']}, n = {self.people:,} {users}, ± half-width of the 95% CI"
        figures = [
            [in_words(name), *(str(row[metric]) for metric in RankingMetric)] for name, row in self.figures.items()
        ]
        baselines = [name for name in self.figures if any(name in over for over in self.lifts.values())]
        lifts = [
            [in_words(name), *(over[baseline][HEADLINE].relative.percent() for baseline in baselines)]
            for name, over in self.lifts.items()
            if name not in baselines
        ]
        return [
            (about, [["model", *RankingMetric], *figures]),
            (
                f"lift in {HEADLINE} over each baseline, as a share of it",
                [["model", *map(in_words, baselines)], *lifts],
            ),
        ]

    def to_dict(self) -> dict[str, object]:
        """The scorecard as JSON types; a figure that is not defined is NaN."""
        evidence = self.evidence and msgspec.structs.asdict(self.evidence)
        return asdict(self) | {"evidence": evidence}

    def headline(self) -> dict[str, object]:
        """The part that a bundle carries: figures and lifts."""
        state = self.to_dict()
        return {name: state[name] for name in ("protocol", "people", "best", "figures", "lifts", "evidence")}


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows as text, the first column left and the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if at else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def _as_html(title: str, rows: Sequence[Sequence[str]]) -> str:
    head, *lines = ["".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row) for tag, row in _tagged(rows)]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><caption>{escape(title)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _tagged(rows: Sequence[Sequence[str]]) -> Iterator[tuple[str, Sequence[str]]]:
    yield "th", rows[0]
    yield from (("td", row) for row in rows[1:])


def write_scorecard(card: Scorecard, out: Path) -> None:
    """Write a scorecard as JSON; a figure that is not defined is null. Raises OSError where `out` can't be written."""
    with written_beside(out, shared=True) as beside:
        beside.write_bytes(msgspec.json.format(msgspec.json.encode(card.to_dict()), indent=2) + b"\n")


def read_scorecard(path: Path) -> Scorecard:
    """The scorecard of a file written by `firstspin evaluate`. Raises InputError where it is another file."""
    try:
        return msgspec.convert(_with_nan(msgspec.json.decode(path.read_bytes())), Scorecard)
    except msgspec.MsgspecError as problem:
        raise InputError(f"{path} is not a scorecard that firstspin evaluate wrote ({problem})") from None


def _with_nan(state: Any) -> Any:
    """The state with NaN for a JSON null in a figure, which means undefined."""
    if isinstance(state, dict):
        is_figure = state.keys() == {"value", "low", "high"}
        return {name: float("nan") if is_figure and of is None else _with_nan(of) for name, of in state.items()}
    return [_with_nan(one) for one in state] if isinstance(state, list) else state


def score(
    answers: Mapping[str, HoldOutAnswers],
    users: Examples,
    protocol: dict[str, object],
    data: dict[str, object],
    *,
    seed: int,
    truth: GroundTruth | None = None,
    about: str = "",
    sets: PredictionSets | None = None,
) -> Scorecard:
    """The scorecard of each model's hold-out answers, whose rows are the held-out `users`.

    Cohort lifts, confusion and calibrated rows are those of the model `about`, or else of the best; `sets` are its
    rows where it is a bundle that has any.
    """
    rng = np.random.default_rng(seed)
    against = [name for name in BASELINES if name in answers]
    figures, lifts = _figures_and_lifts(answers, against, rng)
    best = about or _best(figures, against)
    return Scorecard(
        protocol=protocol,
        data=data,
        people=len(users),
        best=best,
        figures=figures,
        lifts=lifts,
        segments=_cohort_results(answers, users, best, against, rng),
        reliability=_reliability(answers, rng),
        confusion=_confusion(best, answers[best], users),
        ceiling=_ceiling(answers, users.genres, truth, rng) if truth else None,
        rows=row_coverage(best, answers[best], users, rng, sets),
    )


def _best(figures: Mapping[str, Mapping[str, Figure]], baselines: Sequence[str]) -> str:
    models = [name for name in figures if name not in baselines] or list(figures)
    return max(models, key=lambda name: figures[name][HEADLINE].value)


def _figures_and_lifts(
    answers: Mapping[str, HoldOutAnswers], baselines: Sequence[str], rng: np.random.Generator
) -> tuple[dict[str, dict[str, Figure]], dict[str, dict[str, dict[str, PairedLift]]]]:
    """Each model's metrics, and its lift over each baseline."""
    values = {f"{name} {metric}": of(outcome) for name, outcome in answers.items() for metric, of in METRICS.items()}
    resampled = resample(values, rng)

    def over(name: str, baseline: str) -> dict[str, PairedLift]:
        return {metric: resampled[f"{name} {metric}"].over(resampled[f"{baseline} {metric}"]) for metric in METRICS}

    figures = {name: {metric: resampled[f"{name} {metric}"].figure() for metric in METRICS} for name in answers}
    return figures, {name: {other: over(name, other) for other in baselines if other != name} for name in answers}


def _cohort_results(
    answers: Mapping[str, HoldOutAnswers],
    users: Examples,
    best: str,
    baselines: Sequence[str],
    rng: np.random.Generator,
) -> list[CohortResult]:
    hits = {name: METRICS[HEADLINE](outcome) for name, outcome in answers.items()}
    segments = []
    for cohort in cohorts(users):
        means = resample({name: values[cohort.members] for name, values in hits.items()}, rng)
        lifts = {other: means[best].over(means[other]) for other in baselines if other != best}
        figures = {name: mean.figure() for name, mean in means.items()}
        segments.append(CohortResult(cohort.by, cohort.name, len(cohort.members), figures, lifts))
    return segments


def _reliability(answers: Mapping[str, HoldOutAnswers], rng: np.random.Generator) -> dict[str, Reliability]:
    probabilities = {name: outcome.first_probability for name, outcome in answers.items()}
    hits = {name: metrics.hit(outcome.position, 1) for name, outcome in answers.items()}
    # one call, as the resamples are the most expensive step
    excess = resample({name: probabilities[name] - hits[name] for name in answers}, rng)
    return {name: _reliability_of(probabilities[name], hits[name], excess[name].figure(), rng) for name in answers}


def _reliability_of(probabilities: Array, hits: Array, excess: Figure, rng: np.random.Generator) -> Reliability:
    low, high = metrics.calibration_noise(probabilities, rng)
    return Reliability(
        bins=[
            {name: round(value, 6) for name, value in bucket.items()}
            for bucket in metrics.calibration(probabilities, hits)
        ],
        error=round(metrics.expected_calibration_error(probabilities, hits), 6),
        luck=(round(low, 6), round(high, 6)),
        excess=excess,
    )


def _confusion(model: str, outcome: HoldOutAnswers, users: Examples) -> Confusion:
    k = len(users.genres)
    first = outcome.shown[:, 0]
    counts = np.zeros((k, k + 1), dtype=np.int64)
    np.add.at(counts, (users.tops, np.where(first < 0, k, first)), 1)
    return Confusion(model, users.genres, counts.tolist())


def _ceiling(
    answers: Mapping[str, HoldOutAnswers], genres: Sequence[str], truth: GroundTruth, rng: np.random.Generator
) -> Ceiling:
    expected = {name: truth.expected_hits(genres, outcome.shown[:, :3]) for name, outcome in answers.items()}
    means = resample({"": truth.best_hits(3)} | expected, rng)
    best = means.pop("")
    return Ceiling(
        best=best.figure(),
        expected={name: mean.figure() for name, mean in means.items()},
        share={name: mean.share_of(best) for name, mean in means.items()},
    )
