"""Mistakes are reported before the first table is read: here there are no tables, and no message is about them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import made_tables
import pytest
from command_line import failed, firstspin
from made_bundles import pack
from training_job import failure, trained

from firstspin import learn, preflight
from firstspin.evaluation.cross_validation import Protocol
from firstspin.models.registry import TUNABLE
from firstspin.records import InputError
from firstspin.serving.bundle import report_path

NO_TABLES = ("--data", "no-such-folder")
PLANNED = ("--name", "n", "--baseline", "0.05", "--registrations-a-day", "10")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle `b`, a `full` folder, a file `file`."""
    made = tmp_path_factory.mktemp("preflight")
    pack(made / "b")
    (made / "full").mkdir()
    (made / "full" / "something").write_text("else")
    (made / "file").write_text("text")
    return made


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("train", "--model", "lgbm", "--out", "new"), "no model is called 'lgbm'; there are auto, popularity"),
        (
            ("train", "--without", "shoe", "--out", "new"),
            "'shoe' can't be left out: the questions are age, gender, country",
        ),
        (
            ("train", "--model", "popularity", "--trials", "3", "--out", "new"),
            "popularity has no settings to tune; auto",
        ),
        (("train", "--tune", "inf", "--out", "new"), "a finite number of minutes"),
        (("train", "--trials", "3", "--checkpoints", "file", "--out", "new"), "file is not a folder"),
        (("train", "--out", "full"), "full exists and is not a bundle; it is not changed"),
        (("train", "--out", "file"), "file exists and is not a bundle; it is not changed"),
        (("train", "--out", "file/b"), "file/b can't be written: "),
        (("train", "--erased", "mysql://a/b", "--events-secret", "file", "--out", "new"), "file"),
        (("label", "--out", "full"), "full is a folder; name a file in it"),
        (("label", "--out", "file/l.parquet"), "file is not a folder"),
        (("label", "--out", "/dev/null"), "/dev/null is not a regular file"),
        (("label", "--out", "l.csv"), "--out l.csv: expected a .parquet file"),
        (("label", "--out", "l.xlsx"), "--out l.xlsx: expected a .parquet file"),
        (("label", "--out", "labels"), "--out labels: expected a .parquet file, such as labels.parquet"),
        (("evaluate", "--out", "card"), "--out card: expected a .json file, such as card.json"),
        (("report", "--bundle", "b", "--out", "r"), "--out r: expected a .html or .htm file, such as r.html"),
        (("evaluate", "--out", "card.csv"), "--out card.csv: expected a .json file"),
        (("report", "--bundle", "b", "--out", "r.pdf"), "--out r.pdf: expected a .html or .htm file"),
        (("label", "--engine", "spark", "--out", "l.parquet"), "--engine spark"),
        (("label", "--data-ends", "9999-99-99", "--out", "l.parquet"), "'9999-99-99' is not a date or time"),
        (("evaluate", "--models", "popularity,lgbm"), "no model is called 'lgbm'"),
        (("evaluate", "--out", "full"), "full is a folder; name a file in it"),
        (("evaluate", "--folds", "3", "--split-at", "2025-01-01"), "either folds or a date to split at, not both"),
        (("evaluate", "--bundle", "b", "--folds", "3"), "leave out --folds"),
        (("evaluate", "--bundle", "none"), "none is not a bundle"),
        (("report", "--bundle", "b", "--out", "full"), "full is a folder; name a file in it"),
        (("report", "--bundle", "b", "--scorecard", "file", "--out", "r.html"), "file"),
    ],
)
def test_mistakes_are_reported_before_a_table_is_read(
    words: tuple[str, ...], said: str, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folders)
    done = firstspin(words[0], *NO_TABLES, *words[1:])
    assert done.returncode in (1, 2), done
    assert said in " ".join(done.stderr.replace("│", " ").split())
    assert "no-such-folder" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("score", "--bundle", "b", "--registrations", "none.csv", "--out", "o.xlsx"),
            "expected a .csv",
        ),
        (
            ("score", "--bundle", "b", "--registrations", "none.csv", "--out", "o"),
            "--out o: expected a .csv or .parquet file, sqlite:PATH or dynamodb:TABLE, such as o.csv",
        ),
        (("experiment", "plan", *PLANNED, "--out", "p"), "--out p: expected a .toml file, such as p.toml"),
        (
            ("sagemaker", "package", "--bundle", "none", "--out", "m"),
            "--out m: expected a .tar.gz or .tgz file, such as m.tar.gz",
        ),
        (("sagemaker", "package", "--bundle", "none", "--out", "m.gz"), "--out m.gz: expected a .tar.gz or .tgz file"),
        (
            ("score", "--bundle", "b", "--registrations", "none.csv", "--out", "dynamodb:"),
            "sqlite:PATH or dynamodb:TABLE",
        ),
        (
            ("score", "--bundle", "b", "--registrations", "none.csv", "--out", "mysql:x"),
            "sqlite:PATH or dynamodb:TABLE",
        ),
        (("score", "--bundle", "b", "--registrations", "none.csv", "--out", "file/o.csv"), "file is not a folder"),
        (("score", "--bundle", "b", "--registrations", "x.csv", "--out", "./x.csv"), "holds the registrations"),
        (("score", "--bundle", "b", "--registrations", "full", "--out", "full/o.csv"), "holds the registrations"),
        (
            ("score", "--bundle", "b", "--registrations", "none", "--engine", "spark", "--out", "o.parquet"),
            "--engine spark needs pyspark: pip install 'firstspin[spark]'",
        ),
        (
            ("score", "--bundle", "b", "--registrations", "r", "--engine", "spark", "--listens", "l", "--out", "o"),
            "--engine spark takes none of --listens, --map",
        ),
        (("score", "--bundle", "b", "--registrations", "x.csv", "--top", "0", "--out", "o.csv"), "--top"),
        (("experiment", "plan", *PLANNED, "--out", "p.yaml"), "--out p.yaml: expected a .toml file"),
        (
            ("sagemaker", "package", "--bundle", "none", "--out", "m.zip"),
            "--out m.zip: expected a .tar.gz or .tgz file",
        ),
        (("world", "file", "--users", "10"), "file is not a folder"),
        (("world", "w", "--users", "0"), "--users"),
        (("demo", "--users", "100", "--port", "70000"), "--port"),
        (("experiment", "simulate", "--out", "file"), "file is not a folder"),
        (("experiment", "simulate", "--seed", "2147483648"), "--seed"),
    ],
)
def test_the_other_commands_look_first_too(
    words: tuple[str, ...], said: str, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folders)
    done = firstspin(*words)
    assert done.returncode in (1, 2), done
    assert said in done.stderr
    assert "none.csv" not in done.stderr
    assert "Traceback" not in done.stderr
    assert {path.name for path in folders.iterdir()} == {"b", "full", "file"}


