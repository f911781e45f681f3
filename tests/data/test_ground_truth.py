"""With ground truth, expected hits are true probabilities."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from firstspin.data.ground_truth import GroundTruth, read_ground_truth
from firstspin.records import InputError

CHANCES = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])


def test_tables_of_the_real_world_have_no_truth(tmp_path: Path) -> None:
    assert read_ground_truth(tmp_path, ["u1"]) is None


def test_the_ground_truth_has_the_order_of_the_user_ids(tmp_path: Path) -> None:
    np.savez(tmp_path / "truth.npz", user_id=np.array(["u1", "u2"]), genres=np.array(["A", "B", "C"]), p=CHANCES)
    found = read_ground_truth(tmp_path, ["u2", "u1", "u2"])
    assert found is not None
    assert found.genres == ("A", "B", "C")
    assert found.probabilities.tolist() == CHANCES[[1, 0, 1]].tolist()


def test_a_truth_of_other_tables_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "truth.npz", user_id=np.array(["u1"]), genres=np.array(["A", "B", "C"]), p=CHANCES[:1])
    with pytest.raises(InputError, match="has no user 'u9'"):
        read_ground_truth(tmp_path, ["u1", "u9"])


def test_a_file_that_is_no_truth_is_refused(tmp_path: Path) -> None:
    (tmp_path / "truth.npz").write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(InputError, match="not the ground truth"):
        read_ground_truth(tmp_path, ["u1"])


def test_expected_hits_are_the_sum_of_the_probabilities_of_the_shown_genres() -> None:
    truth = GroundTruth(("A", "B", "C"), CHANCES)
    shown = np.array([[0, 1], [1, -1]])  # positions in the genres of the examples, here C and A
    assert truth.expected_hits(("C", "A"), shown) == pytest.approx([0.7, 0.1])
    assert truth.best_hits(2) == pytest.approx([0.8, 0.9])
    assert truth.best_hits(3) == pytest.approx([1.0, 1.0])


def test_a_genre_unknown_to_the_truth_is_never_a_hit() -> None:
    assert GroundTruth(("A", "B", "C"), CHANCES).expected_hits(("X", "B"), np.array([[0], [1]])) == pytest.approx(
        [0, 0.1]
    )
