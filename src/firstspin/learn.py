"""The learning story, one short function a stage, in order. READ FIRST; then `answer.py` and `experiment/run.py`.

    tables -label-> examples -fit-> predictor -pack-> bundle, with a scorecard measured on a hold-out

The commands are thin over these functions; notebooks and schedulers call them too. A stage that can take more than a
second reports the name of its step and the fraction done, from 0 to 1, to `progress`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from firstspin import files, preflight
from firstspin.data import ground_truth
from firstspin.data.dataset import Dataset, Reading, read_dataset, write_labels
from firstspin.data.ingest import StoredTable
from firstspin.data.labels import incremental, postgres, spark
from firstspin.data.labels.label_state import LATE_DAYS
from firstspin.data.overlap import sketch
from firstspin.data.schema import LISTENS
from firstspin.evaluation import ablation, cross_validation, promotion, scorecard
from firstspin.evaluation.cross_validation import CrossValidated, HoldOutAnswers, Protocol, Split
from firstspin.evaluation.learning_curve import LearningCurve, learning_curve
from firstspin.evaluation.listens_curve import ListensCurve, listens_curve
from firstspin.evaluation.metrics import MARGIN, SEEN_SHARE, RankingMetric
from firstspin.models import coded_rows, features, prediction_sets, registry
from firstspin.models.calibration import HoldOutCalibration, Predicted
from firstspin.models.evidence import training as evidence_training
from firstspin.models.evidence.scoring import Evidence
from firstspin.models.prediction_sets import PredictionSets
from firstspin.models.predictor import RULE, Predictor
from firstspin.models.registry import Learning
from firstspin.models.task import Progress, Task, Tuned, silent, stage
from firstspin.records import Census, Examples, InputError, LabelRule
from firstspin.serving import bundle
from firstspin.serving.stations import Catalogue
from firstspin.watch.calibration import hold_out_calibration
from firstspin.watch.inputs import reference_of

HOLD_OUT_PART: Final = 5
"""`train` holds out one part in so many for its scorecard, then trains on all users."""
MAX_HELD_OUT: Final = 100_000
"""Of more users `train` holds out a smaller part: so many tell hit@3 to within 0.3 points."""
MAX_PARTS: Final = 10
"""A model that was measured on a smaller part than this is not trained again with it."""


def label(
    data: Path,
    out: Path,
    reading: Reading = Reading(),
    engine: str = "duckdb",
    listens: str = "",
    listens_table: str = LISTENS,
    state: Path | None = None,
    late_days: int = LATE_DAYS,
) -> tuple[Census, dict[str, int]]:
    """Write one row per labelled user; the census of all users, and the counts of what was ignored.

    `engine` is "duckdb", or "spark" in a session of its own. `listens` is the address of a database of PostgreSQL or
    DuckDB that has them in a table. `state` is the folder of the sums of earlier listens, to which those of `data` are
    added (`incremental`). Raises InputError where the engine is not installed, and where the tables can't be read.
    """
    if state and (listens or engine == "spark"):
        raise InputError("--state has listens of files: leave out --listens and --engine spark")
    if listens and engine == "spark":
        raise InputError("--listens is read by its database: leave out --engine spark")
    if listens and not listens_table:
        raise InputError("--listens-table is empty: name a table or a view")
    scheme, _, path = listens.partition("://")
    if scheme == "duckdb":
        reading, listens = replace(reading, listens=StoredTable(Path(path), listens_table)), ""
    preflight.file(out, data, suffixes=(".parquet",))
    if reading.listens and reading.listens.path.resolve() == out.resolve():
        raise InputError(f"{out} is the database of the listens; name another file for the labels")
    if state:
        preflight.state(state, data, out)
    with files.written_beside(out) as beside:
        if state:
            return incremental.write_labels(data, beside, reading, state.resolve(), late_days)
        if listens:
            return postgres.write_labels(data, beside, reading, listens, listens_table)
        return (spark.write_labels if engine == "spark" else write_labels)(data, beside, reading)


def train(
    data: Path,
    out: Path,
    model: str = "auto",
    *,
    reading: Reading = Reading(),
    learning: Learning = Learning(),
    progress: Progress = silent,
    early: Path | None = None,
) -> tuple[bundle.Bundle, Dataset, scorecard.Scorecard]:
    """Tables -> a bundle with its scorecard: measured on a hold-out, then trained on all users.

    The model trained on all users has the ensemble's members and weights that were measured: they are chosen, as the
    settings of a search, without the hold-out. Its calibrated rows are those of the measured model. Of more than a
    million users the measured model itself is packed. `early`: write a bundle of the business rule there first, in case
    training is interrupted.

    Raises InputError for an unknown model, a place that can't be written, tables that can't be read, or too few users.
    """
    registry.check_training([model], reading.extra, learning.without, tuned=learning.tunes)
    preflight.bundle(out, data)
    if learning.tunes and learning.checkpoints:
        preflight.folder(learning.checkpoints)
    progress("reading the tables", 0.0)
    dataset = read_dataset(data, reading, early=True)
    everyone = prepare(dataset, learning, dataset.examples, progress)
    rule = registry.fit(RULE, everyone)
    if early:
        _pack(early, rule, rule, dataset, None)
    split = _hold_out(dataset, learning)
    if learning.tunes:
        learning = replace(learning, tuned=_tuned(dataset, split, model, learning, progress))
    parts = hold_out_parts(len(dataset.examples))
    refit = 1 / parts if parts <= MAX_PARTS else 0.0
    description: dict[str, object] = {"protocol": f"one part in {parts} held out", "seed": learning.seed}
    validated = _cross_validated(dataset, [split], [model], learning, progress)
    measured = validated[model].predictors[0]
    rows = prediction_sets.calibrated(validated[model].answers.truth_before)
    held_out = dataset.examples.take(split.hold_out)
    measured_answers: dict[Predicted, HoldOutAnswers] = {
        "model": validated[model].answers,
        "rule": validated[RULE].answers,
    }
    calibration = hold_out_calibration(measured_answers, held_out, refit)
    evidence = _evidence(dataset, split, measured, learning.seed)
    description |= {"made_of": measured.made_of}
    card = _scored(dataset, [split], validated, description, seed=learning.seed, about=model)
    card = replace(card, evidence=evidence.settings)
    if refit:
        fitted = registry.refit(measured, replace(everyone, tuned=learning.tuned))
    else:
        fitted, rule = measured, validated[RULE].predictors[0]  # of the same users: a bundle has one encoder
    packed = _pack(out, fitted, rule, dataset, card, rows, evidence, calibration)
    return packed, dataset, card


def evaluate_models(
    data: Path,
    models: Sequence[str],
    *,
    protocol: Protocol = Protocol(),
    reading: Reading = Reading(),
    learning: Learning = Learning(),
    about: str = "",
    with_ablation: bool = False,
    progress: Progress = silent,
) -> tuple[scorecard.Scorecard, Dataset]:
    """Train each model on some users and score it on held-out ones, beside the baselines.

    Cohorts, confusion and ablation are those of the model `about`, or else of the best.

    Raises InputError for an unknown model, tables that can't be read, or a protocol that these users don't allow.
    """
    registry.check_training(models, reading.extra, learning.without)
    progress("reading the tables", 0.0)
    dataset = read_dataset(data, reading)
    splits, description = cross_validation.planned_splits(dataset.examples, dataset.rule, protocol)
    fitted = _cross_validated(dataset, splits, models, learning, stage(progress, 0.0, 0.5 if with_ablation else 1.0))
    truth = ground_truth.read_ground_truth(data, cross_validation.held_out(dataset.examples, splits).user_ids)
    card = _scored(dataset, splits, fitted, description, seed=protocol.seed, truth=truth, about=about)
    if with_ablation:
        study = _ablation(dataset, splits, card.best, fitted[card.best], learning, stage(progress, 0.5, 1.0))
        card = replace(card, questions=study)
    return card, dataset


def curve_of(
    data: Path,
    model: str,
    sizes: Sequence[int],
    *,
    protocol: Protocol = Protocol(),
    reading: Reading = Reading(),
    learning: Learning = Learning(),
    progress: Progress = silent,
) -> tuple[LearningCurve, Dataset]:
    """The learning curve of a model and the rule: trained on `sizes` users of each split, scored on its held-out ones.

    Raises InputError for an unknown model, tables that can't be read, or more users than a split has.
    """
    registry.check_training([model], reading.extra, learning.without)
    progress("reading the tables", 0.0)
    dataset = read_dataset(data, reading)
    splits, _ = cross_validation.planned_splits(dataset.examples, dataset.rule, protocol)
    curve = learning_curve(
        dataset.examples,
        splits,
        sizes,
        model,
        lambda users: prepare(dataset, learning, users),
        registry.fit,
        progress,
        seed=protocol.seed,
    )
    return msgspec.structs.replace(curve, fingerprint=dataset.summary()["fingerprint"]), dataset


def listens_curve_of(
    data: Path,
    model: str,
    numbers: Sequence[int],
    *,
    protocol: Protocol = Protocol(),
    reading: Reading = Reading(),
    learning: Learning = Learning(),
    progress: Progress = silent,
) -> tuple[ListensCurve, Dataset]:
    """How good a model with evidence is after `numbers` of early listens, beside the model, the history and a switch.

    By group of users too; on a simulated service beside the optimum.

    Raises InputError for an unknown model, tables that can't be read, or users without early listens.
    """
    registry.check_training([model], reading.extra, learning.without)
    progress("reading the tables", 0.0)
    dataset = read_dataset(data, reading, early=True)
    truth = ground_truth.read_ground_truth(data, dataset.examples.user_ids)
    splits, _ = cross_validation.planned_splits(dataset.examples, dataset.rule, protocol)
    predictors = _cross_validated(dataset, splits, [model], learning, stage(progress, 0.0, 0.7))[model].predictors
    curve = listens_curve(
        dataset.examples,
        dataset.early,
        splits,
        predictors,
        numbers,
        model,
        seed=protocol.seed,
        truth=truth,
        progress=stage(progress, 0.7, 1.0),
    )
    return msgspec.structs.replace(curve, fingerprint=dataset.summary()["fingerprint"]), dataset


def evaluate_bundle(
    data: Path, path: Path | bundle.Bundle, *, reading: Reading = Reading(), progress: Progress = silent
) -> tuple[scorecard.Scorecard, Dataset]:
    """Score a bundle on all labelled users of some tables, beside baselines trained on the same users.

    The further columns are the bundle's, of which the table may lack some, and so is the label rule unless `reading`
    has another than the default. The protocol has the estimated share of these users that the bundle was trained on.

    Raises InputError where the bundle or the tables can't be read.
    """
    progress("reading the tables", 0.0)
    loaded = path if isinstance(path, bundle.Bundle) else bundle.load(path)
    dataset = read_dataset(data, _reading_for([loaded], reading))
    users = dataset.examples
    everyone = prepare(dataset, Learning(), users)
    answers = {
        name: cross_validation.answer(registry.fit(name, everyone), users, everyone.rows)
        for name in scorecard.BASELINES
    }
    answers[f"bundle {loaded.id}"] = cross_validation.answer(loaded.predictor, users)
    summary = dataset.summary()
    seen = loaded.manifest.data.get("fingerprint") == summary["fingerprint"]
    share = 1.0 if seen else loaded.training_share(users.user_ids)
    description = {"protocol": "bundle", "trained on these very people": seen, SEEN_SHARE: round(share, 3)}
    description["baselines know the answers"] = True
    truth = ground_truth.read_ground_truth(data, users.user_ids)
    sets = loaded.manifest.rows
    card = scorecard.score(answers, users, description, summary, seed=0, truth=truth, sets=sets)
    return card if sets else replace(card, rows=None), dataset  # its answers have no rows that could cover anything


def compare_bundles(
    data: Path,
    champion: Path,
    challenger: Path,
    *,
    reading: Reading = Reading(),
    metric: RankingMetric = RankingMetric.HIT_3,
    margin: float = MARGIN,
    progress: Progress = silent,
) -> tuple[promotion.PromotionVerdict, Dataset]:
    """The promotion gate: whether a bundle may replace another one, on users of some tables who are new to both.

    Further columns and the label rule are those of the bundles, as in `evaluate_bundle`.

    Raises InputError where a bundle or the tables can't be read, the bundles have different label rules and `reading`
    the default one, or `promotion.compare` refuses.
    """
    progress("reading the bundles", 0.0)
    old, new = bundle.load(champion), bundle.load(challenger)
    for one in (old, new):
        promotion.training_end(one)  # refused before the tables are read
    progress("reading the tables", 0.1)
    dataset = read_dataset(data, _reading_for([old, new], reading))
    progress("comparing", 0.8)
    return promotion.compare(old, new, dataset.examples, metric=metric, margin=margin), dataset


def prepare(dataset: Dataset, learning: Learning, users: Examples, progress: Progress = silent) -> Task:
    """The training task of these users of the dataset: their registrations are encoded here, once for all models."""
    return registry.prepare(users, dataset.genres, extra=tuple(dataset.extra), learning=learning, progress=progress)


# ---------------------------------------------------------------------------------------------- inside


def _reading_for(bundles: Sequence[bundle.Bundle], reading: Reading) -> Reading:
    """The reading with the bundles' further columns and, unless it has another than the default, their label rule.

    Raises InputError where the bundles have two rules.
    """
    rule = reading.rule
    if replace(rule, data_ends=None) == LabelRule():
        first, *others = (one.label_rule() for one in bundles)
        if any(other != first for other in others):
            rules = [(one.id, one.label_rule()) for one in bundles]
            given = "; ".join(
                f"bundle {name}: days {of.gap_days} to {of.gap_days + of.window_days}, at least {of.min_seconds:g} s"
                for name, of in rules
            )
            raise InputError(f"the bundles were trained on different labels, so none is fair to both ({given})")
        rule = replace(first, data_ends=rule.data_ends)
    extra = tuple(dict.fromkeys(name for one in bundles for name in one.manifest.extra))
    return replace(reading, extra=extra, extra_optional=True, rule=rule)


def _cross_validated(
    dataset: Dataset, splits: Sequence[Split], models: Sequence[str], learning: Learning, progress: Progress
) -> dict[str, CrossValidated]:
    """The baselines and the models, trained and scored on each split."""
    return cross_validation.cross_validate(
        dataset.examples,
        splits,
        list(dict.fromkeys([*scorecard.BASELINES, *models])),
        lambda users: prepare(dataset, learning, users),
        registry.fit,
        progress,
    )


def _scored(
    dataset: Dataset,
    splits: Sequence[Split],
    validated: Mapping[str, CrossValidated],
    description: dict[str, object],
    *,
    seed: int,
    truth: ground_truth.GroundTruth | None = None,
    about: str = "",
) -> scorecard.Scorecard:
    """The scorecard of cross-validated models and baselines."""
    answers = {name: one.answers for name, one in validated.items()}
    held_out = cross_validation.held_out(dataset.examples, splits)
    return scorecard.score(answers, held_out, description, dataset.summary(), seed=seed, truth=truth, about=about)


def _ablation(
    dataset: Dataset,
    splits: Sequence[Split],
    model: str,
    full: CrossValidated,
    learning: Learning,
    progress: Progress,
) -> ablation.Study:
    questions = [name for name in (*features.QUESTIONS, *dataset.extra) if name not in learning.without]
    return ablation.study(
        dataset.examples,
        splits,
        model,
        full,
        lambda users: prepare(dataset, learning, users),
        registry.refit,
        questions,
        learning.seed,
        progress,
    )


def _tuned(dataset: Dataset, split: Split, model: str, learning: Learning, progress: Progress) -> tuple[Tuned, ...]:
    """The settings found without the hold-out. Their task is not kept: of 5 million users it takes a GiB."""
    return registry.tune(model, prepare(dataset, learning, dataset.examples.take(split.train), progress), learning)


def _hold_out(dataset: Dataset, learning: Learning) -> Split:
    users = len(dataset.examples)
    if users < HOLD_OUT_PART:
        raise InputError(f"{users} labelled users are too few to learn from; at least {HOLD_OUT_PART} are needed")
    return cross_validation.stratified_split(dataset.examples.tops, hold_out_parts(users), learning.seed)


def hold_out_parts(users: int) -> int:
    """One part in so many of n labelled users is held out.

    >>> hold_out_parts(5_000), hold_out_parts(5_000_000)
    (5, 50)
    """
    return max(HOLD_OUT_PART, -(-users // MAX_HELD_OUT))


def _evidence(dataset: Dataset, split: Split, measured: Predictor, seed: int) -> Evidence:
    """What early listens are worth: counted on all users, fitted on held-out users, whose predictions are honest."""
    users, early = dataset.examples, dataset.early
    held_out = users.take(split.hold_out)
    honest = evidence_training.HeldOut(
        measured.scores(held_out.registrations), held_out.tops, early.take(split.hold_out)
    )
    learned = evidence_training.log_ratios(early.take(split.train), users.tops[split.train], len(users.genres))
    settings = evidence_training.fit_settings(honest, learned, np.random.default_rng(seed))
    place = {genre: i for i, genre in enumerate(users.genres)}
    stations = {station: place[genre] for station, genre in dataset.station_genres.items() if genre in place}
    return Evidence(
        users.genres,
        settings,
        evidence_training.log_ratios(early, users.tops, len(users.genres)).tolist(),
        stations,
    )


def _pack(
    out: Path,
    fitted: Predictor,
    rule: Predictor,
    dataset: Dataset,
    card: scorecard.Scorecard | None,
    rows: PredictionSets | None = None,
    evidence: Evidence | None = None,
    calibration: HoldOutCalibration | None = None,
) -> bundle.Bundle:
    return bundle.save(
        out,
        fitted,
        rule,
        Catalogue.of(dataset.stations, dataset.markets, dataset.colours),
        known_genres=dataset.genres,
        extra=dataset.extra,
        label=dataset.rule.state(),
        data=dataset.summary(),
        users=sketch(dataset.examples.user_ids, len(dataset.examples)),
        scorecard=card.headline() if card else None,
        knows_silence=coded_rows.knows_silence(fitted.encoder, dataset.examples.registrations),
        rows=rows,
        evidence=evidence,
        calibration=calibration,
        inputs=reference_of(dataset.registered, dataset.extra, fitted.genres),
    )
