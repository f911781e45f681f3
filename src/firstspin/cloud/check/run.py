"""The whole check: which container is started when, and which facts each start answers."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from firstspin.cloud.check import batch, hosting, lifecycle, multimodel, training
from firstspin.cloud.check.client import Client, NoAnswer
from firstspin.cloud.check.facts import BATCH, HOSTING, MULTIMODEL, TRAINING
from firstspin.cloud.check.hosting import Server
from firstspin.cloud.check.lifecycle import Start
from firstspin.cloud.check.multimodel import Market
from firstspin.cloud.check.payloads import Payloads
from firstspin.cloud.check.player import Target
from firstspin.cloud.check.report import Finding, Report, assemble, missed, untestable
from firstspin.records import InputError

Progress = Callable[[str], None]
Found = Iterator[tuple[str, Finding]]
Subject = TypeVar("Subject")

RUNS_ALREADY = "the server runs already; give a command to see this"


def check(target: Target, *, payloads: Payloads, progress: Progress | None = None) -> Report:
    """Plays SageMaker against the target and finds out about every fact that can be tested without AWS.

    `payloads` are bodies the container must answer, one a content type; `progress` is told, a line at a time, what is
    going on. Raises InputError when the command can't be started or the address can't be used. What the container
    does wrong is in the report, never an exception.
    """
    findings = {}
    say = progress or (lambda _: None)
    with tempfile.TemporaryDirectory(prefix="sagemaker-check-") as folder:
        stages = _served(target, payloads) if target.url else _played(target, payloads, Path(folder), say)
        for number, finding in stages:
            findings[number] = finding
            say(f"{number} {finding.outcome}" + (f": {finding.detail}" if finding.detail else ""))
    return assemble(target.subject, findings)


def _served(target: Target, payloads: Payloads) -> Found:
    numbers = [fact.number for fact in (*HOSTING, *TRAINING, *BATCH, *MULTIMODEL)]
    yield from every(numbers, untestable(RUNS_ALREADY))
    yield from each(hosting.CHECKS, Server(_client(target), payloads))


def _played(target: Target, payloads: Payloads, folder: Path, progress: Progress) -> Found:
    yield from _training(target, folder, progress)
    made = folder / "train" / "ml" / "model"
    model = target.model or (made if made.is_dir() and any(made.iterdir()) else None)
    yield from _hosting(target, payloads, folder, model, progress)
    progress("starting `serve` as batch transform does")
    with lifecycle.serving(target, folder / "batch", model, batch.VARIABLES) as start:
        yield from _asking(batch.CHECKS, start, lambda client: Server(client, payloads))
    yield from _multimodel(target, payloads, folder, model, progress)


def _training(target: Target, folder: Path, progress: Progress) -> Found:
    if target.training is None:
        yield from every([fact.number for fact in TRAINING], untestable("no training data was given"))
        return
    progress("running `train`")
    whole = training.run(target, folder / "train", target.training)
    yield from each(training.WHOLE_CHECKS, whole)
    yield "19.6", untestable("it left none" if target.model is None else "another model was given to serve")
    if whole.status != 0:
        others = (*training.WITHOUT_DATA_CHECKS, *training.STOPPED_CHECKS)
        yield from every(others, untestable("no job succeeded to compare with"))
        return
    progress("running `train` on an empty channel")
    yield from each(training.WITHOUT_DATA_CHECKS, training.run(target, folder / "train-without-data", None))
    progress("running `train`, to stop it half way")
    stopped = training.run(target, folder / "train-stopped", target.training, stop_after=whole.seconds / 2)
    yield from each(training.STOPPED_CHECKS, stopped)


def _hosting(target: Target, payloads: Payloads, folder: Path, model: Path | None, progress: Progress) -> Found:
    progress("starting `serve`")
    with lifecycle.serving(target, folder / "serve", model, lifecycle.variables()) as start:
        yield from each(lifecycle.START_CHECKS, start)
        if model is not None and target.model is None:
            yield "19.6", lifecycle.starts(start)
        own_port = lifecycle.own_port_from(start)
        if start.client is None:
            unready = untestable("it never became ready")
            yield from every((*hosting.CHECKS, *lifecycle.STOP_CHECKS), unready)
        else:
            yield from each(hosting.CHECKS, Server(start.client, payloads))
            progress("stopping it while requests are under way")
            yield from _stopping(start, start.client, payloads)
    progress("starting `serve` without naming a port")
    yield "5.1", own_port or lifecycle.listens_on_its_own_port(target, folder / "serve-own-port", model)


def _stopping(start: Start, client: Client, payloads: Payloads) -> Found:
    try:
        stop = lifecycle.stop(start, client, payloads.first)
    except NoAnswer as error:
        yield from every(lifecycle.STOP_CHECKS, missed(f"it took no request before SIGTERM: {error}"))
        return
    yield from each(lifecycle.STOP_CHECKS, stop)


def _multimodel(target: Target, payloads: Payloads, folder: Path, model: Path | None, progress: Progress) -> Found:
    if model is None:
        yield from every(multimodel.CHECKS, untestable("no model was given"))
        return
    progress("starting `serve` as a multi-model endpoint does")
    with lifecycle.serving(target, folder / "multimodel", None, multimodel.VARIABLES) as start:
        url = multimodel.unpacked(start.place, model)
        yield from _asking(multimodel.CHECKS, start, lambda client: Market(client, payloads.first, url))


def _asking(
    checks: Mapping[str, Callable[[Subject], Finding]], start: Start, subject: Callable[[Client], Subject]
) -> Found:
    """The checks of a start whose readiness is itself the first of them."""
    if start.client is None:
        yield from every(checks, missed(start.failure))
    else:
        yield from each(checks, subject(start.client))


def each(checks: Mapping[str, Callable[[Subject], Finding]], subject: Subject) -> Found:
    for number, judge in checks.items():
        try:
            yield number, judge(subject)
        except NoAnswer as error:
            yield number, missed(f"no answer: {error}")


def every(numbers: Iterable[str], finding: Finding) -> Found:
    yield from ((number, finding) for number in numbers)


def _client(target: Target) -> Client:
    parts = urlsplit(target.url)
    if parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/"):
        raise InputError(f"{target.url}: the check wants an address like http://127.0.0.1:8080")
    return Client(parts.hostname, parts.port or 80, target.limits)
