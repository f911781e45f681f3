"""Bundles made small, and ways to damage them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import made_people
import msgspec
import numpy as np

from firstspin.data.further_fields import with_further_fields
from firstspin.data.overlap import UserSketch
from firstspin.models import registry
from firstspin.models.calibration import HoldOutCalibration
from firstspin.models.evidence.scoring import EvidenceSettings, default_evidence
from firstspin.models.input_reference import InputReference
from firstspin.models.prediction_sets import PredictionSets
from firstspin.models.predictor import Predictor
from firstspin.records import Examples, Station
from firstspin.serving import bundle
from firstspin.serving.stations import Catalogue


def _fitted(people: Examples, model: str) -> tuple[Predictor, Predictor]:
    """The model and the rule."""
    one, rule = (registry.fit(name, registry.prepare(people, made_people.GENRES)) for name in (model, "popularity"))
    return one, rule


@cache
def _learned(model: str, seed: int) -> tuple[Predictor, Predictor]:
    """The same of 120 users, trained once: no bundle changes them."""
    return _fitted(made_people.examples(120, seed), model)


def pack(
    out: Path,
    model: str = "logistic",
    seed: int = 0,
    *,
    knows_silence: bool = True,
    scorecard: dict[str, object] | None = None,
    people: Examples | None = None,
    markets: dict[str, tuple[str, ...]] | None = None,
    rows: PredictionSets | None = None,
    data: dict[str, object] | None = None,
    users: UserSketch | None = None,
    evidence: EvidenceSettings | None = None,
    calibration: HoldOutCalibration | None = None,
    inputs: InputReference | None = None,
) -> bundle.Bundle:
    fitted = _fitted(people, model) if people else _learned(model, seed)
    stations = [(Station(str(i), f"S{i}", made_people.GENRES[i % 4]), float(i)) for i in range(12)]
    of_listens = default_evidence(fitted[0].genres, (0.4, 0.3, 0.2, 0.1), {str(i): i % 4 for i in range(12)})
    return bundle.save(
        out,
        *fitted,
        Catalogue.of(stations, markets),
        known_genres=made_people.GENRES,
        extra={},
        label={},
        data=data or {"fingerprint": "f"},
        users=users,
        scorecard=scorecard,
        knows_silence=knows_silence,
        rows=rows,
        evidence=replace(of_listens, settings=evidence) if evidence else None,
        calibration=calibration,
        inputs=inputs,
    )


EXTRA = {"device": "text", "visits": "number"}


def pack_with_further_fields(out: Path, devices: Sequence[str] = ("phone", "car")) -> None:
    """A bundle of a model that was told a device and a number of visits too."""
    people = made_people.examples(120)
    asked = with_further_fields(tuple(EXTRA))
    registrations = tuple(
        msgspec.convert(msgspec.to_builtins(told) | {"device": devices[i % len(devices)], "visits": i % 7}, asked)
        for i, told in enumerate(people.registrations)
    )
    told = Examples(people.user_ids, registrations, people.registered_at, people.genres, people.tops, people.shares)
    fitted = [
        registry.fit(name, registry.prepare(told, made_people.GENRES, extra=tuple(EXTRA)))
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


def edit(folder: Path, change: Callable[[Any], object]) -> None:
    """Change the manifest, which nothing vouches for."""
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def sign(folder: Path) -> None:
    """Let the manifest vouch for the files that lie there now."""
    proofs = {path.name: bundle._proof(path) for path in folder.iterdir() if path.name != "manifest.json"}
    files = {name: {"sha256": proof.sha256, "bytes": proof.bytes} for name, proof in proofs.items()}
    edit(folder, lambda manifest: manifest.update(files=files))


def _put(folder: Path, name: str, array: object) -> None:
    np.save(folder / name, array)
    sign(folder)


def _reverse(folder: Path, name: str) -> None:
    """Other numbers under a manifest that vouches for them."""
    _put(folder, name, np.load(folder / name)[..., ::-1])


DAMAGE: dict[str, Callable[[Path], object]] = {
    "golden answers": lambda folder: _reverse(folder, "predictor.weights.npy"),
    "bytes instead of": lambda folder: _shorten(folder / "predictor.weights.npy"),
    "SHA-256 differs": lambda folder: _flip(folder / "predictor.weights.npy"),
    "predictor.bias.npy is missing": lambda folder: (folder / "predictor.bias.npy").unlink(),
    "surprise.npy is not part": lambda folder: (folder / "surprise.npy").write_bytes(b""),
    "has no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "can't be read": lambda folder: (folder / "manifest.json").write_text("{"),
    "bundle format 99": lambda folder: edit(folder, lambda m: m.update(format=99)),
    "does not fit": lambda folder: edit(folder, lambda m: m["predictor"].update(kind="oracle")),
    "not a kind of file": lambda folder: edit(
        folder, lambda m: m["files"].update({"model.pkl": {"sha256": "", "bytes": 0}})
    ),
}
"""A part of the reason -> what has it."""

NO_ANSWERS: dict[str, Callable[[Path], object]] = {
    "0 golden answers are too few": lambda folder: edit(folder, lambda m: m.update(golden=[])),
    "3 golden answers are too few": lambda folder: edit(folder, lambda m: m.update(golden=m["golden"][:3])),
    "all of one kind": lambda folder: edit(folder, lambda m: m.update(golden=m["golden"][:1] * 9)),
    "of the rule, or to further fields, are missing": lambda folder: edit(folder, lambda m: m.pop("golden_rule")),
    "1 golden answers are too few": lambda folder: edit(folder, lambda m: m.update(golden_rule=m["golden_rule"][:1])),
    "9 golden answers come out": lambda folder: _reverse(folder, "rule.log_popularity.npy"),
    r"log_popularity is \(2,\) of float64, not \(4,\)": lambda folder: _put(
        folder, "rule.log_popularity.npy", [-1.0, -1]
    ),
    "lift holds a number that is not finite": lambda folder: _put(folder, "rule.lift.npy", np.inf),
    "bias holds a number that is not finite": lambda folder: _put(folder, "predictor.bias.npy", [0.0, np.nan, 0, 0]),
    "names a column that is not there": lambda folder: _put(folder, "rule.columns.npy", [0, 1, 2, 10**6]),
    "not of whole numbers": lambda folder: _put(folder, "rule.columns.npy", [0.5, 1, 2, 3]),
    "no array 'bias'": lambda folder: ((folder / "predictor.bias.npy").unlink(), sign(folder)),
    "has no 'more'": lambda folder: _put(folder, "predictor.more.npy", [1.0]),
    "no genres, or one twice": lambda folder: edit(folder, lambda m: m["rule"].update(genres=["Pop"] * 4)),
    "is number or text": lambda folder: edit(folder, lambda m: m.update(extra={"device": "blob"})),
    "which is no field": lambda folder: edit(folder, lambda m: m["encoder"]["questions"][0].update(name="shoe")),
    "of an unknown kind": lambda folder: edit(folder, lambda m: m["encoder"]["questions"][0].update(knots=[2, 1])),
    "the label's gap": lambda folder: edit(folder, lambda m: m.update(label={"gap_days": -1})),
    "more stations": lambda folder: _crowd(folder),
}
"""The same for bundles whose every hash is right, and which can't answer."""


def _crowd(folder: Path) -> None:
    catalogue = json.loads((folder / "stations.json").read_text())
    catalogue["popular"] *= 10
    (folder / "stations.json").write_text(json.dumps(catalogue))
    sign(folder)
