"""Claim: from the start of the process to the first answer takes under half a second.

The bundle is that of bench/http_stacks.py: 3,225 trees. Beside it, from the same start, the time a bare `python -c`
and `import numpy` take on this machine, which nobody can go below, and FastAPI + `lgb.predict`.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import engines
import http_stacks
import numpy as np

TURNS = 7
BODY = b'{"age":31,"genres":["genre 03"]}'


def first_answer(command: list[str], environment: dict[str, str]) -> float:
    """Seconds to the first 200."""
    asked = urllib.request.Request(
        f"http://127.0.0.1:{http_stacks.PORT}/invocations", BODY, {"content-type": "application/json"}
    )
    start = time.perf_counter()
    process = subprocess.Popen(
        command,
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        while time.perf_counter() - start < 60:
            with suppress(OSError):
                urllib.request.urlopen(asked, timeout=5).read()
                return time.perf_counter() - start
            time.sleep(0.005)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        time.sleep(0.3)
    raise TimeoutError("no answer in a minute")


def run_to_end(code: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - start


def main() -> None:
    work = Path(tempfile.mkdtemp(prefix="firstspin-bench-"))
    packed, text = http_stacks.make_bundle(work / "bundle")
    http_stacks.make_classic(work / "model", packed, text, engines.registrations(np.random.default_rng(1), 3_000))
    found: dict[str, list[float]] = {}
    stacks = http_stacks.python_stacks(work)
    for _ in range(TURNS):
        found.setdefault("python -c pass", []).append(run_to_end("pass"))
        found.setdefault("import numpy", []).append(run_to_end("import numpy"))
        for name, stack in stacks.items():
            found.setdefault(name, []).append(first_answer(stack.command, stack.environment))
    print(f"{TURNS} turns: start of the process to the end, or to the first 200, in seconds")
    for name, seconds in found.items():
        print(f"{name:40} median {statistics.median(seconds):.3f}  least {min(seconds):.3f}")


if __name__ == "__main__":
    main()
