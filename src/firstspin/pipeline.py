"""The whole system, one short function a stage, in order. READ FIRST: it only calls.

    tables -label-> examples -fit-> predictor -pack-> bundle -rank-> ranking -fill-> recommendation

The commands are thin over these functions, and notebooks and schedulers call them too. Every stage that can take more
than a second tells `progress` the name of its step and how much of it is done, from 0 to 1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from firstspin.data import parsing
from firstspin.data.further_fields import check_names, with_further_fields
from firstspin.data.schema import NUMBER
from firstspin.lazily import lazily
from firstspin.records import Census, Examples, InputError, LabelRule, Recommendation, Registration

if TYPE_CHECKING:
    from firstspin import files, preflight
    from firstspin.data import erasure, ground_truth, ingest, labelling, mismatches
    from firstspin.evaluation import ablation, cross_validation, scorecard
    from firstspin.evaluation.report import page as study
    from firstspin.models import features, predictor, registry, task
    from firstspin.serving import batch, bundle, policy, responses, score_stores, stations
    from firstspin.serving import explanations as reasons
    from firstspin.simulation import run as simulation
    from firstspin.simulation import world
else:
    bundle = lazily("firstspin.serving.bundle")
    erasure = lazily("firstspin.data.erasure")
    cross_validation = lazily("firstspin.evaluation.cross_validation")
    features = lazily("firstspin.models.features")
    files = lazily("firstspin.files")
    ingest = lazily("firstspin.data.ingest")
    labelling = lazily("firstspin.data.labelling")
    mismatches = lazily("firstspin.data.mismatches")
    predictor = lazily("firstspin.models.predictor")
    preflight = lazily("firstspin.preflight")
    ablation = lazily("firstspin.evaluation.ablation")
    reasons = lazily("firstspin.serving.explanations")
    policy = lazily("firstspin.serving.policy")
    responses = lazily("firstspin.serving.responses")
    registry = lazily("firstspin.models.registry")
    scorecard = lazily("firstspin.evaluation.scorecard")
    batch = lazily("firstspin.serving.batch")
    simulation = lazily("firstspin.simulation.run")
    stations = lazily("firstspin.serving.stations")
    score_stores = lazily("firstspin.serving.score_stores")
    study = lazily("firstspin.evaluation.report.page")
    ground_truth = lazily("firstspin.data.ground_truth")
    world = lazily("firstspin.simulation.world")

FOLDS, FOLDS_OF_MANY, MANY_PEOPLE = 5, 3, 100_000
REPORT_FOLDS = 3
LADDER = ("logistic", "forest", "network", "lightgbm")  # what the report compares the bundle's model with
LARGEST_SEED = 2**31 - 1
"""All libraries that learn take it."""

SCORECARD_PART = 5
"""Training keeps one part in so many aside to measure itself, then learns from everyone."""


def silent(step: str, done: float) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """The three tables, checked and labelled."""

    examples: Examples
    genres: tuple[str, ...]
    extra: dict[str, str]
    catalogue: stations.Catalogue
    census: Census
    rule: LabelRule
    ignored: dict[str, int]


@dataclass(frozen=True, slots=True)
class Reading:
    """How to read the tables: which further columns to use, and whether to go on without bad rows.

    `erased` tells those of some users who were erased from an event store: they are left out, and counted. `now` (UTC,
    without a zone) tells clocks that are ahead; without it, only what is far beyond all other listens does.
    """

    extra: tuple[str, ...] = ()
    skip_bad_rows: bool = False
    rule: LabelRule | None = None
    erased: erasure.Erased | None = None
    now: datetime | None = None

    def __post_init__(self) -> None:
        check_names(self.extra)


@dataclass(frozen=True, slots=True)
class Learning:
    """How to learn: the questions left out, the seed, and how long and how often `train` tries settings out before.

    `tuned` are settings found before; without them and without tuning, the usual ones are used. The folder
    `checkpoints` keeps what tuning has tried, and a run that was cut off goes on from there.
    """

    without: tuple[str, ...] = ()
    seed: int = 0
    tune_minutes: float | None = None
    tune_trials: int | None = None
    tuned: tuple[task.Tuned, ...] = ()
    checkpoints: Path | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.seed <= LARGEST_SEED:
            raise InputError(f"a seed is a whole number from 0 to {LARGEST_SEED}")
        if not (0 <= (self.tune_minutes or 0) < inf and (self.tune_trials or 0) >= 0):
            raise InputError("tuning takes a finite number of minutes, or of trials, none of them below 0")

    @property
    def tunes(self) -> bool:
        """Whether settings are searched before training."""
        return bool(self.tune_minutes or self.tune_trials)


@dataclass(frozen=True, slots=True)
class Protocol:
    """Who a model learns from and who it is then asked about: folds over users, or a moment in time.

    Everyone is asked once, however many folds. None is five, or three where the people are so many that learning from
    two thirds of them is as good as from four fifths.
    """

    folds: int | None = None
    split_at: datetime | None = None
    seed: int = field(default=0)

    def __post_init__(self) -> None:
        if self.folds is not None and self.folds < 2:
            raise InputError(f"{self.folds} folds: at least 2 are needed")
        if self.folds is not None and self.split_at is not None:
            raise InputError("either folds or a date to split at, not both")


# ---------------------------------------------------------------------------------- tables -> examples


def make_world(out: Path, users: int, seed: int, progress: cross_validation.Progress = silent) -> None:
    """Write the tables of a make-believe service, and its truth."""
    preflight.folder(out)
    world.write_world(out, users, seed, lambda written: progress("users written", written / users))


def label(data: Path, out: Path, reading: Reading = Reading(), engine: str = "duckdb") -> tuple[Census, dict[str, int]]:
    """Write one row a labelled user; count everyone, and what was ignored.

    Raises InputError for an engine that is not there.
    """
    if engine != "duckdb":
        raise InputError(f"--engine {engine}: this version labels with duckdb only")
    preflight.file(out, data)
    with files.workspace("label") as workspace, files.written_beside(out) as beside:
        tables = _tables(data, workspace, reading, beside)
        census, _ = labelling.label_tables(tables, _rule(reading), beside, reading.now)
    return census, tables.ignored


def read_dataset(data: Path, reading: Reading = Reading()) -> Dataset:
    """The tables of a folder as examples to learn from."""
    with files.workspace("tables") as workspace:
        tables = _tables(data, workspace, reading)
        labelled = workspace / "labelled.parquet"
        census, rule = labelling.label_tables(tables, _rule(reading), labelled, reading.now)
        return Dataset(
            examples=labelling.read_examples(labelled, reading.extra),
            genres=tables.genres,
            extra=tables.extra,
            catalogue=stations.Catalogue.of(ingest.station_popularity(tables), ingest.station_markets(tables)),
            census=census,
            rule=rule,
            ignored=tables.ignored,
        )


# --------------------------------------------------------------------- examples -> predictor -> bundle


def train(
    data: Path,
    out: Path,
    model: str = "auto",
    *,
    reading: Reading = Reading(),
    learning: Learning = Learning(),
    progress: cross_validation.Progress = silent,
    early: Path | None = None,
) -> tuple[bundle.Bundle, Dataset, scorecard.Scorecard]:
    """Tables -> a bundle that carries its own scorecard: measured on a part kept aside, then trained on everyone.

    Settings are tuned, if at all, without a look at that part.
    `early` is for who may be stopped half way: a bundle of the business rule is there as soon as the tables are read.
    """
    preflight.training([model], reading.extra, learning.without, tuned=learning.tunes)
    preflight.bundle(out, data)
    if learning.tunes and learning.checkpoints:
        preflight.folder(learning.checkpoints)
    progress("reading the tables", 0.0)
    dataset = read_dataset(data, reading)
    rule = _fit(dataset, learning, silent)("popularity", dataset.examples)
    if early:
        _pack(early, rule, rule, dataset, None)
    aside = _kept_aside(dataset, learning)
    if learning.tunes:
        learning = replace(learning, tuned=_tuned(dataset, aside, model, learning, progress))
    card = _own_scorecard(dataset, aside, model, learning, progress)
    fitted = _fit(dataset, learning, progress)(model, dataset.examples)
    return _pack(out, fitted, rule, dataset, card), dataset, card


def evaluate_models(
    data: Path,
    models: Sequence[str],
    *,
    protocol: Protocol = Protocol(),
    reading: Reading = Reading(),
    learning: Learning = Learning(),
    about: str = "",
    ask_what_questions_buy: bool = False,
    progress: cross_validation.Progress = silent,
) -> tuple[scorecard.Scorecard, Dataset]:
    """Train each model on some people and ask it about others; the baselines always come along.

    Groups, mistakes and questions are those of the model `about`, or else of the best.
    """
    preflight.training(models, reading.extra, learning.without)
    progress("reading the tables", 0.0)
    dataset = read_dataset(data, reading)
    splits, told = _splits(dataset, protocol)
    names = list(dict.fromkeys([*scorecard.BASELINES, *models]))
    found = cross_validation.outcomes(dataset.examples, splits, names, _fit(dataset, learning, silent), progress)
    asked = cross_validation.held_out(dataset.examples, splits)
    known = ground_truth.read_ground_truth(data, asked.user_ids)
    card = scorecard.score(found, asked, told, _about(dataset), seed=protocol.seed, truth=known, about=about)
    if ask_what_questions_buy:
        card = replace(card, questions=_what_questions_buy(dataset, splits, card.best, learning, progress))
    return card, dataset


def evaluate_bundle(
    data: Path, path: Path, *, reading: Reading = Reading(), progress: cross_validation.Progress = silent
) -> tuple[scorecard.Scorecard, Dataset]:
    """Ask a trained bundle about all labelled people of some tables, beside baselines learned from the same people."""
    progress("reading the tables", 0.0)
    loaded = bundle.load(path)
    dataset = read_dataset(data, reading)
    fit = _fit(dataset, Learning(), silent)
    found = {
        name: cross_validation.answer(fit(name, dataset.examples), dataset.examples) for name in scorecard.BASELINES
    }
    found[f"bundle {loaded.id}"] = cross_validation.answer(loaded.predictor, dataset.examples)
    about = _about(dataset)
    seen = loaded.manifest.data["fingerprint"] == about["fingerprint"]
    told = {"protocol": "bundle", "trained on these very people": seen, "baselines know the answers": True}
    known = ground_truth.read_ground_truth(data, dataset.examples.user_ids)
    return scorecard.score(found, dataset.examples, told, about, seed=0, truth=known), dataset


# ------------------------------------------------------------------------- examples + scorecard -> report


def report(
    data: Path,
    path: Path,
    out: Path,
    *,
    measured: Path | None = None,
    reading: Reading = Reading(),
    progress: cross_validation.Progress = silent,
) -> None:
    """Write the study of these tables and of a bundle's model as one HTML page.

    `measured` is a scorecard.json of these tables; without one, the bundle's model is measured here, over three folds.
    The bundle says which further columns are read, and by what rule of labels.
    """
    preflight.report(out, data)
    loaded = bundle.load(path)
    reading = replace(reading, extra=tuple(loaded.manifest.extra), rule=loaded.label_rule())
    if measured:
        card, dataset = scorecard.read_scorecard(measured), read_dataset(data, reading)
        if card.data.get("fingerprint") != _about(dataset)["fingerprint"]:
            raise InputError(f"{measured} is not about the people of {data}: other tables, or another label rule")
    else:
        own, protocol = loaded.predictor.name, Protocol(folds=REPORT_FOLDS)
        names = (*(name for name in LADDER if name != own), own)
        card, dataset = evaluate_models(
            data, names, protocol=protocol, reading=reading, about=own, ask_what_questions_buy=True, progress=progress
        )
    plain = _fit(dataset, Learning(), silent)("logistic", dataset.examples)
    page = study.page(study.material(dataset.examples, dataset.rule, card, plain, loaded), progress)
    with files.written_beside(out, shared=True) as beside:
        beside.write_text(page, encoding="utf-8")


# ----------------------------------------------------------------------------------- bundle -> answers


def recommend(path: Path, registration: Registration, further: Mapping[str, str] | None = None) -> Recommendation:
    """One answer; `further` fields are answered in text. Raises InputError for one that the bundle doesn't ask."""
    loaded = bundle.load(path)
    registration = _with_further(registration, further or {}, loaded.manifest.extra)
    decision = policy.decide(registration, None, loaded, None, policy.DEFAULTS)
    return responses.recommendation(registration, decision, loaded)


