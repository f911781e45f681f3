"""A library in C that is loaded into a program before the system's own."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def preloaded(name: str, folder: Path) -> Path:
    """The compiled library of `name`.c beside this file; the test is skipped where there is no compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler to watch what a program asks of the system")
    library = folder / f"{name}.so"
    source = Path(__file__).with_name(f"{name}.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library
