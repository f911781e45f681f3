"""The docs are run: each `$ ` line of a console block must print what is shown ("…" stands for anything)."""

from __future__ import annotations

import doctest
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

import command_line
import notebooks
import pytest

from firstspin.settings.file import SECTIONS, read_settings

ROOT = Path(__file__).parent.parent
COMMANDS = Path(sys.executable).parent
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def blocks(page: str) -> list[tuple[str, str]]:
    """(language, text) of the page's blocks, in order."""
    return re.findall(r"^```(\w+)\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def console_commands(block: str) -> list[tuple[str, str]]:
    """(command, expected output) of each command in a console block, in order."""
    parts = (part.partition("\n") for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:])
    return [(command, expected) for command, _, expected in parts]


def console_blocks(page: str) -> list[tuple[str, str]]:
    """The commands of all console blocks of the page."""
    return [one for language, text in blocks(page) if language == "console" for one in console_commands(text)]


def process(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PATH": f"{COMMANDS}:{os.environ['PATH']}", "COLUMNS": "100"}
    program, *words = shlex.split(command)
    if program == "firstspin":
        return command_line.run(words, environment, folder)
    return subprocess.run(
        [program, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False
    )


def run(command: str, folder: Path, *, fails: bool = False) -> str:
    done = process(command, folder)
    assert (done.returncode != 0) is fails, f"$ {command}\n{done.stdout}\n{done.stderr}"
    return done.stderr if fails else done.stdout


@pytest.mark.parametrize("page", ["README.md", "docs/settings.md", "docs/promotion.md"])
def test_a_page_runs_as_written(page: str, tmp_path: Path) -> None:
    """Its commands, in order, in a folder with the files that its blocks name in their first line (`# NAME.toml`)."""
    console = 0
    for language, text in blocks(page):
        if name := re.match(r"# (\w+\.toml)\n", text):
            (tmp_path / name[1]).write_text(text, encoding="utf-8")
        for command, expected in console_commands(text) if language == "console" else ():
            console += 1
            if command.startswith("make "):
                continue  # what runs this very test
            printed = run(command, tmp_path, fails="\nError: " in expected)
            shown = expected.replace("…", "...")
            assert doctest.OutputChecker().check_output(shown, printed, FLAGS), f"$ {command}\n{printed}"
    assert console


def test_every_settings_file_in_the_docs_has_known_sections_and_keys(tmp_path: Path) -> None:
    for language, text in blocks("docs/settings.md"):
        if language == "toml" and "wrong.toml" not in text:
            (tmp_path / "f.toml").write_text(text, encoding="utf-8")
            assert read_settings(tmp_path / "f.toml")


def test_the_page_of_settings_has_every_key_of_every_subject() -> None:
    page = (ROOT / "docs/settings.md").read_text(encoding="utf-8")
    for section, keys in SECTIONS.items():
        row = re.search(rf"^\| `\[{section}\]` \| (.*) \|$", page, re.MULTILINE)
        assert row, section
        if section != "service":  # every option of `serve`
            assert keys.keys() <= set(re.findall(r"`([a-z-]+)`", row[1])), section


@pytest.mark.filterwarnings("default")  # as in a notebook
def test_the_python_page_runs_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = "docs/python.md"
    monkeypatch.chdir(tmp_path)
    for command, _ in console_blocks(page):
        run(command, tmp_path)
    snippets = "\n".join(text for language, text in blocks(page) if language == "pycon").replace("…", "...")
    examples = doctest.DocTestParser().get_doctest(snippets, {}, page, page, 0)
    report = io.StringIO()
    doctest.DocTestRunner(optionflags=FLAGS).run(examples, out=report.write)
    assert len(examples.examples) > 20
    assert not report.getvalue(), report.getvalue()


def test_the_examples_of_any_export_run_as_written(tmp_path: Path) -> None:
    """Each file that the page shows is written under the name in front of it; each command prints what is shown."""
    page = (ROOT / "docs/ab-exports.md").read_text(encoding="utf-8")
    files = re.findall(r"^`(\w+\.csv)`[^`]*?```csv\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert len(files) == 5
    for name, content in files:
        (tmp_path / name).write_text(content, encoding="utf-8")
    [snippet] = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    given = {"Path": lambda name: tmp_path / name, "datetime": datetime, "UTC": UTC}
    exec(snippet, given)
    assert given["verdict"].winner == "green"
    commands = console_blocks("docs/ab-exports.md")
    assert len(commands) == len(files)
    for command, expected in commands:
        printed = run(command, tmp_path)
        assert doctest.OutputChecker().check_output(expected.replace("…", "..."), printed, FLAGS), (
            f"$ {command}\n{printed}"
        )


def test_the_tutorial_of_own_data_runs_as_written(tmp_path: Path) -> None:
    """In a folder with the exports and settings files; a command that ends with problems has the exit status 1."""
    for export in ("export", "excel"):
        shutil.copytree(ROOT / "docs" / export, tmp_path / export)
    ran = 0
    for language, text in blocks("docs/own-data.md"):
        if name := re.match(r"# (\w+\.toml)\n", text):
            (tmp_path / name[1]).write_text(text, encoding="utf-8")
        for command, expected in console_commands(text) if language == "console" else ():
            ran += 1
            done = process(command, tmp_path)
            printed = done.stdout + done.stderr
            assert done.returncode == int("problems to fix" in expected), f"$ {command}\n{printed}"
            shown = expected.replace("…", "...")
            assert doctest.OutputChecker().check_output(shown, printed, FLAGS), f"$ {command}\n{printed}"
    assert ran > 5


def test_the_plan_of_the_experiments_page_is_warned_of_as_written(tmp_path: Path) -> None:
    [(command, expected)] = console_blocks("docs/experiments.md")
    printed = run(command, tmp_path)
    assert doctest.OutputChecker().check_output(expected.replace("…", "..."), printed, FLAGS), printed


@pytest.mark.filterwarnings("default")
def test_the_notebook_shows_what_a_fresh_run_shows() -> None:
    text = notebooks.STUDY.read_text(encoding="utf-8")
    study = json.loads(text)
    assert len(notebooks.texts(study)) > 8
    assert notebooks.texts(notebooks.run(study)) == notebooks.texts(study)
    assert "/tmp" not in text
    assert "/home" not in text


def test_every_link_in_the_docs_leads_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"


def commands_named() -> set[tuple[str, str]]:
    """(command, option) for every option of ours that a block of code in the docs names."""
    found: set[tuple[str, str]] = set()
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        blocks = re.findall(r"^```\w*\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
        for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
            if re.match(r"(\$ )?firstspin [a-z]", line):
                words = shlex.split(line.removeprefix("$ "), comments=True)
                deep = 3 if words[1] in ("experiment", "events", "sagemaker") else 2
                options = [word.partition("=")[0] for word in words[deep:] if word.startswith("--")]
                found |= {(" ".join(words[:deep]), option) for option in options}
    return found


def test_every_option_that_the_docs_name_is_there() -> None:
    named = commands_named()
    assert len({command for command, _ in named}) > 12
    environment = os.environ | {"COLUMNS": "200"}
    for command in sorted({command for command, _ in named}):
        done = command_line.run([*command.split()[1:], "--help"], environment, ROOT)
        assert done.returncode == 0, done.stderr
        there = set(re.findall(r"--[a-z0-9-]+", done.stdout))
        assert {option for name, option in named if name == command} <= there, command


@pytest.mark.parametrize(
    "module",
    [
        "records",
        "evaluation.metrics",
        "experiment.assign",
        "experiment.rules",
        "data.parsing",
        "experiment.stats.holm",
        "experiment.verdict",
        "serving.experiment",
    ],
)
def test_the_examples_in_docstrings_hold(module: str) -> None:
    assert doctest.testmod(import_module(f"firstspin.{module}"), optionflags=FLAGS).failed == 0
