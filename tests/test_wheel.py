"""The wheel in environments that hold only what it requires: every command works, or names the extra that it needs.

`make test-wheel` runs these tests: building and installing take as long as the rest of them.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from bare_environments import ROOT, build, environment, files_of

pytestmark = pytest.mark.wheel

POSTGRES = ("--events", "postgresql://127.0.0.1:1/none", "--events-secret", "secret")
STREAM = ("--exposures-stream", "s", "--scope", "test")
NO_TABLES = ("--data", "no-such-folder")
NEEDING = [
    ("report", ("report", *NO_TABLES, "--bundle", "none", "--out", "r.html"), "a report needs altair"),
    ("tune", ("train", *NO_TABLES, "--out", "new", "--trials", "1"), "tuning needs optuna"),
    ("tune", ("train", *NO_TABLES, "--out", "new", "--tune", "1"), "tuning needs optuna"),
    ("aws", ("score", "--bundle", "none", "--registrations", "n.csv", "--out", "dynamodb:t"), "dynamodb needs boto3"),
    ("aws", ("serve", "--bundle", "none", "--port", "0", "--scores", "dynamodb:t"), "dynamodb needs boto3"),
    (
        "aws",
        ("events", "forward", *STREAM, "--events", "sqlite:///e", "--events-secret", "secret"),
        "firehose needs boto3",
    ),
    ("aws", ("sagemaker", "rollback", "--endpoint", "e"), "sagemaker needs boto3"),
    ("aws", ("sagemaker", "fetch", "--endpoint", "e", "--out", "new"), "sagemaker needs boto3"),
    ("aws", ("sagemaker", "load-test", "--endpoint", "e"), "sagemaker-runtime needs boto3"),
    ("postgres", ("serve", "--bundle", "none", "--port", "0", *POSTGRES), "an event store in PostgreSQL needs psycopg"),
    ("postgres", ("events", "erase", "u1", *POSTGRES), "an event store in PostgreSQL needs psycopg"),
    (
        "postgres",
        ("train", *NO_TABLES, "--out", "new", "--erased", *POSTGRES[1:]),
        "an event store in PostgreSQL needs psycopg",
    ),
]
"""(extra, command, message without it); the commands name tables that don't exist, so that any work would fail."""


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("wheel"))[1]


@pytest.fixture(scope="session")
def commands(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of an environment's commands, made once for each extra."""
    made: dict[str, Path] = {}

    def commands_with(extra: str) -> Path:
        if extra not in made:
            made[extra] = environment(tmp_path_factory.mktemp(extra or "none") / "env", built, extra)
        return made[extra]

    return commands_with


@pytest.fixture(scope="session")
def work(commands: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with tables, a bundle and the secret of an event store, made without extras."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "secret").write_text("0f" * 32)
    for command in ("world data --users 300 --seed 7", "train --data data --model logistic --out b"):
        assert run(commands(""), folder, *command.split()).returncode == 0
    return folder


def run(commands: Path, folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """A command of the environment, with no sight of this checkout or of AWS."""
    alone = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "AWS_EC2_METADATA_DISABLED": "true", "OMP_NUM_THREADS": "1"}
    command = [str(commands / "firstspin"), *map(str, words)]
    return subprocess.run(command, cwd=folder, env=alone, capture_output=True, text=True, timeout=120, check=False)


def test_the_wheel_has_every_file_of_the_package_and_the_core_in_c(built: Path) -> None:
    source = ROOT / "src/firstspin"
    files = {str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()}
    ours = {name for name in files if not re.search(r"\.so$|__pycache__", name)}
    packed = set(files_of(built))
    assert ours <= packed
    compiled = {re.sub(r"\..*", "", name) for name in packed - ours}
    assert compiled == {"data/labels/_windows", "models/_ranking", "models/evidence/_moves", "models/trees/_bitrows"}


@pytest.mark.parametrize(
    "command",
    [
        "--help",
        "label --data data --out labels.parquet",
        "evaluate --data data --models logistic --folds 2",
        "recommend --bundle b --age 24 --genres Rock",
        "score --bundle b --registrations data/registrations.parquet --out scores.csv",
        "score --bundle b --registrations data/registrations.parquet --out sqlite:scores.db",
        "serve --help",
        "events erase u1 --events sqlite:///events.sqlite --events-secret secret",
        "experiment simulate --users 300 --days 2 --seed 7 --bundle b",
        "sagemaker package --bundle b",
    ],
)
def test_without_an_extra_the_commands_work(command: str, commands: Callable[[str], Path], work: Path) -> None:
    if command.startswith("events"):
        make = (
            "from pathlib import Path; from firstspin.events.store import open_store; "
            "from firstspin.events.schema import read_secret; "
            "open_store('sqlite:///events.sqlite', read_secret(Path('secret'))).close()"
        )
        subprocess.run([commands("") / "python", "-c", make], cwd=work, check=True)
    done = run(commands(""), work, *command.split())
    assert done.returncode == 0, done


@pytest.mark.parametrize(("extra", "command", "message"), NEEDING)
def test_a_missing_extra_is_named_before_any_work(
    extra: str, command: tuple[str, ...], message: str, commands: Callable[[str], Path], work: Path
) -> None:
    before = set(work.iterdir())
    done = run(commands(""), work, *command)
    assert done.returncode == 1, done
    assert f"{message}: pip install 'firstspin[{extra}]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert set(work.iterdir()) == before


@pytest.mark.parametrize(("extra", "command", "message"), [one for one in NEEDING if one[1][0] != "serve"])
def test_with_its_extra_a_command_goes_on(
    extra: str, command: tuple[str, ...], message: str, commands: Callable[[str], Path], work: Path
) -> None:
    done = run(commands(extra), work, *command)
    assert message not in done.stderr
    assert "firstspin[" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("extra", "command"),
    [
        ("report", "report --data data --bundle b --out report.html"),
        ("tune", "train --data data --model logistic --trials 1 --out tuned"),
    ],
)
def test_an_extra_is_complete(extra: str, command: str, commands: Callable[[str], Path], work: Path) -> None:
    done = run(commands(extra), work, *command.split())
    assert done.returncode == 0, done


def test_the_python_api_needs_no_extra(commands: Callable[[str], Path], work: Path) -> None:
    program = "from firstspin.api import Recommender; print(Recommender('b').recommend(age=24, genres=['Rock']).source)"
    command = [commands("") / "python", "-c", program]
    assert subprocess.run(command, cwd=work, capture_output=True, text=True, check=True).stdout == "model\n"


@pytest.mark.parametrize(
    ("extra", "status", "message"), [("", 1, "pip install 'firstspin[sklearn]'"), ("sklearn", 0, "")]
)
def test_the_estimator_names_its_extra(
    extra: str, status: int, message: str, commands: Callable[[str], Path], work: Path
) -> None:
    command = [
        commands(extra) / "python",
        "-c",
        "from firstspin.models.sklearn import GenreClassifier; GenreClassifier()",
    ]
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
    assert (done.returncode, message in done.stderr) == (status, True)
