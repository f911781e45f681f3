"""`firstspin check`: what is understood of the tables, and what to fix. A command imports what it runs."""

from __future__ import annotations

from dataclasses import replace

import typer

from firstspin.cli import terminal
from firstspin.cli.apps import command, new_app
from firstspin.cli.next_steps import BUNDLE, next_command
from firstspin.cli.options import AsJson, Data, ErasureOptions, TableOptions
from firstspin.cli.output import checks

app = new_app()


@command(app, "check", example="firstspin check --data data --map user_id=uid")
def check(
    context: typer.Context, data: Data, tables: TableOptions, erasure: ErasureOptions, as_json: AsJson = False
) -> None:
    """Read the tables and print what is understood and what to fix; nothing is written.

    Exit status 1 where there is something to fix, also with --skip-bad-rows, which other commands take.
    """
    from firstspin.data.checks.checking import check_tables

    with terminal.progress("check") as progress, erasure.without_erased(tables.reading()) as reading:
        checked = check_tables(data, reading, progress)
    if as_json:
        terminal.print_json(checks.as_json(checked, bare=terminal.bare()), indent=2)
    else:
        checks.show(checked, bare=terminal.bare())
        if not checked.problems:
            terminal.next_step(next_command(context, "train", tables, erasure, data=data, suggested=BUNDLE))
        elif all(problem.option for problem in checked.problems):
            terminal.out.print("\nCorrect these rows, or drop them with --skip-bad-rows.")
            dropped = replace(tables, skip_bad_rows=True)
            terminal.next_step(next_command(context, "train", dropped, erasure, data=data, suggested=BUNDLE))
    if checked.problems:
        found = len(checked.problems)
        terminal.err.print(f"{data}: {found} problem{'s' * (found > 1)} to fix")
        raise typer.Exit(1)
