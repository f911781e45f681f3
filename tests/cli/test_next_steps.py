"""The Next line of a command works as printed: it repeats what must be repeated, and nothing that the file gives."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import made_people
import pytest
import typer
from typer.testing import CliRunner

from firstspin.cli.from_settings import READ
from firstspin.cli.main import app
from firstspin.cli.next_steps import next_command
from firstspin.service import options as service
from firstspin.settings.file import read_settings

TABLES = "--map user_id=uid --skip-bad-rows --extra device --window-days 20"
"""Options without which these tables can't be read as they are meant."""
FILE = """
[data]
folder = "my tables"
map = {user_id = "uid"}
skip-bad-rows = true

[extras]
columns = ["device"]

[label]
window-days = 20

[model]
name = "logistic"
bundle = "b"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with tables whose users are called uid: `other`, and `my tables` with a bad row."""
    monkeypatch.chdir(tmp_path)
    for name in ("FIRSTSPIN_SETTINGS", "FIRSTSPIN_EVENTS", "FIRSTSPIN_ERASED"):
        monkeypatch.delenv(name, raising=False)
    registrations, listens = (
        made_people.tables(tmp_path / "other", 60) / f"{name}.csv" for name in ("registrations", "listens")
    )
    header, *rows = registrations.read_text().splitlines()
    devices = [f"{row},{('phone', 'car')[i % 2]}" for i, row in enumerate(rows)]
    registrations.write_text("\n".join([f"{header.replace('user_id', 'uid')},device", *devices, ""]))
    listens.write_text(listens.read_text().replace("user_id", "uid", 1))
    shutil.copytree("other", "my tables")
    with Path("my tables", registrations.name).open("a") as file:
        file.write("bad,2025-01-01T00:00:00Z,300,,,,phone\n")
    return tmp_path


def next_of(line: str) -> str:
    """The command that the command of this line names next, once it is done."""
    program, *words = shlex.split(line)
    assert program == "firstspin"
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, f"{line}\n{done.output}{done.exception}"
    *_, last = done.output.strip().splitlines()
    return last.removeprefix("Next: ")


def served(line: str) -> dict[str, object]:
    """The options that the service takes from this line."""
    program, command, *words = shlex.split(line)
    assert (program, command) == ("firstspin", "serve")
    return vars(service.parse(words, {}))


@pytest.mark.usefixtures("folder")
def test_without_a_settings_file_a_chain_repeats_what_the_tables_need() -> None:
    train = next_of(f"firstspin label --data 'my tables' {TABLES} --out labels.parquet")
    assert train == f"firstspin train --data 'my tables' {TABLES} --out bundle"
    recommend = next_of(f"{train} --model logistic")
    assert recommend.startswith("firstspin recommend --bundle bundle --age 31 --genres ")
    assert recommend.endswith(" --answer device=car")
    assert next_of(recommend) == "firstspin serve --bundle bundle"
    evaluated = f"firstspin evaluate --data 'my tables' {TABLES} --models logistic --without age --folds 2"
    assert next_of(evaluated) == (
        f"firstspin train --data 'my tables' --without age {TABLES} --model logistic --out bundle"
    )
    serve = next_of(f"firstspin evaluate --data 'my tables' {TABLES} --bundle bundle")
    assert served(serve)["bundle"] == Path("bundle")
    scored = next_of(
        "firstspin score --bundle bundle --registrations other/registrations.csv --map user_id=uid "
        "--out sqlite:scores.db --least-age 16"
    )
    assert (served(scored)["scores"], served(scored)["least_age"]) == ("sqlite:scores.db", 16)
    of_all = next_of(
        "firstspin score --bundle bundle --registrations other/registrations.csv --map user_id=uid "
        "--out answers.csv --least-age 0"
    )
    assert of_all == "firstspin serve --bundle bundle --least-age 0"


@pytest.mark.parametrize("place", ["firstspin.toml", "conf/a file.toml"])
def test_with_a_settings_file_a_chain_repeats_nothing_of_it(folder: Path, place: str) -> None:
    (folder / place).parent.mkdir(exist_ok=True)
    (folder / place).write_text(FILE)
    named = "" if place == "firstspin.toml" else f" --settings {shlex.quote(place)}"
    train = next_of(f"firstspin{named} label --out labels.parquet")
    assert train == f"firstspin train{named}"
    recommend = next_of(train)
    assert recommend.startswith(f"firstspin recommend{named} --age 31 --genres ")
    assert (folder / "b" / "manifest.json").is_file()  # [model] bundle is what `train` writes
    serve = next_of(recommend)
    assert serve == f"firstspin serve{named}"
    assert served(serve)["bundle"] == Path("b")
    assert next_of(f"firstspin evaluate{named} --models logistic --folds 2") == train
    assert next_of(f"firstspin score{named} --registrations other/registrations.csv --out answers.csv") == serve