def test_a_table_is_neither_replaced_nor_hidden_by_what_is_made_of_it(tmp_path: Path) -> None:
    data = made_tables.tables(tmp_path / "data", [], [])
    for name in ("registrations.csv", "registrations.parquet", "listens.parquet"):
        assert "would replace or hide a table" in failed("label", "--data", data, "--out", data / name)
    (tmp_path / "other").symlink_to(data)
    assert "would replace" in failed("evaluate", "--data", data, "--out", tmp_path / "other" / "stations.csv")
    (data / "manifest.json").write_text("{}")
    assert "holds the tables" in failed("train", "--data", data, "--out", data)
    preflight.file(data / "labels.parquet", data, suffixes=(".parquet",))
    preflight.bundle(data / "bundle", data)


def test_no_file_is_written_into_a_bundle(folder: Path) -> None:
    for name in ("report.html", "scores.csv"):
        with pytest.raises(InputError, match=r"is inside the bundle .*; choose a path outside"):
            preflight.file(folder / name, suffixes=(".html", ".csv"))
    preflight.file(report_path(folder), suffixes=(".html",))


def test_a_folder_without_rights_is_named(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        closed = Path("/proc")  # where not even root makes files
    else:
        closed = tmp_path
        closed.chmod(0o500)
    with pytest.raises(InputError, match=f"no file can be created in {closed}"):
        preflight.file(closed / "labels.parquet", suffixes=(".parquet",))


def test_a_switch_that_names_the_erased_users_store_is_not_off_when_it_is_empty(tmp_path: Path) -> None:
    secret = tmp_path / "events.secret"
    words = ("train", *NO_TABLES, "--out", tmp_path / "b")
    for wrong in (("--erased", ""), ("--erased", "", "--events-secret", secret), ("--events-secret", secret)):
        done = firstspin(*words, *wrong)
        assert done.returncode == 2, done
        assert "event" in done.stderr


@pytest.mark.parametrize(
    ("module", "words", "said"),
    [
        (
            "optuna",
            ("train", *NO_TABLES, "--trials", "1", "--out", "new"),
            "tuning needs optuna: pip install 'firstspin[tune]'",
        ),
        ("vl_convert", ("report", *NO_TABLES, "--bundle", "b", "--out", "r.html"), "pip install 'firstspin[report]'"),
        ("altair", ("report", *NO_TABLES, "--bundle", "b", "--out", "r.html"), "pip install 'firstspin[report]'"),
        ("boto3", ("score", "--bundle", "b", "--registrations", "none.csv", "--out", "dynamodb:t"), "'firstspin[aws]'"),
        ("boto3", ("serve", "--bundle", "b", "--port", "0", "--scores", "dynamodb:t"), "'firstspin[aws]'"),
        ("boto3", ("sagemaker", "rollback", "--endpoint", "e"), "'firstspin[aws]'"),
    ],
)
def test_an_extra_that_is_missing_is_named_before_the_work(
    module: str, words: tuple[str, ...], said: str, folders: Path
) -> None:
    without = f"import sys; sys.modules[{module!r}] = None; from firstspin.__main__ import main; main()"
    command = [sys.executable, "-c", without, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=folders)
    assert done.returncode == 1, done
    assert said in done.stderr
    assert "no-such-folder" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_what_can_be_tuned_is_what_tuning_knows() -> None:
    tuning = pytest.importorskip("firstspin.models.search.tuning", reason="needs the extra 'tune'")
    assert set(TUNABLE) == {"auto", *tuning.SPACES}


def test_a_training_job_looks_first_too(tmp_path: Path) -> None:
    assert trained(tmp_path / "a", {"model": '"lgbm"'}) == 1
    assert (failure(tmp_path / "a") or "").startswith("no model is called 'lgbm'")
    assert trained(tmp_path / "b", {"trials": "3", "model": "popularity"}) == 1
    assert (failure(tmp_path / "b") or "").startswith("popularity has no settings to tune")
    assert trained(tmp_path / "c", {"model": "popularity"}) == 1
    assert "training has neither " in (failure(tmp_path / "c") or "")


def test_python_gets_the_same_answers() -> None:
    with pytest.raises(InputError, match="no model is called 'lgbm'"):
        learn.train(Path("none"), Path("b"), "lgbm")
    with pytest.raises(InputError, match="at least one model is needed; there are auto, popularity"):
        learn.evaluate_models(Path("none"), [])
    with pytest.raises(InputError, match="at least 2 are needed"):
        Protocol(folds=1)
