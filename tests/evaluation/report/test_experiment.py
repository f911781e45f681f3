"""The A/B test of a report: levels, intervals and decisions as analysed; any other file is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from command_line import firstspin
from made_report import material, plain, silent

from firstspin.evaluation.report import experiment, page
from firstspin.evaluation.report.parts import HtmlTable, Note, Picture
from firstspin.records import InputError


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 of 1,000 clicked in the control, 150 of 1,000 in the treatment; nobody listened in one arm."""
    folder = tmp_path_factory.mktemp("ab")
    rows = ["user_id,arm,clicked,listened"]
    for arm, clicks in (("rule", 100), ("model", 150)):
        rows += [f"{arm}{i},{arm},{int(i < clicks)},{0 if arm == 'rule' else i % 7}" for i in range(1000)]
    (folder / "outcomes.csv").write_text("\n".join(rows) + "\n")
    metrics = ("--metric", "clicked:binary", "--metric", "listened:continuous")
    analysed = firstspin(
        "experiment", "analyse", "--outcomes", folder / "outcomes.csv", "--control", "rule", *metrics, "--json"
    )
    (folder / "result.json").write_text(analysed.stdout)
    return folder / "result.json"


def test_the_decision_the_lifts_and_the_levels_are_shown(result: Path) -> None:
    section = experiment.section(experiment.read_test_result(result))
    chart, table, *notes = section.parts
    assert isinstance(chart, Picture)
    assert chart.title.startswith("model wins")
    drawn = str(chart.draw(720).to_dict())
    assert "clicked: model against rule" in drawn
    assert "listened" not in drawn  # its relative lift is undefined: the control's mean is 0
    assert isinstance(table, HtmlTable)
    assert table.title == "Users: 1,000 in rule, 1,000 in model"
    assert table.rows[0][:4] == ("clicked (primary)", "model against rule", "10.0% to 15.0%", "+50.0%")
    assert table.rows[0][4].endswith("(95%)")
    assert table.rows[1][3:5] == ("-", "undefined")
    assert all(isinstance(note, Note) and note.text.startswith("Warning: ") for note in notes)


def test_it_stands_first_on_the_page_and_the_conclusion_follows_it(result: Path) -> None:
    html = page.page(replace(material(), test=experiment.read_test_result(result)), silent)
    assert html.index('id="experiment"') < html.index('id="ladder"')
    assert "Next: serve model to all new users" in html
    assert 'id="experiment"' not in plain()


def test_the_result_of_a_simulation_is_that_of_its_verdict(result: Path, tmp_path: Path) -> None:
    inside = tmp_path / "simulated.json"
    inside.write_bytes(msgspec.json.encode({"users": 5, "verdict": msgspec.json.decode(result.read_bytes())}))
    assert experiment.read_test_result(inside) == experiment.read_test_result(result)


@pytest.mark.parametrize("content", [b"", b"[]", b"3", b"{}", b'{"verdict": []}', b"\xff\xfe", b"<html>"])
def test_another_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_bytes(content)
    with pytest.raises(InputError, match=r"other\.json is not a result of firstspin experiment analyse --json"):
        experiment.read_test_result(tmp_path / "other.json")
