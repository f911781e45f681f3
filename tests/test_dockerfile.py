"""The image, as far as it can be known without an engine: its words, what they name, and the programs they start."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from sagemaker_container import up

from firstspin.tools.sagemaker_check import image, player
from firstspin.tools.sagemaker_check.report import FactOutcome

ROOT = Path(__file__).parent.parent


@dataclass
class Stage:
    """A stage's instructions, in order."""

    name: str
    base: str
    words: list[tuple[str, str]] = field(default_factory=list)

    def of(self, instruction: str) -> list[str]:
        return [rest for word, rest in self.words if word == instruction]


def stages() -> dict[str, Stage]:
    text = "\n".join(line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#"))
    found: dict[str, Stage] = {}
    for line in re.sub(r"\\\n", " ", text).splitlines():
        word, _, rest = line.partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            found[name] = Stage(name, base)
        elif found and line.strip():
            found[next(reversed(found))].words.append((word, rest))
    return found


STAGES = stages()
FINAL = ("serve", "sagemaker")


def let_in(path: str) -> bool:
    """Whether .dockerignore lets a file or folder into the build."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    return any(path == line[1:] or path.startswith(f"{line[1:]}/") for line in lines if line.startswith("!"))


def test_what_is_built_when_nothing_is_asked_for_is_sagemakers() -> None:
    assert list(STAGES)[-1] == "sagemaker"


@pytest.mark.parametrize("stage", FINAL)
def test_the_entrypoint_is_in_exec_form_so_that_signals_arrive(stage: str) -> None:
    (entrypoint,) = STAGES[stage].of("ENTRYPOINT")
    program = json.loads(entrypoint)[0]
    assert program in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert not STAGES[stage].of("CMD")


def test_sagemaker_gets_root_and_all_others_a_user_without_rights() -> None:
    assert STAGES["sagemaker"].of("USER") == ["root"]
    assert STAGES["serve"].of("USER") == ["10001:10001"]


def test_everything_copied_is_there_and_let_in() -> None:
    copied = [
        word
        for stage in STAGES.values()
        for copy in stage.of("COPY")
        if "--from" not in copy
        for word in copy.split()[:-1]
    ]
    assert copied
    assert [path for path in copied if not (ROOT / path).exists() or not let_in(path)] == []


@pytest.mark.parametrize("path", [".git", "tests", "bench", "docs", "requirements/dev.txt", ".venv"])
def test_nothing_else_is_let_in(path: str) -> None:
    assert not let_in(path)


def test_nothing_comes_from_a_host_of_our_choosing() -> None:
    """Where packages and bases come from is the builder's own configuration."""
    text = (ROOT / "Dockerfile").read_text()
    assert set(re.findall(r"https?://([^/'\s]+)", text)) == {"127.0.0.1:"}
    assert "index-url" not in text
    assert {stage.base for stage in STAGES.values()} == {"${BASE}", "runtime"}


def test_what_is_installed_is_locked_by_hash() -> None:
    installs = [run for stage in STAGES.values() for run in stage.of("RUN") if "pip install" in run]
    assert installs
    assert all("--require-hashes" in run or "--no-deps" in run for run in installs)


def test_the_base_is_pinned_by_its_digest() -> None:
    (base,) = re.findall(r"^ARG BASE=(\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+@sha256:[0-9a-f]{64}", base)


def test_nothing_of_the_image_lies_where_sagemaker_mounts() -> None:
    assert all("/opt/ml" not in rest for stage in STAGES.values() for _, rest in stage.words)


def test_what_an_engine_would_tell_of_it_keeps_every_fact_of_an_image(tmp_path: Path) -> None:
    stage = STAGES["sagemaker"]
    (entrypoint,), (user,), (labels,) = (stage.of(word) for word in ("ENTRYPOINT", "USER", "LABEL"))
    config = {"Entrypoint": json.loads(entrypoint), "User": user, "Labels": dict(re.findall(r'(\S+?)="(.*?)"', labels))}
    told = [{"Size": 0, "Config": config | {"WorkingDir": (STAGES["runtime"].of("WORKDIR") or ["/"])[0]}}]
    (tmp_path / "inspect.json").write_text(json.dumps(told))
    seen = image.read(tmp_path / "inspect.json")
    assert {number for number, check in image.CHECKS.items() if check(seen).outcome != FactOutcome.PASS} == set()


def test_it_says_that_it_serves_many_models_and_takes_the_port_it_is_given() -> None:
    (labels,) = STAGES["sagemaker"].of("LABEL")
    assert 'com.amazonaws.sagemaker.capabilities.multi-models="true"' in labels
    assert 'com.amazonaws.sagemaker.capabilities.accept-bind-to-port="true"' in labels


def test_the_healthcheck_tells_a_server_that_is_well_from_one_that_is_not() -> None:
    (check,) = STAGES["runtime"].of("HEALTHCHECK")
    _, *words = json.loads(check.partition("CMD ")[2])

    def healthy(port: int) -> bool:
        environment = os.environ | {"SAGEMAKER_BIND_TO_PORT": str(port)}
        done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, timeout=30, check=False)
        return done.returncode == 0

    with up() as server:
        assert healthy(server.server_port)
    with up("ping 404") as server:
        assert not healthy(server.server_port)
    assert not healthy(player.free_port())


def test_the_bill_of_materials_names_everything_the_lock_does() -> None:
    script = ROOT / ".ci" / "sbom.py"
    bill = json.loads(subprocess.run([sys.executable, script], capture_output=True, check=True).stdout)
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    named = {(one["name"], one["version"]) for one in bill["components"]}
    lines = re.findall(r"^[\w.-]+==[^\\\n]+", (ROOT / "requirements" / "run.txt").read_text(), re.MULTILINE)
    lock = [one for one in map(Requirement, lines) if one.marker is None or one.marker.evaluate()]
    pinned = {(one.name, str(one.specifier).removeprefix("==")) for one in lock}
    assert {(name, version) for name, version in pinned if name != "setuptools"} <= named


@pytest.mark.soak
def test_its_installation_works_in_an_environment_of_its_own(tmp_path: Path) -> None:
    """Its RUN lines of the build, in order, in a copy of what is let in."""
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "requirements/run.txt", ".ci/sbom.py"):
        (tmp_path / "build" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "build" / name)
    shutil.copy(ROOT / ".ci" / "sbom.py", tmp_path / "build")
    shutil.copytree(ROOT / "src", tmp_path / "build" / "src", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment["PATH"] = f"{tmp_path}/opt/bin:{Path(sys.executable).parent}:{os.environ['PATH']}"
    for run in STAGES["build"].of("RUN"):
        if "apt-get" not in run:
            told = run.replace("/opt/firstspin", str(tmp_path / "opt"))
            done = subprocess.run(
                told, shell=True, cwd=tmp_path / "build", env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{run}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    assert (tmp_path / "opt" / "bin" / "firstspin-container").exists()
