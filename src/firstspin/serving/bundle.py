"""Bundles: a trained model as a folder of manifest.json, the stations, and the model as arrays and text; no pickles.

Loading verifies everything: the manifest lists every file with its size and SHA-256, and no other file may be there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from firstspin import files
from firstspin.data.further_fields import check_names, with_further_fields
from firstspin.data.overlap import UserSketch, overlap
from firstspin.data.schema import COUNTRY, GENDER, LISTENS, NUMBER, TEXT
from firstspin.installation.version import BUNDLE_FORMAT, package_version
from firstspin.models import scorers
from firstspin.models.calibration import HoldOutCalibration
from firstspin.models.evidence.scoring import NO_EVIDENCE, Evidence, EvidenceSettings, default_evidence
from firstspin.models.features import QUESTIONS, Encoder
from firstspin.models.input_reference import InputReference
from firstspin.models.prediction_sets import PredictionSets
from firstspin.models.predictor import Moves, Predictor, probabilities
from firstspin.records import SHOWN_GENRES, InputError, LabelRule, Ranking, Registration
from firstspin.serving.stations import Catalogue

MANIFEST = "manifest.json"
STATIONS = "stations.json"
EVIDENCE_STATIONS = "evidence.stations.json"
EVIDENCE_RATIOS = "evidence.log_ratios.npy"
GOLDEN = 8
TYPES = (".npy", ".txt", ".json")
MAX_MANIFEST_BYTES = 50_000_000
MAX_REASON = 400


class FileProof(msgspec.Struct, frozen=True):
    """The size and hash of a file of the bundle."""

    sha256: str
    bytes: int


class Part(msgspec.Struct, frozen=True):
    """A predictor of the bundle; its arrays and texts are the files whose names begin with its role and a dot."""

    model: str
    made_of: str
    kind: str
    genres: tuple[str, ...]


class Golden(msgspec.Struct, frozen=True):
    """A synthetic registration and its expected answer: a test of loading, and of every scoring engine."""

    registration: dict[str, object]
    genres: tuple[str, ...]
    probabilities: tuple[float, ...]


class Manifest(msgspec.Struct, frozen=True):
    """The content of manifest.json."""

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
    """Whether training had registrations without answers, so that the model applies to them."""
    golden_rule: tuple[Golden, ...] | None = None
    """Answers of the rule; None, as `golden_further`, in a bundle of an earlier version."""
    golden_further: tuple[Golden, ...] | None = None
    """Answers of the model to registrations with every further field."""
    users: UserSketch | None = None
    """What identifies the set of training users, and no single one."""
    rows: PredictionSets | None = None
    """How many genres contain the favourite; None in a bundle of an earlier version, and after too few users."""
    evidence: EvidenceSettings | None = None
    """What listens are worth; None in a bundle of an earlier version, which has the defaults."""
    calibration: HoldOutCalibration | None = None
    """How often held-out answers of a given probability were right; None in a bundle of an earlier version."""
    inputs: InputReference | None = None
    """Counts of the registrations and of the answers to them, for drift; None in a bundle of an earlier version."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A loaded bundle. `id`: eight hex digits of the manifest's SHA-256, the same on every machine."""

    id: str
    manifest: Manifest
    predictor: Predictor
    rule: Predictor
    catalogue: Catalogue
    evidence: Evidence = NO_EVIDENCE

    def weighed(self, registration: Registration) -> tuple[int, Moves]:
        """The number of listens to known stations, and what the listens add to the model's scores (k,), if anything."""
        listens = registration.listens
        return self.evidence.weighed(listens, registration.genres) if listens else (0, None)

    def __repr__(self) -> str:
        """The model and the data of the bundle in a line."""
        return f"Bundle {self.id}: {self.predictor.in_words()}; {len(self.predictor.genres)} genres"

    def label_rule(self) -> LabelRule:
        """The definition of the labels that the model was trained on, without the end of the data."""
        return LabelRule.from_state(self.manifest.label)

    def training_share(self, user_ids: Iterable[str]) -> float:
        """The estimated share of these users that the model was trained on; 0 in a bundle of an earlier version."""
        return overlap(self.manifest.users, user_ids) if self.manifest.users else 0.0


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
    users: UserSketch | None = None,
    rows: PredictionSets | None = None,
    evidence: Evidence | None = None,
    calibration: HoldOutCalibration | None = None,
    inputs: InputReference | None = None,
) -> Bundle:
    """Write a bundle beside `out`, load it as a check, then move it to `out`, replacing a bundle that is there.

    The same training gives the same bytes. Raises InputError where `out` exists and is not a bundle.
    """
    with placed(out) as beside:
        for role, part in (("predictor", predictor), ("rule", rule)):
            _write_state(beside, role, part.scorer.state())
        (beside / STATIONS).write_bytes(msgspec.json.encode(catalogue))
        if evidence:
            _write_state(beside, "evidence", {"log_ratios": np.array(evidence.log_ratios)})
            (beside / EVIDENCE_STATIONS).write_bytes(msgspec.json.encode(evidence.by_genre()))
        manifest = Manifest(
            format=BUNDLE_FORMAT,
            created_by=f"firstspin {package_version()}",
            predictor=_part(predictor),
            rule=_part(rule),
            encoder=predictor.encoder.state(),
            known_genres=known_genres,
            extra=extra,
            label=label,
            data=data,
            scorecard=scorecard,
            golden=_golden(predictor, _golden_registrations(predictor)),
            golden_rule=_golden(rule, _golden_registrations(predictor)),
            golden_further=_golden(predictor, _further_registrations(predictor, extra)),
            files={path.name: _proof(path) for path in sorted(beside.iterdir())},
            knows_silence=knows_silence,
            users=users,
            rows=rows,
            evidence=evidence.settings if evidence else None,
            calibration=calibration,
            inputs=inputs,
        )
        encoded = msgspec.json.format(msgspec.json.encode(manifest, order="deterministic"), indent=1)
        (beside / MANIFEST).write_bytes(encoded)
    return load(out)


