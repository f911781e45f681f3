"""The C code built with the address and undefined-behaviour sanitizers, and processes that load it instead of ours."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import firstspin

SOURCES = Path(firstspin.__file__).parent
FLAGS = (
    *("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"),
    *("-g", "-O1", "-fPIC", "-shared", "-ffp-contract=off", "-Wall", "-Wextra"),
)
FOLDER = "FIRSTSPIN_FUZZ_EXTENSIONS"
"""In the environment: where a worker finds the extensions to load."""


def missing() -> str:
    """Why nothing can be sanitized here; empty where it can."""
    if not shutil.which("gcc"):
        return "there is no gcc"
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        return "there are no headers of Python"
    if not _library().is_absolute():
        return "gcc has no libasan"
    return ""


def compile_all(sources: Sequence[Path], folder: Path) -> None:
    """Every C file as an extension module of its name in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for source in sources:
        out = folder / f"{source.stem}{sysconfig.get_config_var('EXT_SUFFIX')}"
        command = ["gcc", *FLAGS, f"-I{sysconfig.get_path('include')}", str(source), "-o", str(out), "-lm"]
        subprocess.run(command, check=True)


def build(folder: Path) -> None:
    """All of the package's C code."""
    compile_all(sorted(SOURCES.rglob("*.c")), folder)


def environment(folder: Path) -> dict[str, str]:
    """What a process is started with that loads extensions from the folder; a report ends it with status 66.

    Memory that Python keeps to its end is no leak, and its own allocator would hide what is written past a block.
    """
    return {
        FOLDER: str(folder),
        "LD_PRELOAD": str(_library()),
        "ASAN_OPTIONS": "detect_leaks=0:exitcode=66:allocator_may_return_null=1",
        "UBSAN_OPTIONS": "print_stacktrace=1:exitcode=66",
        "PYTHONMALLOC": "malloc",
        "OPENBLAS_NUM_THREADS": "1",
    }


def take_extensions() -> None:
    """In a worker: load the extensions of the environment's folder in place of those that were installed."""
    if folder := os.environ.get(FOLDER):
        for source in SOURCES.rglob("*.c"):
            package = ".".join(("firstspin", *source.relative_to(SOURCES).parent.parts))
            import_module(package).__path__.insert(0, folder)


def _library() -> Path:
    found = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    return Path(found.stdout.strip())
