"""The report: one self-contained HTML page without scripts or network access, for print and phones too.

Its only style sheet is allowed by its hash, and no element has a style of its own. Its `main` and that style sheet are
what a service shows in its own page.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from datetime import date
from pathlib import Path
from typing import Final

import numpy as np

from firstspin.evaluation.metrics import HEADLINE
from firstspin.evaluation.report import (
    charts,
    conclusion,
    curve,
    example,
    experiment,
    listens,
    model_card,
    people,
    quality,
)
from firstspin.evaluation.report.example import example_user
from firstspin.evaluation.report.parts import (
    BundleFacts,
    HeatMap,
    Material,
    Part,
    Picture,
    percent,
    relative,
    unsigned_zero,
)
from firstspin.evaluation.report.patterns import answers_and_genres
from firstspin.evaluation.scorecard import Scorecard
from firstspin.experiment.verdict import true_minus
from firstspin.models.predictor import RULE, Predictor
from firstspin.models.task import Progress
from firstspin.records import Examples, LabelRule
from firstspin.serving.bundle import Bundle

MAX_COLOUR: Final = 65
"""Strength in percent of the strongest colour of a cell: its text has a contrast of 4.5 in light and dark."""


def material(
    examples: Examples,
    rule: LabelRule,
    card: Scorecard,
    plain: Predictor,
    packed: Bundle,
    *,
    name: str,
    written: date,
) -> Material:
    """The input of the page: labelled users, a scorecard, a logistic model of the users, and a bundle.

    `name` of the data and the date `written` stand in the header: the same arguments give the same page, bit for bit.
    """
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
    return Material(
        examples,
        rule,
        card,
        answers_and_genres(plain, examples),
        about,
        name,
        written,
        example_user(examples, packed),
    )


def page(material: Material, progress: Progress) -> str:
    """The whole report as HTML."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda shown: true_minus(shown) if type(shown) is str else shown,  # and no Markup
    )
    sections = [
        *([experiment.section(material.test)] if material.test else []),
        *([example.section(material.example)] if material.example else []),
        *quality.sections(material),
        *([curve.section(material.curve)] if material.curve else []),
        *([listens.section(material.listens)] if material.listens else []),
        *people.sections(material),
        model_card.section(material),
    ]
    drawn = []
    for i, section in enumerate(sections):
        progress(f"drawing: {section.name}", i / len(sections))
        parts = [_drawn(part, f"{section.anchor}-{j}") for j, part in enumerate(section.parts)]
        drawn.append({"anchor": section.anchor, "name": section.name, "parts": parts})
    progress("done", 1.0)
    style = environment.get_template("page.css.jinja").render(strongest=MAX_COLOUR)
    return environment.get_template("page.html.jinja").render(
        style=style,
        hashed=style_hash(style),
        bundle=material.manifest.bundle,
        sections=drawn,
        tiles=_tiles(material),
        conclusion=conclusion.sentences(material),
        simulated=material.card.ceiling is not None,
        created_by=material.manifest.created_by,
        name=material.name,
        written=f"{material.written:%-d %B %Y}",
    )


def style_hash(style: str) -> str:
    """The source of a style sheet for a content security policy (CSP level 3, 2.3.1)."""
    return f"sha256-{b64encode(hashlib.sha256(style.encode()).digest()).decode()}"


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
    return [*tiles, (f"{card.people:,}", quality.measured_users(card).partition(" ")[2])]


def _bracket(text: str) -> str:
    return text[text.find("[") :] if "[" in text else ""


def _drawn(part: Part, name: str) -> Part | dict[str, object]:
    """The part as input of the template: pictures as SVG without the start of the first tag, wide and narrow."""
    if isinstance(part, HeatMap):
        return _coloured(part)
    if not isinstance(part, Picture):
        return part
    drawings = [
        (kind, charts.svg(part.draw(width), f"{name}-{kind}").removeprefix("<svg"))
        for kind, width in (("wide", charts.WIDE), ("narrow", charts.NARROW))
    ]
    return {"title": part.title, "text": part.text, "alt": part.alt, "drawings": drawings}


def _coloured(part: HeatMap) -> dict[str, object]:
    """The cells of a heat map: text, short text without a percent sign, colour and its strength in percent."""
    values, grid = part.grid.values, part.grid
    max_value = float(np.abs(values).max(initial=0.0)) or 1.0
    is_signed = "+" in part.form

    def cell(i: int, j: int) -> dict[str, object]:
        value = float(values[i, j])
        has_colour = part.coloured is None or bool(part.coloured[i, j])
        strength = round(MAX_COLOUR * abs(value) / max_value) if has_colour else 0
        kind = "p" if not is_signed else "u" if value > 0 else "d"
        text = unsigned_zero(part.form.format(value))
        return {
            "text": text,
            "short": text.removesuffix("%"),
            "strength": strength,
            "kind": kind,
        }

    rows = [
        (row, f"{people:,}", [cell(i, j) for j in range(len(grid.columns))])
        for i, (row, people) in enumerate(zip(grid.rows, grid.people, strict=True))
    ]
    across = f"{part.across} (in {'percent' if part.form.endswith('%}') else 'log-odds'})"
    return {
        "title": part.title,
        "text": part.text,
        "down": part.down,
        "across": across,
        "columns": grid.columns,
        "cells": rows,
    }
