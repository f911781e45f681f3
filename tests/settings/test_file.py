"""The settings file: known sections and keys alone, and each value as the text of its option."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from firstspin.records import InputError
from firstspin.settings.environment import settings_file
from firstspin.settings.file import FileSetting, read_settings


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal(text: str | bytes) -> str:
    Path("firstspin.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as refused:
        read_settings(Path("firstspin.toml")).of_command("evaluate", ["folds", "bundle"])
    return str(refused.value)


def test_the_file_is_the_one_of_the_variable_or_that_of_the_working_directory(folder: Path) -> None:
    assert settings_file({}) is None
    (folder / "firstspin.toml").touch()
    assert settings_file({}) == Path("firstspin.toml")
    assert settings_file({"FIRSTSPIN_SETTINGS": "other.toml"}) == Path("other.toml")
    with pytest.raises(InputError, match="FIRSTSPIN_SETTINGS: is empty"):
        settings_file({"FIRSTSPIN_SETTINGS": ""})


def test_subjects_and_commands_have_settings_by_option(folder: Path) -> None:
    (folder / "s.toml").write_text(
        '[data]\nfolder = "d"\n[label]\ngap_days = 7\n[experiment.analyse]\narm = "variant"\n'
    )
    settings = read_settings(folder / "s.toml")
    assert settings.subjects["data"]["data"].value == "d"
    assert settings.subjects["label"]["gap-days"].text("int") == "7"
    assert settings.of_command("experiment.analyse", ["arm"])["arm"].value == "variant"
    assert settings.of_command("evaluate", ["folds"]) == {}


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[lable]\ngap-days = 1", "no section [lable]; did you mean [label]?"),
        ("[serve]\nport = 1", "no section [serve]; did you mean [service]?"),
        (
            "[forecast]",
            "no section [forecast]; there are [data], [label], [extras], [model], [gate], [service], [world], ",
        ),
        ("gap-days = 30", "no section gap-days = 30; did you mean [label] gap-days?"),
        ("label = 30", "label = 30 is not a section, which begins with [label]"),
        ("[label]\ngap-dais = 30", "[label] has no key gap-dais = 30; did you mean gap-days?"),
        ("[label]\nport = 30", "[label] has no key port = 30; did you mean [service] port?"),
        ('[data]\ndata = "d"', '[data] has no key data = "d"; did you mean [data] folder?'),
        ('[model]\nmodel = "auto"', '[model] has no key model = "auto"; did you mean [model] name?'),
        ("[extras]\nshoe = 1", "[extras] has no key shoe = 1; there are columns"),
        ("[label]\ngap-days = 1\ngap_days = 2", "[label] gap_days is given twice"),
        ("[evaluate]\nfold = 5", "[evaluate] has no key fold = 5; did you mean folds?"),
        ("evaluate = 5", "evaluate = 5 is not a section, which begins with [evaluate]"),
        ("[experiment.analise]\narm = 1", "no section [experiment.analise]; did you mean [experiment.analyse]?"),
        ("experiment = 5", "experiment = 5 is not a section, which begins with [experiment]"),
        ("[service]\nevens = 'postgresql://me:pw@h/b'", 'evens = "postgresql://me:***@h/b"; did you mean events?'),
        ("[service]\nevens = 'postgresql://me:p&w/@pw@h/b'", 'evens = "postgresql://me:***@h/b"; did you mean'),
        ("[service]\nevens = 'postgresql://me:pw'", 'evens = "postgresql://me:***"; did you mean events?'),
        ("[label\n", "is not valid TOML: "),
        (b"\xff\xfe", "is not text in UTF-8"),
    ],
)
def test_an_unknown_name_is_refused_with_its_value_and_the_nearest_valid_one(text: str, message: str) -> None:
    refused = refusal(text)
    assert refused.startswith("firstspin.toml")
    assert message in refused
    assert "pw" not in refused


def test_a_file_that_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(InputError, match=r"none\.toml: No such file or directory"):
        read_settings(Path("none.toml"))
    with pytest.raises(InputError, match="Is a directory"):
        read_settings(folder)


@pytest.mark.parametrize(
    ("value", "kind", "metavar", "text"),
    [
        (True, "bool", "", "true"),
        (5, "int", "", "5"),
        (1.5, "float", "", "1.5"),
        ("bundle", "Path", "", "bundle"),
        (date(2026, 1, 31), "str", "", "2026-01-31"),
        ("a,b", "str", "", "a,b"),
        (["a", "b"], "str", "<name,name>", "a,b"),
        ([], "str", "<name,name>", ""),
    ],
)
def test_a_value_becomes_the_text_of_its_option(value: object, kind: str, metavar: str, text: str) -> None:
    assert FileSetting("f: [s] k", value).text(kind, metavar) == text


@pytest.mark.parametrize(
    ("value", "kind", "metavar", "message"),
    [
        ("30", "int", "", 'f: [s] k = "30" is not a number'),
        (True, "int", "", "f: [s] k = true is not a number"),
        (1, "bool", "", "f: [s] k = 1 is not true or false"),
        ("true", "bool", "", 'f: [s] k = "true" is not true or false'),
        (5, "str", "", "f: [s] k = 5 is not a text in quotes"),
        ({"a": "b"}, "str", "", 'f: [s] k = {"a": "b"} is not a text in quotes'),
        (["a", "b"], "str", "", 'f: [s] k = ["a", "b"] is not one text'),
        (["a", 1], "str", "<name,name>", 'f: [s] k = ["a", 1] is not a text in quotes'),
        (["a,b", "c"], "str", "<name,name>", '"a,b" has a comma, which separates values'),
        ("", "Path", "", 'f: [s] k = "" is empty'),
        (" ", "str", "", 'f: [s] k = " " is empty'),
    ],
)
def test_a_value_of_another_kind_is_refused(value: object, kind: str, metavar: str, message: str) -> None:
    with pytest.raises(InputError) as refused:
        FileSetting("f: [s] k", value).text(kind, metavar)
    assert message in str(refused.value)
