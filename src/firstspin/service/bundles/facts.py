"""What `/ops` shows of a bundle, read from its manifest alone: the process that shows it has no model."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Final

import msgspec

from firstspin.evaluation.bootstrap import Figure
from firstspin.serving.bundle import MANIFEST, MAX_MANIFEST_BYTES

SCORES: Final = ("hit@3", "ndcg@5", "log_loss")
"""The metrics of the promotion gate."""


class ServedBundle(msgspec.Struct, frozen=True):
    """A bundle: when its data end and its last label window ends, and the scores on its own hold-out, by metric."""

    model: str
    data_ends: str | None
    labels_end: str | None
    scores: dict[str, Figure]


class _Ends(msgspec.Struct, frozen=True):
    data_ends: str | None = None
    labels_end: str | None = None


class _Scored(msgspec.Struct, frozen=True):
    best: str
    figures: dict[str, dict[str, object]]


class _Summary(msgspec.Struct, frozen=True):
    label: _Ends
    data: _Ends
    scorecard: object = None


def bundle_facts(folder: Path) -> ServedBundle | None:
    """The facts of the bundle in a folder; None where there is none, or its manifest can't be read."""
    path = folder / MANIFEST
    try:
        stat = path.stat()
        return _read(path, stat.st_ino, stat.st_mtime_ns, stat.st_size)
    except OSError:
        return None


@lru_cache(maxsize=8)
def _read(path: Path, inode: int, changed: int, size: int) -> ServedBundle | None:  # noqa: ARG001
    """The facts of a manifest, which is read once per version; an OSError, perhaps temporary, is not cached."""
    if size > MAX_MANIFEST_BYTES:
        return None
    encoded = path.read_bytes()
    try:
        summary = msgspec.json.decode(encoded, type=_Summary)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    model = hashlib.sha256(encoded).hexdigest()[:8]
    return ServedBundle(model, summary.label.data_ends, summary.data.labels_end, _scores(summary.scorecard))


def _scores(scorecard: object) -> dict[str, Figure]:
    """The scores of the bundle's model, as far as they are defined."""
    scores = {}
    with suppress(msgspec.ValidationError):
        scored = msgspec.convert(scorecard, _Scored)
        figures: Mapping[str, object] = scored.figures.get(scored.best, {})
        for metric in SCORES:
            with suppress(msgspec.ValidationError):  # null: not defined
                scores[metric] = msgspec.convert(figures.get(metric), Figure)
    return scores
