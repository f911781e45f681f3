"""The answering story in the terminal and in batch. READ FIRST, with `learn.py` and `experiment/run.py`.

    bundle -rank(registration)-> ranking -fill-> recommendation

The service and the Lambda answer by the same policy (`serving/policy.py`) and give the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import msgspec

from firstspin import preflight
from firstspin.data import ingest, labelling, mismatches, parsing
from firstspin.data.further_fields import with_further_fields
from firstspin.data.schema import NUMBER
from firstspin.files import workspace
from firstspin.models.task import Progress, silent
from firstspin.records import InputError, Recommendation, Registration
from firstspin.serving import batch, bundle, explanations, policy, responses, score_stores


def recommend(path: Path, registration: Registration, extra: Mapping[str, str] | None = None) -> Recommendation:
    """The answer of a bundle for one registration; `extra` holds further answers as text.

    Raises InputError for a further field that the bundle does not have, and for a value that can't be read.
    """
    loaded = bundle.load(path)
    registration = _with_extra(registration, extra or {}, loaded.manifest.extra)
    decision = policy.decide(registration, None, loaded, None, policy.DEFAULTS)
    return responses.recommendation(registration, decision, loaded)


def explain(path: Path, registration: Registration, extra: Mapping[str, str] | None = None) -> explanations.Explanation:
    """How much each answer of a registration moved each genre shown; `extra` as in `recommend`.

    Raises InputError as `recommend`, and where the model fails, so that the business rule answers.
    """
    loaded = bundle.load(path)
    return explanations.explain(_with_extra(registration, extra or {}, loaded.manifest.extra), loaded)


def score(
    path: Path,
    registrations: Path,
    out: str,
    top: int | None = None,
    *,
    now: datetime,
    min_age: int | None = None,
    skip_bad_rows: bool = False,
    progress: Progress = silent,
) -> tuple[int, dict[str, int]]:
    """Answer every registration of a file, in order; the number of rows written, and the rows skipped by reason.

    `out` is a .csv or .parquet file, sqlite:PATH or dynamodb:TABLE; a store keeps the answers under a version made of
    the bundle and `now`. The rule answers registrations under `min_age` (None: the service's default).
    """
    preflight.scores(out, registrations)
    settings = policy.PolicySettings(policy.MIN_AGE if min_age is None else min_age)
    loaded = bundle.load(path)
    sink = _sink(out, f"{loaded.id}.{now:%Y%m%dT%H%M%S%f}")
    extra = loaded.manifest.extra
    with workspace("score") as folder:
        received = ingest.read_registrations(registrations, workspace=folder, extra=extra, skip_bad_rows=skip_bad_rows)
        users = labelling.read_people(received.connection, tuple(extra))
        rows = max(received.rows, 1)
        written = batch.write(sink, users, loaded, settings, top, lambda n: progress("scored", n / rows))
        unknown, *_ = mismatches.unknown_picks(received.connection, loaded.manifest.known_genres)
    return written, received.ignored | ({"picks of no genre that the bundle knows": unknown} if unknown else {})


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


def _sink(out: str, version: str) -> batch.AnswerSink:
    scheme, _, name = out.partition(":")
    if scheme in score_stores.SCHEMES and name:
        store = score_stores.open_scores(out)
        return lambda batches: store.write(version, batches)
    return batch.file_sink(Path(out))