def test_what_differs_from_the_settings_file_is_repeated(folder: Path) -> None:
    (folder / "firstspin.toml").write_text(FILE)
    train = next_of("firstspin label --out labels.parquet --window-days 30 --no-skip-bad-rows --data other")
    assert train == "firstspin train --data other --no-skip-bad-rows --window-days 30"


@pytest.mark.usefixtures("folder")
def test_check_and_world_end_with_a_command() -> None:
    evaluate = next_of("firstspin world 'a world' --users 50")
    assert evaluate == "firstspin evaluate --data 'a world' --models auto --out scorecard.json"
    done = CliRunner().invoke(app, shlex.split(f"check --data 'my tables' {TABLES}"))
    assert done.exit_code == 1
    assert f"\n\nNext: firstspin train --data 'my tables' {TABLES} --out bundle\n" in done.output
    assert "\nCorrect these rows, or drop them with --skip-bad-rows.\n" in done.output


def test_a_settings_file_of_the_environment_is_not_repeated(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "my.toml").write_text(FILE)
    monkeypatch.setenv("FIRSTSPIN_SETTINGS", "my.toml")
    assert next_of("firstspin label --out labels.parquet") == "firstspin train"


def test_a_plan_is_served_with_the_store_and_bundle_of_the_settings_file(folder: Path) -> None:
    plan = "firstspin experiment plan --name x --baseline 5% --registrations-a-day 50000 --starts-on 2030-01-07"
    serve = next_of(f"{plan} --out 'a plan.toml'")
    assert serve == (
        "firstspin serve --experiment 'a plan.toml' --bundle bundle --events sqlite:///events.sqlite "
        "--events-secret events.secret"
    )
    assert served(serve)["experiment"] == Path("a plan.toml")
    (folder / "firstspin.toml").write_text(f'{FILE}\n[service]\nevents = "sqlite:///e.db"\nevents-secret = "s"\n')
    assert next_of(f"{plan} --out b.toml") == "firstspin serve --experiment b.toml"


def test_the_secret_of_erased_users_is_not_that_of_the_service(folder: Path) -> None:
    """`serve` does not read [data]."""
    of_data = FILE.replace("[data]", '[data]\nevents-secret = "s"')
    (folder / "firstspin.toml").write_text(f'{of_data}\n[service]\nevents = "sqlite:///e.db"\n')
    plan = "firstspin experiment plan --name x --baseline 5% --registrations-a-day 50000 --starts-on 2030-01-07"
    serve = next_of(f"{plan} --out a.toml")
    assert serve == "firstspin serve --experiment a.toml --events-secret events.secret"
    assert served(serve)["events_secret"] == Path("events.secret")


@pytest.fixture
def context(folder: Path) -> typer.Context:
    """That of a command without parameters, with a settings file."""
    (folder / "firstspin.toml").write_text(
        '[model]\nseed = 7\n[service]\nscores = "sqlite:s.db"\nreport = "r.html"\nleast-age = 16\nevents-secret = "s"\n'
    )
    made = typer.Context(typer.main.get_command(app))
    made.meta[READ] = read_settings(folder / "firstspin.toml")
    return made


def test_an_option_without_a_value_is_left_out_and_one_of_0_is_not(context: typer.Context) -> None:
    assert next_command(context, "serve", scores=None, report=None, least_age=None) == "firstspin serve"
    assert next_command(context, "serve", scores="sqlite:other.db") == "firstspin serve --scores sqlite:other.db"
    assert next_command(context, "serve", least_age=0) == "firstspin serve --least-age 0"
    assert next_command(context, "train", seed=0) == "firstspin train --seed 0"
    assert next_command(context, "train", seed=7) == "firstspin train"


def test_a_number_is_repeated_with_all_its_digits(context: typer.Context) -> None:
    for text in ("600", "0.25", "1234567.5", "86400001"):
        assert next_command(context, "train", least_seconds=float(text)) == f"firstspin train --least-seconds {text}"


def test_what_another_command_reads_in_the_file_is_repeated(context: typer.Context) -> None:
    assert next_command(context, "train", events_secret="s") == "firstspin train --events-secret s"
    assert next_command(context, "serve", events_secret="s") == "firstspin serve"
