"""Files that are either whole or not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_beside(out: Path) -> Iterator[Path]:
    """A path in the same folder to write to; renamed to `out` if all goes well, removed if not."""
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.parent / f".{out.name}.{os.getpid()}.partial"
    try:
        yield beside
        beside.replace(out)
    finally:
        beside.unlink(missing_ok=True)
