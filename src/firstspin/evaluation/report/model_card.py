"""The model card: model, training data, intended use and limits."""

from __future__ import annotations

from firstspin.evaluation.report.parts import HtmlTable, Material, Note, PageSection

INTENDED = (
    "To order genres, stations and carousels for people who have just registered, from what they told at "
    "registration. Not meant "
    "for people who have been heard listening, nor to decide anything about a person but what they are shown first."
)
LIMITS = (
    "It knows nobody's listening. It repeats what earlier newcomers came to play, and with it what they were offered "
    "then. Labels are of "
    "people who stayed and listened in their second month: of others it says what they'd have played as if they were "
    "like those who stayed. "
    "Offline hits are no proof of online gain: that takes an A/B test. Below the least age the rule on the picks "
    "answers, without age or gender."
)


def section(material: Material) -> PageSection:
    """The card as a table, with intended use and limits in words."""
    manifest, rule, data = material.manifest, material.rule, material.manifest.data
    rows = (
        ("Bundle", manifest.bundle),
        ("Model", f"{manifest.model} ({manifest.made_of})" if manifest.made_of else manifest.model),
        ("Packed by", manifest.created_by),
        ("Asks for", ", ".join(manifest.asks) or "nothing"),
        ("Answers", f"the order and probabilities of {manifest.genres} genres"),
        (
            "Learned from",
            f"{data.get('labelled', 0):,} people who registered from {_day(data, 'from')} to {_day(data, 'to')}",
        ),
        ("Label", f"most listening in days {rule.gap_days} to {rule.gap_days + rule.window_days} after registration"),
        ("Activity rule", f"at least {rule.min_seconds:,.0f} seconds in those days"),
        ("Evaluated by", f"{material.card.protocol.get('protocol')}, {material.card.people:,} people"),
        ("Data", "simulated users with known ground truth" if material.card.ceiling else "as given"),
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


def _day(data: dict[str, object], key: str) -> str:
    return str(data.get(key, ""))[:10]
