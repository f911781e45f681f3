"""A trained model <-> a folder: manifest.json, the stations, and the model as LightGBM text or arrays. Never a pickle.

Loading trusts nothing: every file must be named in the manifest with its size and SHA-256; nothing else may lie there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from firstspin import files
from firstspin.features import Encoder
from firstspin.lazily import lazily
from firstspin.models import scorers
from firstspin.models.predictor import Predictor
from firstspin.records import InputError, LabelRule, Ranking, Registration
from firstspin.stations import Catalogue

metadata = lazily("importlib.metadata")  # who serves never asks for it

FORMAT = 1
MANIFEST = "manifest.json"
STATIONS = "stations.json"
GOLDEN = 8
TYPES = (".npy", ".txt", ".json")
LARGEST_MANIFEST = 50_000_000


class FileProof(msgspec.Struct, frozen=True):
    """What a file of the bundle must be."""

    sha256: str
    bytes: int


class Part(msgspec.Struct, frozen=True):
    """A predictor inside the bundle; its arrays and texts are the files that begin with its role and a dot."""

    model: str
    made_of: str
    kind: str
    genres: tuple[str, ...]


class Golden(msgspec.Struct, frozen=True):
    """A made-up registration and the answer it must get: proves a load, and every later engine."""

    registration: dict[str, object]
    genres: tuple[str, ...]
    probabilities: tuple[float, ...]


class Manifest(msgspec.Struct, frozen=True):
    """manifest.json, whole."""

    format: int
    created_by: str
    predictor: Part
    rule: Part
    encoder: dict[str, object]
    known_genres: tuple[str, ...]
    extra: dict[str, str]
    label: dict[str, object]
    data: dict[str, object]
    scorecard: dict[str, object] | None
    golden: tuple[Golden, ...]
    files: dict[str, FileProof]
    knows_silence: bool = True
    """Whether training saw people who told nothing, so that the model can speak of them."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A loaded bundle. `id` names it: eight hex digits of its manifest's SHA-256, the same wherever it was packed."""

    id: str
    manifest: Manifest
    predictor: Predictor
    rule: Predictor
    catalogue: Catalogue

    def label_rule(self) -> LabelRule:
        """What a label was in training; until when the data reached there is no part of it."""
        label = self.manifest.label
        return msgspec.convert({name: of for name, of in label.items() if name != "data_ends"}, LabelRule)


# -------------------------------------------------------------------------------------------------------------- packing


def save(
    out: Path,
    predictor: Predictor,
    rule: Predictor,
    catalogue: Catalogue,
    *,
    known_genres: tuple[str, ...],
    extra: dict[str, str],
    label: dict[str, object],
    data: dict[str, object],
    scorecard: dict[str, object] | None,
    knows_silence: bool = True,
) -> Bundle:
    """Write a bundle beside `out`, load it as a check, then rename it into place; a bundle already there is replaced.

    The same training gives the same bytes. Raises InputError when `out` is something else than a bundle.
    """
    with placed(out) as beside:
        for role, part in (("predictor", predictor), ("rule", rule)):
            _write_state(beside, role, part.scorer.state())
        (beside / STATIONS).write_bytes(msgspec.json.encode(catalogue))
        manifest = Manifest(
            format=FORMAT,
            created_by=f"firstspin {metadata.version('firstspin')}",
            predictor=_part(predictor),
            rule=_part(rule),
            encoder=predictor.encoder.state(),
            known_genres=known_genres,
            extra=extra,
            label=label,
            data=data,
            scorecard=scorecard,
            golden=_golden(predictor),
            files={path.name: _proof(path) for path in sorted(beside.iterdir())},
            knows_silence=knows_silence,
        )
        encoded = msgspec.json.format(msgspec.json.encode(manifest, order="deterministic"), indent=1)
        (beside / MANIFEST).write_bytes(encoded)
    return load(out)


@contextmanager
def placed(out: Path) -> Iterator[Path]:
    """A folder beside `out` to write a bundle to; loaded as a check, then put in place, in one step if one was there.

    Raises InputError when `out` is something else than a bundle, or what was written is none.
    """
    if out.exists() and not (out / MANIFEST).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists and is not a bundle; it is left as it is")
    with files.beside(out) as new:
        new.mkdir()
        yield new
        load(new)
        files.put_in_place(new, out)


def _part(predictor: Predictor) -> Part:
    return Part(predictor.name, predictor.made_of, predictor.scorer.kind, predictor.genres)


def _write_state(folder: Path, role: str, state: Mapping[str, NDArray[np.generic] | str]) -> None:
    for name, value in state.items():
        if isinstance(value, str):
            (folder / f"{role}.{name}.txt").write_text(value, encoding="utf-8")
        else:
            np.save(folder / f"{role}.{name}.npy", value, allow_pickle=False)


