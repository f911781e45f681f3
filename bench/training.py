"""Claim: training on 5 million users fits into 12 GiB, and `lightgbm` costs at most a fifth more than `lgb.train`.

Run as `python bench/training.py [USERS ...] [--ways A,B] [--rounds N] [--tables FOLDER]`; by default 200,000, 1 and 5
million users of the simulation, nearly all with a label. A process per way; `lgb.train` gets the same matrix,
parameters and rounds, and its own multiclass objective. Two quantities judge a model by the simulation's truth, on
newcomers that it was not trained on: the expected hit@3 as a share of the optimum, and the log loss above that of the
true probabilities (regret).
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import lightgbm
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from firstspin import learn
from firstspin.data.dataset import read_dataset
from firstspin.models import registry
from firstspin.models.predictor import Predictor, log_probabilities
from firstspin.models.registry import Learning
from firstspin.models.task import Task, Tuned, folds
from firstspin.models.trees import boosting
from firstspin.serving import bundle
from firstspin.simulation.people import DAY, People, register
from firstspin.simulation.taste import COUNTRIES, GENDERS, NOT_GIVEN
from firstspin.simulation.world import BEGIN, World, make_world, newcomers

SEED = 1
BLOCK = 100_000
COMMANDS = {"train": "auto", "train lightgbm": "lightgbm"}
"""The ways that are whole commands, and the model of each."""
JUDGES = 100_000
"""Newcomers that judge a model."""


# ------------------------------------------------------------------------------------------- the tables


def make(folder: Path, users: int) -> None:
    """Write the three tables, unless they are there: two listens per user, both in the label window."""
    if (folder / "stations.parquet").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    world, rng = make_world(SEED), np.random.default_rng([SEED, users])
    writers: dict[str, pq.ParquetWriter] = {}
    for first in range(0, users, BLOCK):
        n = min(BLOCK, users - first)
        people = register(world.taste, n, rng)
        ids = pa.array(np.char.mod("u%08d", np.arange(first, first + n)))
        registered = rng.integers(200 * DAY, size=n)
        for name, table in {
            "registrations": registration_table(world, people, ids, registered),
            "listens": listen_table(people, ids, registered, rng),
        }.items():
            if name not in writers:
                writers[name] = pq.ParquetWriter(folder / f"{name}.parquet", table.schema)
            writers[name].write_table(table)
    for writer in writers.values():
        writer.close()
    stations = {"station_id": [f"s{i}" for i in range(len(world.genres))], "name": world.genres, "genre": world.genres}
    pq.write_table(pa.table({name: list(of) for name, of in stations.items()}), folder / "stations.parquet")


def registration_table(world: World, people: People, ids: pa.Array, registered: np.ndarray) -> pa.Table:
    """The registrations of a block of users."""
    answers = people.answers
    is_pick = answers.picks != NOT_GIVEN
    offsets = pa.array(np.concatenate([[0], is_pick.sum(axis=1).cumsum()]).astype(np.int32))
    words = {"gender": (GENDERS, answers.gender), "country": (tuple(COUNTRIES), answers.country)}
    return pa.table(
        {"user_id": ids, "registered_at": moments(registered)}
        | {"age": pa.array(answers.age, mask=answers.age == NOT_GIVEN)}
        | {name: pa.array(of).take(pa.array(at, mask=at == NOT_GIVEN)) for name, (of, at) in words.items()}
        | {"genres": pa.ListArray.from_arrays(offsets, pa.array(world.genres).take(pa.array(answers.picks[is_pick])))}
    )


def listen_table(people: People, ids: pa.Array, registered: np.ndarray, rng: np.random.Generator) -> pa.Table:
    """A listen to the top genre, and a shorter one to a genre drawn alike."""
    n, k = people.p.shape
    other = (people.p.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    started = np.concatenate([registered, registered]) + rng.integers(30 * DAY, 59 * DAY, 2 * n)
    seconds = np.concatenate([rng.integers(1_200, 3_600, n), rng.integers(60, 1_100, n)])
    stations = pa.array([f"s{i}" for i in range(k)]).take(pa.array(np.concatenate([people.favourite, other])))
    users = pa.concat_arrays([ids, ids])
    return pa.table(
        {"user_id": users, "started_at": moments(started), "station_id": stations, "seconds": pa.array(seconds)}
    )


def moments(seconds: np.ndarray) -> pa.Array:
    """Seconds since the simulation's beginning as timestamps in UTC."""
    return pa.array(BEGIN + seconds.astype("timedelta64[s]"), type=pa.timestamp("us", tz="UTC"))


# --------------------------------------------------------------------------------------------- the ways


@dataclass(frozen=True)
class Measured:
    """What a way took, its peak memory and, of a model, its quality."""

    cpu: float
    seconds: float
    gib: float
    model: str = ""
    rounds: int = 0
    share: float = math.nan
    regret: float = math.nan


def lightgbm_trained(task: Task, rounds: int) -> Predictor:
    """The product's trees: at most so many rounds beside a hold-out, then as many as were best on all users."""
    settings = replace(boosting.settings_for(len(task)), **({"rounds": rounds} if rounds else {}))
    return registry.fit("lightgbm", replace(task, tuned=(Tuned("lightgbm", settings, 0),)))


