"""Listens move the scores as the formula has it, with hand-made ratios; unknown stations say nothing."""

from __future__ import annotations

from math import exp, log

import pytest

from firstspin.models.evidence.scoring import NO_EVIDENCE, SKIP, Evidence, EvidenceSettings, default_evidence
from firstspin.records import MAX_SECONDS, Listen

GENRES = ("Jazz", "Rock")
STATIONS = {"j": 0, "r": 1}
SETTINGS = EvidenceSettings(weight=0.5, strength=4.0, saturation=60.0)
EVIDENCE = Evidence(GENRES, SETTINGS, [[log(4), log(0.5)], [log(0.5), log(2)]], STATIONS)


def test_one_listen_by_hand() -> None:
    count = 1 - exp(-1)  # one saturation
    scale = 0.5 / (1 + count / 4)
    assert EVIDENCE.moves([Listen("j", 60.0)]) == pytest.approx([scale * count * log(4), scale * count * log(0.5)])


def test_a_skip_moves_against_its_genre() -> None:
    scale = 0.5 / (1 + SKIP / 4)
    assert EVIDENCE.moves([Listen("r", skipped=True)]) == pytest.approx(
        [-scale * SKIP * log(0.5), -scale * SKIP * log(2)]
    )


def test_a_listen_to_a_genre_picked_counts_as_fitted() -> None:
    evidence = Evidence(GENRES, EvidenceSettings(0.5, 4.0, 60.0, picked=0.25), EVIDENCE.log_ratios, STATIONS)
    count = 0.25 * (1 - exp(-1))
    scale = 0.5 / (1 + count / 4)
    for picks in (["Jazz"], ["Polka", " jazz"]):
        assert evidence.moves([Listen("j", 60.0)], picks) == pytest.approx(
            [scale * count * log(4), scale * count * log(0.5)]
        )
    assert evidence.moves([Listen("j", 60.0)], ["Rock"]) == EVIDENCE.moves([Listen("j", 60.0)])


def test_unknown_stations_say_nothing() -> None:
    assert EVIDENCE.moves([]) is EVIDENCE.moves([Listen("nowhere", 600.0)]) is None
    assert EVIDENCE.moves([Listen("j", 60.0), Listen("nowhere", 600.0)]) == EVIDENCE.moves([Listen("j", 60.0)])
    assert NO_EVIDENCE.moves([Listen("j", 60.0)]) is None


def test_more_seconds_and_more_listens_say_more_up_to_a_limit() -> None:
    def own(*listens: Listen) -> float:
        moved = EVIDENCE.moves(listens)
        assert moved
        return moved[0] - moved[1]

    by_seconds = [own(Listen("j", seconds)) for seconds in (1.0, 10.0, 100.0, MAX_SECONDS)]
    assert by_seconds == sorted(by_seconds)
    by_listens = [own(*[Listen("j", 600.0)] * n) for n in (1, 2, 5, 200)]
    assert by_listens == sorted(by_listens)
    assert by_listens[-1] < 0.5 * 4 * (log(4) - log(0.5))  # weight x strength


def test_neither_order_nor_a_split_of_the_listens_matters() -> None:
    listens = [Listen("j", 60.0), Listen("r", 5.0), Listen("j", skipped=True), Listen("r", 600.0)]
    assert EVIDENCE.moves(listens) == pytest.approx(EVIDENCE.moves(listens[::-1]), abs=1e-12)


def test_a_listen_to_a_rare_genre_says_more() -> None:
    evidence = default_evidence(GENRES, (0.9, 0.1), STATIONS)
    common, rare = evidence.moves([Listen("j", 600.0)]), evidence.moves([Listen("r", 600.0)])
    assert common
    assert rare
    assert 0 < common[0] - common[1] < rare[1] - rare[0]
