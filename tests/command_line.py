"""The command line as a user runs it, in a process of its own."""

from __future__ import annotations

import subprocess
import sys


def firstspin(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "firstspin", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert "…" not in done.stdout, f"{words} cuts its output"
    return done


def failed(*words: object) -> str:
    """The one line of a command that fails."""
    done = firstspin(*words)
    assert done.returncode == 1, done
    assert "Traceback" not in done.stderr
    return done.stderr.rstrip("\n")


def sagemaker(*words: object) -> subprocess.CompletedProcess[str]:
    return firstspin("sagemaker", *words)
