"""The `firstspin` command. `serve` starts the lean service process; all else loads the full program."""

from __future__ import annotations

import importlib
import sys
from typing import Final

from firstspin.arguments import move_passwords_away

DOORS: Final = {
    "serve": "firstspin.service.__main__",
    "experiment": "firstspin.cli.experiment",
    "events": "firstspin.cli.events",
    "sagemaker": "firstspin.cli.sagemaker",
}
"""Commands that are a program of their own: each gets the words after its name."""


def main() -> None:
    move_passwords_away()
    door = DOORS.get(sys.argv[1] if len(sys.argv) > 1 else "")
    if door:
        sys.argv[:2] = [f"{sys.argv[0]} {sys.argv[1]}"]
    importlib.import_module(door or "firstspin.cli.main").main()


if __name__ == "__main__":
    main()
