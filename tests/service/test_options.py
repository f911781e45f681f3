"""The options of `firstspin serve`: the same checks on the command line and in the environment, in one line."""

from __future__ import annotations

import re

import pytest
from command_line import firstspin

from firstspin.service.options import OPTIONS, has_pages, parse, slot_settings
from firstspin.serving.slot.exploration import SlotSettings

BUNDLE = ("--bundle", "b")


def refused(capsys: pytest.CaptureFixture[str], *words: str, **variables: str) -> str:
    """The one line with which a service does not start."""
    with pytest.raises(SystemExit) as ended:
        parse(words, variables)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("firstspin serve: ")
    return said


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("port", "70000", "'70000' is not a whole number from 0 to 65535"),
        ("workers", "0", "'0' is not a whole number from 1 to 64"),
        ("least-age", "-1", "'-1' is not a whole number from 0 to 120"),
        ("least-age", "thirteen", "'thirteen' is not a whole number from 0 to 120"),
        ("under-age", "Refuse", "'Refuse' is not one of answer, refuse"),
        ("under-age", "", "'' is not one of answer, refuse"),
        ("keys", "", "is empty"),
        ("events", "", "is empty"),
        ("scores-seconds", "nan", "'nan' is not a number of seconds above 0"),
        ("drain-delay", "inf", "'inf' is not a number of seconds from 0"),
        ("in-flight", "0", "'0' is not a whole number of at least 1"),
        ("most-newcomers", "-5", "'-5' is not a whole number of at least 0"),
        ("log-level", "INFO", "'INFO' is not one of debug, info, warning, error"),
        ("explore", "6", "'6' is not a whole number from 1 to 5"),
        ("explore-budget", "nan", "'nan' is not a share from 0 to 1"),
        ("explore-floor", "1%", "'1%' is not a share from 0 to 1"),
        ("admin-port", "http", "'http' is not a whole number from 0 to 65535"),
    ],
)
def test_a_variable_is_refused_as_its_option_is_and_by_its_own_name(
    option: str, value: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"argument --{option}: {said}" in refused(capsys, *BUNDLE, f"--{option}={value}")
    name = f"FIRSTSPIN_{option.replace('-', '_').upper()}"
    assert f"{name}: {said}" in refused(capsys, *BUNDLE, **{name: value})


@pytest.mark.parametrize("name", ["SCORES_FIRST", "ALLOW_NO_MODEL"])
def test_a_switch_in_the_environment_is_understood_or_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for text, on in {"on": True, "1": True, "yes": True, "off": False, "0": False, "False": False}.items():
        assert getattr(parse(BUNDLE, {f"FIRSTSPIN_{name}": text}), name.lower()) is on
    assert f"FIRSTSPIN_{name}: 'si' is neither" in refused(capsys, *BUNDLE, **{f"FIRSTSPIN_{name}": "si"})
    assert getattr(parse((*BUNDLE, f"--{name.lower().replace('_', '-')}"), {}), name.lower()) is True


def test_the_command_line_goes_before_the_environment_and_that_before_the_default() -> None:
    told = {"FIRSTSPIN_PORT": "81", "FIRSTSPIN_WORKERS": "2", "FIRSTSPIN_BUNDLE": "c"}
    options = parse(["--port", "82"], told)
    assert (options.port, options.workers, str(options.bundle), options.connections) == (82, 2, "c", 4096)


def test_what_kubernetes_sets_for_a_service_named_firstspin_is_no_port(capsys: pytest.CaptureFixture[str]) -> None:
    link = {"FIRSTSPIN_PORT": "tcp://10.96.0.7:8080", "FIRSTSPIN_PORT_8080_TCP": "tcp://10.96.0.7:8080"}
    said = refused(capsys, *BUNDLE, **link)
    assert "FIRSTSPIN_PORT: 'tcp://10.96.0.7:8080' is not a whole number" in said
    assert "enableServiceLinks: false" in said
    assert parse([*BUNDLE, "--port", "8081"], link).port == 8081  # the option says which


def test_a_misspelt_switch_that_protects_people_is_not_ignored(capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, *BUNDLE, FIRSTSPIN_UNDERAGE="refuse")
    assert "unknown variable FIRSTSPIN_UNDERAGE; did you mean FIRSTSPIN_UNDER_AGE?" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "--bundle BUNDLE is required"),
        ((*BUNDLE, "--events", "sqlite:///e"), "--events needs --events-secret or --state"),
        ((*BUNDLE, "--experiment", "e.toml"), "--experiment needs --events"),
        ((*BUNDLE, "--sing"), "unrecognized arguments: --sing"),
    ],
)
def test_what_does_not_go_together_is_one_line(
    words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused(capsys, *words)


def test_help_is_in_the_style_of_the_other_commands() -> None:
    serve, train = (firstspin(command, "--help").stdout for command in ("serve", "train"))
    for command, page in {"serve": serve, "train": train}.items():
        assert page.startswith(f"Usage: firstspin {command} [OPTIONS]\n\n  ")
        assert "\n\nOptions:\n  --" in page
        assert re.search(r"\n  --help +Show this message and exit\.\n", page)
        assert page.rpartition("Example:\n")[2].startswith(f"  firstspin {command} --")
        assert max(map(len, page.splitlines())) < 80
    assert re.search(r"\n  --port <int> +Port to listen on\.  \[default: 8080\]\n", serve)
    assert re.search(r"\n  --model <str> +auto", train)


def test_help_has_every_option_with_a_sentence_and_its_default() -> None:
    page = " ".join(firstspin("serve", "--help").stdout.split())
    for option in OPTIONS:
        assert f"--{option.name} " in page
        assert re.fullmatch(r"[A-Z`d].*[.…]", option.help)
        assert option.help in page
        assert option.switch or option.default is None or f"[default: {option.default}]" in page


@pytest.mark.parametrize(
    ("host", "words", "pages"),
    [
        ("127.0.0.1", [], True),
        ("::1", [], True),
        ("localhost", [], True),
        ("0.0.0.0", [], False),
        ("10.0.0.7", [], False),
        ("0.0.0.0", ["--pages"], True),
    ],
)
def test_pages_are_served_on_loopback_and_elsewhere_on_request(host: str, words: list[str], pages: bool) -> None:
    assert has_pages(parse(["--bundle", "b", "--host", host, *words], {})) is pages


def test_pages_can_be_switched_off_in_the_environment() -> None:
    assert not has_pages(parse(["--bundle", "b"], {"FIRSTSPIN_PAGES": "no"}))


def test_a_slot_needs_the_clicks_and_floors_within_its_budget(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse(BUNDLE, {}).explore is None
    assert "--explore needs --events" in refused(capsys, *BUNDLE, "--explore", "5")
    store = ("--events", "sqlite:///e", "--state", "s")
    floors = ("--explore-floor", "0.1")
    assert "--explore-floor is above --explore-budget" in refused(capsys, *BUNDLE, *store, "--explore", "5", *floors)
    options = parse((*BUNDLE, *store, "--explore", "5", "--explore-budget", "0.2", *floors), {})
    assert slot_settings(options) == SlotSettings(0, 0.2, 0.1)


def test_calibrated_rows_are_off_unless_asked_for() -> None:
    assert not parse(["--bundle", "b"], {}).calibrated_rows
    assert parse(["--bundle", "b"], {"FIRSTSPIN_CALIBRATED_ROWS": "yes"}).calibrated_rows
