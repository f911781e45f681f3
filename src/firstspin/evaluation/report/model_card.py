"""The model card: model, training data, intended use and limits."""

from __future__ import annotations

from firstspin.evaluation.report.parts import HtmlTable, Material, Note, PageSection
from firstspin.models.predictor import in_words
from firstspin.records import is_answered

INTENDED = (
    "Ranks genres, stations and carousels for users who have just registered, from the answers on their registration "
    "form. Not intended for users with a listening history, nor for any decision about a user other than what to show "
    "first."
)
LIMITS = (
    "The model uses no listening history. It reproduces what earlier users played, and so what they were offered. "
    "Labels exist only for users who listened in their label window: predictions for other users assume that they are "
    "like those. Offline metrics do not prove an online effect: that takes an A/B test. Users below the minimum age "
    "get the business rule on their picks, without age or gender."
)


def section(material: Material) -> PageSection:
    """The model card: a table, the intended use and the limits."""
    manifest, rule, data = material.manifest, material.rule, material.manifest.data
    rows = (
        ("Bundle", manifest.bundle),
        ("Model", f"{manifest.model} ({manifest.made_of})" if manifest.made_of else in_words(manifest.model)),
        ("Created by", manifest.created_by),
        *_questions(material),
        ("Output", f"a ranking of {manifest.genres} genres with probabilities"),
        (
            "Training data",
            f"{data.get('labelled', 0):,} users who registered from {_day(data, 'from')} to {_day(data, 'to')}",
        ),
        ("Label", f"top genre in days {rule.gap_days} to {rule.gap_days + rule.window_days} after registration"),
        ("Activity rule", f"at least {rule.min_seconds:,.0f} seconds in those days"),
        ("Evaluation", _evaluation(material)),
        ("Data", "simulated users with known ground truth" if material.card.ceiling else "tables of a service"),
        ("Data fingerprint", str(data.get("fingerprint", ""))[:16]),
    )
    return PageSection(
        "model-card",
        "Model card",
        (
            HtmlTable("The model in the bundle", ("", ""), rows),
            Note(f"Intended use. {INTENDED}"),
            Note(f"Limits. {LIMITS}"),
        ),
    )


def _evaluation(material: Material) -> str:
    """The protocol; and the model of the figures, where a scorecard of another model was given."""
    card, facts = material.card, material.manifest
    text = f"{card.protocol.get('protocol')}, {card.people:,} users"
    shipped = card.best in (facts.model, f"bundle {facts.bundle}")
    return text if shipped else f"{text}; of {in_words(card.best)}, not of this model"


def _questions(material: Material) -> list[tuple[str, str]]:
    """The questions with the share of users who answered, apart from those that nobody answered."""
    registrations = material.examples.registrations
    answered = {name: sum(is_answered(one, name) for one in registrations) for name in material.manifest.asks}
    used = [f"{name} ({n / len(registrations):.0%} answered)" for name, n in answered.items() if n]
    silent = [name for name, n in answered.items() if not n]
    rows = [("Input", ", ".join(used) or "nothing: no user answered a question")]
    return [*rows, ("Never answered in these data", ", ".join(silent))] if silent else rows


def _day(data: dict[str, object], key: str) -> str:
    return str(data.get(key, ""))[:10]
