"""A bundle is exactly what was packed, or it is refused with a reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import made_people
import msgspec
import numpy as np
import pytest

from firstspin import bundle
from firstspin.models import registry
from firstspin.records import Examples, InputError, Registration, Station, with_further_fields
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


@pytest.mark.parametrize("model", ["logistic", "popularity", "forest", "network"])
def test_what_is_loaded_answers_as_what_was_packed(tmp_path: Path, model: str) -> None:
    packed = pack(tmp_path / "b", model)
    loaded = bundle.load(tmp_path / "b")
    assert loaded.id == packed.id
    for registration in made_people.examples(30, 9).registrations:
        assert loaded.predictor.rank(registration) == packed.predictor.rank(registration)


def test_the_same_training_gives_the_same_bytes(tmp_path: Path) -> None:
    assert pack(tmp_path / "one").id == pack(tmp_path / "two").id
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_a_bundle_is_replaced_whole(tmp_path: Path) -> None:
    old = pack(tmp_path / "b")
    new = pack(tmp_path / "b", seed=3)
    assert new.id != old.id
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_folder_that_is_no_bundle_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="is not a bundle"):
        pack(tmp_path / "b")
    assert (tmp_path / "b" / "thesis.txt").read_text() == "years of work"


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


@pytest.mark.parametrize("reason", DAMAGE)
def test_a_damaged_bundle_is_refused_with_the_reason(tmp_path: Path, reason: str) -> None:
    pack(tmp_path / "b")
    DAMAGE[reason](tmp_path / "b")
    with pytest.raises(InputError, match=reason):
        bundle.load(tmp_path / "b")


def test_a_pickle_is_refused_by_its_type_and_never_opened(tmp_path: Path) -> None:
    pack(tmp_path / "b")
    (tmp_path / "b" / "model.pkl").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    with pytest.raises(InputError, match=r"model\.pkl is not part"):
        bundle.load(tmp_path / "b")


def test_a_link_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    pack(tmp_path / "b")
    outside = tmp_path / "outside.npy"
    shutil.move(tmp_path / "b" / "predictor.bias.npy", outside)
    (tmp_path / "b" / "predictor.bias.npy").symlink_to(outside)
    with pytest.raises(InputError, match="is missing"):
        bundle.load(tmp_path / "b")


def test_a_failed_packing_leaves_the_old_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = pack(tmp_path / "b")
    monkeypatch.setattr(bundle, "_agrees", lambda *_: False)
    with pytest.raises(InputError, match="golden"):
        pack(tmp_path / "b", seed=3)
    monkeypatch.undo()
    assert bundle.load(tmp_path / "b").id == old.id
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_no_registration_of_a_real_person_is_in_the_bundle(tmp_path: Path) -> None:
    packed = pack(tmp_path / "b")
    told = [msg.registration for msg in packed.manifest.golden]
    assert told[0] == {"age": None, "genres": []}
    assert all(set(answer) == {"age", "genres"} for answer in told)


def test_a_bundle_that_asks_more_answers_who_is_not_asked(tmp_path: Path) -> None:
    pack_with_further_fields(tmp_path / "b")
    loaded = bundle.load(tmp_path / "b")
    assert loaded.manifest.extra == EXTRA
    assert loaded.predictor.rank(Registration(age=31)).genres
