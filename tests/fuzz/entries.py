"""The entry points: the name of each and its module, some with the kind of input that the module makes."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import Final

from fuzz.inputs import Opened

MODULES: Final = {
    "label": "label",
    "score": "score",
    "analyse": "analyse",
    "recommend": "recommend",
    "plan": "plan",
    "invocations-json": "invocations:json",
    "invocations-lines": "invocations:lines",
    "invocations-csv": "invocations:csv",
    "recommendations": "recommendations",
    "explanations": "explanations",
    "events": "events",
    "connection": "connection",
    "sockets": "sockets",
    "admin": "admin",
    "gateway": "gateway",
    "container": "container",
    "bundle": "bundle",
    "scorer": "scorer",
    "ranking": "ranking",
    "windows": "windows",
}
HARNESS: Final = {"wrong": "wrong"}
"""What the harness is tested with."""

SANITIZED: Final = ("scorer", "ranking", "windows", "bundle")
"""What runs under sanitizers: all of the C code, and the loading and asking of bundles."""


def opened(name: str) -> Opened:
    """How an entry is opened; KeyError for a name that is none."""
    module, _, kind = (MODULES | HARNESS)[name].partition(":")
    found: Opened = import_module(f"fuzz.{module}").opened
    return partial(found, kind=kind) if kind else found
