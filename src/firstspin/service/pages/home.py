"""The page `/`: the registration form of the bundle in service, to try it. Made once per bundle; no answer is in it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from typing import Any, Final
from urllib.parse import urlencode

from firstspin.data.schema import AGE, COUNTRY, GENRES
from firstspin.records import MAX_AGE, MAX_TEXT, Registration
from firstspin.service.http.messages import Reply
from firstspin.service.pages.site import Site, template
from firstspin.serving.bundle import Bundle

PAGE: Final = template("try.html")
MODULES: Final = ("try.js",)
SEARCHED: Final = 40
"""With more genres, the form has a search field."""

FIRST: Final = 10
"""Number of genres, the most popular ones, that are shown before the others are asked for."""

NO_ANSWER: Final = "rather not say"
NO_MODEL: Final = (
    '<section class="card notice"><h1>No model yet</h1><p>This service has no bundle in service. Reload this page in a '
    "moment.</p></section>"
)


@dataclass(frozen=True, slots=True)
class FormPage:
    """What the page depends on beside the bundle.

    `explained`: explanations need no key. `many_models`: other models may be loaded at `/models`. `min_age` in years.
    """

    explained: bool
    many_models: bool
    min_age: int


def home(site: Site, bundle: Bundle | None, form: FormPage) -> Reply:
    """The page to try the bundle in service; without one, a page that says so."""
    if bundle is None:
        return site.page("Try it", NO_MODEL, "/")
    popular = bundle.rule.rank(Registration()).genres
    genres = sorted(bundle.manifest.known_genres, key=str.casefold)
    first = set([genre for genre in popular if genre in set(genres)][:FIRST]) or set(genres[:FIRST])
    content = PAGE.substitute(
        model=escape(bundle.id),
        explained="yes" if form.explained else "no",
        challengers="yes" if form.many_models else "no",
        search=_SEARCH if len(genres) > SEARCHED else "",
        genres="".join(_chip(genre, shown=genre in first) for genre in genres),
        fields="".join(_field(question) for question in _questions(bundle) if question["name"] != GENRES),
        figures=_figures(bundle.manifest.scorecard),
        examples=_examples(popular, form.min_age),
    )
    return site.page("Try it", content, "/", facts=_facts(bundle), modules=MODULES)


def _questions(bundle: Bundle) -> Sequence[Mapping[str, Any]]:
    questions: Sequence[Mapping[str, Any]] = bundle.predictor.encoder.state()["questions"]
    return questions


_SEARCH: Final = '<input class="find" id="find" type="search" placeholder="Find a genre" aria-label="Find a genre">'


def _chip(genre: str, *, shown: bool) -> str:
    further = "" if shown else " data-further"
    name = escape(genre)
    return (
        f'<label class="chip pick"{further}><input type="checkbox" name="genres" value="{name}">'
        f'<span dir="auto" title="{name}">{name}</span></label>'
    )


def _field(question: Mapping[str, Any]) -> str:
    """A field of the form: a list where the model knows the answers, else a number or a text."""
    name = str(question["name"])
    label = escape(name.replace("_", " ").capitalize())
    if "knots" in question:
        bounds = f'min="0" max="{MAX_AGE}" step="1" inputmode="numeric"' if name == AGE else 'step="any"'
        control = f'<input class="field" type="number" {bounds} name="{escape(name)}" placeholder="{NO_ANSWER}">'
    elif question["values"]:
        options = "".join(_option(name, value) for value in question["values"])
        control = f'<select class="field" name="{escape(name)}"><option value="">{NO_ANSWER}</option>{options}</select>'
    else:
        control = f'<input class="field" name="{escape(name)}" maxlength="{MAX_TEXT}" placeholder="{NO_ANSWER}">'
    return f"<label>{label}{control}</label>"


def _option(question: str, value: str) -> str:
    """A category, which the model knows in lower case: a country's code or name is written as usual."""
    if question == COUNTRY:
        value = value.upper() if len(value) == 2 else value.title()
    return f'<option value="{escape(value)}">{escape(value)}</option>'


def _examples(popular: Sequence[str], min_age: int) -> str:
    """Links to users to start from; the first picks are the genres popular with newcomers."""
    genres = [*popular, *[popular[0]] * 8]
    users: list[tuple[str, list[tuple[str, object]]]] = [
        ("19, no picks", [(AGE, 19)]),
        ("34, four picks", [(AGE, 34), *((GENRES, genre) for genre in dict.fromkeys(genres[0:8:2]))]),
        (f"52, {genres[3]}", [(AGE, 52), (GENRES, genres[3])]),
        (f"{genres[1]} only", [(GENRES, genres[1])]),
    ]
    if min_age:
        users.append((f"under {min_age}", [(AGE, min_age - 1), (GENRES, genres[0])]))
    return "".join(
        f'<a class="button" href="#{escape(urlencode(answers))}"><bdi>{escape(name)}</bdi></a>'
        for name, answers in users
    )


def _figures(scorecard: Mapping[str, Any] | None) -> str:
    """hit@3 on held-out users, and its lift over the business rule, with the half-widths of their 95% intervals."""
    match scorecard:
        case {"best": best, "figures": dict(figures), "lifts": dict(lifts)}:
            hit = figures.get(best, {}).get("hit@3")
            lift = lifts.get(best, {}).get("popularity", {}).get("hit@3", {}).get("relative")
            return _figure(hit, "favourite in the top three", sign="") + _figure(
                lift, "over the business rule", sign="+"
            )
    return ""


def _figure(figure: Mapping[str, float | None] | None, label: str, *, sign: str) -> str:
    match figure:
        case {"value": float(value), "low": float(low), "high": float(high)}:
            shown = f"{value:{sign}.1%}".replace("-", "−")
            width = f"± {50 * (high - low):.1f}"
            return f'<div class="figure"><strong>{shown}</strong><span>{width}</span><p>{label}</p></div>'
    return ""


def _facts(bundle: Bundle) -> str:
    """The model in the bar: its id, its kind, and the end of its data."""
    part = bundle.manifest.predictor
    members = re.findall(r"[0-9.]+ (\w+)", part.made_of)
    kind = " and ".join([", ".join(members[:-1]), members[-1]]) if len(members) > 1 else part.made_of or part.model
    ends = bundle.manifest.label.get("data_ends")
    try:
        date = f" · data to {datetime.fromisoformat(str(ends)):%-d %b %Y}"
    except ValueError:
        date = ""
    return f"model {escape(bundle.id)} · {escape(kind)}{date}"
