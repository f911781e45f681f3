"""Claim: on small real data sets `auto` ranks newcomers' genres at least as well as well-known models with defaults.

Every model sees the same answers of the form in the same folds: `auto` as `firstspin train` makes it, the business
rule, scikit-learn's logistic regression, and LightGBM, XGBoost and CatBoost with default parameters and one thread, on
age, country, gender, further fields and picks as columns, one per value and pick (the picks' order as further columns
made them worse). hit@3 and log loss of held-out users; the differences to `auto` are paired by user, with bootstrap
intervals. CPU seconds are those of all threads of a training.

    python bench/quality.py DATA [DATA ...] [--extra a,b] [--folds 5] [--seed 0] [--models auto,logistic,...]

XGBoost and CatBoost are no packages of ours: make an environment for them and name it, as in
`pip install --target rivals --no-deps xgboost catboost` and `PYTHONPATH=rivals python bench/quality.py …`. A model that
is not installed is left out and named. DATA `world` is the simulated service, with 3,000 users.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler

from firstspin import learn
from firstspin.data.dataset import Dataset, Reading, read_dataset
from firstspin.evaluation.bootstrap import resample
from firstspin.evaluation.cross_validation import Split, answer, stratified_folds
from firstspin.evaluation.metrics import hit, log_loss
from firstspin.models import registry
from firstspin.models.registry import Learning
from firstspin.records import Examples, Registration
from firstspin.simulation.world import write_world

Matrix = NDArray[np.float64]
WORLD_USERS = 3_000
OURS, RULE = "auto", "popularity"


def _lightgbm(seed: int) -> Any:
    from lightgbm import LGBMClassifier

    return LGBMClassifier(random_state=seed, n_jobs=1, verbose=-1)


def _xgboost(seed: int) -> Any:
    from xgboost import XGBClassifier

    return XGBClassifier(random_state=seed, n_jobs=1)


def _catboost(seed: int) -> Any:
    from catboost import CatBoostClassifier

    return CatBoostClassifier(random_seed=seed, thread_count=1, verbose=False, allow_writing_files=False)


RIVALS: dict[str, tuple[str, Callable[[int], Any]]] = {
    "logistic": ("sklearn", lambda _: make_pipeline(MaxAbsScaler(), LogisticRegression(max_iter=2_000))),
    "lightgbm": ("lightgbm", _lightgbm),
    "xgboost": ("xgboost", _xgboost),
    "catboost": ("catboost", _catboost),
}


class Columns:
    """The answers of registrations as numbers: the values seen in training, a column each."""

    def __init__(self, registrations: list[Registration]) -> None:
        fields = [name for name in registrations[0].__struct_fields__ if name not in ("genres", "listens")]
        self._fields = {name: self._values(name, registrations) for name in fields}
        self._picks = sorted({pick for one in registrations for pick in one.genres})

    @staticmethod
    def _values(name: str, registrations: list[Registration]) -> list[str] | None:
        """The texts of a field; None where it is a number."""
        given = {value for one in registrations if (value := getattr(one, name)) is not None}
        return None if all(isinstance(value, int | float) for value in given) else sorted(map(str, given))

    def matrix(self, registrations: list[Registration]) -> Matrix:
        """(n, c) the answers; a number that is missing is -1."""
        columns = []
        for name, values in self._fields.items():
            given = [getattr(one, name) for one in registrations]
            if values is None:
                columns.append([-1.0 if value is None else float(value) for value in given])
            else:
                columns += [[float(str(value) == of) for value in given] for of in values]
        for pick in self._picks:
            columns.append([float(pick in one.genres) for one in registrations])
        return np.array(columns).T


def of_rival(make: Callable[[int], Any], users: Examples, held_out: Examples, seed: int) -> Matrix:
    """(n, 2) hit@3 and log loss of each held-out user."""
    columns = Columns(list(users.registrations))
    model = make(seed)
    classes, tops = np.unique(users.tops, return_inverse=True)
    model.fit(columns.matrix(list(users.registrations)), tops)
    seen: Matrix = model.predict_proba(columns.matrix(list(held_out.registrations)))
    p = np.zeros((len(held_out), len(users.genres)))
    p[:, classes] = seen
    truth = p[np.arange(len(held_out)), held_out.tops]
    better = (p > truth[:, None]).sum(axis=1) + ((p == truth[:, None]).sum(axis=1) - 1) / 2
    return np.column_stack([hit(np.where(truth > 0, better, -1).astype(np.int64), 3), log_loss(truth)])


def of_ours(name: str, dataset: Dataset, users: Examples, held_out: Examples, seed: int) -> Matrix:
    """(n, 2) hit@3 and log loss of each held-out user."""
    task = learn.prepare(dataset, Learning(seed=seed), users)
    outcome = answer(registry.fit(name, task), held_out)
    return np.column_stack([hit(outcome.position, 3), log_loss(outcome.probability)])


def measured(
    dataset: Dataset, models: list[str], folds: list[Split], seed: int
) -> tuple[dict[str, Matrix], dict[str, float]]:
    """(n, 2) hit@3 and log loss of each user by model, and the CPU seconds of a training."""
    outcomes = {name: np.full((len(dataset.examples), 2), np.nan) for name in models}
    seconds = dict.fromkeys(models, 0.0)
    for number, split in enumerate(folds, 1):
        users, held_out = dataset.examples.take(split.train), dataset.examples.take(split.hold_out)
        for name in models:
            begin = time.process_time()
            if name in (OURS, RULE):
                outcomes[name][split.hold_out] = of_ours(name, dataset, users, held_out, seed)
            else:
                outcomes[name][split.hold_out] = of_rival(RIVALS[name][1], users, held_out, seed)
            seconds[name] += (time.process_time() - begin) / len(folds)
            print(f"fold {number}/{len(folds)} {name}", end="\r", flush=True)
    return outcomes, seconds


def table(outcomes: dict[str, Matrix], seconds: dict[str, float], seed: int) -> Iterator[str]:
    rng = np.random.default_rng(seed)
    hits, losses = (resample({name: of[:, i] for name, of in outcomes.items()}, rng) for i in (0, 1))
    yield f"{'':12}{'hit@3':>8}{'auto minus it':>22}{'log loss':>10}{'auto minus it':>22}{'CPU s':>8}"
    for name in outcomes:
        gains = [
            "" if name == OURS else f"{one.value:+.3f} ({one.low:+.3f} to {one.high:+.3f})"
            for of in (hits, losses)
            for one in [of[OURS].over(of[name]).difference]
        ]
        yield (
            f"{name:12}{hits[name].mean:8.3f}{gains[0]:>26}{losses[name].mean:8.3f}{gains[1]:>26}{seconds[name]:8.1f}"
        )


@contextmanager
def tables(data: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        if data == "world":
            write_world(Path(folder) / "world", WORLD_USERS, seed=0)
            yield Path(folder) / "world"
        else:
            yield Path(data)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", nargs="*", default=["world"])
    parser.add_argument("--extra", default="")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--models", default=",".join([OURS, RULE, *RIVALS]))
    arguments = parser.parse_args()
    wanted = [OURS, *(name for name in arguments.models.split(",") if name != OURS)]
    missing = [name for name in wanted if name in RIVALS and find_spec(RIVALS[name][0]) is None]
    if missing:
        print(f"not installed, and left out: {', '.join(missing)}")
    models = [name for name in wanted if name not in missing]
    for data in arguments.data:
        with tables(data) as folder:
            dataset = read_dataset(folder, Reading(tuple(filter(None, arguments.extra.split(",")))))
        folds = stratified_folds(dataset.examples.tops, arguments.folds, arguments.seed)
        outcomes, seconds = measured(dataset, models, folds, arguments.seed)
        users, genres = len(dataset.examples), len(dataset.examples.genres)
        print(f"{Path(data).name}: {users:,} users, {genres} genres, {len(folds)} folds")
        print("\n".join(table(outcomes, seconds, arguments.seed)))


if __name__ == "__main__":
    main()
