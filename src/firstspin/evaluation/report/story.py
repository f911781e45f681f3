"""The report's story, apart from `learn.py` because it loads the statistics of experiments.

tables, bundle -evaluate-> scorecard -> page
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Final

from firstspin import files, learn, preflight
from firstspin.data.dataset import Dataset, Reading, read_dataset
from firstspin.evaluation import scorecard
from firstspin.evaluation.cross_validation import Protocol
from firstspin.evaluation.learning_curve import read_curve
from firstspin.evaluation.listens_curve import read_listens_curve
from firstspin.evaluation.report import page
from firstspin.evaluation.report.experiment import read_test_result
from firstspin.evaluation.scorecard import Scorecard
from firstspin.models import registry
from firstspin.models.registry import Learning
from firstspin.models.task import Progress, silent, stage
from firstspin.records import InputError
from firstspin.serving import bundle

REPORT_FOLDS: Final = 3
LADDER: Final = ("logistic", "forest", "network", "lightgbm")  # the models that a report compares the bundle's with


def report(
    data: Path,
    path: Path,
    out: Path,
    *,
    written: date,
    name: str = "",
    measured: Path | None = None,
    curve: Path | None = None,
    listens: Path | None = None,
    experiment: Path | None = None,
    reading: Reading = Reading(),
    progress: Progress = silent,
) -> None:
    """Write the study of these tables and of a bundle's model as one HTML page.

    The date `written` and the `name` of the data, by default that of the folder, stand in the header; the same
    arguments give the same bytes.

    `measured` is a scorecard.json of these tables; without one, the bundle's model is evaluated here, in three folds.
    `curve` is a learning curve of these tables, `listens` their curve by early listens, and `experiment` the JSON
    result of an A/B test. Further columns and label rule are the bundle's.

    Raises InputError where bundle, tables, scorecard, curve or result can't be read or don't belong together, or the
    page can't be drawn or written.
    """
    preflight.report(out, data)
    by_users = read_curve(curve) if curve else None
    by_listens = read_listens_curve(listens) if listens else None
    card = scorecard.read_scorecard(measured) if measured else None
    test = read_test_result(experiment) if experiment else None
    loaded = bundle.load(path)
    reading = replace(reading, extra=tuple(loaded.manifest.extra), extra_optional=True, rule=loaded.label_rule())
    if card or by_users or by_listens:  # checked before an evaluation, which takes minutes
        dataset = read_dataset(data, reading)
        _check_tables(dataset, measured, card and card.data.get("fingerprint"))
        _check_tables(dataset, curve, by_users and by_users.fingerprint)
        _check_tables(dataset, listens, by_listens and by_listens.fingerprint)
    if card is None:
        card, dataset = _evaluate(data, loaded.predictor.name, reading, stage(progress, 0.0, 0.9))
    plain = registry.fit("logistic", learn.prepare(dataset, Learning(), dataset.examples))
    name = name or data.resolve().name
    material = page.material(dataset.examples, dataset.rule, card, plain, loaded, name=name, written=written)
    material = replace(material, curve=by_users, listens=by_listens, test=test)
    html = page.page(material, stage(progress, 0.9, 1.0))
    with files.written_beside(out, shared=True) as beside:
        beside.write_text(html, encoding="utf-8")


def _evaluate(data: Path, own: str, reading: Reading, progress: Progress) -> tuple[Scorecard, Dataset]:
    """The bundle's `own` model beside the models of the ladder, and the users they are measured on."""
    names = (*(name for name in LADDER if name != own), own)
    protocol = Protocol(folds=REPORT_FOLDS)
    return learn.evaluate_models(
        data, names, protocol=protocol, reading=reading, about=own, with_ablation=True, progress=progress
    )


def _check_tables(dataset: Dataset, path: Path | None, fingerprint: object) -> None:
    if path and fingerprint != dataset.summary()["fingerprint"]:
        raise InputError(f"{path} is not about the users of these tables: other tables, or another label rule")