def bare(task: Task, rounds: int, final: int) -> lightgbm.Booster:
    """The same by `lgb.train` alone: the same matrix, parameters and hold-out, its objective and metric of one class.

    It has the rounds of the product: its own early stopping would end at others.
    """
    settings, columns = boosting.settings_for(len(task)), boosting.varied(task)
    parameters = {
        **boosting.parameters(task, lambda *_: None, settings.min_data_in_leaf),
        **{name: getattr(settings, name) for name in ("num_leaves", "learning_rate", "lambda_l2", "feature_fraction")},
        **{"objective": "multiclass", "metric": "multi_logloss"},
    }
    held_out = boosting.hold_out_parts(len(task))
    is_final = held_out > boosting.HOLD_OUT_PART
    stopped = min(rounds or settings.rounds, round(final / (1.0 if is_final else 1.1)) + settings.patience)
    rest, part = next(folds(len(task), held_out, task.seed))
    train, valid = (
        lightgbm.Dataset(boosting.matrix(of, columns), of.tops) for of in (task.take(rest), task.take(part))
    )
    booster = lightgbm.train(parameters, train, stopped, valid_sets=[valid])
    if is_final:
        return booster
    return lightgbm.train(parameters, lightgbm.Dataset(boosting.matrix(task, columns), task.tops), final)


def judged(predictor: Predictor) -> dict[str, float]:
    """The share of the optimal hit@3, and the regret in log loss, by the simulation's truth."""
    people = newcomers(make_world(SEED), JUDGES, np.random.default_rng(SEED + 1))
    logs = log_probabilities(predictor.scores(people.registrations))
    chosen, best = (np.argsort(-of, axis=1, kind="stable")[:, :3] for of in (logs, people.p))
    hits, optimum = (np.take_along_axis(people.p, of, axis=1).sum() for of in (chosen, best))
    regret = (people.p * (np.log(np.maximum(people.p, 1e-300)) - logs)).sum(axis=1).mean()
    return {"share": float(hits / optimum), "regret": float(regret)}


def rounds_of(predictor: Predictor) -> int:
    """The rounds of trees of `lightgbm`; 0 of another model."""
    return getattr(predictor.scorer, "text", "").count("\nTree=") // len(predictor.genres)


def peak() -> float:
    """GiB of this process at its peak."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def in_a_process(work: Callable[[], object]) -> Measured:
    """What some work takes in a fork of this process, which has the task already."""
    inside, outside = multiprocessing.Pipe()

    def run() -> None:
        cpu, start = time.process_time(), time.perf_counter()
        made = work()
        taken = Measured(time.process_time() - cpu, time.perf_counter() - start, peak())
        if isinstance(made, Predictor):
            taken = replace(taken, model=made.in_words(), rounds=rounds_of(made), **judged(made))
        inside.send(taken)

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    taken: Measured = outside.recv()
    process.join()
    return taken


def commanded(folder: Path, model: str) -> Measured:
    """`firstspin train`, from the tables to the bundle."""
    start = time.perf_counter()
    out = folder / f"bundle-{model}"
    command = [sys.executable, "-m", "firstspin", "train", "--data", folder, "--model", model, "--out", out]
    process = subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit("firstspin train failed")
    seconds, predictor = time.perf_counter() - start, bundle.load(out).predictor
    taken = Measured(used.ru_utime + used.ru_stime, seconds, used.ru_maxrss / 2**20)
    return replace(taken, model=predictor.in_words(), rounds=rounds_of(predictor), **judged(predictor))


def show(users: int, way: str, taken: Measured, beside: float = math.nan) -> None:
    """Print a line of the table."""
    ratio = "" if math.isnan(beside) else f"{taken.cpu / beside:.2f}"
    quality = "" if math.isnan(taken.regret) else f"{taken.share:.4f} | {taken.regret:.4f}"
    cost = f"{taken.cpu:.1f} | {taken.cpu / users * 1e6:.0f} | {ratio} | {taken.seconds:.0f} | {taken.gib:.2f}"
    print(f"| {users:,} | {way} {taken.model} | {cost} | {quality or ' | '} |", flush=True)


def compare(folder: Path, users: int, ways: list[str], rounds: int) -> None:
    """Print the lines of so many users."""
    make(folder, users)
    for way, model in COMMANDS.items():
        if way in ways:
            taken = commanded(folder, model)
            show(users, f"{way}{f', {taken.rounds} rounds' if taken.rounds else ''}:", taken)
    if COMMANDS.keys() >= set(ways):
        return
    cpu, start = time.process_time(), time.perf_counter()
    dataset = read_dataset(folder)
    task = learn.prepare(dataset, Learning(), dataset.examples)
    del dataset
    show(users, "tables to rows", Measured(time.process_time() - cpu, time.perf_counter() - start, peak()))
    for name in ("auto", "logistic"):
        if name in ways:
            show(users, name, in_a_process(lambda name=name: registry.fit(name, task)))
    if "lightgbm" in ways:
        ours = in_a_process(lambda: lightgbm_trained(task, rounds))
        beside = in_a_process(lambda: bare(task, rounds, ours.rounds))
        show(users, f"lgb.train, {ours.rounds} rounds", beside, beside.cpu)
        show(users, f"lightgbm, {ours.rounds} rounds", replace(ours, model=""), beside.cpu)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("users", type=int, nargs="*", default=[200_000, 1_000_000, 5_000_000])
    parser.add_argument("--ways", default=f"{','.join(COMMANDS)},auto,logistic,lightgbm")
    parser.add_argument("--rounds", type=int, default=0, help="the trees' maximum of rounds, for a shorter run")
    parser.add_argument("--tables", type=Path)
    arguments = parser.parse_args()
    print("| users | | CPU s | CPU µs each | × lgb.train | s | peak GiB | share of optimum | regret |")
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        for users in arguments.users:
            folder = (arguments.tables or Path(temporary)) / str(users)
            compare(folder, users, arguments.ways.split(","), arguments.rounds)


if __name__ == "__main__":
    main()
