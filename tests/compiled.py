"""Where there is a compiler, what is written in C must be there: a skip would hide that it no longer compiles."""

from __future__ import annotations

import shutil
import sysconfig
from pathlib import Path

import pytest

COULD_COMPILE = shutil.which("cc") is not None and Path(sysconfig.get_path("include"), "Python.h").exists()


def where_it_compiles(built: object) -> pytest.MarkDecorator:
    """Skip where something was not built for want of a compiler or of Python's headers, and only there."""
    return pytest.mark.skipif(
        built is None and not COULD_COMPILE, reason="not built: no C compiler here, or no headers of Python"
    )