def explain(path: Path, registration: Registration, further: Mapping[str, str] | None = None) -> reasons.Explanation:
    """Why one answer is as it is: how much each answer given moved each genre shown; `further` as in `recommend`.

    Raises InputError where the model fails, so that the business rule answers.
    """
    loaded = bundle.load(path)
    return reasons.explain(_with_further(registration, further or {}, loaded.manifest.extra), loaded)


def score(
    path: Path,
    registrations: Path,
    out: str,
    top: int | None = None,
    *,
    now: datetime,
    least_age: int | None = None,
    skip_bad_rows: bool = False,
    progress: cross_validation.Progress = silent,
) -> tuple[int, dict[str, int]]:
    """Answer every registration of a file, in order; the number written and the rows skipped by reason.

    `out` is a .csv or .parquet file, sqlite:PATH or dynamodb:TABLE; a store keeps the answers under a version made of
    the bundle and `now`. Who is younger than `least_age` (None: as the service has it) is answered by the rule.
    """
    preflight.scores(out, registrations)
    settings = policy.PolicySettings(policy.MIN_AGE if least_age is None else least_age)
    loaded = bundle.load(path)
    sink = _sink(out, f"{loaded.id}.{now:%Y%m%dT%H%M%S%f}")
    extra = loaded.manifest.extra
    with files.workspace("score") as workspace:
        received = ingest.read_registrations(
            registrations, workspace=workspace, extra=extra, skip_bad_rows=skip_bad_rows
        )
        people = labelling.read_people(received.connection, tuple(extra))
        rows = max(received.rows, 1)
        written = batch.write(sink, people, loaded, settings, top, lambda n: progress("scored", n / rows))
        unknown, *_ = mismatches.unknown_picks(received.connection, loaded.manifest.known_genres)
    return written, received.ignored | ({"picks of no genre that the bundle knows": unknown} if unknown else {})


