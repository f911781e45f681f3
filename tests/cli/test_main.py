"""The command line: status 0 done, 1 the work failed (one clear line on stderr, no traceback), 2 wrong usage."""

from __future__ import annotations

import csv
import json
import os
import platform
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

import made_people
import made_tables
import pyarrow.parquet as pq
import pytest
from command_line import failed, firstspin, started
from library import Recommender
from made_bundles import pack, pack_with_further_fields
from typer.testing import CliRunner

from firstspin.cli.commands import answers
from firstspin.cli.main import COMMANDS, app
from firstspin.cli.output import claims
from firstspin.evaluation.bootstrap import Figure, PairedLift
from firstspin.evaluation.scorecard import Scorecard
from firstspin.installation.version import BUNDLE_FORMAT
from firstspin.records import Registration
from firstspin.score import score
from firstspin.serving import bundle
from firstspin.serving.score_stores import open_scores


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data` and a bundle `b`."""
    folder = tmp_path_factory.mktemp("cli")
    made_people.tables(folder / "data", 60)
    pack(folder / "b")
    return folder


HINT = "--skip-bad-rows drops bad rows and counts them; `firstspin check` lists all problems"


def test_wrong_usage_is_status_2() -> None:
    assert firstspin("train").returncode == 2
    assert firstspin("sing").returncode == 2
    assert firstspin("evaluate", "--data", ".", "--split-at", "soon").returncode == 2


def test_help_names_every_command() -> None:
    shown = firstspin("--help").stdout
    for command in ("demo", "world", "label", "train", "evaluate", "recommend", "score", "serve", "experiment"):
        assert f"  {command} " in shown


def test_label_writes_a_row_a_labelled_user_and_counts_the_rest(made: Path, tmp_path: Path) -> None:
    done = firstspin("label", "--data", made / "data", "--out", tmp_path / "labels.parquet")
    assert done.returncode == 0, done.stderr
    assert "60 of 60 registrations have a label" in done.stdout
    assert "Next: firstspin train" in done.stdout
    rows = pq.read_table(tmp_path / "labels.parquet").to_pylist()
    assert [row["user_id"] for row in rows] == [f"u{i}" for i in range(60)]
    assert rows[0].keys() >= {"user_id", "registered_at", "age", "gender", "country", "genres", "top_genre", "seconds"}


def test_bad_rows_stop_the_work_and_nothing_is_half_written(tmp_path: Path) -> None:
    data = made_tables.tables(tmp_path / "data", [("u", "2025-01-01T00:00:00Z", "300", "", "", "")], [])
    message = failed("label", "--data", data, "--out", tmp_path / "out" / "labels.parquet")
    assert message == f"registrations.csv row 1: age '300' is not between 0 and 120\n{HINT}"
    assert not list((tmp_path / "out").iterdir())


def test_where_stderr_is_a_log_a_bad_row_is_named_without_what_stands_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = made_tables.tables(tmp_path / "data", [("u", "2025-01-01T00:00:00Z", "300", "", "", "")], [])
    monkeypatch.setenv("FIRSTSPIN_BARE_ERRORS", "1")
    assert (
        failed("label", "--data", data, "--out", tmp_path / "l.parquet")
        == f"registrations.csv row 1: age is not between 0 and 120\n{HINT}"
    )


def test_where_stderr_is_a_log_a_table_without_a_header_is_named_without_its_first_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = made_tables.tables(tmp_path / "data", [], [])
    made_tables.write(data, "registrations", ("007", "2026-01-01T00:00:00Z", "30", "female", "US", "Rock|Jazz"), [])
    for bare in ("1", "true", "yes", "on"):
        monkeypatch.setenv("FIRSTSPIN_BARE_ERRORS", bare)
        said = failed("label", "--data", data, "--out", tmp_path / "l.parquet")
        assert said == "registrations.csv has no column user_id, registered_at, genres"


@pytest.mark.parametrize(("name", "value"), [("FIRSTSPIN_BARE_ERRORS", "y"), ("FIRSTSPIN_BARE_ERROR", "1")])
def test_bare_errors_are_never_off_by_a_slip(
    name: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    done = firstspin("label", "--data", tmp_path, "--out", tmp_path / "l.parquet")
    assert done.returncode == 2
    assert done.stderr.startswith("firstspin: ")
    assert name in done.stderr


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("FIRSTSPIN_UNDER_AGE", "Refuse", "FIRSTSPIN_UNDER_AGE: 'Refuse' is not one of answer, refuse"),
        ("FIRSTSPIN_PORT", "tcp://10.96.0.7:8080", "enableServiceLinks: false"),
        ("FIRSTSPIN_SCORES_FIRST", "perhaps", "FIRSTSPIN_SCORES_FIRST: 'perhaps' is neither true nor false"),
    ],
)
def test_a_service_with_a_variable_that_cannot_be_does_not_start_and_says_so_in_one_line(
    name: str, value: str, said: str, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    done = firstspin("serve", "--bundle", made / "b")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert said in done.stderr


def test_train_packs_a_bundle_with_its_scorecard(made: Path, tmp_path: Path) -> None:
    done = firstspin("train", "--data", made / "data", "--model", "logistic", "--out", tmp_path / "b")
    assert done.returncode == 0, done.stderr
    loaded = bundle.load(tmp_path / "b")
    assert f"Bundle {loaded.id} (logistic)" in done.stdout
    assert loaded.manifest.scorecard is not None
    assert loaded.manifest.data["labelled"] == 60
    assert not loaded.manifest.knows_silence  # everybody told a country


def test_an_unknown_model_is_one_clear_line(made: Path, tmp_path: Path) -> None:
    message = failed("train", "--data", made / "data", "--model", "oracle", "--out", tmp_path / "b")
    assert message.startswith("no model is called 'oracle'; there are ")
    assert not (tmp_path / "b").exists()


def test_evaluate_prints_and_writes_the_scorecard(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "scorecard.json"
    words = ("evaluate", "--data", made / "data", "--models", "logistic", "--folds", 3, "--out", out)
    done = firstspin(*words)
    assert done.returncode == 0, done.stderr
    assert "logistic" in done.stdout
    first = out.read_bytes()
    assert json.loads(first)["figures"]["logistic"]["hit@3"].keys() == {"value", "low", "high"}
    assert started(*words).returncode == 0
    assert out.read_bytes() == first  # bit for bit, whatever the order of sets


def test_the_ledger_sets_the_articles_claims_beside_ours() -> None:
    lift = PairedLift(Figure(0.1, 0.09, 0.11), Figure(0.147, 0.137, 0.157))
    figures = {"auto": {"hit@3": Figure(0.773, 0.763, 0.783)}}
    card = Scorecard({"seed": 5}, {}, 100, "auto", figures, {"auto": {"popularity": {"hit@3": lift}}})
    hits, lifted = claims.entries(card, Path("my data"), Path("b"))
    assert (hits.article, hits.here) == (".77", ".773 ±.010")
    assert (lifted.article, lifted.here) == ("+15%", "+14.7% ±1.0")
    assert hits.command == "firstspin train --data 'my data' --out b --seed 5"


def test_recommend_explains_itself(made: Path) -> None:
    words = ("recommend", "--bundle", made / "b", "--age", 50, "--genres", "Rock|Pop", "--explain")
    done = firstspin(*words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[3].split() == ["genre", "no", "answers", "age", "genres", "probability"]
    found = json.loads(firstspin(*words, "--json").stdout)
    assert found["genres"][0]["moved"].keys() == {"age", "genres"}


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that knows four genres, of which one has a comma and one an accent."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(made_people, "GENRES", ("Caf\u00e9", "Folk, World", "Jazz", "Strasse"))
        pack(tmp_path_factory.mktemp("known") / "b")
    return tmp_path_factory.getbasetemp() / "known0" / "b"


@pytest.mark.parametrize(
    ("typed", "picks", "warned"),
    [
        ("Jazz|Strasse", "Jazz|Strasse", ""),
        ("jazz, STRASSE", "Jazz|Strasse", ""),
        (" \uff2aazz ,\u00a0stra\u00dfe|", "Jazz|Strasse", ""),
        ("folk, world", "Folk, World", ""),
        ("folk,  world", "Folk, World", ""),
        ("Jazz,Folk, World,CAFE\u0301", "Jazz|Folk, World|Caf\u00e9", ""),
        ("Jaz, Strasse", "Strasse", "'Jaz' is not a genre of this bundle and is ignored; the nearest is Jazz"),
        (
            "Jazz;Strasse",
            "",
            "'Jazz;Strasse' is not a genre of this bundle and is ignored; separate picks by | or commas",
        ),
        ("qqq", "", "'qqq' is not a genre of this bundle and is ignored; the genres are Caf\u00e9|Folk, World|Jazz|"),
    ],
)
def test_recommend_takes_picks_as_people_type_them(
    typed: str, picks: str, warned: str, known: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def answered(genres: str) -> tuple[str, str]:
        answers.app(["recommend", "--bundle", str(known), "--genres", genres, "--json"], standalone_mode=False)
        return tuple(capsys.readouterr())

    out, err = answered(typed)
    assert err.startswith(f"Warning: {warned}" if warned else "")
    assert bool(err) == bool(warned)
    right, silent = answered(picks)
    assert json.loads(out)["genres"] == json.loads(right)["genres"]
    assert not silent


def test_a_pick_is_not_repeated_where_stderr_is_a_log(
    known: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTSPIN_BARE_ERRORS", "1")
    answers.app(["recommend", "--bundle", str(known), "--genres", "secret"], standalone_mode=False)
    assert capsys.readouterr().err.startswith("Warning: a pick is not a genre of this bundle and is ignored; the ")


def test_recommend_takes_answers_to_further_fields(tmp_path: Path) -> None:
    pack_with_further_fields(tmp_path / "b")
    words = ("recommend", "--bundle", tmp_path / "b", "--answer", "device=phone", "--answer", "visits=3", "--json")
    assert json.loads(firstspin(*words).stdout)["source"] == "model"
    moved = json.loads(firstspin(*words, "--explain").stdout)["genres"][0]["moved"]
    assert moved.keys() == {"device", "visits"}
    assert failed(*words[:3], "--answer", "shoe=1") == "this bundle does not ask 'shoe'; it asks device, visits"
    assert failed(*words[:3], "--answer", "visits=many") == "visits 'many' is not a number"
    assert failed(*words[:3], "--answer", f"device={'x' * 201}").startswith("this is not a registration: ")
    assert firstspin(*words[:3], "--answer", "phone").returncode == 2


@pytest.mark.parametrize(
    ("words", "warned"),
    [
        (["--answer", "device=Phone", "--country", " de"], []),
        (
            ["--answer", "device=fone"],
            ["device 'fone' is no value that the model knows and counts as missing; the nearest is phone"],
        ),
        (
            ["--gender", "Femme", "--country", "Q"],
            [
                "gender 'Femme' is no value that the model knows and counts as missing; it knows none",
                "country 'Q' is no value that the model knows and counts as missing; it knows de, us",
            ],
        ),
    ],
)
@pytest.mark.parametrize("is_log", [False, True])
def test_a_value_that_the_model_does_not_know_is_a_warning(
    *,
    words: list[str],
    warned: list[str],
    is_log: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pack_with_further_fields(tmp_path / "b")
    monkeypatch.setenv("FIRSTSPIN_BARE_ERRORS", "1" if is_log else "0")
    answers.app(["recommend", "--bundle", str(tmp_path / "b"), *words], standalone_mode=False)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(warned)
    for line, text in zip(lines, warned, strict=True):
        expected = re.sub(r" '\w+' is", " is", text) if is_log else text
        assert line.startswith(f"Warning: {expected}")


def test_the_next_step_of_training_answers_further_fields(tmp_path: Path) -> None:
    registrations = made_people.tables(tmp_path / "data", 60) / "registrations.csv"
    header, *rows = registrations.read_text().splitlines()
    devices = [f"{row},{('phone', 'car radio')[i % 2]}" for i, row in enumerate(rows)]
    registrations.write_text("\n".join([f"{header},device", *devices, ""]))
    words = ("train", "--data", tmp_path / "data", "--out", tmp_path / "b", "--model", "logistic", "--extra", "device")
    done = firstspin(*words)
    assert done.returncode == 0, done.stderr
    command = done.stdout.splitlines()[-1].removeprefix("Next: ")
    assert command.endswith(" --answer 'device=car radio'")
    assert "The business rule is the baseline to beat" in done.stdout
    assert "popularity " not in done.stdout


def test_evaluate_says_what_questions_buy_and_report_shows_it(made: Path, tmp_path: Path) -> None:
    card, page = tmp_path / "scorecard.json", tmp_path / "report.html"
    words = ("--data", made / "data", "--models", "logistic", "--folds", 2, "--questions", "--out", card)
    done = firstspin("evaluate", *words)
    assert done.returncode == 0, done.stderr
    assert "Value of a question" in done.stdout
    assert "…" not in done.stdout  # nothing is cut where the terminal has 80 columns
    done = firstspin("report", "--data", made / "data", "--bundle", made / "b", "--scorecard", card, "--out", page)
    assert done.returncode == 0, done.stderr
    assert page.read_text().startswith("<!doctype html>")


def test_evaluate_can_split_by_date_and_ask_a_bundle(made: Path) -> None:
    by_date = firstspin("evaluate", "--data", made / "data", "--models", "logistic", "--split-at", "2025-02-25")
    assert by_date.returncode == 1  # nobody's label is known by then
    assert "0 users with a label known by then" in by_date.stderr
    done = firstspin("evaluate", "--data", made / "data", "--bundle", made / "b")
    assert done.returncode == 0, done.stderr


def test_recommend_and_score_give_the_same_answers(made: Path, tmp_path: Path) -> None:
    answer = json.loads(
        firstspin("recommend", "--bundle", made / "b", "--age", 31, "--genres", "Rock|Jazz", "--json").stdout
    )
    assert answer["source"] == "model"
    people = [
        ("001", "2025-01-01T00:00:00Z", "31", "", "", "Rock|Jazz"),
        ("NA", "2025-01-01T00:00:00Z", "", "", "", ""),
    ]
    asked = made_tables.write(tmp_path, "new", made_tables.REGISTRATIONS, people)
    done = firstspin("score", "--bundle", made / "b", "--registrations", asked, "--out", tmp_path / "o.csv")
    assert done.returncode == 0, done.stderr
    with (tmp_path / "o.csv").open() as file:
        first, second = csv.DictReader(file)
    assert (first["user_id"], second["user_id"]) == ("001", "NA")
    assert first["genres"].split("|") == [g["genre"] for g in answer["genres"]]
    assert [float(p) for p in first["probabilities"].split("|")] == [g["probability"] for g in answer["genres"]]
    ranking = Recommender(bundle.load(made / "b")).rank(Registration())
    assert second["genres"].split("|") == list(ranking.genres)


def test_score_writes_parquet_and_refuses_what_it_does_not_know(made: Path, tmp_path: Path) -> None:
    asked = made / "data" / "registrations.csv"
    words = ("score", "--bundle", made / "b", "--registrations", asked, "--top", 2, "--out")
    assert firstspin(*words, tmp_path / "o.parquet").returncode == 0
    table = pq.read_table(tmp_path / "o.parquet")
    assert table.column_names == ["user_id", "genres", "probabilities"]
    assert {len(genres) for genres in table["genres"].to_pylist()} == {2}
    assert "expected a .csv or .parquet file" in failed(*words, tmp_path / "o.xlsx")
    assert firstspin(*words, f"sqlite:{tmp_path / 'o.db'}").returncode == 0
    with closing(open_scores(f"sqlite:{tmp_path / 'o.db'}")) as scores:
        kept = scores.get("u0")
    assert kept is not None
    assert list(kept.ranking.genres) == table["genres"].to_pylist()[0]


def test_score_of_nobody_is_an_empty_file_and_leaves_a_store_as_it_was(made: Path, tmp_path: Path) -> None:
    nobody = made_tables.write(tmp_path, "nobody", made_tables.REGISTRATIONS, [])
    words = ("score", "--bundle", made / "b", "--out")
    store = f"sqlite:{tmp_path / 'o.db'}"
    assert firstspin(*words, store, "--registrations", made / "data" / "registrations.csv").returncode == 0
    said = failed(*words, store, "--registrations", nobody)
    assert said == f"{store}: there are no registrations to score; the stored answers are not changed"
    with closing(open_scores(store)) as scores:
        assert scores.get("u0") is not None
    assert firstspin(*words, tmp_path / "o.csv", "--registrations", nobody).returncode == 0
    assert (tmp_path / "o.csv").read_text() == "user_id,genres,probabilities\n"


def test_two_runs_of_one_second_are_two_versions(made: Path, tmp_path: Path) -> None:
    registrations, second = made / "data" / "registrations.csv", datetime(2026, 11, 25, tzinfo=UTC)
    for now in (second, second + timedelta(milliseconds=1)):
        score(made / "b", registrations, f"sqlite:{tmp_path / 'o.db'}", now=now)
    with closing(sqlite3.connect(tmp_path / "o.db")) as kept:
        assert kept.execute("SELECT count(DISTINCT version) FROM scores").fetchone() == (2,)


def test_a_bundle_that_is_none_is_one_clear_line(tmp_path: Path) -> None:
    assert failed("recommend", "--bundle", tmp_path) == f"{tmp_path} is not a bundle: it has no manifest.json"


def test_an_impossible_age_is_one_clear_line(made: Path) -> None:
    asking = ("recommend", "--bundle", made / "b", "--age")
    assert failed(*asking, 300) == "this is not a registration: --age '300' is not between 0 and 120"
    assert failed(*asking, "30.5") == "this is not a registration: --age '30.5' is not a whole number"
    assert failed(*asking, "thirty") == "this is not a registration: --age 'thirty' is not a number"


def test_every_command_of_the_table_is_there_and_says_what_it_does() -> None:
    listed = firstspin("--help").stdout
    for name in COMMANDS:
        assert f"  {name} " in listed
        if name != "serve":  # which is another process
            shown = CliRunner().invoke(app, [name, "--help"], prog_name="firstspin").output
            assert shown.startswith(f"Usage: firstspin {name} ")


def test_version_has_package_python_and_bundle_format() -> None:
    shown = f"firstspin {version('firstspin')} (Python {platform.python_version()}, bundle format {BUNDLE_FORMAT})\n"
    assert firstspin("--version").stdout == shown
    assert CliRunner().invoke(app, ["--settings", "x", "--version"]).output == shown


def test_version_loads_neither_numpy_nor_the_command_line() -> None:
    ended = "atexit.register(lambda: print([m for m in ('numpy', 'typer', 'rich') if m in sys.modules]))"
    code = f"import atexit, sys; {ended}; sys.argv[1:] = ['--version']; from firstspin.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1] == "[]"


def test_a_misspelt_command_is_answered_with_the_nearest() -> None:
    assert "No such command 'trian'. Did you mean 'train'?" in firstspin("trian").stderr


@pytest.mark.parametrize(
    ("line", "completions"),
    [
        ("firstspin e", ["evaluate", "events", "experiment"]),
        ("firstspin experiment ", ["plan", "analyse", "stop", "look-back", "explore", "simulate"]),
        ("firstspin label --eng", ["--engine"]),
        ("firstspin label --engine s", ["spark"]),
        ("firstspin serve --work", ["--workers"]),
        ("firstspin --vers", ["--version"]),
    ],
)
def test_a_shell_completes_commands_options_and_choices(
    line: str, completions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = line.split(" ")
    monkeypatch.setenv("_FIRSTSPIN_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    assert CliRunner().invoke(app, prog_name="firstspin").output.split() == completions


def test_bash_completes_by_the_script_that_is_shown() -> None:
    words = 'COMP_WORDS=(firstspin la); COMP_CWORD=1; _firstspin_completion firstspin; echo "${COMPREPLY[@]}"'
    script = f'eval "$(_FIRSTSPIN_COMPLETE=source_bash firstspin)"; {words}'
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(["bash", "-c", script], env=os.environ | {"PATH": path}, capture_output=True, check=True)
    assert done.stdout == b"label\n"


@pytest.mark.parametrize(("shell", "shown"), [("zsh", "label"), ("fish", "label")])
def test_zsh_and_fish_complete_too(shell: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_FIRSTSPIN_COMPLETE", f"source_{shell}")
    assert "_TYPER_COMPLETE_ARGS" in CliRunner().invoke(app, prog_name="firstspin").output
    monkeypatch.setenv("_FIRSTSPIN_COMPLETE", f"complete_{shell}")
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", "firstspin la")
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    assert shown in CliRunner().invoke(app, prog_name="firstspin").output


@pytest.mark.parametrize(
    "words",
    [
        ["label", "--out", "a.parquet", "--data", "d", "--engine={}"],
        ["--{}"],
        ["{}"],
        ["label", "--{}"],
        ["events", "{}"],
    ],
    ids=["value", "option", "command", "option of a command", "command of a group"],
)
def test_an_error_of_usage_is_short_whatever_was_typed(words: list[str]) -> None:
    ran = firstspin(*(word.format("x" * 50_000 + "\x1b[31m") for word in words))
    assert (ran.returncode, ran.stdout) == (2, "")
    assert len(ran.stderr) < 2_000
    assert "xxx" in ran.stderr
    assert "\x1b" not in ran.stderr
