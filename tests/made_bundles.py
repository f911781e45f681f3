"""Bundles made small, and ways to damage them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import made_people
import msgspec
import numpy as np

from firstspin import bundle
from firstspin.models import registry
from firstspin.records import Examples, Station, with_further_fields
from firstspin.stations import Catalogue


def pack(
    out: Path,
    model: str = "logistic",
    seed: int = 0,
    *,
    knows_silence: bool = True,
    scorecard: dict[str, object] | None = None,
) -> bundle.Bundle:
    examples = made_people.examples(120, seed)
    fitted = [registry.fit(name, examples, known_genres=made_people.GENRES) for name in (model, "popularity")]
    stations = [(Station(str(i), f"S{i}", made_people.GENRES[i % 4]), float(i)) for i in range(12)]
    return bundle.save(
        out,
        *fitted,
        Catalogue.of(stations),
        known_genres=made_people.GENRES,
        extra={},
        label={},
        data={"fingerprint": "f"},
        scorecard=scorecard,
        knows_silence=knows_silence,
    )


EXTRA = {"device": "text", "visits": "number"}


def pack_with_further_fields(out: Path) -> None:
    """A bundle of a model that was told a device and a number of visits too."""
    people = made_people.examples(120)
    asked = with_further_fields(tuple(EXTRA))
    registrations = tuple(
        msgspec.convert(msgspec.to_builtins(told) | {"device": ("phone", "car")[i % 2], "visits": i % 7}, asked)
        for i, told in enumerate(people.registrations)
    )
    told = Examples(people.user_ids, registrations, people.registered_at, people.genres, people.tops, people.shares)
    fitted = [
        registry.fit(name, told, known_genres=made_people.GENRES, extra=tuple(EXTRA))
        for name in ("logistic", "popularity")
    ]
    stations = [(Station(str(i), f"S{i}", made_people.GENRES[i % 4]), float(i)) for i in range(12)]
    bundle.save(
        out,
        *fitted,
        Catalogue.of(stations),
        known_genres=made_people.GENRES,
        extra=EXTRA,
        label={},
        data={},
        scorecard=None,
    )


def _shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


def _edit(folder: Path, change: Callable[[dict[str, object]], None]) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def _weigh_anew(folder: Path) -> None:
    """Other weights under a manifest that vouches for them."""
    path = folder / "predictor.weights.npy"
    np.save(path, np.load(path)[:, ::-1])
    proof = bundle._proof(path)
    _edit(folder, lambda m: m["files"].update({path.name: {"sha256": proof.sha256, "bytes": proof.bytes}}))  # type: ignore[attr-defined]


DAMAGE = {
    "golden answers": _weigh_anew,
    "bytes instead of": lambda folder: _shorten(folder / "predictor.weights.npy"),
    "SHA-256 differs": lambda folder: _flip(folder / "predictor.weights.npy"),
    "predictor.bias.npy is missing": lambda folder: (folder / "predictor.bias.npy").unlink(),
    "surprise.npy is not part": lambda folder: (folder / "surprise.npy").write_bytes(b""),
    "has no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "can't be read": lambda folder: (folder / "manifest.json").write_text("{"),
    "bundle format 99": lambda folder: _edit(folder, lambda m: m.update(format=99)),
    "does not fit": lambda folder: _edit(folder, lambda m: m["predictor"].update(kind="oracle")),  # type: ignore[attr-defined]
    "not a kind of file": lambda folder: _edit(
        folder,
        lambda m: m["files"].update({"model.pkl": {"sha256": "", "bytes": 0}}),  # type: ignore[attr-defined]
    ),
}
