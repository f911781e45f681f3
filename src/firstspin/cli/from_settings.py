"""Options from the settings file: its values are the defaults of a command's options (Click's `default_map`).

So the command line goes before the environment, the environment before the file, and the file before the defaults; each
value is parsed as on the command line, and an error about it names its place in the file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from typer.core import TyperOption

from firstspin.records import InputError
from firstspin.settings.environment import settings_file

if TYPE_CHECKING:
    from firstspin.settings.file import FileSetting

DATA: Final = "Data"
LABEL: Final = "Label"
EXTRAS: Final = "Extras"
MODEL: Final = "Model"
SERVICE: Final = "Service"
GATE: Final = "Gate"
"""Panels of options in --help; an option's panel is its section in the settings file."""

GIVEN: Final = "settings file"
"""Where contexts keep the file that `--settings FILE` names, before the command or after it."""

READ: Final = "settings read"
"""Where contexts keep the settings of the file."""

USED: Final = "settings"
"""Where a command's context keeps its settings by parameter."""


def _apply(context: typer.Context, given: Path | None) -> None:
    """Make the file's values the defaults of the command; called before any other option is parsed."""
    context.meta[GIVEN] = given or context.meta.get(GIVEN)
    if context.parent is not None and not context.resilient_parsing:
        try:
            if file := context.meta[GIVEN] or settings_file(os.environ):
                _read(context, file)
        except InputError as problem:
            context.fail(str(problem))


SettingsFile = Annotated[
    Path | None,
    typer.Option(
        "--settings",
        help="Settings file. Default: FIRSTSPIN_SETTINGS, or else ./firstspin.toml if there is one.",
        metavar="<file>",
        callback=_apply,
        is_eager=True,
        expose_value=False,
    ),
]


def from_file(context: typer.Context, name: str) -> FileSetting | None:
    """The setting that gave this parameter its value; None where the value comes from elsewhere."""
    source = context.get_parameter_source(name)
    of_file = source is not None and source.name == "DEFAULT_MAP"
    return context.meta[USED].get(name) if of_file else None


@contextmanager
def named_by_place(context: typer.Context) -> Iterator[None]:
    """Inside, an error about a value of the settings file names its place there.

    Raises Click's UsageError, of which BadParameter is one, or InputError.
    """
    try:
        yield
    except typer.BadParameter as problem:
        hints = [str(problem.param_hint)] if problem.param is None else problem.param.opts
        for parameter in context.command.params:
            setting = from_file(context, parameter.name) if {*parameter.opts} & {*hints} else None
            if setting is not None:
                context.fail(f"{setting}: {problem.message}")
        raise
    except InputError as problem:
        for name in context.params:
            setting = from_file(context, name)
            if setting is not None and _is_about(str(problem), name, setting):
                problem.args = (f"{problem} ({setting.place})",)
                problem.bare = f"{problem.bare} ({setting.place})"
                break
        raise


def _is_about(problem: str, name: str, setting: FileSetting) -> bool:
    """Whether an error repeats the text of this setting, or begins with its name, as in "split at 2026-01-31"."""
    words, value = name.replace("_", " "), setting.value
    repeats = isinstance(value, str) and (repr(value) in problem or problem.startswith(f"{value} "))
    return repeats or problem.startswith((f"{words} ", f"the {words} are "))


def _read(context: typer.Context, file: Path) -> None:
    """The settings of the command, by parameter, and the default map that they make."""
    from firstspin.settings.file import read_settings

    settings = context.meta[READ] = read_settings(file)
    options: dict[str, Any] = {_option(parameter): parameter for parameter in context.command.params}
    options.pop("", None)
    found: dict[str, FileSetting] = {}
    for option, parameter in options.items():
        subject = settings.subjects.get((parameter.rich_help_panel or "").lower(), {})
        found |= {option: subject[option]} if option in subject else {}
    found |= settings.of_command(".".join(_words(context)), options)
    context.meta[USED] = {options[option].name: setting for option, setting in found.items()}
    context.default_map = {options[option].name: _default(options[option], of) for option, of in found.items()}


def _default(option: Any, setting: FileSetting) -> object:
    """The value as on the command line; [data.map] is for the option's own parser, with its place."""
    if option.name == "map":
        return setting
    if option.multiple:
        return setting.texts()
    kind = "bool" if option.is_flag else getattr(option.type_descriptor.annotation, "__name__", "str")
    text = setting.text(kind, option.metavar or "")
    return text == "true" if option.is_flag else text


def _option(parameter: Any) -> str:
    """The option's name without dashes; empty for an argument and for --settings itself."""
    name = parameter.opts[0].removeprefix("--") if isinstance(parameter, TyperOption) else ""
    return "" if name == "settings" else name


def _words(context: Any) -> list[str]:
    """The command's words without the program's name, as experiment and analyse."""
    return [*_words(context.parent), context.info_name] if context.parent else []
