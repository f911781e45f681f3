"""Claim: `auto` learns more of few users than before it had shared weights, and of 100 ships nothing below the rule.

`python bench/few_users.py folds DATA --out FILE.npz` trains `auto` and the rule in five folds with three seeds, and
writes hit@3 and log loss of each user; with `PYTHONPATH` set to another checkout's `src` it measures that code.
`… compare BEFORE AFTER` prints the differences, paired by user. `… subsamples DATA` trains what `firstspin train` ships
on 200 samples of 100 users each, and compares it with the rule on the others. CPU seconds are those of all threads.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from firstspin import learn
from firstspin.data.dataset import Dataset, Reading, read_dataset
from firstspin.evaluation.cross_validation import Split, answer, stratified_folds
from firstspin.evaluation.metrics import hit, log_loss
from firstspin.models import registry
from firstspin.models.registry import Learning

RULE = "popularity"
MAX_HELD_OUT = 4_000
"""Users that score one subsample: more do not make the mean over subsamples more exact."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    folds = commands.add_parser("folds")
    folds.add_argument("data", type=Path)
    folds.add_argument("--out", type=Path, required=True)
    folds.add_argument("--folds", type=int, default=5)
    folds.add_argument("--first", type=int, help="train on the first folds alone")
    folds.add_argument("--seeds", type=int, default=3)
    folds.set_defaults(run=by_folds)
    compare = commands.add_parser("compare")
    compare.add_argument("before", type=Path)
    compare.add_argument("after", type=Path)
    compare.set_defaults(run=compared)
    subsamples = commands.add_parser("subsamples")
    subsamples.add_argument("data", type=Path)
    subsamples.add_argument("--users", type=int, default=100)
    subsamples.add_argument("--samples", type=int, default=200)
    subsamples.set_defaults(run=by_subsamples)
    arguments = parser.parse_args()
    arguments.run(arguments)


def by_folds(arguments: argparse.Namespace) -> None:
    dataset = read_dataset(arguments.data, Reading())
    measured = np.full((arguments.seeds, len(dataset.examples), 2), np.nan)  # hit@3 and log loss
    seconds = []
    for seed in range(arguments.seeds):
        for split in stratified_folds(dataset.examples.tops, arguments.folds, seed)[: arguments.first]:
            begin = time.process_time()
            task = learn.prepare(dataset, Learning(seed=seed), dataset.examples.take(split.train))
            predictor = registry.fit("auto", task)
            seconds.append(time.process_time() - begin)
            outcome = answer(predictor, dataset.examples.take(split.hold_out))
            measured[seed, split.hold_out] = np.column_stack([hit(outcome.position, 3), log_loss(outcome.probability)])
            print(f"seed {seed}: {seconds[-1]:.1f} s, {predictor.made_of}", flush=True)
    np.savez(arguments.out, measured=measured, seconds=np.array(seconds))
    hits, loss = np.nanmean(measured, axis=(0, 1))
    print(
        f"{len(dataset.examples):,} users, hit@3 {hits:.4f}, log loss {loss:.4f}, {np.mean(seconds):.1f} s a training"
    )


def compared(arguments: argparse.Namespace) -> None:
    with np.load(arguments.before) as before, np.load(arguments.after) as after:
        differences = after["measured"] - before["measured"]
        held_out = ~np.isnan(differences).all(axis=(0, 2))
        per_user = np.nanmean(differences[:, held_out], axis=0)  # over seeds, then over users
        for i, name in enumerate(("hit@3", "log loss")):
            means = [np.nanmean(one["measured"][..., i]) for one in (before, after)]
            print(f"{name}: {means[0]:.4f} before, {means[1]:.4f} after, {error_of(per_user[:, i], 5)}")
        print(f"CPU time: {after['seconds'].sum() / before['seconds'].sum():.2f} times that before")


def by_subsamples(arguments: argparse.Namespace) -> None:
    dataset = read_dataset(arguments.data, Reading())
    rows = []
    for sample in range(arguments.samples):
        shuffled = np.random.default_rng((sample, 0)).permutation(len(dataset.examples))
        split = Split(np.sort(shuffled[: arguments.users]), shuffled[arguments.users :][:MAX_HELD_OUT])
        rows.append(_shipped_and_rule(dataset, split, sample))
    shipped, rule, is_rule = np.array(rows).T
    print(f"{len(rows)} samples of {arguments.users} users: hit@3 {shipped.mean():.4f}, rule {rule.mean():.4f}")
    print(f"shipped minus rule: {error_of(shipped - rule, 4)}; the rule is shipped in {is_rule.mean():.0%}")


def _shipped_and_rule(dataset: Dataset, split: Split, seed: int) -> tuple[float, float, float]:
    """The mean hit@3 of what `train` ships of these users and of the rule, and whether the rule is shipped."""
    learning = Learning(seed=seed)
    users = dataset.examples.take(split.train)
    part = stratified_folds(users.tops, learn.HOLD_OUT_PART, seed)[0]  # the scorecard's hold-out
    measured = registry.fit("auto", learn.prepare(dataset, learning, users.take(part.train)))
    task = learn.prepare(dataset, learning, users)
    held_out = dataset.examples.take(split.hold_out)
    shipped, rule = (
        float(hit(answer(predictor, held_out).position, 3).mean())
        for predictor in (registry.refit(measured, task), registry.fit(RULE, task))
    )
    return shipped, rule, measured.scorer.kind == registry.fit(RULE, task).scorer.kind


def error_of(values: np.ndarray, digits: int) -> str:
    """The mean with its standard error, of the values that are no NaN."""
    known = values[~np.isnan(values)]
    return (
        f"difference {known.mean():+.{digits}f} ± {known.std(ddof=1) / np.sqrt(len(known)):.{digits}f} (standard error)"
    )


if __name__ == "__main__":
    main()
