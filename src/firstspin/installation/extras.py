"""The optional extras of the package, and the modules that each installs."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

from firstspin.records import InputError

EXTRAS: Final = {
    "report": ("altair", "jinja2", "vl_convert"),
    "aws": ("boto3",),
    "otel": ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"),
    "postgres": ("psycopg",),
    "spark": ("pyspark",),
    "sklearn": ("sklearn",),
    "tune": ("optuna",),
}


def is_installed(module: str) -> bool:
    """Whether a module can be imported. Only the packages around it are."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # a package around it
        return False


def need(extra: str, purpose: str) -> None:
    """Raises InputError, with the command to run, where an extra is not installed. Nothing is imported."""
    if missing := [module for module in EXTRAS[extra] if not is_installed(module)]:
        raise InputError(f"{purpose} needs {missing[0]}: pip install 'firstspin[{extra}]'")
