"""Claim: on real data sets `auto` ranks newcomers' genres at least as well as well-known models.

Every model sees the same answers of the form in the same folds, by the product's own encoder: categories and picks
one-hot; age as hats for linear models, as a number for trees and networks; the order of the picks for linear models
alone, since trees and networks got worse with it. Columns that do not vary in training are left out.

`lightgbm default` is LightGBM as it comes. The settings of the other rivals that matter most with few users are chosen
by log loss on a fifth of the training users, and then they are trained on all: C of scikit-learn's logistic regression
(0.1, 0.3, 1 or 3); of LightGBM, XGBoost and CatBoost the number of rounds (early stopping) and the size of the trees
(the default, or 4 leaves). LightGBM has XGBoost's L2 penalty of 1. RealMLP and TabM have pytabkit's tuned defaults, and
stop early on a fifth, which they hold back themselves, RealMLP by log loss and TabM by the error rate. All else is
default, with one thread.

hit@3 and log loss of held-out users; the differences to `auto` are paired by user, with 95% bootstrap intervals. CPU
seconds are those of all threads, of one training with its answers, the median over folds. On the simulated service
hit@3 is expected under the true probabilities, and the last row is the Bayes-optimal ranking.

    make quality DATA="DIR ..."         or    python bench/quality.py DATA [DATA ...] [--models auto,logistic,...]

`make quality` installs the rivals in an environment of their own. One that is not installed is left out and named.
Each training is stored in `--cache`, and an interrupted run resumes there; delete the folder after a change of a
model. `--first N` measures the first N folds alone, for large data. DATA `world` is the simulated service.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from firstspin import learn
from firstspin.data.dataset import Dataset, Reading, read_dataset
from firstspin.data.ground_truth import GroundTruth, read_ground_truth
from firstspin.evaluation.bootstrap import resample
from firstspin.evaluation.cross_validation import Split, answer, stratified_folds
from firstspin.evaluation.metrics import hit, log_loss
from firstspin.files import written_beside
from firstspin.models import features, registry
from firstspin.models.registry import Learning
from firstspin.models.task import Task
from firstspin.records import Examples
from firstspin.simulation.world import write_world

Matrix = NDArray[np.float64]
Indexes = NDArray[np.int64]
Fit = Callable[[Matrix, Indexes, int], Any]
WORLD_USERS = 3_000
OURS, RULE, OPTIMUM = "auto", "popularity", "optimum"
ROUNDS, PATIENCE = 1_000, 50
STRENGTHS = (0.1, 0.3, 1.0, 3.0)
LINEAR = (features.HAT, features.MISSING, features.CATEGORY, features.PICKED, features.RANK)
NETWORKS = (features.NUMBER, features.MISSING, features.CATEGORY, features.PICKED)
TREES = (features.NUMBER, features.CATEGORY, features.PICKED, features.COUNT)


# ------------------------------------------------------------------------------------------ the rivals


def a_fifth_out(rows: Matrix, tops: Indexes, seed: int) -> tuple[Matrix, Indexes, Matrix, Indexes]:
    """Rows and classes of four fifths, and of the last fifth without the classes that only it has."""
    split = stratified_folds(tops, 5, seed)[0]
    classes, labels = np.unique(tops[split.train], return_inverse=True)
    known = split.hold_out[np.isin(tops[split.hold_out], classes)]
    return rows[split.train], labels, rows[known], np.searchsorted(classes, tops[known])


def _logistic(rows: Matrix, tops: Indexes, seed: int) -> Any:
    train, labels, held_out, truth = a_fifth_out(rows, tops, seed)
    losses = [
        log_loss(of.predict_proba(held_out)[np.arange(len(truth)), truth]).mean()
        for of in (LogisticRegression(C=strength, max_iter=2_000).fit(train, labels) for strength in STRENGTHS)
    ]
    return LogisticRegression(C=STRENGTHS[int(np.argmin(losses))], max_iter=2_000).fit(rows, tops)


def _lightgbm_default(rows: Matrix, tops: Indexes, seed: int) -> Any:
    from lightgbm import LGBMClassifier

    return LGBMClassifier(random_state=seed, n_jobs=1, verbose=-1).fit(rows, tops)


def _lightgbm(rows: Matrix, tops: Indexes, seed: int) -> Any:
    from lightgbm import LGBMClassifier, early_stopping

    train, labels, *held_out = a_fifth_out(rows, tops, seed)
    # without the L2 penalty that XGBoost has by default, LightGBM diverges with many genres
    fixed = {"random_state": seed, "n_jobs": 1, "verbose": -1, "reg_lambda": 1.0}
    trials = [
        LGBMClassifier(n_estimators=ROUNDS, num_leaves=leaves, **fixed).fit(
            train,
            labels,
            eval_X=held_out[0],
            eval_y=held_out[1],
            callbacks=[early_stopping(PATIENCE, verbose=False)],
        )
        for leaves in (4, 31)
    ]
    best = min(trials, key=lambda trial: [*trial.best_score_["valid_0"].values()])
    return best.set_params(n_estimators=best.best_iteration_).fit(rows, tops)


def _xgboost(rows: Matrix, tops: Indexes, seed: int) -> Any:
    from xgboost import XGBClassifier

    train, labels, *held_out = a_fifth_out(rows, tops, seed)
    fixed = {"random_state": seed, "n_jobs": 1}
    trials = [
        XGBClassifier(n_estimators=ROUNDS, early_stopping_rounds=PATIENCE, max_depth=depth, **fixed).fit(
            train, labels, eval_set=[tuple(held_out)], verbose=False
        )
        for depth in (2, 6)
    ]
    best = min(trials, key=lambda trial: trial.best_score)
    return XGBClassifier(n_estimators=best.best_iteration + 1, max_depth=best.max_depth, **fixed).fit(rows, tops)


def _catboost(rows: Matrix, tops: Indexes, seed: int) -> Any:
    from catboost import CatBoostClassifier

    train, labels, *held_out = a_fifth_out(rows, tops, seed)
    fixed = {"random_seed": seed, "thread_count": 1, "verbose": False, "allow_writing_files": False}
    trials = [
        CatBoostClassifier(iterations=ROUNDS, early_stopping_rounds=PATIENCE, depth=depth, **fixed).fit(
            train, labels, eval_set=tuple(held_out)
        )
        for depth in (2, 6)
    ]
    best = min(trials, key=lambda trial: [*trial.get_best_score()["validation"].values()])
    chosen = {"iterations": best.get_best_iteration() + 1, "depth": best.get_all_params()["depth"]}
    # the default learning rate depends on the number of rounds: that of the trial stays
    return CatBoostClassifier(learning_rate=best.learning_rate_, **chosen, **fixed).fit(rows, tops)


def _network(kind: str, val_metric: str) -> Fit:
    """A model of pytabkit; a number that is missing is the median."""

    def fit(rows: Matrix, tops: Indexes, seed: int) -> Any:
        import pytabkit

        network = getattr(pytabkit, kind)(
            random_state=seed, device="cpu", n_threads=1, verbosity=0, val_metric_name=val_metric
        )
        return make_pipeline(SimpleImputer(strategy="median"), network).fit(rows, tops)

    return fit


@dataclass(frozen=True, slots=True)
class Rival:
    """A model of another library: the package it needs, the kinds of columns it gets, and its training."""

    package: str
    kinds: tuple[str, ...]
    fit: Fit


RIVALS = {
    "logistic": Rival("sklearn", LINEAR, _logistic),
    "lightgbm default": Rival("lightgbm", TREES, _lightgbm_default),
    "lightgbm": Rival("lightgbm", TREES, _lightgbm),
    "xgboost": Rival("xgboost", TREES, _xgboost),
    "catboost": Rival("catboost", TREES, _catboost),
    "realmlp": Rival("pytabkit", NETWORKS, _network("RealMLP_TD_Classifier", "cross_entropy")),
    # TabM of pytabkit 1.8 takes the log loss of its hold-out of probabilities as if they were logits
    "tabm": Rival("pytabkit", NETWORKS, _network("TabM_D_Classifier", "class_error")),
}


# --------------------------------------------------------------------------------------- the outcomes


def of_rival(rival: Rival, task: Task, held_out: Examples, seed: int) -> tuple[Indexes, Matrix]:
    """(m, 3) the first genres, as positions, of each held-out user and (m,) the probability of the true one."""
    columns = task.encoder.of_kind(*rival.kinds)
    columns = columns[np.array([len(np.unique(task.rows[:, column])) > 1 for column in columns])]
    classes, tops = np.unique(task.tops, return_inverse=True)
    model = rival.fit(task.rows[:, columns], tops, seed)
    p = np.zeros((len(held_out), len(task.genres)))
    p[:, classes] = model.predict_proba(task.encoder.matrix(held_out.registrations)[:, columns])
    return np.argsort(-p, axis=1, kind="stable")[:, :3], p[np.arange(len(held_out)), held_out.tops]


def of_ours(name: str, task: Task, held_out: Examples) -> tuple[Indexes, Matrix]:
    """(m, 3) the first genres, as positions, of each held-out user and (m,) the probability of the true one."""
    outcome = answer(registry.fit(name, task), held_out)
    return outcome.shown[:, :3], outcome.probability


@dataclass(frozen=True, slots=True)
class Trained:
    """Of one fold: (m, 3) first genres, (m,) probability of the true genre, and CPU seconds."""

    shown: Indexes
    probability: Matrix
    seconds: float


def trained(name: str, dataset: Dataset, split: Split, seed: int) -> Trained:
    held_out = dataset.examples.take(split.hold_out)
    begin = time.process_time()
    task = learn.prepare(dataset, Learning(seed=seed), dataset.examples.take(split.train))
    if name in RIVALS:
        shown, probability = of_rival(RIVALS[name], task, held_out, seed)
    else:
        shown, probability = of_ours(name, task, held_out)
    return Trained(shown, probability, time.process_time() - begin)


def stored(path: Path, make: Callable[[], Trained]) -> Trained:
    """What the file holds, or else what `make` returns, which is stored there."""
    if not path.is_file():
        made = make()
        with written_beside(path) as beside, beside.open("wb") as file:
            np.savez(file, shown=made.shown, probability=made.probability, seconds=made.seconds)
        return made
    with np.load(path) as of:
        return Trained(of["shown"], of["probability"], float(of["seconds"]))


def measured(
    dataset: Dataset, models: Sequence[str], folds: Sequence[Split], seed: int, cache: Path
) -> dict[str, Trained]:
    """The outcomes of each model for the users of all folds, in their order, and the median CPU seconds of a fold."""
    of_users = hashlib.sha256(msgspec.json.encode([dataset.examples.user_ids, list(dataset.examples.registrations)]))
    parts: dict[str, list[Trained]] = {name: [] for name in models}
    for number, split in enumerate(folds, 1):
        for name in models:
            print(f"fold {number}/{len(folds)} {name:20}", end="\r", flush=True)
            key = of_users.copy()
            key.update(split.hold_out.tobytes() + dataset.examples.tops.tobytes() + f"{seed} {name}".encode())
            path = cache / f"{name.replace(' ', '-')}-{key.hexdigest()[:16]}.npz"
            parts[name].append(stored(path, lambda n=name, s=split: trained(n, dataset, s, seed)))
    return {
        name: Trained(
            np.concatenate([part.shown for part in of]),
            np.concatenate([part.probability for part in of]),
            float(np.median([part.seconds for part in of])),
        )
        for name, of in parts.items()
    }


def of_truth(truth: GroundTruth, users: Examples) -> Trained:
    """The Bayes-optimal ranking given the answers, of the genres that are the favourite of at least one user."""
    column = {genre: i for i, genre in enumerate(truth.genres)}
    p = truth.probabilities[:, [column[genre] for genre in users.genres]]
    return Trained(np.argsort(-p, axis=1)[:, :3], p[np.arange(len(users)), users.tops], 0.0)


def table(outcomes: dict[str, Trained], users: Examples, truth: GroundTruth | None, seed: int) -> Iterator[str]:
    """hit@3 (expected where the truth is known) and log loss, each with `auto`'s difference, and CPU seconds."""
    hits, losses = {}, {}
    for name, of in outcomes.items():
        position = np.where(of.shown == users.tops[:, None], np.arange(3), -1).max(axis=1)
        hits[name] = truth.expected_hits(users.genres, of.shown) if truth else hit(position, 3)
        losses[name] = log_loss(of.probability)
    resampled = [resample(values, np.random.default_rng(seed)) for values in (hits, losses)]
    yield "| | hit@3 | `auto` minus it | log loss | `auto` minus it | CPU s a training |"
    yield "|---|---|---|---|---|---|"
    for name, outcome in outcomes.items():
        cells = []
        for of in resampled:
            gain = of[OURS].over(of[name]).difference
            cells += [
                f"{of[name].mean:.3f}",
                "" if name == OURS else f"{gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})",
            ]
        yield f"| {' | '.join([name, *cells])} | {outcome.seconds:.1f} |"


