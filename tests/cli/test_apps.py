"""Help of every command: options in panels, each with a type, a sentence and its default; an example; nothing cut."""

from __future__ import annotations

import inspect
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import made_people
import pytest
import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command
from typer.testing import CliRunner

from firstspin.cli.apps import Command, Group
from firstspin.cli.commands.experiment import NEXT_STEPS
from firstspin.cli.main import app
from firstspin.experiment.verdict import Decision
from firstspin.service import options as service

ROOT = get_command(app)


def walk(command: Any = ROOT, words: tuple[str, ...] = ("firstspin",)) -> Iterator[tuple[str, Any]]:
    """Each group and command with its words; `serve`, whose help is the service's, left out."""
    if words[1:] != ("serve",):
        yield " ".join(words), command
    for name in command.list_commands(None) if isinstance(command, TyperGroup) else ():
        yield from walk(command.get_command(None, name), (*words, name))


ALL = dict(walk())
COMMANDS = {words: command for words, command in ALL.items() if isinstance(command, TyperCommand)}


def help_of(words: str, columns: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """The help text as it is printed on so many columns."""
    monkeypatch.setenv("COLUMNS", str(columns))
    if words == "firstspin serve":
        return service._parser().format_help()
    with typer.Context(ALL[words], info_name=words) as context:
        return context.get_help()


@pytest.mark.parametrize("columns", [60, 80, 200])
@pytest.mark.parametrize("words", [*ALL, "firstspin serve"])
def test_help_fits_the_terminal_and_nothing_of_it_is_cut(
    words: str, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = help_of(words, columns, monkeypatch)
    assert "…" not in page
    assert re.sub(r"\[ARGS\]\.\.\.|<\S+\.\.\.>|\[\w+\]\.\.\.|^  \w+\.\.\.", "", page, flags=re.M).count("...") == 0
    assert max(map(len, page.splitlines())) < min(columns, 80)
    whole = " ".join(page.split())
    command = ALL.get(words)
    sentences = [option.help for option in service.OPTIONS] if command is None else [p.help for p in command.params]
    for sentence in sentences:
        assert " ".join(sentence.split()) in whole  # no word is broken
    if isinstance(command, TyperGroup) and words != "firstspin":
        for one in command.commands.values():
            assert " ".join(one.help.partition("\n\n")[0].split()) in whole


@pytest.mark.parametrize("words", COMMANDS)
def test_an_option_has_a_type_a_sentence_and_its_default(words: str) -> None:
    context = typer.Context(COMMANDS[words], info_name=words)
    for parameter in COMMANDS[words].params:
        name, text = parameter.get_help_record(context)
        assert parameter.help, name
        assert re.fullmatch(r"[A-Z`a].*[.]", parameter.help, re.S), f"{name}: {parameter.help!r} is no sentence"
        if not getattr(parameter, "is_flag", False):
            assert re.search(r"<\S", name), f"{name} has no metavar"
            assert ("," in name) or "separated by commas" not in parameter.help, (
                f"{name} takes no list in a settings file"
            )
            if parameter.default not in (None, "", ()) and parameter.name != "map":
                assert re.search(r"[ \[]default: ", text), name


@pytest.mark.parametrize("words", COMMANDS)
def test_the_example_is_a_call_that_is_understood(words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    command = COMMANDS[words]
    assert isinstance(command, Command)
    assert command.epilog.startswith(f"{words} ")
    context = command.make_context(words, shlex.split(command.epilog.removeprefix(words)))
    assert not context.args
    shown = help_of(words, 60, monkeypatch).partition("Example:\n")[2]
    assert shlex.split(shown.replace("\\\n", " ")) == shlex.split(command.epilog)


def test_the_examples_from_labels_to_answers_run_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    made_people.tables(tmp_path / "data", 60)
    shutil.copy(tmp_path / "data" / "registrations.csv", "new.csv")
    for name in ("label", "train", "recommend", "score"):
        example = COMMANDS[f"firstspin {name}"].epilog
        done = CliRunner().invoke(app, shlex.split(example)[1:])
        assert done.exit_code == 0, f"{example}\n{done.output}{done.exception}"
    assert {path.name for path in tmp_path.iterdir()} == {"data", "new.csv", "labels.parquet", "bundle", "answers.csv"}


def test_the_example_of_serve_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    assert service.parse(shlex.split(service.EXAMPLE)[2:], {}).workers == 2
    assert help_of("firstspin serve", 80, monkeypatch).endswith(f"\nExample:\n  {service.EXAMPLE}\n")


def test_groups_list_their_commands_in_full() -> None:
    assert {words for words, one in ALL.items() if isinstance(one, Group)} == {
        "firstspin events",
        "firstspin experiment",
        "firstspin sagemaker",
    }


def test_a_panel_tells_its_section_of_the_settings_file(monkeypatch: pytest.MonkeyPatch) -> None:
    page = help_of("firstspin train", 80, monkeypatch)
    headings = re.findall(r"^(\S.*):$", page, re.M)
    assert headings == [
        "Options",
        "Data, [data] in firstspin.toml",
        "Model, [model] in firstspin.toml",
        "Extras, [extras] in firstspin.toml",
        "Label, [label] in firstspin.toml",
        "Example",
    ]
    assert page.index("[model] in") < page.index("--seed") < page.index("[extras] in")


@pytest.mark.parametrize("words", COMMANDS)
def test_a_command_ends_with_a_next_step(words: str) -> None:
    """Each command's function says one, or calls the function that does; the demo ends in the live page."""
    source = inspect.getsource(inspect.unwrap(COMMANDS[words].callback))
    assert re.search(r"next_step\(|train_and_show\(|carry_out\(|execv\(|\bshow\(steps", source)


def test_the_next_step_of_a_verdict_depends_on_the_decision() -> None:
    assert {*get_args(Decision)} == NEXT_STEPS.keys()


def test_a_switch_has_an_opposite_that_help_leaves_out(monkeypatch: pytest.MonkeyPatch) -> None:
    page = help_of("firstspin evaluate", 80, monkeypatch)
    assert "--skip-bad-rows  " in page
    assert "--no-" not in page
    assert "no-skip" not in page