def report_path(path: Path) -> Path:
    """The file of a bundle's report, beside its folder, which holds nothing else. Links are followed."""
    folder = path.resolve()
    return folder.parent / f"{folder.name}-report.html"


@contextmanager
def placed(out: Path) -> Iterator[Path]:
    """A folder beside `out` to write a bundle to; it is loaded as a check, then moved to `out` in one step.

    Raises InputError where `out` exists and is not a bundle, or the written folder is none.
    """
    check_place(out)
    with files.beside(out) as new:
        new.mkdir()
        yield new
        load(new)
        files.put_in_place(new, out)


def check_place(out: Path) -> None:
    """Raises InputError where `out` exists and is not a bundle."""
    if out.exists() and not (out / MANIFEST).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists and is not a bundle; it is not changed")


def _part(predictor: Predictor) -> Part:
    return Part(predictor.name, predictor.made_of, predictor.scorer.kind, predictor.genres)


def _write_state(folder: Path, role: str, state: Mapping[str, NDArray[np.generic] | str]) -> None:
    for name, value in state.items():
        if isinstance(value, str):
            (folder / f"{role}.{name}.txt").write_text(value, encoding="utf-8")
        else:
            np.save(folder / f"{role}.{name}.npy", value, allow_pickle=False)


def _golden_registrations(predictor: Predictor) -> list[Registration]:
    answered = [Registration(age=15 + 9 * i, genres=predictor.genres[i : i + i % 4 + 1]) for i in range(GOLDEN)]
    return [Registration(), *answered]


def _further_registrations(predictor: Predictor, extra: Mapping[str, str]) -> list[Registration]:
    """Registrations with the lowest and the highest training value of every further field."""
    questions = {question["name"]: question for question in predictor.encoder.state()["questions"]}
    registrations: list[Registration] = []
    for i in (0, -1) if extra else ():
        answers: dict[str, object] = {"age": 31, "genres": predictor.genres[:1]}
        for name, kind in extra.items():
            values = questions.get(name, {}).get("knots") or questions.get(name, {}).get("values")
            answers[name] = values[i] if values else 0.0 if kind == NUMBER else "rare"  # empty is no answer
        registrations.append(msgspec.convert(answers, with_further_fields(tuple(extra))))
    return registrations


def _golden(predictor: Predictor, registrations: Iterable[Registration]) -> tuple[Golden, ...]:
    return tuple(_answered(predictor, registration) for registration in registrations)


def _answered(predictor: Predictor, registration: Registration) -> Golden:
    ranking = predictor.rank(registration)
    answers = msgspec.structs.asdict(registration)
    del answers[GENDER], answers[COUNTRY], answers[LISTENS]  # not part of golden registrations
    return Golden(answers, ranking.genres[:SHOWN_GENRES], ranking.probabilities[:SHOWN_GENRES])


# -------------------------------------------------------------------------------------------------------------- loading


