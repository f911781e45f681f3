"""How commands are declared: options in panels, an example, and values from the settings file."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, Final, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from firstspin.cli.from_settings import SettingsFile, named_by_place
from firstspin.cli.options import with_options
from firstspin.settings.environment import SETTINGS_FILE
from firstspin.settings.helptext import example as shown_example
from firstspin.settings.helptext import section

Function = TypeVar("Function", bound=Callable[..., Any])

OWN: Final = "Options"
"""The panel of the options that no other command shares."""


class Command(TyperCommand):
    """A command whose help has a section per panel and an example, and whose errors name a setting by its place."""

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        for option in self.params:  # a switch that the settings file turns on can be turned off
            if isinstance(option, TyperOption) and option.is_flag and not option.opts[0].startswith("--no-"):
                option.secondary_opts = [f"--no-{option.opts[0].removeprefix('--')}"]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the options into the context."""
        with named_by_place(ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        with named_by_place(ctx):
            return super().invoke(ctx)

    def get_short_help_str(self, limit: int = 0) -> str:  # noqa: ARG002
        """The first paragraph of the help, in full."""
        return " ".join(inspect.cleandoc(self.help or "").partition("\n\n")[0].split())

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """The arguments, the command's own options, then those of each panel."""
        panels: dict[str, list[tuple[str, str]]] = {"Arguments": [], OWN: []}
        for parameter in self.get_params(ctx):
            panel = "Arguments" if parameter.param_type_name == "argument" else _panel(parameter)
            if record := parameter.get_help_record(ctx):
                name = re.sub(r"<(?:list\[(.*)\]|(.*) range)>", r"<\1\2>", record[0].partition(" / --no-")[0])
                panels.setdefault(panel, []).append((name, re.sub(r" *\[default: no-[a-z-]+\]", "", record[1])))
        for panel, records in panels.items():
            if records:
                formatter.write("\n" + section(panel, records, formatter.width))

    def format_epilog(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """The example."""
        if self.epilog:
            formatter.write("\n" + shown_example(self.epilog, formatter.width))


class Group(TyperGroup):
    """Commands whose help lists the first paragraph of each, in full."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """The commands, each with what it does."""
        rows = [(name, command.get_short_help_str()) for name, command in self.commands.items()]
        formatter.write("\n" + section("Commands", rows, formatter.width))


def new_app(name: str | None = None, about: str | None = None) -> typer.Typer:
    """An app without commands: with a name it is a group, such as `firstspin events`."""
    return typer.Typer(
        name=name,
        help=about,
        cls=Group,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )


def command(app: typer.Typer, name: str, example: str) -> Callable[[Function], Function]:
    """Decorator: the function is this command of the app, with `--settings` and its groups of options."""

    def register(function: Function) -> Function:
        with_fields = with_options(function)

        @wraps(with_fields)
        def run(settings: Path | None = None, **given: Any) -> Any:  # noqa: ARG001
            return with_fields(**given)

        settings = inspect.Parameter("settings", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=SettingsFile)
        parameters = [*inspect.signature(with_fields).parameters.values(), settings]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        app.command(name, cls=Command, epilog=example)(run)
        return function

    return register


def _panel(option: Any) -> str:
    """The heading of the option's section in help; a subject's tells its section in the settings file."""
    panel: str | None = getattr(option, "rich_help_panel", None)
    return f"{panel}, [{panel.lower()}] in {SETTINGS_FILE}" if panel else OWN
