"""The command line: one table of commands, each loaded when it is called."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any, Final

import typer
from typer._click.shell_completion import CompletionItem
from typer.core import TyperCommand, TyperGroup

from firstspin.cli import terminal
from firstspin.cli.from_settings import GIVEN, SettingsFile
from firstspin.installation.version import versions
from firstspin.settings.helptext import section


def _app(command: str) -> typer.Typer:
    """The app that has the command, whose module is imported here."""
    match command:
        case "check":
            from firstspin.cli.commands.check import app
        case "import":
            from firstspin.cli.commands.importing import app
        case "recommend" | "score":
            from firstspin.cli.commands.answers import app
        case "demo":
            from firstspin.cli.commands.demo import app
        case "serve":
            return _serve()
        case "events":
            from firstspin.cli.commands.events import app
        case "experiment":
            from firstspin.cli.commands.experiment import app
        case "watch":
            from firstspin.cli.commands.watching import app
        case "sagemaker":
            from firstspin.cli.commands.aws.sagemaker import app
        case _:
            from firstspin.cli.commands.learning import app
    return app


class ServeCommand(TyperCommand):
    """`firstspin serve` after an option of the program: the lean service process reads its own options."""

    def shell_complete(self, ctx: Any, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002
        """The options of the service that begin so."""
        from firstspin.settings.file import SECTIONS

        names = (f"--{name}" for name in ("bundle", "settings", *SECTIONS["service"]))
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def _serve() -> typer.Typer:
    app = typer.Typer(add_completion=False)
    passed_on = {"allow_extra_args": True, "ignore_unknown_options": True}

    @app.command("serve", cls=ServeCommand, context_settings=passed_on, add_help_option=False)
    def serve(context: typer.Context) -> None:
        given = context.meta.get(GIVEN)
        file = ["--settings", str(given)] if given else []
        os.execv(sys.executable, [sys.executable, "-m", "firstspin", "serve", *file, *context.args])

    return app


COMMANDS: Final = {
    "world": "Write the tables of a simulated service, and its ground truth.",
    "check": "Print what is understood of your tables, and what to fix.",
    "import": "Import an archive (Last.fm, MovieLens, Deezer) as tables.",
    "label": "Label each registration with its top genre in the label window.",
    "train": "Train a model and pack a bundle.",
    "evaluate": "Evaluate models on held-out users, with confidence intervals.",
    "report": "Write the evaluation as one HTML page.",
    "recommend": "Recommend for one registration in the terminal.",
    "score": "Score a table of registrations (batch scoring).",
    "demo": "The complete workflow on a simulated service, then the live page.",
    "serve": "Serve recommendations over HTTP.",
    "events": "Event store: erase users, export an experiment, forward rows.",
    "experiment": "Plan an A/B test, analyse it, or simulate one.",
    "watch": "Expected quality of the service's answers, before and beside their labels, and drift.",
    "sagemaker": "Check a container against SageMaker's contract; deploy a bundle.",
}
"""Each command, and its line in `firstspin --help`."""


class LazyGroup(TyperGroup):
    """The commands of the table; the module of a command is imported when the command is called."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = COMMANDS  # type: ignore[assignment]  # the names that a misspelt one is compared with

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        """The names of the commands, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        """The command of this name; None where there is none."""
        if cmd_name not in COMMANDS:
            return None
        command = typer.main.get_command(_app(cmd_name))
        return getattr(command, "commands", {}).get(cmd_name, command)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """The table in the help text; no command is imported for it."""
        formatter.write("\n" + section("Commands", list(COMMANDS.items()), formatter.width))

    def shell_complete(self, ctx: Any, incomplete: str) -> list[CompletionItem]:
        """The commands that begin so; none is imported for it."""
        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        return [CompletionItem(name, help=line) for name, line in COMMANDS.items() if name.startswith(incomplete)]


app = typer.Typer(
    name="firstspin",
    cls=LazyGroup,
    help="Real-time recommendations for users who have just registered (cold start).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(versions())
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Print the versions of firstspin, Python and the bundle format.",
        ),
    ] = False,
    settings: SettingsFile = None,
) -> None:
    """Real-time recommendations for users who have just registered (cold start)."""


def main() -> None:
    """The command line."""
    terminal.run(app)
