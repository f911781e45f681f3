"""Finished tuning trials in one file, so that an interrupted run resumes.

Optuna's journal is not used: a kill leaves its lock and half a last line behind. This file is whole or absent, which is
what SageMaker's checkpoint sync to S3 needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from firstspin.files import written_beside

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

FILE: Final = "tuning.json"


class TrialRecord(msgspec.Struct, frozen=True):
    """A finished trial: settings and scores, no personal data. `losses`: the mean log loss after each fold."""

    params: dict[str, int | float]
    state: Literal["COMPLETE", "PRUNED"]
    value: float
    losses: list[float]
    seconds: float


class TuningHistory(msgspec.Struct, frozen=True):
    """The trials of each model, in order, and the fingerprint of the task they ran on."""

    fingerprint: str
    tried: dict[str, list[TrialRecord]]


def save(folder: Path, fingerprint: str, trials: Mapping[str, Sequence[FrozenTrial]]) -> None:
    """Write the finished trials of each model. Raises OSError where the folder can't be written to."""
    history = TuningHistory(
        fingerprint, {name: [_tried(trial) for trial in finished] for name, finished in trials.items()}
    )
    with written_beside(folder / FILE, shared=True) as beside:
        beside.write_bytes(msgspec.json.encode(history))


def load(
    folder: Path, fingerprint: str, distributions: Mapping[str, Mapping[str, BaseDistribution]]
) -> dict[str, list[FrozenTrial]]:
    """The finished trials of each of these models; none where there is no file.

    Raises ValueError where the file has another fingerprint or is damaged, OSError where it can't be read.
    """
    if not (folder / FILE).exists():
        return {name: [] for name in distributions}
    history = msgspec.json.decode((folder / FILE).read_bytes(), type=TuningHistory)
    if history.fingerprint != fingerprint or history.tried.keys() != distributions.keys():
        raise ValueError(f"{folder / FILE} holds the trials of another task")
    return {name: [_trial(tried, ranges) for tried in history.tried[name]] for name, ranges in distributions.items()}


def seconds(trial: FrozenTrial) -> float:
    """Duration of a finished trial, in seconds."""
    return trial.duration.total_seconds() if trial.duration else 0.0


def _tried(trial: FrozenTrial) -> TrialRecord:
    losses = list(trial.intermediate_values.values())
    return TrialRecord(trial.params, trial.state.name, trial.value, losses, seconds(trial))


def _trial(tried: TrialRecord, distributions: Mapping[str, BaseDistribution]) -> FrozenTrial:
    from optuna.trial import TrialState, create_trial

    trial = create_trial(
        state=TrialState[tried.state],
        value=tried.value,
        params=tried.params,
        distributions=dict(distributions),
        intermediate_values=dict(enumerate(tried.losses, start=1)),
    )
    trial.datetime_complete = trial.datetime_start + timedelta(seconds=tried.seconds)
    return trial
