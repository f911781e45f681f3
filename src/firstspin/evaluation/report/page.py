"""The report: one self-contained HTML page without scripts or network access, for print and phones too."""

from __future__ import annotations

from pathlib import Path

from firstspin.evaluation.metrics import HEADLINE, RULE
from firstspin.evaluation.report import charts, model_card, people, quality
from firstspin.evaluation.report.parts import (
    BundleFacts,
    HtmlTable,
    Material,
    Note,
    Picture,
    percent,
    relative,
)
from firstspin.evaluation.report.patterns import answers_and_genres
from firstspin.evaluation.scorecard import Scorecard
from firstspin.models.predictor import Predictor
from firstspin.models.task import Progress
from firstspin.records import Examples, LabelRule
from firstspin.serving.bundle import Bundle


def material(examples: Examples, rule: LabelRule, card: Scorecard, plain: Predictor, packed: Bundle) -> Material:
    """The input of the page: labelled users, a scorecard, a logistic model of the users, and a bundle."""
    manifest, predictor = packed.manifest, packed.predictor
    about = BundleFacts(
        bundle=packed.id,
        model=predictor.name,
        made_of=predictor.made_of,
        created_by=manifest.created_by,
        genres=len(predictor.genres),
        asks=tuple(dict.fromkeys(predictor.encoder.questions)),
        data=manifest.data,
    )
    return Material(examples, rule, card, answers_and_genres(plain, examples), about)


def page(material: Material, progress: Progress) -> str:
    """The whole report as HTML."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    sections = [*people.sections(material), *quality.sections(material), model_card.section(material)]
    drawn = []
    for i, section in enumerate(sections):
        progress(f"drawing: {section.name}", i / len(sections))
        parts = [_drawn(part, f"{section.anchor}-{j}") for j, part in enumerate(section.parts)]
        drawn.append({"anchor": section.anchor, "name": section.name, "parts": parts})
    progress("done", 1.0)
    return environment.get_template("page.html.jinja").render(
        sections=drawn,
        tiles=_tiles(material),
        simulated=material.card.ceiling is not None,
        created_by=material.manifest.created_by,
    )


def _tiles(material: Material) -> list[tuple[str, str]]:
    """The headline figures, each with its caption."""
    card = material.card
    best = card.figures[card.best][HEADLINE]
    caption = f"hit@3 of {quality.named(card.best)}: users whose top genre is among the first three"
    tiles = [(percent(best.value, 1), caption)]
    if lift := card.lifts.get(card.best, {}).get(RULE):
        over = lift[HEADLINE].relative
        tiles.append((f"{over.value:+.1%}", f"over the business rule {_bracket(relative(over))}"))
    if card.ceiling:
        tiles.append(
            (percent(card.ceiling.share[card.best].value, 1), "of the Bayes-optimal hit@3 (simulated ground truth)")
        )
    return [*tiles, (f"{card.people:,}", "held-out users")]


def _bracket(text: str) -> str:
    return text[text.find("[") :] if "[" in text else ""


def _drawn(part: Picture | HtmlTable | Note, name: str) -> Picture | HtmlTable | Note | dict[str, object]:
    """The part as input of the template: pictures as SVG without the start of the first tag, wide and narrow."""
    if not isinstance(part, Picture):
        return part
    drawings = [
        (kind, charts.svg(part.draw(width), f"{name}-{kind}").removeprefix("<svg"))
        for kind, width in (("wide", charts.WIDE), ("narrow", charts.NARROW))
    ]
    return {"title": part.title, "text": part.text, "alt": part.alt, "drawings": drawings}
