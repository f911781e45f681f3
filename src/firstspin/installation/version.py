"""The versions of the package, of Python and of the bundle format."""

from __future__ import annotations

import platform
from typing import Final

BUNDLE_FORMAT: Final = 1


def package_version() -> str:
    """The version of the installed package."""
    from importlib.metadata import version

    return version("firstspin")


def versions() -> str:
    """The line of `firstspin --version`."""
    return f"firstspin {package_version()} (Python {platform.python_version()}, bundle format {BUNDLE_FORMAT})"
