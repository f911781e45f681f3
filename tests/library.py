"""Answers straight from `decide`, without any entry point: what all of them are compared with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from firstspin.records import Ranking, Recommendation, Registration
from firstspin.serving.bundle import Bundle
from firstspin.serving.content import recommendation
from firstspin.serving.policy import DEFAULTS, Decision, PolicySettings, decide, decide_many


@dataclass(frozen=True)
class Recommender:
    """A bundle and the policy's settings."""

    bundle: Bundle
    settings: PolicySettings = DEFAULTS

    def decide(self, registration: Registration, **more: str) -> Decision:
        return decide(registration, None, self.bundle, None, self.settings, **more)

    def rank(self, registration: Registration) -> Ranking:
        return self.decide(registration).ranking

    def rankings(self, registrations: Sequence[Registration]) -> Iterator[Ranking]:
        return (decision.ranking for decision in decide_many(registrations, None, self.bundle, self.settings))

    def recommend(self, registration: Registration) -> Recommendation:
        return recommendation(registration, self.decide(registration), self.bundle)

    def fill(self, registration: Registration, ranking: Ranking) -> Recommendation:
        return recommendation(registration, Decision(ranking, self.bundle.id), self.bundle)
