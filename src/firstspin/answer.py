"""The answering story. READ FIRST, with `learn.py` and `experiment/run.py`; `score.py` is the same for a whole file.

    bundle -rank(registration)-> ranking -fill-> recommendation

The service and the Lambda answer by the same policy (`serving/policy.py`) and give the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from firstspin.data import parsing
from firstspin.data.further_fields import with_further_fields
from firstspin.data.schema import NUMBER
from firstspin.records import InputError, Recommendation, Registration
from firstspin.serving import bundle, explanations, policy
from firstspin.serving.bundle import Bundle
from firstspin.serving.content import recommendation


def recommend(
    path: Path | Bundle, registration: Registration, extra: Mapping[str, str] | None = None
) -> Recommendation:
    """The answer of a bundle, loaded or in a folder, for one registration; `extra` holds further answers as text.

    Raises InputError for a further field that the bundle does not have, and for a value that can't be read.
    """
    loaded = bundle.load(path) if isinstance(path, Path) else path
    registration = _with_extra(registration, extra or {}, loaded.manifest.extra)
    decision = policy.decide(registration, None, loaded, None, policy.DEFAULTS)
    return recommendation(registration, decision, loaded)


def explain(
    path: Path | Bundle, registration: Registration, extra: Mapping[str, str] | None = None
) -> explanations.Explanation:
    """How much each answer of a registration moved each genre shown; `extra` as in `recommend`.

    Raises InputError as `recommend`, and where the model fails, so that the business rule answers.
    """
    loaded = bundle.load(path) if isinstance(path, Path) else path
    return explanations.explain(_with_extra(registration, extra or {}, loaded.manifest.extra), loaded)


def _with_extra(registration: Registration, extra: Mapping[str, str], kinds: Mapping[str, str]) -> Registration:
    """The registration with further answers, each converted to the kind it had in training."""
    values: dict[str, object] = {}
    for name, text in extra.items():
        if name not in kinds:
            raise InputError(f"this bundle does not ask {name!r}; it asks {', '.join(kinds) or 'no further field'}")
        try:
            values[name] = parsing.number(text) if kinds[name] == NUMBER else text.strip()
        except parsing.Misspelt as problem:
            raise InputError(f"{name} {text!r} {problem}") from None
    try:
        return msgspec.convert(msgspec.to_builtins(registration) | values, with_further_fields(tuple(kinds), kinds))
    except msgspec.ValidationError as problem:
        raise InputError(f"this is not a registration: {problem}") from None
