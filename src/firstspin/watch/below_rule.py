"""Whether a bundle's model has fewer hits than its own business rule, with the same labelled users.

Of users for whom the two differ, the hit is the rule's alone with a probability of at most 1/2 where the model is not
worse. The e-value is the likelihood ratio of a probability uniform between 1/2 and 1 to 1/2. While the model is not
worse, it is above 1 / ALPHA with a probability of at most ALPHA, however often it is looked at while users are added
(Ville's inequality; Ramdas and others, Game-theoretic statistics and safe anytime-valid inference, Statistical Science
38, 2023).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import inf
from typing import Final

import msgspec

from firstspin.evaluation.cohorts import MIN_USERS

TOP: Final = 3
"""Genres that may contain the favourite: hit@3."""
ALPHA: Final = 0.05
"""Probability that a bundle whose model is not worse is ever reported, whatever the number of looks."""

Hits = Counter[tuple[bool, bool]]
"""Users by whether the model and whether the rule has a hit."""


class RuleComparison(msgspec.Struct, frozen=True):
    """hit@3 of the `users` whom the model ranked: `observed`, and that of the business rule for the same users.

    `is_below`: the model is worse, with an error of at most ALPHA per bundle.
    """

    model: str
    users: int
    observed: float
    by_rule: float
    e_value: float
    is_below: bool


def rule_comparisons(hits: Mapping[str, Hits]) -> tuple[RuleComparison, ...]:
    """The comparison of each bundle with at least 10 such users; `hits` by bundle."""
    return tuple(_comparison(model, of) for model, of in sorted(hits.items()) if of.total() >= MIN_USERS)


def _comparison(model: str, hits: Hits) -> RuleComparison:
    both, model_alone, rule_alone = hits[True, True], hits[True, False], hits[False, True]
    evidence = e_value(rule_alone, model_alone)
    return RuleComparison(
        model,
        hits.total(),
        round((both + model_alone) / hits.total(), 6),
        round((both + rule_alone) / hits.total(), 6),
        round(min(evidence, 1e9), 3),
        evidence >= 1 / ALPHA,
    )


def e_value(wins: int, losses: int) -> float:
    """The mean of (2p)^wins (2 - 2p)^losses over p from 1/2 to 1.

    By the beta integral, with n = wins + losses, it is the sum of C(n + 1, i) over i <= wins, by (n + 1) C(n, wins).

    >>> e_value(0, 0), e_value(1, 0), e_value(0, 1)
    (1.0, 1.5, 0.5)
    """
    n = wins + losses
    term = 1 / (losses + 1)
    total = 0.0
    for i in range(wins, -1, -1):
        total += term
        if total == inf or term < total * 1e-17:
            break
        term *= i / (n + 2 - i)
    return total
