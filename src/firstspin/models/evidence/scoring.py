"""Listens as evidence: what a new user played and skipped moves the scores of the model.

Naive Bayes against base rates (Domingos and Pazzani, On the optimality of the simple Bayesian classifier, Machine
Learning 29, 1997): a listen to genre h adds c * log(P(h | g) / P(h)) to the score of each genre g. P(h | g), the share
of early listens to h among users whose top genre is g, has a Dirichlet prior (`evidence_training`). The count c
saturates in the seconds and is negative for a skip; it is multiplied by `picked` where h is among the picks, which
the model knows already. All of it is scaled by weight / (1 + n / strength), since early listens are noisy and not
independent: n listens count for at most `strength` of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import exp, log
from typing import Annotated, Final

import msgspec
import numpy as np

from firstspin.data.names import NameIndex
from firstspin.models.compiled import CompiledMoves
from firstspin.models.predictor import Moves
from firstspin.records import Listen, Listens

Weighed = tuple[int, bytes | None]

SKIP: Final = 0.5
"""A skip counts against a genre as half of a full listen counts for it: tables of listens have none to fit it on."""


OWN_SHARE: Final = 0.2
"""The prior of P(h | g): this share to genre g itself, the rest by base rates."""


class EvidenceSettings(msgspec.Struct, frozen=True):
    """The fitted parameters, and how they were fitted.

    `weight`: how much of the evidence is believed, 0: none · `strength`: listens · `saturation`: seconds after which a
    listen counts for 63% · `picked`: what a listen to a genre among the picks counts, where another counts 1 ·
    `users` whose early listens they were fitted on, 0: the defaults · the log losses of these users, without and with
    their listens, both cross-fitted.
    """

    weight: Annotated[float, msgspec.Meta(ge=0, le=4)] = 0.4
    strength: Annotated[float, msgspec.Meta(ge=0.01, le=1e6)] = 5.0
    saturation: Annotated[float, msgspec.Meta(ge=0.01, le=1e6)] = 60.0
    picked: Annotated[float, msgspec.Meta(ge=0, le=4)] = 1.0
    users: int = 0
    log_loss_without: float | None = None
    log_loss: float | None = None

    def sentence(self) -> str:
        """What was fitted, and what it is worth."""
        if not self.users:
            return "Listens as evidence: documented defaults, as too few users have early listens."
        measured = f"log loss {self.log_loss_without:.3f} without and {self.log_loss:.3f} with the early listens"
        fitted = (
            f"weight {self.weight:.2f}, strength {self.strength:.1f} listens, saturation {self.saturation:.0f} s, "
            f"a listen to a genre picked counts {self.picked:.2f}"
            if self.weight
            else "they do not lower the log loss and are not used"
        )
        return f"Listens as evidence: {measured} of {self.users:,} held-out users; {fitted}."


@dataclass(frozen=True, slots=True)
class Evidence:
    """What listens say about the `genres`.

    `log_ratios` (k, k): row h has log(P(h | g) / P(h)) of each genre g · `stations`: the genre of each station, as a
    position in `genres`.
    """

    genres: tuple[str, ...]
    settings: EvidenceSettings
    log_ratios: Sequence[Sequence[float]]
    stations: Mapping[str, int]
    _names: NameIndex = field(init=False, repr=False, compare=False)
    _weighed: Callable[[Listens, tuple[str, ...]], Weighed] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        set_field = partial(object.__setattr__, self)
        set_field("_names", NameIndex(self.genres))
        set_field("_weighed", self.weighed_in_python if CompiledMoves is None else self._compiled(CompiledMoves))

    def moves(self, listens: Iterable[Listen], picks: Sequence[str] = ()) -> Moves:
        """(k,) what these listens of a user with these picks add to the scores; None where they say nothing.

        Unknown stations and picks are ignored.
        """
        return self.weighed(tuple(listens), tuple(picks))[1]

    def weighed(self, listens: Listens, picks: tuple[str, ...] = ()) -> tuple[int, Moves]:
        """The number of listens to stations that are known, and the `moves`.

        Compiled C where a compiler was there at install, to the last bit the same as in Python.
        """
        known, moves = self._weighed(listens, picks)
        return known, None if moves is None else np.frombuffer(moves)

    def _compiled(self, compiled: type[CompiledMoves]) -> Callable[[Listens, tuple[str, ...]], Weighed]:
        settings, k = self.settings, len(self.genres)
        places = {genre: i for i, genre in enumerate(self.genres)}
        ratios = np.array(self.log_ratios, dtype=np.float64).reshape(k, k)
        scales = (settings.weight, settings.strength, settings.saturation, settings.picked)
        return compiled(Listen, dict(self.stations), places, self._names.find, ratios, *scales, SKIP).of

    def weighed_in_python(self, listens: Listens, picks: tuple[str, ...]) -> Weighed:
        """`weighed` without a compiler, with the moves as bytes of float64."""
        settings, total, known = self.settings, 0.0, 0
        picked = {self._names.find(pick) for pick in picks} if settings.picked != 1.0 else ()
        counts: dict[int, float] = {}
        for listen in listens:
            genre = self.stations.get(listen.station_id)
            if genre is not None:
                count = -SKIP if listen.skipped else 1.0 - exp(-(listen.seconds or 0.0) / settings.saturation)
                if picked and self.genres[genre] in picked:
                    count *= settings.picked
                counts[genre] = counts.get(genre, 0.0) + count
                total += abs(count)
                known += 1
        if not (total and settings.weight):
            return known, None
        scale = settings.weight / (1.0 + total / settings.strength)
        moved: list[float] = []
        for genre, count in sorted(counts.items()):
            factor, ratios = scale * count, self.log_ratios[genre]
            moved = (
                [so_far + factor * ratio for so_far, ratio in zip(moved, ratios, strict=True)]
                if moved
                else [factor * ratio for ratio in ratios]
            )
        return known, np.array(moved).tobytes()

    def by_genre(self) -> dict[str, list[str]]:
        """The ids of the stations of each genre, sorted."""
        of: dict[str, list[str]] = {genre: [] for genre in self.genres}
        for station_id in sorted(self.stations):
            of[self.genres[self.stations[station_id]]].append(station_id)
        return of


def default_evidence(genres: tuple[str, ...], base_rates: Sequence[float], stations: Mapping[str, int]) -> Evidence:
    """The evidence of a model without early listens: the prior of P(h | g); `base_rates` (k,) of listens by genre."""
    ratios = [
        [log(1.0 - OWN_SHARE + OWN_SHARE * (g == h) / rate) for g in range(len(genres))]
        for h, rate in enumerate(base_rates)
    ]
    return Evidence(genres, EvidenceSettings(), ratios, stations)


NO_EVIDENCE: Final = Evidence((), EvidenceSettings(weight=0.0), (), {})
