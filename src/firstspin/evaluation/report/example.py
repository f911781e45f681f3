"""One example: the most common answers, the ranking of the bundle for them, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from statistics import median_low

from firstspin.evaluation.cohorts import MIN_USERS
from firstspin.evaluation.report.findings import leaders, listed
from firstspin.evaluation.report.parts import ExampleUser, HtmlTable, Note, PageSection, percent, unsigned_zero
from firstspin.records import Examples, Registration, answered_by, is_answered
from firstspin.serving.bundle import Bundle
from firstspin.serving.explanations import ModelFailed, explain

PICKS = 2


def example_user(examples: Examples, packed: Bundle) -> ExampleUser:
    """The bundle's answer for a typical registration; without an explanation where the model fails."""
    registration = typical(examples)
    try:
        explanation = explain(registration, packed)
    except ModelFailed:
        explanation = None
    rule = packed.rule.rank(Registration(genres=registration.genres))
    return ExampleUser(registration, explanation, rule.genres)


def typical(examples: Examples) -> Registration:
    """The median age, and the most common gender, country and picks: no user's own registration is shown.

    An answer of fewer than `MIN_USERS` users is left out.
    """
    registrations = examples.registrations
    given = [one.age for one in registrations if one.age is not None]
    return Registration(
        age=median_low(given) if len(given) >= MIN_USERS else None,
        gender=next(iter(_common(one.gender for one in registrations)), None),
        country=next(iter(_common(one.country for one in registrations)), None),
        genres=tuple(_common(pick for one in registrations for pick in dict.fromkeys(one.genres))[:PICKS]),
    )


def section(example: ExampleUser) -> PageSection:
    """The answers, and a table of the genres with the effect of each answer."""
    answers = ", ".join(_answered(example.registration)) or "no answers"
    name = "One example user"
    if example.explanation is None or not example.explanation.genres:
        return PageSection("example", name, (Note(f"{answers}: the model gives no answer to explain."),))
    reasons = example.explanation.genres
    moved = list(reasons[0].moved)
    header = ("genre", "probability", "without answers", *(f"effect of {name}" for name in moved), "rank by the rule")
    ranks = {genre: f"{rank}" for rank, genre in enumerate(example.of_rule, 1)}
    rows = tuple(
        (
            f"{i}. {reason.genre}",
            percent(reason.probability, 1),
            percent(reason.without_answers, 1),
            *(unsigned_zero(f"{reason.moved[name] * 100:+.1f}") for name in moved),
            ranks.get(reason.genre, "–"),
        )
        for i, reason in enumerate(reasons, 1)
    )
    first = reasons[0]
    strongest = leaders({name: abs(value) * 100 for name, value in first.moved.items()}, 1) if moved else []
    why = f" The answer that counts most for {first.genre}: {listed(strongest)}." if strongest else ""
    text = (
        "A made-up registration of the most common answers, not a user of the tables. The effects are Shapley values "
        "in percentage points: they add up from the probability without answers to the probability. They explain the "
        f"model, not the listener. A{answered_by(example.explanation.source)[1:]}.{why}"
    )
    title = f"New user, {answers}: {first.genre} is ranked first, with {percent(first.probability)}"
    return PageSection("example", name, (HtmlTable(title, header, rows, text),))


def _common(given: Iterable[Hashable | None]) -> list[str]:
    """The answers of at least MIN_USERS users, the most common first, equal ones in alphabetical order."""
    counts = Counter(str(one) for one in given if one is not None)
    return sorted((one for one, n in counts.items() if n >= MIN_USERS), key=lambda one: (-counts[one], one))


def _answered(registration: Registration) -> list[str]:
    fields = {"age": f"age {registration.age}", "gender": registration.gender, "country": registration.country}
    answers = [str(words) for name, words in fields.items() if is_answered(registration, name)]
    return [*answers, f"picked {' and '.join(registration.genres)}"] if registration.genres else answers
