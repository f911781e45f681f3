"""A bundle is exactly what was packed, or it is refused with a reason."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from itertools import count
from pathlib import Path

import made_people
import msgspec
import pytest
from made_bundles import DAMAGE, EXTRA, NO_ANSWERS, edit, pack, pack_with_further_fields
from preloaded import preloaded

from firstspin.records import InputError, Registration
from firstspin.serving import bundle


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


REPACK = """
import shutil, sys
from pathlib import Path
from firstspin.serving.bundle import placed
source, out = map(Path, sys.argv[1:])
with placed(out) as new:
    shutil.copytree(source, new, dirs_exist_ok=True)
"""


def test_a_bundle_replaced_by_a_process_killed_at_any_rename_is_whole(tmp_path: Path) -> None:
    library = preloaded("dies_at", tmp_path)
    out, source = tmp_path / "b", tmp_path / "new"
    old, new = pack(out).id, pack(source, seed=3).id
    seen = []
    for step in count(1):
        told = {"LD_PRELOAD": str(library), "PYTHONDONTWRITEBYTECODE": "1", "DIES_AT": str(step), "DIES_IN": "rename"}
        done = subprocess.run([sys.executable, "-c", REPACK, source, out], env=os.environ | told, check=False)
        seen.append(bundle.load(out).id)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
    assert seen == [old, new]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "dies_at.so", "new"]


def test_a_folder_that_is_no_bundle_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="is not a bundle"):
        pack(tmp_path / "b")
    assert (tmp_path / "b" / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("reason", DAMAGE | NO_ANSWERS)
def test_a_damaged_bundle_is_refused_with_the_reason(tmp_path: Path, reason: str) -> None:
    pack(tmp_path / "b")
    (DAMAGE | NO_ANSWERS)[reason](tmp_path / "b")
    with pytest.raises(InputError, match=reason):
        bundle.load(tmp_path / "b")


def test_a_pickle_is_refused_by_its_type_and_never_opened(tmp_path: Path) -> None:
    pack(tmp_path / "b")
    (tmp_path / "b" / "model.pkl").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    with pytest.raises(InputError, match=r"model\.pkl is not part"):
        bundle.load(tmp_path / "b")


def test_a_bundle_without_stations_is_refused(tmp_path: Path) -> None:
    pack(tmp_path / "b")
    (tmp_path / "b" / "stations.json").unlink()
    edit(tmp_path / "b", lambda manifest: manifest["files"].pop("stations.json"))  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=r"stations\.json is missing"):
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


@pytest.mark.parametrize("devices", [[""], [f"code {i}" for i in range(120)]], ids=["empty", "rare"])
def test_a_bundle_is_packed_where_no_answer_to_a_further_field_is_frequent(devices: list[str], tmp_path: Path) -> None:
    pack_with_further_fields(tmp_path / "bundle", devices)
    assert bundle.load(tmp_path / "bundle").manifest.extra == EXTRA


def test_golden_answers_of_a_bundle_that_asks_more_are_of_those_who_told_everything(tmp_path: Path) -> None:
    pack_with_further_fields(tmp_path / "b")
    golden = bundle.load(tmp_path / "b").manifest.golden_further
    assert golden is not None
    assert [golden[0].registration["device"], golden[1].registration["device"]] == ["car", "phone"]
    edit(tmp_path / "b", lambda manifest: manifest["golden_further"][0]["registration"].pop("device"))
    with pytest.raises(InputError, match="too few, or all of one kind"):
        bundle.load(tmp_path / "b")


EARLIER = Path(__file__).parent.parent / "bundles_of_0.1"


@pytest.mark.parametrize("name", sorted(path.name for path in EARLIER.iterdir() if path.is_dir()))
def test_a_bundle_of_an_earlier_version_gives_the_same_bits(name: str) -> None:
    loaded = bundle.load(EARLIER / name)
    assert loaded.manifest.golden_rule is None  # of before there were any
    golden = loaded.manifest.golden[3]
    ranking = loaded.predictor.rank(msgspec.convert(golden.registration, Registration))
    assert (ranking.genres, ranking.probabilities) == (golden.genres, golden.probabilities)
