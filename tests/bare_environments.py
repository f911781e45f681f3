"""Environments that hold the wheel of this checkout and what its extras require, and nothing else.

The wheel is built from the sdist and installed with pip. Its requirements are not downloaded: the distributions that
its metadata name, and those that they require in turn, are linked from the environment that runs the tests.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path
from zipfile import ZipFile

from packaging.metadata import parse_email
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
SOURCES = ("LICENSE", "README.md", "pyproject.toml", "setup.py", "src")


def build(folder: Path) -> tuple[Path, Path]:
    """The sdist and the wheel made from it, built without the network."""
    copy = folder / "checkout"
    copy.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            made = shutil.ignore_patterns("*.so", "*.egg-info", "__pycache__")
            shutil.copytree(ROOT / name, copy / name, ignore=made)
        else:
            shutil.copy(ROOT / name, copy)
    hook = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    subprocess.run([sys.executable, "-c", hook, folder], cwd=copy, check=True, capture_output=True)
    (sdist,) = folder.glob("*.tar.gz")
    built = ("wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", folder, sdist)
    subprocess.run([*PIP, *built], check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return sdist, wheel


def environment(folder: Path, wheel: Path, extra: str) -> Path:
    """The folder of the commands of a new environment with the wheel and, if named, one of its extras."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (packages,) = folder.glob("lib/python3*/site-packages")
    for name in sorted(_required(wheel, extra)):
        for entry in {file.parts[0] for file in distribution(name).files or ()} - {"..", "__pycache__"}:
            (packages / entry).symlink_to(distribution(name).locate_file(entry))
    installed = ("install", "--no-deps", "--no-index", "--no-compile", wheel)
    subprocess.run([*PIP, "--python", folder / "bin/python", *installed], check=True, capture_output=True)
    return folder / "bin"


def _required(wheel: Path, extra: str) -> set[str]:
    """The distributions that the wheel and the extra require, directly or not."""
    with ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        described, _ = parse_email(archive.read(metadata))
    left, required = [(one, extra) for one in described["requires_dist"]], set[str]()
    seen = set[tuple[str, str]]()
    while left:
        text, context = left.pop()
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate({"extra": context}):
            continue
        for wanted in {"", *requirement.extras}:
            if (requirement.name, wanted) not in seen:
                seen.add((requirement.name, wanted))
                left += [(one, wanted) for one in distribution(requirement.name).requires or ()]
        required.add(canonicalize_name(requirement.name))
    return required


def files_of(wheel: Path) -> Iterator[str]:
    """The package's files in the wheel, below `firstspin/`."""
    with ZipFile(wheel) as archive:
        yield from (name.removeprefix("firstspin/") for name in archive.namelist() if name.startswith("firstspin/"))
