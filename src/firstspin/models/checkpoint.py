"""What tuning has tried, kept in a file, so that a run that was cut off goes on from there.

Not Optuna's journal: a kill leaves its lock and half a last line behind. This file is whole or not there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final, Literal

import msgspec
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from firstspin.files import written_beside

FILE: Final = "tuning.json"


class Tried(msgspec.Struct, frozen=True):
    """A finished trial: settings and figures, nothing of any person. `losses` are its means after each part."""

    params: dict[str, int | float]
    state: Literal["COMPLETE", "PRUNED"]
    value: float
    losses: list[float]
    seconds: float


class Kept(msgspec.Struct, frozen=True):
    """What was tried of each model, in order, and on what."""

    fingerprint: str
    tried: dict[str, list[Tried]]


def save(folder: Path, fingerprint: str, trials: Mapping[str, Sequence[FrozenTrial]]) -> None:
    """Keep the finished trials of each model.

    :raises OSError: if the folder can't be written to
    """
    kept = Kept(fingerprint, {name: [_tried(trial) for trial in finished] for name, finished in trials.items()})
    with written_beside(folder / FILE) as beside:
        beside.write_bytes(msgspec.json.encode(kept))


def load(
    folder: Path, fingerprint: str, distributions: Mapping[str, Mapping[str, BaseDistribution]]
) -> dict[str, list[FrozenTrial]]:
    """The finished trials of each of these models; none where nothing was kept.

    :raises ValueError: if what was kept is of another fingerprint, or is torn
    :raises OSError: if it can't be read
    """
    if not (folder / FILE).exists():
        return {name: [] for name in distributions}
    kept = msgspec.json.decode((folder / FILE).read_bytes(), type=Kept)
    if kept.fingerprint != fingerprint or kept.tried.keys() != distributions.keys():
        raise ValueError(f"{folder / FILE} is about something else")
    return {name: [_trial(tried, sought) for tried in kept.tried[name]] for name, sought in distributions.items()}


def seconds(trial: FrozenTrial) -> float:
    """How long a finished trial took."""
    return trial.duration.total_seconds() if trial.duration else 0.0


def _tried(trial: FrozenTrial) -> Tried:
    losses = list(trial.intermediate_values.values())
    return Tried(trial.params, trial.state.name, trial.value, losses, seconds(trial))


def _trial(tried: Tried, distributions: Mapping[str, BaseDistribution]) -> FrozenTrial:
    trial = create_trial(
        state=TrialState[tried.state],
        value=tried.value,
        params=tried.params,
        distributions=dict(distributions),
        intermediate_values=dict(enumerate(tried.losses, start=1)),
    )
    trial.datetime_complete = trial.datetime_start + timedelta(seconds=tried.seconds)
    return trial
