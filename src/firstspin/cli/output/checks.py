"""What `firstspin check` prints: tables, further columns, matches between tables, labels, and what to fix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from firstspin.cli import terminal
from firstspin.cli.output import scorecard
from firstspin.data.checks.findings import bad_row
from firstspin.data.schema import REGISTRATIONS
from firstspin.records import MAX_TEXT, listed, readable

if TYPE_CHECKING:
    from firstspin.data.checks.checking import Check, CheckedTable
    from firstspin.data.checks.findings import TableProblem
    from firstspin.records import Census

SHOWN_NAMES: Final = 20


def show(check: Check, *, bare: bool) -> None:
    """Print all of it; `bare` leaves out values of the tables."""
    further = {column.name for column in check.further}
    for table in check.tables:
        _show_table(table)
        unused = tuple(name for name in table.unused if not (table.table == REGISTRATIONS and name in further))
        if unused:
            _print(f"not used: {listed(list(map(_name, unused)), SHOWN_NAMES)}")
    if check.genres:
        _print(f"\n{len(check.genres)} genres: {listed(list(map(_name, check.genres)), SHOWN_NAMES)}")
    _show_further(check)
    if check.matches:
        _print("\nMatches between the tables")
        for match in check.matches:
            share = f" ({match.count / match.of:.1%})" if match.of else ""
            _print(f"  {match.count:,} of {match.of:,}{share} {match.what}")
    if check.census:
        rule = check.rule
        _print(
            f"\nLabels (gap {rule.gap_days} days, window {rule.window_days} days, "
            f"at least {rule.min_seconds:g} seconds)"
        )
        scorecard.print_census(check.census, {})
    _print("\nTo fix" if check.problems else "\nNothing to fix")
    for problem in check.problems:
        _show_problem(problem, bare=bare)


def as_json(check: Check, *, bare: bool) -> dict[str, object]:
    """The same for programs."""
    return {
        "ok": not check.problems,
        "tables": check.tables,
        "further_columns": check.further,
        "genres": check.genres,
        "matches": check.matches,
        "label_rule": check.rule.state(),
        "labels": _labels(check.census, bare=bare) if check.census else None,
        "problems": [_problem(problem, bare=bare) for problem in check.problems],
    }


def _show_table(table: CheckedTable) -> None:
    bad = f", bad rows left out: {table.bad_rows:,}" if table.bad_rows else ""
    span = f", {table.first} to {table.last}" if table.first else ""
    title = readable(f"{table.file}: {table.format}, {table.rows:,} rows{span}{bad}")
    shown = terminal.table(title, "column", "in the file", "type there", "read as", "filled")
    for at in range(1, 4):
        shown.columns[at].justify = "left"
    for column in table.columns:
        filled = f"{column.filled / table.rows:.0%}" if table.rows else ""
        header = _name(column.header) if column.header != column.name else ""
        shown.add_row(column.name, header, column.type, column.read_as, filled)
    terminal.show(shown)


def _show_further(check: Check) -> None:
    if not check.further:
        return
    _print("\nFurther columns of the registrations, used where named with --extra")
    for column in check.further:
        why = f"not usable: {column.problem}" if column.problem else column.kind
        _print(f"  {_name(column.name)}: {why}")


def _show_problem(problem: TableProblem, *, bare: bool) -> None:
    for example in problem.examples:
        _print(f"  {bad_row(problem.file, problem.label, problem.problem, example, bare=bare)}")
    if not problem.examples:
        _print(f"  {problem.bare if bare else problem.problem}")
    if (more := problem.rows - len(problem.examples)) > 0:
        _print(f"    and {more:,} more rows like {'these' if len(problem.examples) > 1 else 'this'}")
    if problem.advice:
        drops = f"; {problem.option} drops such rows and counts them" if problem.option else ""
        _print(f"    {problem.advice}{drops}")


def _problem(problem: TableProblem, *, bare: bool) -> dict[str, object]:
    return {
        "file": problem.file,
        "field": problem.field,
        "problem": problem.bare if bare else problem.problem,
        "rows": problem.rows,
        "examples": [
            {"row": one.row, "value": None if bare and problem.field else one.value} for one in problem.examples
        ],
        "advice": problem.advice,
        "option": problem.option,
    }


def _labels(census: Census, *, bare: bool) -> dict[str, object]:
    return {
        "registered": census.registered,
        "labelled": census.labelled,
        "dropped": census.dropped,
        "data_ends": f"{census.data_ends.isoformat()}Z",
        "absent": census.absent,
        "mismatches": [mismatch.line(bare=bare) for mismatch in census.mismatches],
    }


def _name(name: str) -> str:
    return name if name.isprintable() and 0 < len(name) <= MAX_TEXT else f"{name[:80]!r}"


def _print(text: str) -> None:
    terminal.out.print(readable(text))
