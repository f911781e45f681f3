"""The `firstspin` command. `serve` starts the lean service process; all else loads the full program."""

from __future__ import annotations

import importlib
import sys


def main() -> None:
    serving = sys.argv[1:2] == ["serve"]
    if serving:
        del sys.argv[1]
    importlib.import_module("firstspin.service.__main__" if serving else "firstspin.cli").main()


if __name__ == "__main__":
    main()
