"""The commands that see to SageMaker: what they print, and their exit status."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest
import sagemaker_container
from command_line import sagemaker
from made_bundles import pack
from sagemaker_container import up

from firstspin.tools.sagemaker_check import player


def payloads(folder: Path) -> list[object]:
    (folder / "body.json").write_text('{"age": 31, "genres": ["Rock"]}')
    (folder / "body.csv").write_text("age,genre\n31,Rock\n")
    return [
        *("--payload", folder / "body.json", "--content-type", "application/json"),
        *("--payload", folder / "body.csv", "--content-type", "text/csv"),
    ]


def test_a_server_that_runs_is_checked_and_told_about(tmp_path: Path) -> None:
    with up() as server:
        done = sagemaker("check", "--url", f"http://127.0.0.1:{server.server_port}", *payloads(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "6.1   pass              required GET /ping answers 200: status 200" in done.stdout
    assert " 0 miss," in done.stdout
    assert done.stdout.splitlines()[-1].startswith("Next: firstspin sagemaker load-test --url ")


def test_a_miss_is_an_exit_status_of_1_and_programs_read_it_as_json(tmp_path: Path) -> None:
    with up("ping body") as server:
        done = sagemaker("check", "--json", "--url", f"http://127.0.0.1:{server.server_port}", *payloads(tmp_path))
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert told["exit_status"] == 1
    assert [one["fact"] for one in told["results"] if one["outcome"] == "miss"] == ["6.2"]


def test_a_command_is_trained_served_and_stopped(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "words.txt").write_text("hello\n")
    port = player.free_port()
    command = f"{sys.executable} {sagemaker_container.__file__} --port {port}"
    words = ("--command", command, "--port", port, "--train", tmp_path / "data", "--hyperparameter", "rounds=6")
    done = sagemaker("check", *words, *payloads(tmp_path))
    assert done.returncode == 0, done.stdout
    assert "26.7  pass" in done.stdout


def test_channels_are_named(tmp_path: Path) -> None:
    for name in ("data", "others"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "words.txt").write_text("hello\n")
    port = player.free_port()
    command = f"{sys.executable} {sagemaker_container.__file__} --port {port} --channel train"
    channels = ("--channel", f"train={tmp_path / 'data'}", "--train", tmp_path / "others")
    done = sagemaker("check", "--command", command, "--port", port, *channels, *payloads(tmp_path))
    assert done.returncode == 0, done.stdout
    assert "16.1  pass" in done.stdout


@pytest.mark.parametrize(
    "words",
    [
        ("check",),
        ("check", "--command", "x", "--url", "http://127.0.0.1:1"),
        ("check", "--command", "x", "--hyperparameter", "rounds"),
        ("check", "--command", "x", "--payload", "body.json"),
        ("check", "--command", "x", "--channel", "train"),
        ("check", "--command", "x", "--channel", "train="),
        ("check", "--command", "x", "--port", "0"),
        ("check", "--command", "x", "--port", "99999"),
        ("check", "--command", "x", "--channel", "training=a", "--train", "b"),
        ("package",),
        ("fly",),
    ],
)
def test_wrong_usage_is_an_exit_status_of_2(words: tuple[str, ...]) -> None:
    assert sagemaker(*words).returncode == 2


def test_a_folder_that_is_left_behind_is_named_on_stderr(tmp_path: Path) -> None:
    moves = f"a = {str(tmp_path)!r} + '/moved'; os.rename(b, a); os.symlink(a, b)"
    words = f"import os; b = os.path.dirname(os.path.dirname(os.environ['SAGEMAKER_BASE_DIR'])); {moves}"
    command = shlex.join([sys.executable, "-c", words])
    done = sagemaker("check", "--command", command, "--port", player.free_port())
    folder, _, rest = done.stderr.partition(" was not removed: ")
    Path(folder).unlink()
    assert rest == "the container wrote files there that this user can't remove\n"
    assert "1.1   miss" in done.stdout


def test_what_can_not_be_checked_is_one_clear_line() -> None:
    done = sagemaker("check", "--command", "no-such-command")
    assert (done.returncode, done.stderr) == (1, "no-such-command: No such file or directory\n")


def test_a_bundle_is_packed(tmp_path: Path) -> None:
    packed = pack(tmp_path / "b")
    done = sagemaker("package", "--bundle", tmp_path / "b", "--out", tmp_path / "model.tar.gz", "--json")
    told = json.loads(done.stdout)
    assert (told["bundle"], told["bytes"]) == (packed.id, (tmp_path / "model.tar.gz").stat().st_size)


def test_the_next_step_quotes_a_path_with_a_blank(tmp_path: Path) -> None:
    pack(tmp_path / "a bundle")
    done = sagemaker("package", "--bundle", tmp_path / "a bundle", "--out", tmp_path / "model.tar.gz")
    assert done.stdout.splitlines()[-1].startswith(
        f"Next: firstspin sagemaker deploy --bundle '{tmp_path / 'a bundle'}' --endpoint NAME "
    )


def test_what_is_no_bundle_is_not_packed(tmp_path: Path) -> None:
    done = sagemaker("package", "--bundle", tmp_path, "--out", tmp_path / "model.tar.gz")
    assert done.returncode == 1
    assert "is not a bundle" in done.stderr
