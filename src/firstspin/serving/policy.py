"""A bundle + one policy -> an answer for anyone. HTTP, batch, terminal and Lambda all ask here, so all answer alike.

`source` says what answered:

- `model`: the bundle's model;
- `popular`: nothing usable was told, so what the model expects of people who told nothing; where training saw nobody
  like that, what is popular over all, since the model would only guess;
- `under-age`: the age is under the configured one: the business rule on the picks alone, age and gender unused;
- `rule`: the model failed: the business rule on the picks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from firstspin.records import Ranking, Recommendation, Registration, is_under
from firstspin.serving.bundle import Bundle
from firstspin.serving.stations import fill

LEAST_AGE = 13
"""Below this age nobody is told apart by age or gender (the United States' COPPA draws its line at 13)."""

BATCH = 4096


@dataclass(frozen=True, slots=True)
class Recommender:
    """Answers registrations from one bundle; `least_age` in years."""

    bundle: Bundle
    least_age: int = LEAST_AGE

    def rank(self, registration: Registration) -> Ranking:
        """All genres for one newcomer, best first."""
        if is_under(self.least_age, registration):
            return self.by_rule(registration, "under-age")
        row, told = self.bundle.predictor.encoder.encode_matched(registration)
        source = "model" if told else "popular"
        return self.by_rule(registration, source) if self.ruled(source) else self.bundle.predictor.rank_row(row, source)

    def rankings(self, registrations: Sequence[Registration]) -> Iterator[Ranking]:
        """`rank` for many, in order, to the last bit the same, in a fraction of the time."""
        for start in range(0, len(registrations), BATCH):
            batch = registrations[start : start + BATCH]
            rows, told = self.bundle.predictor.encoder.matrix_matched(batch)
            for registration, known, ranking in zip(batch, told, self.bundle.predictor.rank_rows(rows), strict=True):
                source = "under-age" if is_under(self.least_age, registration) else "model" if known else "popular"
                if self.ruled(source):
                    yield self.by_rule(registration, source)
                else:
                    yield Ranking(*ranking, source)

    def recommend(self, registration: Registration) -> Recommendation:
        """The whole answer: genres, stations, message, carousels."""
        return self.fill(registration, self.rank(registration))

    def fill(self, registration: Registration, ranking: Ranking) -> Recommendation:
        """Turn a ranking into content."""
        catalogue = self.bundle.catalogue
        picks = catalogue.picked(registration.genres)
        return fill(ranking, picks, catalogue.of_country(registration.country), self.bundle.id)

    def by_rule(self, registration: Registration, source: str = "rule") -> Ranking:
        """The business rule on the picks alone."""
        return self.bundle.rule.rank(Registration(genres=registration.genres), source)

    def ruled(self, source: str) -> bool:
        """Whether the business rule answers what has this source."""
        return source == "under-age" or (source == "popular" and not self.bundle.manifest.knows_silence)

    def source(self, registration: Registration) -> str:
        """What will answer this registration."""
        if is_under(self.least_age, registration):
            return "under-age"
        return "model" if self.bundle.predictor.encoder.matches(registration) else "popular"


def top(ranking: Ranking, k: int) -> Ranking:
    """The first k genres of a ranking."""
    return Ranking(tuple(islice(ranking.genres, k)), tuple(islice(ranking.probabilities, k)), ranking.source)
