"""How the commands speak: progress, tables, one clear next step, and errors as one line and an exit status."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import msgspec
import typer
from rich.console import Console

from firstspin.cli import mistakes
from firstspin.records import BadRows, InputError, Mismatch, readable
from firstspin.settings.environment import BARE_ERRORS, SETTINGS, bare_errors, read, refuse_misspelt, words

if TYPE_CHECKING:
    from rich.table import Table

VARIABLES: Final = (
    *(BARE_ERRORS, SETTINGS, "FIRSTSPIN_EVENTS", "FIRSTSPIN_EVENTS_SECRET", "FIRSTSPIN_ERASED", "FIRSTSPIN_LISTENS"),
    *("FIRSTSPIN_DATES", "FIRSTSPIN_PICK_SEPARATOR", "FIRSTSPIN_ENCODING"),
)
"""All that commands read of the environment."""

PADDING: Final = 2
"""Spaces between two columns of a table."""

out = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)
"""Text is printed as it is: a genre may be called [Live], and a path is one word."""


@contextmanager
def progress(title: str) -> Iterator[Callable[[str, float], None]]:
    """A bar on stderr while something takes time; gone when it is done."""
    if not err.is_terminal:
        yield lambda _step, _done: None
        return
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task(title, total=1.0)

        def tell(step: str, done: float) -> None:
            bar.update(task, description=f"{title}: {step}", completed=done)

        yield tell


def counted(title: str, counts: Mapping[str, int]) -> None:
    """A line a count, nothing where there is none."""
    for reason, count in counts.items():
        if count:
            out.print(f"{title} {count:,}: {reason}")


def mismatch(one: Mismatch) -> None:
    """A line for values that match nothing, if there are any."""
    if one.count:
        out.print(f"  mismatch: {one.line(bare=bare())}")


def warn(text: str) -> None:
    """A warning on stderr, in one line."""
    err.print(f"Warning: {readable(text)}")


def next_step(text: str) -> None:
    """The one thing to do next."""
    out.print(f"\nNext: {text}", style="bold")


def table(title: str, *columns: str) -> Table:
    """An empty table, the first column left, where long texts wrap, and the others right."""
    from rich.table import Table

    made = Table(title=title or None, box=None, pad_edge=False, padding=(0, PADDING, 0, 0))
    for number, name in enumerate(columns):
        made.add_column(name, justify="left" if number == 0 else "right", no_wrap=number > 0, overflow="fold")
    return made


def show(made: Table) -> None:
    """The table, an empty line before it; nothing if it has no rows. A table wider than the screen is not cut."""
    from rich.cells import cell_len

    if made.row_count:
        for column in made.columns:
            texts = [str(text) for text in (column.header, *column.cells)]
            parts = texts if column.no_wrap else [word for text in texts for word in text.split()]
            column.min_width = max(map(cell_len, parts), default=0)
        needed = sum(column.min_width or 0 for column in made.columns) + PADDING * (len(made.columns) - 1)
        made.width = needed if needed > out.width else None
        title, made.title = made.title, None
        out.print()
        if title:
            out.print(title, style="italic")  # of one line, however narrow the table is
        out.print(made, soft_wrap=False, crop=False)


def print_json(content: object, *, indent: int = 0) -> None:
    """The result for programs, on stdout; without `indent` on one line."""
    encoded = msgspec.json.encode(content)
    sys.stdout.write((msgspec.json.format(encoded, indent=indent) if indent else encoded).decode() + "\n")


def bare() -> bool:
    """Whether values of tables must not be shown, because the output is kept as a log."""
    return bare_errors(os.environ)


def run(app: typer.Typer, name: str = "firstspin") -> None:
    """Run the command line of this name: status 0 done, 1 the work failed (a line on stderr), 2 wrong usage."""
    try:
        refuse_misspelt(os.environ, VARIABLES)
        for variable in VARIABLES:
            read(os.environ, variable, words)  # Typer takes an empty variable for one that is not set
        bare()
    except InputError as problem:
        err.print(f"{name}: {problem}")
        sys.exit(2)
    stopped = _unwind_when_stopped()
    try:
        sys.exit(app(prog_name=name, standalone_mode=False))
    except typer.TyperException as problem:  # wrong usage: it may repeat a long or unprintable argument
        problem.message = readable(problem.message.removeprefix("Value error, "))
        problem.show()  # type: ignore[attr-defined]
        sys.exit(problem.exit_code)
    except typer.Abort:
        sys.exit(1)
    except Exception as problem:
        if stopped:  # DuckDB turns the exception of the handler into one of its own
            sys.exit(128 + stopped[0])
        _print_failure(problem)
        sys.exit(1)


def _print_failure(problem: Exception) -> None:
    """What went wrong, on stderr. Raises the problem itself where it is a mistake of ours and stderr is no log."""
    match problem:
        case InputError():
            err.print(problem.bare if bare() else str(problem))
            if isinstance(problem, BadRows):
                for hint in problem.hints:
                    err.print(hint)
                err.print("--skip-bad-rows drops bad rows and counts them; `firstspin check` lists all problems")
        case OSError():
            err.print(readable(f"{problem.filename or 'the system'}: {problem.strerror or problem}"))
        case _ if bare():
            err.print(mistakes.places(problem), mistakes.kind(problem), sep="")
        case _:
            raise problem


def _unwind_when_stopped() -> list[int]:
    """SIGTERM and SIGHUP end the command like Ctrl-C: temporary folders are removed, child processes are stopped.

    A second one kills it. A signal that is ignored, as under nohup, stays so. Returns the signals that have arrived.
    """
    stopped: list[int] = []

    def stop(number: int, _frame: object) -> None:
        stopped.append(number)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        signal.signal(number, signal.SIG_DFL)
        sys.exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, stop)
    return stopped