# ------------------------------------------------------------------------ bundle -> verdict, simulated


def simulate(
    path: Path,
    setting: simulation.Setting,
    out: Path,
    *,
    now: Callable[[], int],
    progress: cross_validation.Progress = silent,
) -> simulation.Simulated:
    """An A/B test of a bundle on simulated newcomers, through the real service, beside the truth of their world.

    Leaves plan, event store and outcomes in `out`. `now` gives nanoseconds that only ever grow.
    """
    return simulation.simulate(path, setting, out, now=now, progress=progress)


# ---------------------------------------------------------------------------------------------- inside


def _with_further(registration: Registration, further: Mapping[str, str], kinds: Mapping[str, str]) -> Registration:
    """The registration with more answers, each a number or text as training saw it."""
    told: dict[str, object] = {}
    for name, answer in further.items():
        if name not in kinds:
            raise InputError(f"this bundle does not ask {name!r}; it asks {', '.join(kinds) or 'no further field'}")
        try:
            told[name] = parsing.number(answer) if kinds[name] == NUMBER else answer.strip()
        except parsing.Misspelt as problem:
            raise InputError(f"{name} {answer!r} {problem}") from None
    try:
        return msgspec.convert(msgspec.to_builtins(registration) | told, with_further_fields(tuple(kinds), kinds))
    except msgspec.ValidationError as problem:
        raise InputError(f"this is not a registration: {problem}") from None


