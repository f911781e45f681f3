"""Listens move the scores as the formula has it, with hand-made ratios; unknown stations say nothing."""

from __future__ import annotations

from math import exp, log

import numpy as np
import pytest
from compiled import where_it_compiles

from firstspin.models.compiled import CompiledMoves
from firstspin.models.evidence.scoring import NO_EVIDENCE, SKIP, Evidence, EvidenceSettings, default_evidence
from firstspin.models.predictor import Moves
from firstspin.records import MAX_SECONDS, Listen

GENRES = ("Jazz", "Rock")
STATIONS = {"j": 0, "r": 1}
SETTINGS = EvidenceSettings(weight=0.5, strength=4.0, saturation=60.0)
EVIDENCE = Evidence(GENRES, SETTINGS, [[log(4), log(0.5)], [log(0.5), log(2)]], STATIONS)


def listed(moves: Moves) -> list[float] | None:
    return None if moves is None else moves.tolist()


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
    assert listed(evidence.moves([Listen("j", 60.0)], ["Rock"])) == listed(EVIDENCE.moves([Listen("j", 60.0)]))


def test_unknown_stations_say_nothing() -> None:
    assert EVIDENCE.moves([]) is EVIDENCE.moves([Listen("nowhere", 600.0)]) is None
    known, moves = EVIDENCE.weighed((Listen("j", 60.0), Listen("nowhere", 600.0)))
    assert (known, listed(moves)) == (1, listed(EVIDENCE.moves([Listen("j", 60.0)])))
    assert NO_EVIDENCE.moves([Listen("j", 60.0)]) is None


def test_more_seconds_and_more_listens_say_more_up_to_a_limit() -> None:
    def own(*listens: Listen) -> float:
        moved = EVIDENCE.moves(listens)
        assert moved is not None
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
    assert common is not None
    assert rare is not None
    assert 0 < common[0] - common[1] < rare[1] - rare[0]


IDS = ("", "1", "12", "123", "1234", "12345678", "1234567890123456", "12345678901234567", "x" * 200, "é", "日本", "1 4")


@where_it_compiles(CompiledMoves)
@pytest.mark.parametrize("k", [1, 2, 24, 65, 200])
def test_c_and_python_give_the_same_bits(k: int) -> None:
    rng = np.random.default_rng(k)
    genres = tuple(f"genre {i}" for i in range(k))
    stations = {one: int(rng.integers(k)) for one in (*IDS, *map(str, range(1_000, 3_000)))}
    names = [*stations, "nowhere", "x" * 199, "1235", "ö", "12345678901234568", "\0", "1\0"]
    for turn in range(60):
        weight, picked = ((0.0, 1.0), (0.4, 1.0), (0.7, 0.0), (1.3, 2.5))[turn % 4]
        settings = EvidenceSettings(weight, float(rng.uniform(0.1, 9)), float(rng.uniform(1, 900)), picked)
        evidence = Evidence(genres, settings, rng.normal(size=(k, k)).tolist(), stations)
        for n in (0, 1, 5, 200):
            listens = tuple(drawn(rng, names) for _ in range(n))
            picks = tuple(str(pick) for pick in rng.choice([*genres[:3], "GENRE 0", " genre  1", "polka"], n % 4))
            assert evidence._weighed(listens, picks) == evidence.weighed_in_python(listens, picks)


def drawn(rng: np.random.Generator, names: list[str]) -> Listen:
    seconds = (None, 30, 7.5, float(rng.uniform(0, 900)), float(MAX_SECONDS), 5e-324)[rng.integers(6)]
    return Listen(names[rng.integers(len(names))], seconds, seconds is None or bool(rng.random() < 0.2))


@where_it_compiles(CompiledMoves)
def test_c_refuses_what_is_no_listen_and_no_genre() -> None:
    for listens, picks in ((({"station_id": "j"},), ()), ([Listen("j", 1.0)], ()), ((Listen("j", 1.0),), ["Jazz"])):
        with pytest.raises(TypeError):
            EVIDENCE._weighed(listens, picks)  # type: ignore[arg-type]
    for stations in ({"j": 2}, {"j": -1}):
        with pytest.raises(ValueError, match="not the position of a genre"):
            Evidence(GENRES, SETTINGS, EVIDENCE.log_ratios, stations)
    with pytest.raises(TypeError):
        EVIDENCE._weighed((Listen("j", "long"),), ())  # type: ignore[arg-type]
