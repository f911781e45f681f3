"""`firstspin import`: archives that people have, as our tables. A command imports what it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from firstspin.cli import terminal
from firstspin.cli.apps import command, new_app
from firstspin.cli.next_steps import next_command
from firstspin.cli.options import utc_now
from firstspin.cli.output import scorecard

app = new_app()


@command(app, "import", example="firstspin import movielens-100k ml-100k.zip --out movielens")
def import_(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the archive, as in --list.", show_default=False)] = "",
    path: Annotated[
        Path | None, typer.Argument(help="The archive: a folder, .zip or .tar.gz file.", show_default=False)
    ] = None,
    out: Annotated[Path | None, typer.Option(help="New folder for the tables.")] = None,
    genres: Annotated[
        Path | None, typer.Option(help="Genres of artists, for lastfm-1k: a table with the columns name and genre.")
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the archives, with licence and citation.")] = False,
) -> None:
    """Import an archive of listening or ratings as registrations, listens and stations.

    What the archive does not contain is derived, and README.md in the new folder says how.
    """
    from firstspin import preflight
    from firstspin.data.checks.checking import check_tables
    from firstspin.data.dataset import Reading
    from firstspin.data.importers.run import LAYOUTS, about, import_archive, layout_of

    if list_:
        for layout in LAYOUTS.values():
            terminal.out.print(f"{layout.name}\n{_indented(about(layout))}\n")
        return
    if not name or path is None or out is None:
        raise typer.BadParameter("an import needs NAME, PATH and --out; --list shows the names", param_hint="import")
    layout = layout_of(name)
    preflight.new_folder(out)
    preflight.replaced_folder(out)
    with terminal.progress("import") as progress:
        skipped = import_archive(layout, path, out, genres, progress)
        checked = check_tables(out, Reading(now=utc_now()), progress)
    terminal.out.print(about(layout))
    terminal.counted("left out", {f"malformed rows of {file}": n for file, n in skipped.items()})
    rows = ", ".join(f"{table.rows:,} {table.table}" for table in checked.tables)
    terminal.out.print(f"{rows} are in {out}")
    if checked.census:
        scorecard.print_census(checked.census, {})
    terminal.next_step(next_command(context, "evaluate", data=out, after=" --models auto --out scorecard.json"))


def _indented(text: str) -> str:
    lines = [line.removeprefix("# ") for line in text.splitlines() if line]
    return "\n".join(f"  {line}" for line in lines)
