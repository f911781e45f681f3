"""Sections -> one HTML page that needs nothing else: no script, no network, readable in print and on a phone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from firstspin.evaluation.metrics import HEADLINE, RULE
from firstspin.evaluation.report import charts, model_card, people, quality
from firstspin.evaluation.report.parts import (
    BundleFacts,
    HtmlTable,
    Material,
    Note,
    PageSection,
    Picture,
    percent,
    relative,
)
from firstspin.evaluation.report.patterns import answers_and_genres
from firstspin.evaluation.scorecard import Scorecard
from firstspin.models.predictor import Predictor
from firstspin.records import Examples, LabelRule
from firstspin.serving.bundle import Bundle

STYLE = """
:root{--ink:#24292f;--soft:#57606a;--line:#dfe3e8;--model:#0b6e69;--paper:#fff}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 "Helvetica Neue",Helvetica,Arial,sans-serif}
main,header,nav{max-width:780px;margin:0 auto;padding:0 20px}
header{padding-top:40px}
h1{font-size:30px;line-height:1.2;margin:0 0 8px}
h2{font-size:22px;margin:56px 0 4px;padding-top:16px;border-top:3px solid var(--model)}
h3{font-size:17px;line-height:1.35;margin:32px 0 6px}
p{margin:6px 0 12px}
.soft,figcaption{color:var(--soft);font-size:14px}
nav ul{list-style:none;display:flex;flex-wrap:wrap;gap:4px 18px;padding:0;margin:20px 0 0;font-size:14px}
a{color:var(--model)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin:24px 0}
.tile{border:1px solid var(--line);border-radius:8px;padding:12px 14px}
.tile b{display:block;font-size:26px;line-height:1.2;color:var(--model)}
.tile span{font-size:13px;color:var(--soft)}
figure{margin:0 0 8px}
figure h3{margin-top:32px}
figure svg{display:block;max-width:100%;height:auto;margin:10px 0 4px}
.narrow{display:none!important}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:14px;margin:8px 0;min-width:60%}
th,td{text-align:left;padding:5px 14px 5px 0;border-bottom:1px solid var(--line);vertical-align:top}
td{font-variant-numeric:tabular-nums;white-space:nowrap}
#model-card td,#labels td{white-space:normal}
thead th{color:var(--soft);font-weight:normal}
tbody th{font-weight:normal;white-space:nowrap}
footer{margin:56px 0 40px;color:var(--soft);font-size:14px}
@media (max-width:560px){main,header,nav{padding:0 14px}h1{font-size:24px}h2{font-size:19px}
.wide{display:none!important}.narrow{display:block!important}table{font-size:13px}}
@media print{nav{display:none}h2{break-after:avoid}figure,tr{break-inside:avoid}body{font-size:12px}
.wide{display:block!important}.narrow{display:none!important}.scroll{overflow:visible}table{font-size:10px}td,th{padding-right:8px}}
"""

Progress = Callable[[str, float], None]


def material(examples: Examples, rule: LabelRule, card: Scorecard, plain: Predictor, packed: Bundle) -> Material:
    """The material of the page: labelled users, a scorecard, a logistic model of them and a bundle."""
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
    sections = [*people.sections(material), *quality.sections(material), model_card.section(material)]
    body = []
    for i, section in enumerate(sections):
        progress(f"drawing: {section.name}", i / len(sections))
        body.append(_section(section))
    progress("done", 1.0)
    contents = "".join(f'<li><a href="#{section.anchor}">{escape(section.name)}</a></li>' for section in sections)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><meta name="referrer" '
        'content="no-referrer">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>firstspin: what newcomers come to love</title><style>{STYLE}</style></head><body>\n"
        f'{_header(material)}\n<nav aria-label="Contents"><ul>{contents}</ul></nav>\n<main>\n{"".join(body)}'
        f"<footer>Written by {escape(material.manifest.created_by)}. Groups of fewer than ten people are not "
        "shown.</footer>"
        "</main></body></html>\n"
    )


def _header(material: Material) -> str:
    card = material.card
    best = card.figures[card.best][HEADLINE]
    tiles = [
        (
            percent(best.value, 1),
            f"of newcomers find their favourite among the first three ({quality.named(card.best)})",
        )
    ]
    lift = card.lifts.get(card.best, {}).get(RULE)
    if lift:
        tiles.append(
            (
                f"{lift[HEADLINE].relative.value:+.1%}",
                f"over the business rule {_bracket(relative(lift[HEADLINE].relative))}",
            )
        )
    if card.ceiling:
        tiles.append((percent(card.ceiling.share[card.best].value, 1), "of what is possible at all (simulated truth)"))
    tiles.append((f"{card.people:,}", "held-out users"))
    shown = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(text)}</span></div>' for value, text in tiles
    )
    what = "A simulated service with known ground truth. " if card.ceiling else ""
    return (
        "<header><h1>What newcomers come to love, and how well we can tell</h1>"
        f'<p class="soft">{what}People are asked at registration; what they play in their second month says who was '
        "right.</p>"
        f'<div class="tiles">{shown}</div></header>'
    )


def _bracket(text: str) -> str:
    return text[text.find("[") :] if "[" in text else ""


def _section(section: PageSection) -> str:
    parts = "".join(_part(part, f"{section.anchor}-{i}") for i, part in enumerate(section.parts))
    return f'<section id="{section.anchor}"><h2>{escape(section.name)}</h2>\n{parts}</section>\n'


def _part(part: Picture | HtmlTable | Note, name: str) -> str:
    if isinstance(part, Picture):
        return _figure(part, name)
    return _table(part) if isinstance(part, HtmlTable) else f"<p>{escape(part.text)}</p>\n"


def _figure(picture: Picture, name: str) -> str:
    drawn = "".join(
        charts.svg(picture.draw(width), f"{name}-{kind}").replace(
            "<svg", f'<svg class="{kind}" role="img" aria-label="{escape(picture.alt)}"', 1
        )
        for kind, width in (("wide", charts.WIDE), ("narrow", charts.NARROW))
    )
    return f"<figure><h3>{escape(picture.title)}</h3>{drawn}<figcaption>{escape(picture.text)}</figcaption></figure>\n"


def _table(table: HtmlTable) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.header)
    head = f"<thead><tr>{head}</tr></thead>" if any(table.header) else ""
    rows = "".join(_row(row) for row in table.rows)
    body = f'<div class="scroll" tabindex="0"><table>{head}<tbody>{rows}</tbody></table></div>'
    return f"<h3>{escape(table.title)}</h3>{body}\n"


def _row(row: Sequence[str]) -> str:
    first, *rest = row
    return f'<tr><th scope="row">{escape(first)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in rest)}</tr>'
