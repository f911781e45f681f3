"""What commands print: text as it is, and tables of which nothing is cut, on any terminal and in a pipe."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from firstspin.cli import terminal

GENRES = ("Alternative & Punk, from the nineties to now", "[Live]", "[/sessions]", ":rock:", "jazz")
COLUMNS = ("genre", "listeners in the second month", "95% confidence interval", "lift over the rule")


def printed(capsys: pytest.CaptureFixture[str], columns: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """A table on a terminal of so many columns."""
    monkeypatch.setenv("COLUMNS", str(columns))
    table = terminal.table("Genres that are loved by listeners who have just registered with the service", *COLUMNS)
    for genre in GENRES:
        table.add_row(genre, "1,234,567", ".167 ±.104", "+50.0% ±69.2")
    terminal.show(table)
    return capsys.readouterr().out


@pytest.mark.parametrize("columns", [20, 60, 80, 200])
def test_no_cell_and_no_heading_of_a_table_is_cut(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = printed(capsys, columns, monkeypatch)
    assert "…" not in shown
    assert shown.count("1,234,567") == shown.count("+50.0% ±69.2") == len(GENRES)
    for heading in COLUMNS:
        assert heading in shown
    letters = "".join(shown.split())
    for genre in GENRES[1:]:
        assert genre in letters  # as it is: no markup, no emoji
    if columns >= 80:
        assert max(map(len, shown.splitlines())) <= max(columns, 100)


def test_a_text_is_one_line_however_long(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    path = "/".join(["a long folder"] * 20)
    terminal.out.print(f"The bundle is in {path}")
    terminal.err.print(f"[{path}]")
    terminal.next_step(f"firstspin serve --bundle {path}")
    captured = capsys.readouterr()
    assert captured.out == f"The bundle is in {path}\n\nNext: firstspin serve --bundle {path}\n"
    assert captured.err == f"[{path}]\n"


QUERY = """
import duckdb
from firstspin.cli import apps, terminal

app = apps.new_app()

@app.command()
def query():
    print("begins", flush=True)
    duckdb.execute("SELECT count(*) FROM range(10_000_000_000) WHERE hash(range) = 7")

terminal.run(app)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_during_a_query_of_duckdb_ends_the_command_without_a_traceback(number: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", QUERY],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # nohup and a shell's `&` ignore some
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"begins\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 128 + number
    assert b"Traceback" not in err