def _golden(predictor: Predictor) -> tuple[Golden, ...]:
    asked = [Registration()]
    asked += [Registration(age=15 + 9 * i, genres=predictor.genres[i : i + i % 4 + 1]) for i in range(GOLDEN)]
    return tuple(_answered(predictor, registration) for registration in asked)


def _answered(predictor: Predictor, registration: Registration) -> Golden:
    ranking = predictor.rank(registration)
    told: dict[str, object] = {"age": registration.age, "genres": registration.genres}
    return Golden(told, ranking.genres[:5], ranking.probabilities[:5])


# -------------------------------------------------------------------------------------------------------------- loading


def load(folder: Path) -> Bundle:
    """The bundle of a folder, every file checked and arrays mapped rather than read.

    Raises InputError with the reason when anything is not as it was packed.
    """
    path = folder / MANIFEST
    if not path.is_file() or path.is_symlink() or path.stat().st_size > LARGEST_MANIFEST:
        raise InputError(f"{folder} is not a bundle: it has no {MANIFEST}")
    encoded = path.read_bytes()
    manifest = _manifest(encoded, folder)
    _check_files(folder, manifest)
    try:
        encoder = Encoder.from_state(manifest.encoder)
        predictor = _predictor(folder, manifest.predictor, "predictor", encoder, manifest.files)
        rule = _predictor(folder, manifest.rule, "rule", encoder, manifest.files)
        catalogue = msgspec.json.decode((folder / STATIONS).read_bytes(), type=Catalogue)
        wrong = [golden for golden in manifest.golden if not _agrees(predictor, golden)]
    except (KeyError, ValueError, TypeError, IndexError, msgspec.MsgspecError) as problem:
        raise InputError(f"{folder}: the model does not fit its manifest ({type(problem).__name__})") from problem
    if wrong:
        raise InputError(f"{folder}: {len(wrong)} of {len(manifest.golden)} golden answers come out differently")
    return Bundle(hashlib.sha256(encoded).hexdigest()[:8], manifest, predictor, rule, catalogue)


def _manifest(encoded: bytes, folder: Path) -> Manifest:
    try:
        found = msgspec.json.decode(encoded)["format"]
        if found != FORMAT:
            raise InputError(f"{folder}: bundle format {found!r}, this firstspin reads format {FORMAT}")
        return msgspec.json.decode(encoded, type=Manifest)
    except (msgspec.MsgspecError, TypeError, KeyError, UnicodeDecodeError) as problem:
        raise InputError(f"{folder}: {MANIFEST} can't be read ({problem})") from problem


def _check_files(folder: Path, manifest: Manifest) -> None:
    there = {path.name for path in folder.iterdir()} - {MANIFEST}
    if strange := sorted(there - manifest.files.keys()):
        raise InputError(f"{folder}: {strange[0]} is not part of the bundle")
    for name, proof in manifest.files.items():
        path = folder / name
        if Path(name).name != name or path.suffix not in TYPES:
            raise InputError(f"{folder}: {name!r} is not a kind of file that a bundle holds")
        if path.is_symlink() or not path.is_file():
            raise InputError(f"{folder}: {name} is missing")
        if path.stat().st_size != proof.bytes:
            raise InputError(f"{folder}: {name} has {path.stat().st_size} bytes instead of {proof.bytes}")
        if _proof(path) != proof:
            raise InputError(f"{folder}: {name} was changed after packing (its SHA-256 differs)")


def _proof(path: Path) -> FileProof:
    with path.open("rb") as file:
        return FileProof(hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size)


def _predictor(folder: Path, part: Part, role: str, encoder: Encoder, names: Iterable[str]) -> Predictor:
    state: dict[str, NDArray[np.generic] | str] = {}
    for name in names:
        if name.startswith(f"{role}.") and name.endswith(".npy"):
            mapped = np.load(folder / name, mmap_mode="r", allow_pickle=False)
            state[name[len(role) + 1 : -4]] = np.asarray(mapped)  # the same memory, without memmap's cost a use
        elif name.startswith(f"{role}.") and name.endswith(".txt"):
            state[name[len(role) + 1 : -4]] = (folder / name).read_text(encoding="utf-8")
    return Predictor(encoder, part.genres, scorers.load(part.kind, state), part.model, part.made_of)


def _agrees(predictor: Predictor, golden: Golden) -> bool:
    ranking: Ranking = predictor.rank(msgspec.convert(golden.registration, Registration))
    return ranking.genres[:5] == golden.genres and ranking.probabilities[:5] == golden.probabilities