def load(folder: Path) -> Bundle:
    """The bundle of a folder: every file is verified; arrays are memory-mapped.

    Raises InputError, with the reason, where the bundle was changed or can't answer; OSError where a file can't be
    read.
    """
    path = folder / MANIFEST
    if not path.is_file() or path.is_symlink() or path.stat().st_size > MAX_MANIFEST_BYTES:
        raise InputError(f"{folder} is not a bundle: it has no {MANIFEST}")
    encoded = path.read_bytes()
    with _refused(folder, f"{MANIFEST} can't be read"):
        manifest = _manifest(encoded)
    with _refused(folder, "the model does not fit its manifest"):
        _check_files(folder, manifest)
        loaded = Bundle(hashlib.sha256(encoded).hexdigest()[:8], manifest, *_parts(folder, manifest))
        loaded.label_rule()
        _check_golden(loaded)
    return loaded


@contextmanager
def _refused(folder: Path, what: str) -> Iterator[None]:
    """Convert any error of a bundle's content to InputError with a reason."""
    try:
        yield
    except (OSError, MemoryError):
        raise
    except InputError as problem:
        raise InputError(f"{folder}: {str(problem)[:MAX_REASON]}") from problem
    except Exception as problem:
        raise InputError(f"{folder}: {what} ({_reason(problem)[:MAX_REASON]})") from problem


def _reason(problem: Exception) -> str:
    """The message of the error, where it is meaningful."""
    if isinstance(problem, UnicodeError):
        return "a text is not UTF-8"
    if isinstance(problem, ValueError | msgspec.MsgspecError):
        return str(problem)
    return "something in it is missing, or of another type"


def _manifest(encoded: bytes) -> Manifest:
    version = msgspec.json.decode(encoded)["format"]
    if version != BUNDLE_FORMAT:
        raise InputError(f"bundle format {str(version)[:20]}, this firstspin reads format {BUNDLE_FORMAT}")
    return msgspec.json.decode(encoded, type=Manifest)


def _check_files(folder: Path, manifest: Manifest) -> None:
    there = {path.name for path in folder.iterdir()} - {MANIFEST}
    if strange := sorted(there - manifest.files.keys()):
        raise InputError(f"{strange[0]} is not part of the bundle")
    for name, proof in manifest.files.items():
        path = folder / name
        if Path(name).name != name or path.suffix not in TYPES:
            raise InputError(f"{name[:100]!r} is not a kind of file that a bundle holds")
        if name not in there or path.is_symlink() or not path.is_file():
            raise InputError(f"{name[:100]} is missing")
        if path.stat().st_size != proof.bytes:
            raise InputError(f"{name} has {path.stat().st_size} bytes instead of {proof.bytes}")
        if _proof(path) != proof:
            raise InputError(f"{name} was changed after packing (its SHA-256 differs)")


def _proof(path: Path) -> FileProof:
    with path.open("rb") as file:
        return FileProof(hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size)


def _parts(folder: Path, manifest: Manifest) -> tuple[Predictor, Predictor, Catalogue, Evidence]:
    check_names(tuple(manifest.extra))
    if unknown := sorted(set(manifest.extra.values()) - {NUMBER, TEXT}):
        raise InputError(f"a further field is {NUMBER} or {TEXT}, not {unknown[0][:20]!r}")
    encoder = Encoder.from_state(manifest.encoder)
    if strange := set(encoder.questions) - {*QUESTIONS, *manifest.extra}:
        raise InputError(f"the encoder asks {min(strange)[:100]!r}, which is no field of a registration")
    predictor = _predictor(folder, manifest.predictor, "predictor", encoder, manifest.files)
    rule = _predictor(folder, manifest.rule, "rule", encoder, manifest.files)
    if STATIONS not in manifest.files:
        raise InputError(f"{STATIONS} is missing")
    catalogue = msgspec.json.decode((folder / STATIONS).read_bytes(), type=Catalogue)
    catalogue.check()
    return predictor, rule, catalogue, _evidence(folder, manifest, predictor, rule, catalogue)


