"""How commands are declared: groups of options, and values from the settings file."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand

from firstspin.cli.from_settings import SettingsFile, named_by_place
from firstspin.cli.options import with_options

Function = TypeVar("Function", bound=Callable[..., Any])


class Command(TyperCommand):
    """A command whose errors about a value of the settings file name its place there."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the options into the context."""
        with named_by_place(ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        with named_by_place(ctx):
            return super().invoke(ctx)


def command(app: typer.Typer, name: str) -> Callable[[Function], Function]:
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
        app.command(name, cls=Command)(run)
        return function

    return register
