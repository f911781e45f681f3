"""The `firstspin` command. `serve` starts the lean service process; all else loads the command line."""

from __future__ import annotations

import gc
import sys

from firstspin.events.arguments import move_passwords_away
from firstspin.installation.version import versions


def main() -> None:
    """Run the command that the arguments name."""
    move_passwords_away()
    if sys.argv[1:] == ["--version"]:
        sys.stdout.write(f"{versions()}\n")
    elif sys.argv[1:2] == ["serve"]:
        from firstspin.service.__main__ import main as serve

        sys.argv[:2] = [f"{sys.argv[0]} serve"]
        serve()
    else:
        gc.set_threshold(200_000)  # imports create many objects and no garbage: fewer collections, a faster start
        from firstspin.cli.main import main as run

        run()


if __name__ == "__main__":
    main()