def _evidence(
    folder: Path, manifest: Manifest, predictor: Predictor, rule: Predictor, catalogue: Catalogue
) -> Evidence:
    """The evidence of the bundle's files; in a bundle of an earlier version, the defaults and the stations shown."""
    genres = predictor.genres
    place = {genre: i for i, genre in enumerate(genres)}
    if manifest.evidence is None:
        shown = {station.station_id: place[station.genre] for station in catalogue.stations() if station.genre in place}
        by_rule = dict(zip(rule.genres, probabilities(rule.scores([Registration()]))[0].tolist(), strict=True))
        return default_evidence(genres, [by_rule.get(genre, 1 / len(genres)) for genre in genres], shown)
    if missing := {EVIDENCE_STATIONS, EVIDENCE_RATIOS} - manifest.files.keys():
        raise InputError(f"{min(missing)} is missing")
    ratios = _mapped(folder / EVIDENCE_RATIOS)
    if ratios.shape != (len(genres), len(genres)) or ratios.dtype != np.float64 or not np.isfinite(ratios).all():
        raise InputError(f"{EVIDENCE_RATIOS} is not a finite number for each pair of genres")
    by_genre = msgspec.json.decode((folder / EVIDENCE_STATIONS).read_bytes(), type=dict[str, tuple[str, ...]])
    if by_genre.keys() - place:
        raise InputError(f"{EVIDENCE_STATIONS} names a genre that the model does not rank")
    stations = {station_id: place[genre] for genre, ids in by_genre.items() for station_id in ids}
    return Evidence(genres, manifest.evidence, ratios.tolist(), stations)


def _predictor(folder: Path, part: Part, role: str, encoder: Encoder, names: Iterable[str]) -> Predictor:
    if not part.genres or len(set(part.genres)) < len(part.genres):
        raise InputError(f"the {role} has no genres, or one twice")
    state: dict[str, NDArray[np.generic] | str] = {}
    for name in names:
        if name.startswith(f"{role}.") and name.endswith(".npy"):
            state[name[len(role) + 1 : -4]] = _mapped(folder / name)
        elif name.startswith(f"{role}.") and name.endswith(".txt"):
            state[name[len(role) + 1 : -4]] = (folder / name).read_text(encoding="utf-8")
    scorer = scorers.load(part.kind, state)
    scorer.check(len(encoder.columns), len(part.genres))
    return Predictor(encoder, part.genres, scorer, part.model, part.made_of)


def _mapped(path: Path) -> NDArray[np.generic]:
    try:
        mapped = np.lib.format.open_memmap(path, mode="r")  # raises where a pickle would be needed
    except (OSError, MemoryError):
        raise
    except Exception as problem:  # the header is parsed as Python, with many kinds of errors
        raise InputError(f"{path.name} is not a file of an array") from problem
    return np.asarray(mapped)  # the same memory, without memmap's cost per access


def _check_golden(loaded: Bundle) -> None:
    """Raises InputError unless there are enough golden answers of each kind, and the model reproduces them all."""
    manifest = loaded.manifest
    wrong = _wrong(loaded.predictor, manifest.golden)
    if manifest.golden_rule is not None and manifest.golden_further is not None:
        wrong += _wrong(loaded.rule, manifest.golden_rule)
        wrong += _wrong(loaded.predictor, manifest.golden_further, tuple(manifest.extra))
    elif manifest.golden_rule != manifest.golden_further:
        raise InputError("golden answers of the rule, or to further fields, are missing")
    if wrong:
        raise InputError(f"{wrong} golden answers come out differently")


def _wrong(predictor: Predictor, goldens: Sequence[Golden], further: tuple[str, ...] | None = None) -> int:
    """The number of golden answers that are not reproduced; `further`: fields that each registration must answer."""
    registrations = [msgspec.convert(golden.registration, with_further_fields(further or ())) for golden in goldens]
    enough = _differ(registrations) if further is None else _answer_all(registrations, further)
    if not enough:
        raise InputError(f"{len(goldens)} golden answers are too few, or all of one kind")
    return sum(not _agrees(predictor.rank(one), golden) for one, golden in zip(registrations, goldens, strict=True))


def _differ(registrations: Sequence[Registration]) -> bool:
    """Whether there are enough registrations, one without answers, and some with an age and with picks."""
    kinds = (
        Registration() in registrations,
        any(one.age is not None for one in registrations),
        any(one.genres for one in registrations),
    )
    return all(kinds) and len(set(registrations)) > GOLDEN


def _answer_all(registrations: Sequence[Registration], further: tuple[str, ...]) -> bool:
    return bool(registrations) == bool(further) and all(
        getattr(one, name) is not None for one in registrations for name in further
    )


def _agrees(ranking: Ranking, golden: Golden) -> bool:
    shown = ranking.genres[:SHOWN_GENRES], ranking.probabilities[:SHOWN_GENRES]
    return shown == (golden.genres, golden.probabilities)
