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
from firstspin.models.features import NO_KNOTS
from firstspin.models.predictor import RULE, in_words, members_of
from firstspin.records import MAX_AGE, Registration
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

    `explained`: explanations need no key. `many_models`: other models may be loaded at `/models`. `shadowed`: a second
    bundle may be asked at `/challenger`. `min_age` in years.
    """

    explained: bool
    many_models: bool
    shadowed: bool
    min_age: int


def home(site: Site, bundle: Bundle | None, form: FormPage) -> Reply:
    """The page to try the bundle in service; without one, a page that says so."""
    if bundle is None:
        return site.page("Try it", NO_MODEL, "/")
    popular = bundle.rule.rank(Registration()).genres
    genres = sorted(bundle.manifest.known_genres, key=str.casefold)
    first = set([genre for genre in popular if genre in set(genres)][:FIRST]) or set(genres[:FIRST])
    fields = _fields(bundle, form.min_age)
    content = PAGE.substitute(
        model=escape(bundle.id),
        explained="yes" if form.explained else "no",
        challengers="yes" if form.many_models else "no",
        shadowed="yes" if form.shadowed else "no",
        listens="yes" if bundle.evidence.settings.weight else "no",
        search=_SEARCH if len(genres) > SEARCHED else "",
        genres="".join(_chip(genre, shown=genre in first) for genre in genres),
        fields="".join(fields.values()),
        figures=_figures(bundle.manifest.scorecard),
        examples=_examples(popular, form.min_age, with_age=AGE in fields),
    )
    return site.page("Try it", content, "/", facts=_facts(bundle), modules=MODULES)


def _fields(bundle: Bundle, min_age: int) -> dict[str, str]:
    """The fields of the form by name, without the genres and without questions whose answers change nothing.

    No training user answered those, or too few for a category. An age under the minimum and a country that is a market
    change the response whatever the model knows.
    """
    fields = {}
    for question in bundle.predictor.encoder.state()["questions"]:
        name, knots, values = question["name"], question.get("knots"), set(question.get("values", ()))
        if name == COUNTRY:
            values |= bundle.catalogue.markets.keys()
        if values or (knots and (knots != NO_KNOTS or (name == AGE and min_age))):
            fields[name] = _field(name, sorted(values))
    return fields


_SEARCH: Final = '<input class="find" id="find" type="search" placeholder="Find a genre" aria-label="Find a genre">'


def _chip(genre: str, *, shown: bool) -> str:
    further = "" if shown else " data-further"
    name = escape(genre)
    return (
        f'<label class="chip pick"{further}><input type="checkbox" name="genres" value="{name}">'
        f'<span dir="auto" title="{name}">{name}</span></label>'
    )


def _field(name: str, values: Sequence[str]) -> str:
    """A field of the form: a list of the answers known, or a number where there are none."""
    label = escape(name.replace("_", " ").capitalize())
    if values:
        options = "".join(_option(name, value) for value in values)
        control = f'<select class="field" name="{escape(name)}"><option value="">{NO_ANSWER}</option>{options}</select>'
    else:
        bounds = f'min="0" max="{MAX_AGE}" step="1" inputmode="numeric"' if name == AGE else 'step="any"'
        control = f'<input class="field" type="number" {bounds} name="{escape(name)}" placeholder="{NO_ANSWER}">'
    return f"<label>{label}{control}</label>"


def _option(question: str, value: str) -> str:
    """A category, which the bundle has in lower case: a country as usual, other words with a capital first letter."""
    shown = value[:1].upper() + value[1:]
    if question == COUNTRY:
        value = shown = value.upper() if len(value) == 2 else value.title()
    return f'<option value="{escape(value)}">{escape(shown)}</option>'


def _examples(popular: Sequence[str], min_age: int, *, with_age: bool) -> str:
    """Links to users to start from; the first picks are the genres popular with newcomers."""
    genres = [*popular, *[popular[0]] * 8]
    users: list[tuple[str, int, Sequence[str]]] = [
        ("19, no picks", 19, ()),
        ("34, four picks", 34, genres[0:8:2]),
        (f"52, {genres[3]}", 52, genres[3:4]),
    ]
    if min_age:
        users.append((f"under {min_age}", min_age - 1, genres[:1]))
    links = [(name, [(AGE, str(age)), *_picks(picks)]) for name, age, picks in users if with_age]
    links += [(f"{genre} only", _picks([genre])) for genre in dict.fromkeys(genres[1 : 2 if with_age else 4])]
    return "".join(
        f'<a class="button" href="#{escape(urlencode(answers))}"><bdi>{escape(name)}</bdi></a>'
        for name, answers in links
    )


def _picks(genres: Sequence[str]) -> list[tuple[str, str]]:
    return [(GENRES, genre) for genre in dict.fromkeys(genres)]


def _figures(scorecard: Mapping[str, Any] | None) -> str:
    """hit@3 on held-out users, and its lift over the business rule, with the half-widths of their 95% intervals."""
    match scorecard:
        case {"best": best, "figures": dict(figures), "lifts": dict(lifts)}:
            hit = figures.get(best, {}).get("hit@3")
            lift = lifts.get(best, {}).get(RULE, {}).get("hit@3", {}).get("relative")
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
    made_of = members_of(part.made_of)
    members = [in_words(name) for name in re.findall(r"[0-9.]+ (business rule|\w+)", made_of)]
    several = len(members) > 1
    kind = " and ".join([", ".join(members[:-1]), members[-1]]) if several else made_of or in_words(part.model)
    ends = bundle.manifest.label.get("data_ends")
    try:
        date = f" · data to {datetime.fromisoformat(str(ends)):%-d %b %Y}"
    except ValueError:
        date = ""
    return f"model {escape(bundle.id)} · {escape(kind)}{date}"
