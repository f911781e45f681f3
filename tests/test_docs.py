"""The docs are run: each `$ ` line of a console block must print what is shown ("…" stands for anything)."""

from __future__ import annotations

import doctest
import os
import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
COMMANDS = Path(sys.executable).parent
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def console_blocks(page: str) -> list[tuple[str, str]]:
    """(command, expected output) of each command in the page's console blocks, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = []
    for block in re.findall(r"^```console\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, expected = part.partition("\n")
            found.append((command, expected))
    return found


def run(command: str, folder: Path) -> str:
    environment = os.environ | {"PATH": f"{COMMANDS}:{os.environ['PATH']}", "COLUMNS": "100", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        shlex.split(command), cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, f"$ {command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_tutorial_in_the_readme_runs_as_written(tmp_path: Path) -> None:
    commands = console_blocks("README.md")
    assert commands
    for command, expected in commands:
        if command.startswith("make "):
            continue  # what runs this very test
        printed = run(command, tmp_path)
        shown = expected.replace("…", "...")
        assert doctest.OutputChecker().check_output(shown, printed, FLAGS), f"$ {command}\n{printed}"


def test_every_link_in_the_docs_leads_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"


@pytest.mark.parametrize(
    "module",
    ["records", "metrics", "experiment.assign", "experiment.rules", "experiment.verdict", "service.ledger"],
)
def test_the_examples_in_docstrings_hold(module: str) -> None:
    assert doctest.testmod(import_module(f"firstspin.{module}"), optionflags=FLAGS).failed == 0
