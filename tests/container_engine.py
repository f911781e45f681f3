"""A container engine in small: `run` has the container in a session of its own and passes SIGTERM on; `rm` kills it.

    python container_engine.py [--context FOLDER] run --name NAME ROOT PROGRAM…
    python container_engine.py [--context FOLDER] rm --force NAME

Killed itself, its client leaves the container running, as docker's and podman's do.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path


def run(pids: Path, name: str, root: str, program: list[str]) -> int:
    environment = os.environ | {"SAGEMAKER_BASE_DIR": root}
    container = subprocess.Popen(program, env=environment, start_new_session=True)
    (pids / name).write_text(str(container.pid))
    signal.signal(signal.SIGTERM, lambda *_: container.terminate())
    return container.wait()


def remove(pids: Path, name: str) -> int:
    os.killpg(int((pids / name).read_text()), signal.SIGKILL)
    (pids / name).unlink()
    return 0


if __name__ == "__main__":
    _, _, context, verb, _, *words = sys.argv
    sys.exit(run(Path(context), *words[:2], words[2:]) if verb == "run" else remove(Path(context), *words))
