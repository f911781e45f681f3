"""The settings file, `firstspin.toml`: values for the options of the commands.

A section is a subject, such as [label], whose keys are options that several commands share; or a command, such as
[evaluate] or [experiment.analyse], whose keys are all its options by name. A command's own section goes before the
subjects. A value is turned into the option's text here, so that the option's own parser checks it.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final

from firstspin.records import InputError
from firstspin.settings.environment import SETTINGS_FILE

SERVICE: Final = (
    "host port workers state least-age under-age models models-memory allow-no-model keys events events-secret "
    "experiment scores scores-first scores-seconds clock admin-port admin-host admin-names in-flight connections "
    "largest-body largest-answer most-newcomers head-seconds body-seconds idle-seconds drain-delay trial-seconds "
    "pages report log-level calibrated-rows labels explore explore-budget explore-floor explore-seed shadow "
    "shadow-share challenger listens-from-events webhook-url webhook-secret-file"
)
LABEL: Final = "gap-days window-days least-seconds data-ends engine out state late-days"
DATA: Final = "map dates pick-separator encoding skip-bad-rows erased events-secret"
SECTIONS: Final[dict[str, dict[str, str]]] = {
    "data": {"folder": "data"} | {key: key for key in DATA.split()},
    "label": {key: key for key in LABEL.split()},
    "extras": {"columns": "extra"},
    "model": {"name": "model", "bundle": "bundle out"}
    | {key: key for key in ("tune", "trials", "without", "seed", "tiles", "checkpoints")},
    "gate": {key: key for key in ("metric", "margin")},
    "service": {key: key for key in SERVICE.split()},
}
"""The subjects: each key and the options that it sets. An option's panel in --help is its subject."""

COMMANDS: Final = (
    *("world", "check", "import", "train", "evaluate", "report", "recommend", "score", "watch", "demo"),
    *(f"events.{command}" for command in ("erase", "export", "forward")),
    *(f"experiment.{command}" for command in ("plan", "analyse", "stop", "look-back", "explore", "simulate")),
    *(
        f"sagemaker.{command}"
        for command in ("check", "load-test", "package", "deploy", "promote", "shadow", "rollback", "fetch", "prune")
    ),
)
"""The commands' own sections. That of `serve` is [service]."""

GROUPS: Final = {command.partition(".")[0] for command in COMMANDS if "." in command}

_WANTED: Final = {"bool": "true or false", "int": "a number", "float": "a number"}


@dataclass(frozen=True, slots=True)
class FileSetting:
    """One value of a settings file; `place` is file, section and key."""

    place: str
    value: object

    def __str__(self) -> str:
        return f"{self.place} = {_shown(self.value)}"

    def text(self, kind: str, metavar: str = "") -> str:
        """The value as an option of this kind (bool, int, float or else a text) has it on the command line.

        An option whose metavar has a comma takes a list too. Raises InputError where the value is of another kind.
        """
        if kind not in _WANTED:
            texts = self.texts()
            if len(texts) != 1 and "," not in metavar:
                raise InputError(f"{self} is not one text in quotes")
            if isinstance(self.value, list) and (commas := [text for text in texts if "," in text]):
                raise InputError(f"{self}: {_shown(commas[0])} has a comma, which separates values")
            return ",".join(texts)
        is_bool, is_number = isinstance(self.value, bool), isinstance(self.value, int | float)
        if not (is_bool if kind == "bool" else is_number and not is_bool):
            raise InputError(f"{self} is not {_WANTED[kind]}")
        return str(self.value).lower() if kind == "bool" else str(self.value)

    def texts(self) -> list[str]:
        """The value as texts: those of a list, or one. Raises InputError where one is empty, or no text or date."""
        values = self.value if isinstance(self.value, list) else [self.value]
        texts = [value.isoformat() if isinstance(value, date) else value for value in values]
        if not all(isinstance(text, str) and text.strip() for text in texts):
            empty = any(isinstance(text, str) and not text.strip() for text in texts)
            raise InputError(f"{self} is {'empty' if empty else 'not a text in quotes'}")
        return [str(text) for text in texts]


