"""`make` on machines of several kinds: the Python that is chosen, and what is said where there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
VENV, NATIVE, PYTHONS = (ROOT / ".ci" / name for name in ("venv", "native", "pythons"))


def program(folder: Path, name: str, body: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(0o755)


def interpreter(folder: Path, name: str, *, usable: bool = True) -> None:
    """A Python that says what it was started for; an unusable one is too old, or lacks the module venv."""
    program(folder, name, f'if [ "$1" = -c ]; then exit {0 if usable else 1}; fi; echo "{name} $*"')


def planned(*arguments: str) -> str:
    """The last command `make` would run. What an outer `make test` sets would change what this one prints."""
    command = ["make", "--dry-run", "--always-make", *arguments]
    environment = {"PATH": os.environ["PATH"]}
    printed = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=True)
    return printed.stdout.splitlines()[-1]


def made(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = ["/bin/sh", VENV, "new"]
    return subprocess.run(
        command, env={"PATH": str(folder)} | environment, capture_output=True, text=True, timeout=20, check=False
    )


def test_the_first_usable_python_is_taken(tmp_path: Path) -> None:
    interpreter(tmp_path, "python3.11", usable=False)
    interpreter(tmp_path, "python3.13")
    interpreter(tmp_path, "python3.14")
    assert made(tmp_path).stdout == "python3.13 -m venv new\n"
    assert made(tmp_path, PYTHON="python3.14").stdout == "python3.14 -m venv new\n"


def test_uv_supplies_a_python_where_none_is_usable(tmp_path: Path) -> None:
    interpreter(tmp_path, "python3", usable=False)
    program(tmp_path, "uv", 'echo "uv $*"')
    assert made(tmp_path).stdout == "uv venv --quiet --seed --python >=3.11,<3.15 new\n"


def test_an_environment_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "env/bin").mkdir(parents=True)
    program(tmp_path / "env/bin", "python", "exit 1")
    done = subprocess.run(["/bin/sh", VENV, tmp_path / "env"], env={"PATH": ""}, timeout=20, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("tools", "command"),
    [
        ({"apt-get": "", "apt-cache": '[ "$2" = python3.13-venv ]'}, "sudo apt-get install python3.13-venv"),
        ({"dnf": ""}, "sudo dnf install python3.13"),
        ({"brew": ""}, "brew install python@3.13"),
        ({}, "curl -LsSf https://astral.sh/uv/install.sh | sh"),
        ({"apt-get": "", "apt-cache": "exit 1"}, "curl -LsSf https://astral.sh/uv/install.sh | sh"),
    ],
    ids=["debian", "fedora", "macos", "elsewhere", "an old debian"],
)
def test_the_command_that_installs_a_python_is_named(tools: dict[str, str], command: str, tmp_path: Path) -> None:
    interpreter(tmp_path, "python3", usable=False)
    for name, body in tools.items():
        program(tmp_path, name, body)
    done = made(tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("firstspin needs Python 3.11, 3.12, 3.13 or 3.14 with its module venv. Please run:\n")
    assert done.stderr.splitlines()[1].startswith(f"  {command}")


def test_a_python_that_was_asked_for_and_is_not_usable_is_named(tmp_path: Path) -> None:
    interpreter(tmp_path, "python3.12")
    assert "; python3.9 is none of them." in made(tmp_path, PYTHON="python3.9").stderr


def checked(folder: Path, missing: str) -> subprocess.CompletedProcess[str]:
    """The check of what is compiled, for an environment without `missing` and a user without rights."""
    body = f"""case "$2" in "import sys"*) echo python3.13;; *{missing}*) echo no {missing}; exit 1;; esac"""
    program(folder, "python", body)
    program(folder, "id", "echo 1000")
    (folder / "tail").symlink_to(shutil.which("tail") or "")
    command = ["/bin/sh", NATIVE, folder / "python"]
    return subprocess.run(command, env={"PATH": str(folder)}, capture_output=True, text=True, timeout=20, check=False)


@pytest.mark.parametrize(
    ("tool", "message"),
    [
        ("apt-get", "LightGBM needs the OpenMP runtime; please run: sudo apt-get install -y libgomp1\n"),
        ("dnf", "LightGBM needs the OpenMP runtime; please run: sudo dnf install -y libgomp\n"),
        ("brew", "LightGBM needs the OpenMP runtime; please run: brew install libomp\n"),
        ("other", "LightGBM can't be loaded:\nno lightgbm\n"),
    ],
)
def test_the_command_that_installs_openmp_is_named(tool: str, message: str, tmp_path: Path) -> None:
    program(tmp_path, tool, "exit 1")
    done = checked(tmp_path, "lightgbm")
    assert (done.returncode, done.stderr) == (1, message)


@pytest.mark.parametrize(
    ("tool", "command"),
    [
        ("apt-get", "sudo apt-get install gcc python3.13-dev"),
        ("dnf", "sudo dnf install gcc python3.13-devel"),
        ("brew", "xcode-select --install"),
    ],
)
def test_extensions_that_were_not_compiled_are_reported_and_the_setup_goes_on(
    tool: str, command: str, tmp_path: Path
) -> None:
    program(tmp_path, tool, "exit 1")
    done = checked(tmp_path, "_bitrows")
    assert done.returncode == 0
    assert done.stderr.splitlines()[1:] == [f"  {command}", "  rm -r .venv && make setup"]


def test_ci_runs_the_quick_tests_on_every_further_python(tmp_path: Path) -> None:
    programs, environment = tmp_path / "programs", tmp_path / ".venv/bin"
    for folder in (programs, environment, tmp_path / ".ci"):
        folder.mkdir(parents=True)
    shutil.copy(PYTHONS, tmp_path / ".ci")
    program(environment, "python", "echo 11")
    for name, usable in {"python3.11": True, "python3.12": False, "python3.13": True, "python3.14": True}.items():
        interpreter(programs, name, usable=usable)
    program(programs, "make", 'echo "make $*"')
    (programs / "dirname").symlink_to(shutil.which("dirname") or "")
    command = [shutil.which("bash") or "", tmp_path / ".ci/pythons"]
    done = subprocess.run(command, env={"PATH": str(programs)}, capture_output=True, text=True, timeout=20, check=True)
    quick = "make --no-print-directory quick VENV=.venv-3.{0} PYTHON=python3.{0}"
    assert [line for line in done.stdout.splitlines() if line.startswith("make")] == [
        quick.format(13),
        quick.format(14),
    ]


def test_the_quick_tests_are_there() -> None:
    named = [word for word in planned("quick").split() if word.startswith("tests/")]
    assert len(named) > 8
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize(
    ("variables", "options"),
    [
        ([], ["demo"]),
        (["USERS=500", "PORT=18080"], ["demo", "--users", "500", "--port", "18080"]),
        (["SEED=7"], ["demo", "--seed", "7"]),
    ],
)
def test_make_demo_passes_its_variables_on(variables: list[str], options: list[str]) -> None:
    assert planned("demo", *variables).split() == [".venv/bin/firstspin", *options]
