"""Options from the settings file: option before environment before file before default; one parser for all of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import made_people
import made_tables
import pytest
import typer
from command_line import firstspin
from typer.main import get_command
from typer.testing import CliRunner, Result

from firstspin.cli.main import COMMANDS, app
from firstspin.records import InputError
from firstspin.service.options import OPTIONS, parse
from firstspin.settings.file import COMMANDS as SECTIONS_OF_COMMANDS
from firstspin.settings.file import SECTIONS


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory without settings, and no variable of ours."""
    monkeypatch.chdir(tmp_path)
    for name in ("FIRSTSPIN_SETTINGS", "FIRSTSPIN_EVENTS", "FIRSTSPIN_ERASED"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def write(text: str, name: str = "firstspin.toml") -> None:
    Path(name).write_text(text, encoding="utf-8")


def run(*words: object) -> Result:
    return CliRunner().invoke(app, list(map(str, words)))


def every_command(command: Any = None, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each command by its words; groups are walked."""
    command = command or get_command(app)
    if hasattr(command, "list_commands"):
        for name in command.list_commands(None):
            yield from every_command(command.get_command(None, name), (*words, name))
    else:
        yield words, command


def test_an_error_about_the_map_names_the_settings_file_and_its_key(folder: Path) -> None:
    """So does one that begins with the name of an option; an error about an option of the command line has no place."""
    made_tables.tables(folder / "data", [("1", "2025-01-01T00:00Z", "31", "", "", "Rock")], [])
    for line, message in {
        'agee = "age"': "--map 'agee': firstspin has no such column; the nearest is age; further columns",
        'age = "years"': "registrations.csv has no column years (age) (it has user_id, ",
        'user_id = "uid"': "--map user_id=uid: no table has a column uid",
    }.items():
        pair = line.replace(' = "', "=").rstrip('"')
        for settings in (f"[data.map]\n{line}\n", f'[data]\nmap = "{pair}"\n', f'[data]\nmap = ["{pair}"]\n'):
            write(settings)
            problem = str(run("label", "--data", "data", "--out", "l.parquet").exception)
            assert problem.startswith(message)
            assert problem.endswith(" (firstspin.toml: [data] map)")
        by_option = str(run("label", "--data", "data", "--out", "l.parquet", "--map", pair).exception)
        assert by_option.startswith(message)
        assert "firstspin.toml" not in by_option


def test_an_error_that_begins_with_the_name_of_an_option_has_its_place(folder: Path) -> None:
    made_people.tables(folder / "data", 60)
    write("[evaluate]\nsplit-at = 2020-01-01\n")
    problem = str(run("evaluate", "--data", "data", "--models", "popularity").exception)
    assert re.fullmatch(r"split at 2020-01-01T00:00:00Z: 0 .* from \S+Z to \S+Z \(.*: \[evaluate\] split-at\)", problem)
    write('[experiment.analyse]\nweights = "a=1,c=1"\n')
    Path("o.csv").write_text("arm,clicked\na,1\na,0\nb,1\nb,0\n", encoding="utf-8")
    words = ("--outcomes", "o.csv", "--arm", "arm", "--control", "a", "--metric", "clicked")
    problem = str(run("experiment", "analyse", *words).exception)
    assert problem.endswith("have the arms a and b (firstspin.toml: [experiment.analyse] weights)")


def test_every_command_has_a_section_and_serve_has_that_of_the_service() -> None:
    words = [".".join(words) for words, _ in every_command()]
    assert sorted([*SECTIONS_OF_COMMANDS, "serve", "label"]) == sorted(words)  # [label] is a subject
    assert {word.partition(".")[0] for word in words} == COMMANDS.keys()


def test_every_command_takes_a_settings_file() -> None:
    assert [words for words, one in every_command() if "settings" not in {p.name for p in one.params}] == [("serve",)]


def test_the_keys_of_a_subject_are_the_options_of_its_panel() -> None:
    panels: dict[str, set[str]] = {name: set() for name in SECTIONS}
    for _, command in every_command():
        for option in command.params:
            if panel := getattr(option, "rich_help_panel", None):
                panels.setdefault(panel.lower(), set()).add(option.opts[0].removeprefix("--"))
    panels["service"] |= {option.name for option in OPTIONS} - {"settings", "bundle"}
    assert {name: panels[name] for name in SECTIONS} == {
        name: set(" ".join(keys.values()).split()) for name, keys in SECTIONS.items()
    }


def test_a_command_reads_its_options_from_the_file_and_the_command_line_goes_before(folder: Path) -> None:
    made_people.tables(folder / "people", 60)
    write('[data]\nfolder = "people"\n[label]\nwindow-days = 3650\nout = "labels.parquet"\n')
    assert "60 window not over yet" in str(run("label").exception)
    assert "60 of 60 registrations have a label" in run("label", "--window-days", 30).output
    write('[data]\nfolder = "people"\n[label]\nout = "labels.parquet"\n', "other.toml")
    for words in (("label", "--settings", "other.toml"), ("--settings", "other.toml", "label")):
        assert "60 of 60 registrations have a label" in run(*words).output


def test_columns_of_other_names_are_mapped_in_a_table_of_the_file(folder: Path) -> None:
    made_people.tables(folder / "people", 60)
    for table, named in {"registrations": "user_id", "listens": "started_at"}.items():
        path = folder / "people" / f"{table}.csv"
        path.write_text(path.read_text().replace(named, f"my {named}", 1))
    write('[data]\nfolder = "people"\n[label]\nout = "l.parquet"\n')
    assert "has no column user_id" in str(run("label").exception)
    with (folder / "firstspin.toml").open("a") as file:
        file.write(
            '[data.map.registrations]\nuser_id = "my user_id"\n[data.map.listens]\nstarted_at = "my started_at"\n'
        )
    assert "60 of 60 registrations have a label" in run("label").output
    write('[data.map]\nuserid = "u"\n')
    assert "firstspin has no such column; the nearest is user_id" in str(
        run("label", "--data", "people", "--out", "l.parquet").exception
    )
    write("[data.map]\nuser_id = 5\n")
    done = run("label", "--data", "people", "--out", "l.parquet")
    assert done.exit_code == 2
    assert "firstspin.toml: [data] map = {\"user_id\": 5}: 'user_id': the name of a column is text" in done.output


def test_the_environment_goes_before_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write('[service]\nevents = "sqlite:///file.sqlite"\nevents-secret = "s"\n')
    (folder / "s").write_text("0" * 64)
    assert "file.sqlite" in str(run("events", "erase", "u1").exception)
    monkeypatch.setenv("FIRSTSPIN_EVENTS", "sqlite:///variable.sqlite")
    assert "variable.sqlite" in str(run("events", "erase", "u1").exception)
    assert "option.sqlite" in str(run("events", "erase", "u1", "--events", "sqlite:///option.sqlite").exception)


@pytest.mark.usefixtures("folder")
def test_a_commands_own_section_goes_before_the_subjects() -> None:
    write('[model]\nseed = 1\nname = "auto"\n[train]\nseed = -1\n')
    assert (
        "firstspin.toml: [train] seed = -1: Input should be greater than or equal to 0"
        in run("train", "--data", "d", "--out", "b").output
    )


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("text", "words", "message"),
    [
        (
            "[label]\ngap-days = -1",
            "label --data d --out l",
            "firstspin.toml: [label] gap-days = -1: Input should be greater",
        ),
        (
            "[label]\ngap-days = 1.5",
            "label --data d --out l",
            "firstspin.toml: [label] gap-days = 1.5: Input should be a valid",
        ),
        ('[label]\ngap-days = "x"', "label --data d --out l", 'firstspin.toml: [label] gap-days = "x" is not a number'),
        ('[label]\nengine = "x"', "label --data d --out l", 'firstspin.toml: [label] engine = "x": '),
        ('[label]\ndata-ends = "x"', "label --data d --out l", "[label] data-ends = \"x\": 'x' is not a date or time"),
        ("[data]\nfolder = 5", "label --out l", "firstspin.toml: [data] folder = 5 is not a text in quotes"),
        ("[data]\nskip-bad-rows = 1", "label", "firstspin.toml: [data] skip-bad-rows = 1 is not true or false"),
        ("[service]\nprot = 1", "label", "firstspin.toml: [service] has no key prot = 1; did you mean port?"),
        ("[evaluate]\nfolds = 1", "evaluate --data d", "firstspin.toml: [evaluate] folds = 1: Input should be greater"),
        ("[evaluate]\nfold = 5", "evaluate --data d", "firstspin.toml: [evaluate] has no key fold = 5; did you mean"),
        ("[experiment.plan]\nday = 9", "experiment plan", "[experiment.plan] has no key day = 9; did you mean days?"),
    ],
)
def test_a_wrong_setting_is_wrong_usage_and_named_by_its_place(text: str, words: str, message: str) -> None:
    write(text)
    done = run(*words.split())
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())


def test_a_value_that_the_work_refuses_is_named_by_its_place_too(folder: Path) -> None:
    made_people.tables(folder / "d", 60)
    write('[model]\nname = "oracle"')
    refused = run("train", "--data", "d", "--out", "b").exception
    assert isinstance(refused, InputError)
    assert str(refused).startswith("no model is called 'oracle'")
    assert str(refused).endswith("(firstspin.toml: [model] name)")
    write('[data]\nfolder = "elsewhere"')
    refused = run("train", "--out", "b").exception
    assert str(refused).endswith("(firstspin.toml: [data] folder)")


@pytest.mark.usefixtures("folder")
def test_settings_of_cross_validation_do_not_refuse_a_bundle_on_the_command_line() -> None:
    write('[model]\nwithout = ["age"]\n[evaluate]\nfolds = 4\n')
    words = ("evaluate", "--data", "d", "--bundle", "b")
    assert run(*words).exit_code == 1  # there is no such folder
    assert run(*words, "--folds", 3).exit_code == 2


@pytest.mark.usefixtures("folder")
def test_the_service_reads_its_section(capsys: pytest.CaptureFixture[str]) -> None:
    write('[model]\nbundle = "b"\n[service]\nport = 81\nworkers = 2\nscores-first = true\nidle-seconds = 5\n')
    options = parse(["--workers", "4"], {"FIRSTSPIN_PORT": "82"})
    assert (str(options.bundle), options.port, options.workers) == ("b", 82, 4)
    assert (options.scores_first, options.idle_seconds, options.connections) == (True, 5.0, 4096)
    write("[service]\nport = 70000\n", "other.toml")
    for words, variables in ((["--settings", "other.toml"], {}), ([], {"FIRSTSPIN_SETTINGS": "other.toml"})):
        with pytest.raises(SystemExit):
            parse(words, variables)
        message = "firstspin serve: other.toml: [service] port = 70000: '70000' is not a whole number from 0 to 65535"
        assert capsys.readouterr().err.startswith(message)
    assert parse(["--settings", "other.toml", "--port", "1", "--bundle", "b"], {}).port == 1


@pytest.mark.usefixtures("folder")
def test_a_switch_that_the_file_turns_on_is_turned_off_by_its_option() -> None:
    write("[data]\nskip-bad-rows = true\n[service]\nscores-first = true\n[evaluate]\nquestions = true\n")
    _, command = next(one for one in every_command() if one[0] == ("evaluate",))
    with command.make_context("evaluate", ["--data", "d"], parent=typer.Context(get_command(app))) as context:
        assert (context.params["skip_bad_rows"], context.params["questions"]) == (True, True)
    words = ["--data", "d", "--no-skip-bad-rows", "--no-questions"]
    with command.make_context("evaluate", words, parent=typer.Context(get_command(app))) as context:
        assert (context.params["skip_bad_rows"], context.params["questions"]) == (False, False)
    assert parse(["--bundle", "b"], {}).scores_first
    assert not parse(["--bundle", "b", "--no-scores-first"], {}).scores_first
    assert not parse(["--bundle", "b"], {"FIRSTSPIN_SCORES_FIRST": "no"}).scores_first


def test_serve_takes_the_file_before_its_name_too(folder: Path) -> None:
    write("[service]\nworkers = 0\n", "other.toml")
    for words in (("--settings", "other.toml", "serve"), ("serve", "--settings", "other.toml")):
        done = firstspin(*words, "--bundle", folder / "none")
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "other.toml: [service] workers = 0: '0' is not a whole number from 1 to 64" in done.stderr


@pytest.mark.parametrize("name", ["FIRSTSPIN_EVENTS", "FIRSTSPIN_ERASED", "FIRSTSPIN_SETTINGS"])
def test_an_empty_variable_is_an_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "")
    done = firstspin("recommend", "--bundle", "b")
    assert (done.returncode, done.stderr) == (2, f"firstspin: {name}: is empty\n")
