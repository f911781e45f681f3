"""docs/sagemaker.md as a reader runs it, its blocks in order in one shell; what needs an account is stood in for."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from botocore import xform_name
from botocore.validate import ParamValidator

ROOT = Path(__file__).parent.parent
STAND_IN = """#!{python} -S
import json, sys
from pathlib import Path
with Path({log!r}).open("a") as log:
    log.write(json.dumps([Path(sys.argv[0]).name, *sys.argv[1:]]) + "\\n")
if "--password-stdin" in sys.argv:
    sys.stdin.read()
out = {{"lambda.sh": sys.argv[2:], "aws": sys.argv[4:5] if sys.argv[1:3] == ["s3", "cp"] else []}}
for path in out.get(Path(sys.argv[0]).name, []):
    if "://" not in path and path != ".":
        Path(path).write_bytes(b"made")
print("export AWS_ACCESS_KEY_ID=none AWS_SECRET_ACCESS_KEY=none" if "export-credentials" in sys.argv else "told")
"""
ACCOUNT = """
command_not_found_handle() {{ echo "no command $1" >&2; exit 127; }}
firstspin() {{
    case "$1 ${{2-}}" in
        "world tables") command firstspin world tables --users 300 ;;
        "train --data") command firstspin "$@" --model popularity ;;
        "sagemaker package") command firstspin "$@" ;;
        *) firstspin-with-an-account "$@" ;;
    esac
}}
PATH={folder}/bin:{commands}:$PATH
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = tmp_path_factory.mktemp("walk")
    for name in ("bin", "deploy/aws", ".venv/bin"):
        (made / name).mkdir(parents=True)
    (made / ".venv/bin/activate").write_text("")
    outside = ["bin/aws", "bin/docker", "bin/curl", "bin/make", "bin/git", "bin/tar", "bin/firstspin-with-an-account"]
    for name in [*outside, "deploy/check_image.sh", "deploy/aws/lambda.sh"]:
        (made / name).write_text(STAND_IN.format(python=sys.executable, log=str(made / "log")))
        (made / name).chmod(0o755)
    return made


@pytest.fixture(scope="module")
def ran(folder: Path) -> list[list[str]]:
    """What was called of the account, word by word."""
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / "docs/sagemaker.md").read_text(), re.DOTALL | re.MULTILINE)
    script = ACCOUNT.format(folder=folder, commands=Path(sys.executable).parent) + "\n".join(blocks)
    # aliases are for people at a prompt
    words = ["bash", "-euo", "pipefail", "-O", "expand_aliases", "-c", script]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in (folder / "log").read_text().splitlines()]


def calls(ran: list[list[str]]) -> Iterator[tuple[str, str, dict[str, str]]]:
    """(service, operation, options) of every command of AWS that is one operation."""
    for program, *words in ran:
        if (
            program == "aws"
            and words[0] not in ("s3", "configure")
            and words[1] not in ("deploy", "get-login-password", "wait")
        ):
            options = re.findall(r"--([a-z0-9-]+)\0?([^\0]*)", "\0".join(words[2:]))
            yield words[0], words[1], dict(options)


def test_every_block_runs_to_its_end(ran: list[list[str]]) -> None:
    assert [words[:3] for words in ran if words[0] == "firstspin-with-an-account"] == [
        ["firstspin-with-an-account", "sagemaker", "deploy"],
        ["firstspin-with-an-account", "score", "--bundle"],
        ["firstspin-with-an-account", "experiment", "plan"],
        ["firstspin-with-an-account", "experiment", "analyse"],
        ["firstspin-with-an-account", "sagemaker", "load-test"],
        ["firstspin-with-an-account", "sagemaker", "load-test"],
    ]


def test_the_answer_is_asked_for_with_no_header_that_is_not_sent(ran: list[list[str]]) -> None:
    [curl] = [words for words in ran if words[0] == "curl"]
    assert not [word for word in curl if "token" in word]  # nobody has one who has keys of his own


def test_rows_for_batch_transform_have_four_columns_and_no_header(ran: list[list[str]], folder: Path) -> None:
    assert ran
    with (folder / "rows.csv").open(newline="") as rows:
        asked = list(csv.reader(rows))
    assert len(asked) == 300
    assert {len(row) for row in asked} == {4}
    assert all(age.isdecimal() or not age for age, *_ in asked)


def test_operations_options_and_documents_are_those_of_aws(ran: list[list[str]]) -> None:
    found = list(calls(ran))
    assert len(found) >= 6
    for service, operation, options in found:
        model = boto3.client(service, region_name="eu-central-1").meta.service_model
        [name] = [name for name in model.operation_names if xform_name(name, "-") == operation]
        members = {
            xform_name(member, "-"): shape for member, shape in model.operation_model(name).input_shape.members.items()
        }
        for option, value in options.items():
            if option in ("query", "output"):
                continue
            assert option.removeprefix("no-") in members, f"{operation} has no --{option}"
            if value.startswith(("[", "{")):
                errors = ParamValidator().validate(json.loads(value), members[option])
                assert not errors.has_errors(), errors.generate_report()


def test_every_test_that_the_page_names_is_there() -> None:
    page = (ROOT / "docs/sagemaker.md").read_text()
    files = set(re.findall(r"`((?:tests|deploy)/[\w/]+\.py)`", page))
    assert len(files) >= 8
    sources = [path.read_text() for folder in ("tests", "deploy/aws/tests") for path in (ROOT / folder).rglob("*.py")]
    for name in set(re.findall(r"`(Test\w+)", page)):
        assert any(f"class {name}" in source for source in sources), name
    for name in set(re.findall(r"\b(test_\w{12,})`", page)):
        assert any(f"def {name}(" in source for source in sources), name
    assert [file for file in files if not (ROOT / file).exists()] == []
