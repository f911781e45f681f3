"""Hyperparameters of a SageMaker training job: the options of `firstspin train` by name, each value as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import msgspec
import typer
from typer.main import get_command

from firstspin.cli.options import ErasureOptions, TableOptions, TrainingOptions, with_options
from firstspin.data.dataset import Reading
from firstspin.models.registry import Learning
from firstspin.records import InputError
from firstspin.settings.environment import yes_or_no

OF_SAGEMAKER = ("sagemaker_", "_tuning")
"""Prefixes of the hyperparameters that SageMaker adds."""


@contextmanager
def job_options(path: Path, checkpoints: Path) -> Iterator[tuple[str, Reading, Learning]]:
    """The model, how to read the tables and how to learn, from a job's hyperparameters.json.

    Raises InputError, with the hyperparameter's name, for a name that `firstspin train` doesn't have or a bad value.
    """
    try:
        training, tables, erasure = _parsed(_read(path))
        with erasure.without_erased(replace(tables.reading(), tiles=training.tiles)) as reading:
            yield training.model, reading, training.learning(checkpoints)
    except typer.BadParameter as problem:
        option = problem.param.name if problem.param else str(problem.param_hint or "--erased")[2:].replace("-", "_")
        raise InputError(f"hyperparameter {option}: {problem.message}") from None


@with_options
def _options(
    training: TrainingOptions, tables: TableOptions, erasure: ErasureOptions
) -> tuple[TrainingOptions, TableOptions, ErasureOptions]:
    return training, tables, erasure


def _parsed(hyperparameters: Mapping[str, str]) -> tuple[TrainingOptions, TableOptions, ErasureOptions]:
    """The hyperparameters as Typer reads the same options on the command line."""
    app = typer.Typer(add_completion=False)
    app.command()(_options)
    command = get_command(app)
    options = {str(parameter.name): parameter for parameter in command.params}
    arguments = []
    for name, text in hyperparameters.items():
        if name.startswith(OF_SAGEMAKER):
            continue
        if name not in options:
            raise InputError(f"hyperparameter {name}: `firstspin train` has no such option")
        option = options[name].opts[0]
        if not getattr(options[name], "is_flag", False):
            arguments.append(f"{option}={text}")
        elif _switch(name, text):
            arguments.append(option)
    parsed: tuple[TrainingOptions, TableOptions, ErasureOptions] = command.main(arguments, standalone_mode=False)
    return parsed


def _switch(name: str, text: str) -> bool:
    try:
        return yes_or_no(text)
    except InputError as problem:
        raise InputError(f"hyperparameter {name}: {problem}") from None


def _read(path: Path) -> dict[str, str]:
    """The hyperparameters that are not empty."""
    try:
        values = msgspec.json.decode(path.read_bytes(), type=dict[str, str]) if path.exists() else {}
    except msgspec.MsgspecError as problem:
        raise InputError(f"hyperparameters.json: {problem}") from None
    except UnicodeDecodeError:
        raise InputError("hyperparameters.json: it is not text in UTF-8") from None
    return {name: plain for name, text in values.items() if (plain := _unquoted(text))}


def _unquoted(text: str) -> str:
    """SageMaker's Python SDK may write each value as JSON: a word in quotes, several words as a list."""
    try:
        value = msgspec.json.decode(text, type=str | list[str])
    except msgspec.MsgspecError:
        return text
    return value if isinstance(value, str) else ",".join(value)