# -------------------------------------------------------------------------------------------- the run


@contextmanager
def tables(data: str, users: int) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        if data == "world":
            write_world(Path(folder) / "world", users, seed=0)
            yield Path(folder) / "world"
        else:
            yield Path(data)


def compared(data: str, models: Sequence[str], given: argparse.Namespace) -> None:
    with tables(data, given.world_users) as folder:
        dataset = read_dataset(folder, Reading(tuple(filter(None, given.extra.split(",")))))
        truth = read_ground_truth(folder, dataset.examples.user_ids)
    folds = stratified_folds(dataset.examples.tops, given.folds, given.seed)[: given.first]
    given.cache.mkdir(parents=True, exist_ok=True)
    outcomes = measured(dataset, models, folds, given.seed, given.cache)
    which = np.concatenate([split.hold_out for split in folds])
    users, truth = dataset.examples.take(which), truth.take(which) if truth else None
    if truth:
        outcomes[OPTIMUM] = of_truth(truth, users)
    print(
        f"{Path(data).name}: {len(dataset.examples):,} users, {len(users.genres)} genres, "
        f"{len(folds)} of {given.folds} folds, {len(users):,} users held out\n"
    )
    print("\n".join(table(outcomes, users, truth, given.seed)), end="\n\n", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", nargs="*", default=["world"])
    parser.add_argument("--extra", default="", help="further columns of the registrations")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--first", type=int, help="measure the first folds alone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--models", default=",".join([OURS, RULE, *RIVALS]))
    parser.add_argument("--world-users", type=int, default=WORLD_USERS)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "firstspin-quality")
    given = parser.parse_args(arguments)
    wanted = [OURS, *(name for name in given.models.split(",") if name != OURS)]
    if missing := [name for name in wanted if name in RIVALS and find_spec(RIVALS[name].package) is None]:
        print(f"not installed, and left out: {', '.join(missing)}")
    warnings.filterwarnings("ignore", module="sklearn|pytabkit|torch|lightning|pytorch_lightning")
    for data in given.data or ["world"]:
        compared(data, [name for name in wanted if name not in missing], given)


if __name__ == "__main__":
    main()