def _sink(out: str, version: str) -> batch.AnswerSink:
    scheme, _, name = out.partition(":")
    if scheme in score_stores.SCHEMES and name:
        store = score_stores.open_scores(out)
        return lambda batches: store.write(version, batches)
    return batch.file_sink(Path(out))


def _rule(reading: Reading) -> LabelRule:
    return reading.rule or LabelRule()


def _tables(data: Path, workspace: Path, reading: Reading, out: Path | None = None) -> ingest.Tables:
    found = ingest.open_tables(
        data, workspace=workspace, extra=reading.extra, skip_bad_rows=reading.skip_bad_rows, out=out
    )
    return erasure.without_erased(found, reading.erased) if reading.erased else found


def _fit(dataset: Dataset, learning: Learning, progress: cross_validation.Progress) -> cross_validation.Fit:
    train = registry.fit  # before any thread asks for it: loading lazily is not safe among threads

    def fit(name: str, examples: Examples) -> predictor.Predictor:
        return train(
            name,
            examples,
            known_genres=dataset.genres,
            extra=tuple(dataset.extra),
            without=learning.without,
            seed=learning.seed,
            tuned=learning.tuned,
            progress=progress,
        )

    return fit


def _pack(
    out: Path,
    fitted: predictor.Predictor,
    rule: predictor.Predictor,
    dataset: Dataset,
    card: scorecard.Scorecard | None,
) -> bundle.Bundle:
    return bundle.save(
        out,
        fitted,
        rule,
        dataset.catalogue,
        known_genres=dataset.genres,
        extra=dataset.extra,
        label=dataset.rule.state(),
        data=_about(dataset),
        scorecard=card.headline() if card else None,
        knows_silence=_knows_silence(fitted.encoder, dataset.examples),
    )


