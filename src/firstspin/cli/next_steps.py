"""The command line of the next step: it works as printed, and leaves out what the settings file gives it anyway."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from firstspin.cli.from_settings import GIVEN, READ
from firstspin.data.column_map import ColumnMap, column_map

if TYPE_CHECKING:
    import typer

    from firstspin.settings.file import FileSetting, Settings

NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
BUNDLE: Final[Mapping[str, str]] = MappingProxyType({"out": "bundle"})
"""Where `train` is suggested to write."""


def next_command(
    context: typer.Context,
    command: str,
    *groups: Any,
    suggested: Mapping[str, str] = NOTHING,
    after: str = "",
    **options: object,
) -> str:
    """The line that calls `command` with these options and groups of options (dataclasses), and `after` at its end.

    An option is left out where it has no value (None), or the settings file, a variable of the environment or the
    default gives the command the same one. A `suggested` value is left out where the settings file has any. The
    settings file is named where this run's command line named it.
    """
    settings: Settings | None = context.meta.get(READ)
    defaults = {parameter.name: parameter.default for parameter in context.command.params}
    wanted: list[tuple[str, object, object]] = [(name, value, defaults.get(name)) for name, value in options.items()]
    wanted += [(one.name, getattr(group, one.name), one.default) for group in groups for one in fields(group)]
    words = ["firstspin", *command.split()]
    words += ["--settings", str(context.meta[GIVEN])] if context.meta.get(GIVEN) else []
    for name, value, default in wanted:
        setting = settings.given(command, name.replace("_", "-")) if settings else None
        source = context.get_parameter_source(name)
        from_environment = source is not None and source.name == "ENVIRONMENT"
        as_wanted = value is None or (_is(setting, value) if setting else value == default)
        if not (from_environment or as_wanted):
            words += _words(name, value)
    for name, value in suggested.items():
        words += [] if settings and settings.given(command, name) else _words(name, value)
    return shlex.join(words) + after


def _is(setting: FileSetting, value: object) -> bool:
    """Whether the settings file has this value."""
    if isinstance(value, ColumnMap):
        return isinstance(setting.value, str | dict) and column_map(setting.value) == value
    if isinstance(value, bool | int | float):
        return setting.value == value
    return ",".join(setting.texts()) == str(value)


def _words(name: str, value: object) -> list[str]:
    option = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{option}" if value else f"--no-{option}"]
    return [f"--{option}", str(int(value) if isinstance(value, float) and value.is_integer() else value)]
