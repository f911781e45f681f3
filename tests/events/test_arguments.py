"""An address with a password is moved out of the arguments, whatever the command and however the option is written."""

from __future__ import annotations

import subprocess
import sys

import pytest

from firstspin.events.arguments import ADDRESSES, without_passwords

ADDRESS = "postgresql://me:telltale@127.0.0.1:1/db"


@pytest.mark.parametrize(
    "address",
    [
        ADDRESS,
        "postgresql://h/db?user=me&password=telltale",
        "postgresql://h/db?user=me&pass%77ord=telltale",
        "postgresql://a:b@[::1/db",
        "postgresql://me:tell#tale@h/db",
        "postgresql://me:tell?tale@h/db",
        "postgresql://me:tell/tale@h/db",
        "postgresql://me:telltale",
    ],
)
@pytest.mark.parametrize(("option", "variable"), sorted(ADDRESSES.items()))
def test_an_address_with_a_password_is_moved_into_a_variable(option: str, variable: str, address: str) -> None:
    for words in ([option, address], [f"{option}={address}"]):
        kept, moved = without_passwords(["python", "-m", "firstspin", *words, "--port", "80"])
        assert (kept, moved) == (["python", "-m", "firstspin", "--port", "80"], {variable: address})


def test_an_argument_that_is_an_address_with_a_password_is_moved_too() -> None:
    kept, moved = without_passwords(["firstspin", "watch", ADDRESS, "--bundle", "b"])
    assert (kept, moved) == (["firstspin", "watch", "--bundle", "b"], {"FIRSTSPIN_EVENTS": ADDRESS})


@pytest.mark.parametrize("address", ["sqlite:///events.sqlite", "postgresql://me@host/db", "postgresql:///db", ""])
def test_any_other_argument_stays(address: str) -> None:
    for words in (["--events", address, "--events-secret", "f"], [f"--erased={address}"], ["--events"], ["x:y@z"]):
        assert without_passwords(words) == (words, {})


@pytest.mark.parametrize("command", [["serve", "--bundle", "none"], ["events", "erase", "1"], ["train"]])
def test_every_command_is_begun_again_without_it(command: list[str]) -> None:
    """The program prints its own arguments and variable in the place of what it would do."""
    told = (
        "import sys, os; from types import SimpleNamespace; sys.argv = ['firstspin', *sys.argv[1:]];"
        "from firstspin import __main__ as program;"
        "printed = lambda: sys.exit(f'{sys.orig_argv} ' + os.environ['FIRSTSPIN_EVENTS']);"
        "sys.modules.update({f'firstspin.{name}': SimpleNamespace(main=printed) for name in WORK});"
        "program.main()"
    )
    told = told.replace("WORK", "('service.__main__', 'cli.main')")
    words = [sys.executable, "-c", told, *command, "--events", ADDRESS]
    run = subprocess.run(words, capture_output=True, text=True, timeout=60)
    arguments, _, variable = run.stderr.strip().rpartition(" ")
    assert (variable, "telltale" in arguments, command[0] in arguments) == (ADDRESS, False, True)
