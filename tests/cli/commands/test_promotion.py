"""`firstspin evaluate --champion A --challenger B`: the decision as text, JSON, a file and an exit status."""

from __future__ import annotations

import json
from pathlib import Path

import made_people
import pytest
from command_line import failed, firstspin
from made_bundles import edit, pack

TRAINED = {"labels_end": "2025-03-01T00:00:00"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables of 300 users, the bundles `rule` and `model`, new to those from March on, and the bundle `old`."""
    folder = tmp_path_factory.mktemp("promotion")
    made_people.tables(folder / "data", 300)
    pack(folder / "rule", "popularity", data=TRAINED)
    pack(folder / "model", people=made_people.examples(400, 1), data=TRAINED)
    pack(folder / "old")
    return folder


def words(made: Path, champion: str, challenger: str) -> tuple[object, ...]:
    bundles = ("--champion", made / champion, "--challenger", made / challenger)
    return ("evaluate", "--data", made / "data", *bundles)


def test_the_exit_status_is_the_decision_and_json_has_the_figures(made: Path, tmp_path: Path) -> None:
    # of 300 users 241 registered from March on: too few for the segments
    done = firstspin(*words(made, "rule", "model"), "--json", "--out", tmp_path / "verdict.json")
    verdict = json.loads(done.stdout)
    assert (done.returncode, verdict["decision"], verdict["users"]) == (4, "not enough users", 241)
    assert verdict["needed"] > 241
    assert {one["metric"] for one in verdict["requirements"]} == {"hit@3", "ndcg@5", "log_loss"}
    assert json.loads((tmp_path / "verdict.json").read_text()) == verdict
    worse = firstspin(*words(made, "model", "rule"))
    assert worse.returncode == 3
    assert "Decision: keep. the challenger fails hit@3" in worse.stdout
    assert worse.stdout.splitlines()[-1] == f"Next: firstspin serve --bundle {made / 'model'}"


def test_a_bundle_that_does_not_record_its_training_is_one_clear_line(made: Path) -> None:
    line = failed(*words(made, "old", "model"))
    assert "does not record the end of its training data" in line
    assert line.endswith("train it again")


def test_bundles_of_different_labels_are_refused(made: Path, tmp_path: Path) -> None:
    pack(tmp_path / "early", data=TRAINED)
    edit(tmp_path / "early", lambda manifest: manifest.update(label={"gap_days": 10}))
    line = failed("evaluate", "--data", made / "data", "--champion", made / "rule", "--challenger", tmp_path / "early")
    assert "different labels" in line
    assert "days 30 to 60, at least 600 s" in line
    assert "days 10 to 40, at least 600 s" in line


@pytest.mark.parametrize(
    "wrong",
    [
        ("--champion", "a"),
        ("--challenger", "a"),
        ("--json",),
        ("--champion", "a", "--challenger", "b", "--margin", "0"),
        ("--margin", "nan"),
        ("--champion", "a", "--challenger", "b", "--bundle", "c"),
        ("--champion", "a", "--challenger", "b", "--folds", "3"),
        ("--champion", "a", "--challenger", "b", "--curve", "10,20"),
    ],
)
def test_what_does_not_fit_together_is_wrong_usage(made: Path, wrong: tuple[str, ...]) -> None:
    assert firstspin("evaluate", "--data", made / "data", *wrong).returncode == 2