def _knows_silence(encoder: features.Encoder, examples: Examples) -> bool:
    """Whether people enough told nothing, for a model to have learned what they play."""
    silent_people = (told for told in examples.registrations if not encoder.matches(told))
    return len(list(islice(silent_people, features.MIN_ANSWERS))) == features.MIN_ANSWERS


def _what_questions_buy(
    dataset: Dataset,
    splits: Sequence[cross_validation.Split],
    model: str,
    learning: Learning,
    progress: cross_validation.Progress,
) -> ablation.Study:
    def fit(learn: Examples, without: tuple[str, ...]) -> predictor.Predictor:
        return _fit(dataset, replace(learning, without=(*learning.without, *without)), silent)(model, learn)

    asked = [name for name in (*features.QUESTIONS, *dataset.extra) if name not in learning.without]
    return ablation.study(dataset.examples, splits, model, fit, asked, learning.seed, progress)


def _kept_aside(dataset: Dataset, learning: Learning) -> cross_validation.Split:
    people = len(dataset.examples)
    if people < SCORECARD_PART:
        raise InputError(f"{people} labelled users are too few to learn from; at least {SCORECARD_PART} are needed")
    return cross_validation.folds(dataset.examples.tops, SCORECARD_PART, learning.seed)[0]


def _tuned(
    dataset: Dataset, aside: cross_validation.Split, model: str, learning: Learning, progress: cross_validation.Progress
) -> tuple[task.Tuned, ...]:
    return registry.tune(
        model,
        dataset.examples.take(aside.learn),
        minutes=learning.tune_minutes,
        trials=learning.tune_trials,
        checkpoints=learning.checkpoints,
        known_genres=dataset.genres,
        extra=tuple(dataset.extra),
        without=learning.without,
        seed=learning.seed,
        progress=progress,
    )


def _own_scorecard(
    dataset: Dataset, aside: cross_validation.Split, model: str, learning: Learning, progress: cross_validation.Progress
) -> scorecard.Scorecard:
    names = list(dict.fromkeys([*scorecard.BASELINES, model]))
    found = cross_validation.outcomes(dataset.examples, [aside], names, _fit(dataset, learning, silent), progress)
    told: dict[str, object] = {"protocol": f"one part in {SCORECARD_PART} kept aside", "seed": learning.seed}
    asked = cross_validation.held_out(dataset.examples, [aside])
    return scorecard.score(found, asked, told, _about(dataset), seed=learning.seed)


def _splits(dataset: Dataset, protocol: Protocol) -> tuple[list[cross_validation.Split], dict[str, object]]:
    if protocol.split_at is None:
        folds = protocol.folds or (FOLDS if len(dataset.examples) < MANY_PEOPLE else FOLDS_OF_MANY)
        made = cross_validation.folds(dataset.examples.tops, folds, protocol.seed)
        return made, {"protocol": f"{folds} folds over users", "seed": protocol.seed}
    days = dataset.rule.gap_days + dataset.rule.window_days
    one = cross_validation.by_date(dataset.examples, protocol.split_at, days)
    between = len(dataset.examples) - len(one.learn) - len(one.ask)
    return [one], {
        "protocol": f"split at {protocol.split_at.isoformat()}Z",
        "learned from": len(one.learn),
        "label not yet known at the split": between,
    }


def _about(dataset: Dataset) -> dict[str, object]:
    """What the manifest and the scorecard say of the data: no person can be told from it."""
    examples = dataset.examples
    people = "\n".join(f"{user}\t{top}" for user, top in zip(examples.user_ids, examples.tops.tolist(), strict=True))
    return {
        "fingerprint": hashlib.sha256(people.encode()).hexdigest(),
        "registered": dataset.census.registered,
        "labelled": dataset.census.labelled,
        "dropped": dataset.census.dropped,
        "ignored": dataset.ignored,
        "mismatches": {mismatch.what: mismatch.count for mismatch in dataset.census.mismatches},
        "data_ends": f"{dataset.census.data_ends.isoformat()}Z",
        "from": str(examples.registered_at.min()),
        "to": str(examples.registered_at.max()),
    }


def write_json(out: Path, content: dict[str, object]) -> None:
    """JSON for people and programs; a figure that is not defined is null."""
    with files.written_beside(out, shared=True) as beside:
        beside.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")