@dataclass(frozen=True, slots=True)
class Settings:
    """A settings file: the settings of each subject by option, and the commands' own sections, not yet checked."""

    name: str
    subjects: Mapping[str, Mapping[str, FileSetting]]
    commands: Mapping[str, object]

    def given(self, command: str, option: str) -> FileSetting | None:
        """The value of this option of `train`, `evaluate`, `recommend` or `serve`; None where the file has none.

        Only `serve` reads [service], and it reads nothing else but the bundle of [model].
        """
        if command == "serve":
            return self.of_service().get(option)
        table = self.commands.get(command)
        own = table.items() if isinstance(table, dict) else ()
        named = {key.replace("_", "-"): FileSetting(key, value) for key, value in own}
        others = (("label", "out"), ("service", option))
        of_subjects = [of.get(option) for name, of in self.subjects.items() if (name, option) not in others]
        return named.get(option) or next(filter(None, of_subjects), None)

    def of_service(self) -> dict[str, FileSetting]:
        """The settings of `serve`, by option."""
        bundle = self.subjects["model"].get("bundle")
        return {**self.subjects["service"], **({"bundle": bundle} if bundle else {})}

    def of_command(self, command: str, options: Iterable[str]) -> dict[str, FileSetting]:
        """The settings, by option, of a command's own section, as of experiment.analyse.

        Raises InputError where a key is none of its `options`.
        """
        return _section(self.name, command, self.commands.get(command, {}), {option: option for option in options})


def read_settings(file: Path | None) -> Settings:
    """The settings of a file; without a file there are none.

    Raises InputError where it is missing or no TOML, or has an unknown section or subject's key.
    """
    name, tables = (str(file), _tables(file)) if file else (SETTINGS_FILE, {})
    commands: dict[str, object] = {}
    for section, table in tables.items():
        if section in GROUPS:
            commands |= {f"{section}.{command}": own for command, own in _table(name, section, table).items()}
        elif section not in SECTIONS:
            commands[section] = table
    for section, table in commands.items():
        if section not in COMMANDS:
            raise InputError(f"{name}: no section {_unknown(section, table, (*SECTIONS, *COMMANDS), '[{}]')}")
    subjects = {section: _section(name, section, tables.get(section, {}), keys) for section, keys in SECTIONS.items()}
    return Settings(name, subjects, commands)


def _tables(file: Path) -> dict[str, object]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as problem:
        raise InputError(f"{file}: {problem.strerror or problem}") from problem
    except UnicodeDecodeError:
        raise InputError(f"{file} is not text in UTF-8") from None
    except (tomllib.TOMLDecodeError, RecursionError) as problem:
        raise InputError(f"{file} is not valid TOML: {problem}") from None


def _section(name: str, section: str, table: object, options: Mapping[str, str]) -> dict[str, FileSetting]:
    """The settings of a section by option, whose valid keys and their options are given."""
    settings: dict[str, FileSetting] = {}
    for key, value in _table(name, section, table).items():
        named = options.get(key.replace("_", "-"))
        if named is None:
            raise InputError(f"{name}: [{section}] has no key {_unknown(key, value, options)}")
        for option in named.split():
            if option in settings:
                raise InputError(f"{name}: [{section}] {key} is given twice")
            settings[option] = FileSetting(f"{name}: [{section}] {key}", value)
    return settings


def _table(name: str, section: str, table: object) -> dict[str, object]:
    if not isinstance(table, dict):
        raise InputError(f"{FileSetting(f'{name}: {section}', table)} is not a section, which begins with [{section}]")
    return table


def _unknown(word: str, value: object, valid: Iterable[str], shape: str = "{}") -> str:
    """An unknown word with its value, and the nearest valid one, be it in another section."""
    valid = tuple(valid)
    near = [f"[{name}] {key}" for name, keys in SECTIONS.items() for key, of in keys.items() if word in (key, of)]
    near += map(shape.format, difflib.get_close_matches(word.replace("_", "-"), valid, 1))
    near += ["[service]"] if word == "serve" else []
    shown = shape.format(word) if isinstance(value, dict) else FileSetting(word, value)
    return f"{shown}; " + (f"did you mean {near[0]}?" if near else f"there are {', '.join(map(shape.format, valid))}")


def _shown(value: object) -> str:
    """The value as in the file, without the password of an address."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    text = re.sub(r"(://[^:/@\s]*:)\S*@", r"\1***@", text)  # to the last @: a password may have one of its own
    return re.sub(r"(://[^:/@\s]*:(?!\*)|password=)[^@&\s\"]*", r"\1***", text)
