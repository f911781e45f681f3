"""`firstspin recommend`: options of any text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from made_bundles import pack, pack_with_further_fields

from fuzz import commands, values
from fuzz.inputs import Broken, Check, Input


@contextmanager
def opened(folder: Path) -> Iterator[Check]:
    bundles = [folder / "plain", folder / "further"]
    pack(bundles[0])
    pack_with_further_fields(bundles[1])

    def check(made: Input) -> str:
        words = ["recommend", "--bundle", str(made.pick(bundles))]
        for name in ("age", "gender", "country", "genres"):
            if made.chance(0.5):
                words.append(f"--{name}={_value(made, name)}")
        for _ in range(made.number(0, 2) if made.chance(0.4) else 0):
            words.append(f"--answer={made.pick(('device', 'visits', values.name(made)))}={_value(made, 'genres')}")
        words += [flag for flag in ("--json", "--explain") if made.chance(0.3)]
        done = commands.run(made, words)
        if done.status == 0 and "--json" in words:
            answer = json.loads(done.out)
            if not answer["genres"]:
                raise Broken(f"an answer without genres: {answer}")
        return str(done.status)

    yield check


def _value(made: Input, name: str) -> str:
    if made.chance(0.5):
        return values.cell(made)
    return str(made.number(0, 120)) if name == "age" else made.pick(("Rock", "Rock|Jazz", "US", "female", "phone", "3"))
