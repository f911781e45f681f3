"""With ground truth, expected hits are true probabilities."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from firstspin.data.dataset import read_dataset
from firstspin.data.ground_truth import FirstMonth, GroundTruth, read_ground_truth
from firstspin.data.labels.early_listens import EarlyListens
from firstspin.records import InputError, Registration
from firstspin.simulation.world import write_world

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


def test_listens_change_the_probabilities_by_bayes_theorem() -> None:
    month = FirstMonth(loyalty=0.2, tries=0.5, front_page=np.array([0.0, 1.0, 0.0]))
    truth = GroundTruth(("A", "B", "C"), np.array([[0.5, 0.3, 0.2]] * 4), month)
    early = EarlyListens(np.array([0, 1, 1, 2]), np.array([0, 1, 1, 0]), np.full(4, 9.0), np.zeros(4, dtype=bool))
    people = (Registration(genres=("A", "C")), Registration(), Registration(genres=("C",)), Registration())
    after = truth.after(early, ("A", "B"), people).probabilities
    # one listen to A, which a user with another top genre plays with probability 0.5 / 2
    assert after[0] == pytest.approx(np.array([0.5 * (0.2 + 0.8 * 0.25), 0.3 * 0.8 * 0.25, 0.2 * 0.8 * 0.25]) / 0.3)
    # two listens to B, the front page, without picks
    of_b = np.array([0.5 * 0.8**2, 0.3, 0.2 * 0.8**2])
    assert after[1] == pytest.approx(of_b / of_b.sum())
    # A is neither a pick nor on the front page: it is the top genre
    assert after[2] == pytest.approx([1.0, 0.0, 0.0])
    assert after[3] == pytest.approx([0.5, 0.3, 0.2])
    with pytest.raises(ValueError, match="no first month"):
        GroundTruth(("A", "B", "C"), CHANCES).after(early, ("A", "B"), people[:2])


def test_top_genres_come_as_often_as_the_probabilities_after_the_listens_say(tmp_path: Path) -> None:
    write_world(tmp_path, 6_000, 2, early_loyalty=0.3)
    dataset = read_dataset(tmp_path, early=True)
    users, k = dataset.examples, len(dataset.examples.genres)
    truth = read_ground_truth(tmp_path, users.user_ids)
    assert truth is not None
    for number in (0, 2, 200):
        then = truth.after(dataset.early.first(number), users.genres, users.registrations)
        columns = np.array([then.genres.index(genre) for genre in users.genres])
        p = then.probabilities[:, columns]
        drawn = np.eye(k)[users.tops]
        for likely in (p < 0.05, (p >= 0.05) & (p < 0.5), p >= 0.5):
            spread = np.sqrt((p * (1 - p))[likely].sum())
            assert abs((drawn - p)[likely].sum()) < 4 * spread  # a bound of one in 15,000 by chance
