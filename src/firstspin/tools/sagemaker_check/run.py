"""The check: the starts of the container, and the facts that each start tests."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TypeVar

from firstspin.tools.sagemaker_check import batch, hosting, image, lifecycle, multimodel, player, training
from firstspin.tools.sagemaker_check.client import ContainerClient, Unanswered, http_address
from firstspin.tools.sagemaker_check.facts import FACTS, TRAINING
from firstspin.tools.sagemaker_check.hosting import Server
from firstspin.tools.sagemaker_check.lifecycle import Known, Start
from firstspin.tools.sagemaker_check.multimodel import OneOfMany
from firstspin.tools.sagemaker_check.payloads import Payloads
from firstspin.tools.sagemaker_check.player import Target
from firstspin.tools.sagemaker_check.report import Finding, Report, assemble, missed, passed, untestable

Progress = Callable[[str], None]
Findings = Iterator[tuple[str, Finding]]
Subject = TypeVar("Subject")

RUNS_ALREADY = "the server runs already; give a command to see this"
NEVER_READY = "it never became ready"


def check(target: Target, *, payloads: Payloads, progress: Progress | None = None) -> Report:
    """Simulate SageMaker against the target and test every fact that does not need AWS.

    `payloads` are valid request bodies, one per content type; `progress` receives a line per step. Raises InputError
    where the command can't be started or the URL is invalid. Errors of the container are in the report, never an
    exception.
    """
    report_progress = progress or (lambda _: None)
    otherwise = untestable(RUNS_ALREADY if target.url else NEVER_READY)
    findings = dict(every((fact.number for fact in FACTS), otherwise))
    inspected = _inspected(target)
    with _folder() as folder:
        stages = _served(target, payloads) if target.url else _played(target, payloads, folder, report_progress)
        for number, finding in chain(stages, inspected):
            findings[number] = finding
            report_progress(f"{number} {finding.outcome}" + (f": {finding.detail}" if finding.detail else ""))
    return assemble(target.subject, findings, left=str(folder) if folder.exists() else "")


@contextmanager
def _folder() -> Iterator[Path]:
    """A temporary folder, removed on exit as far as possible: files of an image's root user may remain."""
    made = tempfile.TemporaryDirectory(prefix="sagemaker-check-", ignore_cleanup_errors=True)
    try:
        yield Path(made.name)
    finally:
        # Python 3.11 does not ignore the error of chmod on another user's folder
        with suppress(OSError):
            made.cleanup()
        shutil.rmtree(made.name, ignore_errors=True)


def _inspected(target: Target) -> Findings:
    if target.inspected is None:
        # 3.1 of a local program is tested at its start
        return every(image.CHECKS.keys() - {"3.1"}, untestable("no file of `docker image inspect` was given"))
    return each(image.CHECKS, image.read(target.inspected))


def _served(target: Target, payloads: Payloads) -> Findings:
    yield from each(hosting.CHECKS, Server(_client(target), payloads))


def _played(target: Target, payloads: Payloads, folder: Path, progress: Progress) -> Findings:
    yield from _training(target, folder, progress)
    made = folder / "train" / "ml" / "model"
    model = target.model or (made if made.is_dir() and any(made.iterdir()) and player.readable(made) else None)
    ready = yield from _hosting(target, payloads, folder, model, progress)
    if ready is None:
        return
    # Most containers never become ready without a model: a shorter timeout is enough to see that.
    hurried = replace(target, limits=replace(target.limits, ready=min(target.limits.ready, 10 + 3 * ready.seconds)))
    if model is None:
        yield "4.1", untestable("no model was given")
    else:
        progress("starting `serve` without a model")
        yield "4.1", lifecycle.serves_its_model(hurried, folder / "serve-no-model", payloads.first, ready)
    progress("starting `serve` without naming a port")
    yield "5.1", lifecycle.listens_on_its_own_port(target, folder / "serve-own-port", model)
    progress("starting `serve` as batch transform does")
    with lifecycle.serving(target, folder / "batch", model, batch.VARIABLES) as start:
        yield from _asking(batch.CHECKS, start, lambda client: Server(client, payloads))
    if model is None:
        yield from every(multimodel.CHECKS, untestable("no model was given"))
        return
    progress("starting `serve` as a multi-model endpoint does")
    with lifecycle.serving(hurried, folder / "multimodel", None, multimodel.VARIABLES) as start:
        url = multimodel.unpacked(start.place, model)
        yield from _asking(multimodel.CHECKS, start, lambda client: OneOfMany(client, payloads.first, url))


def _training(target: Target, folder: Path, progress: Progress) -> Findings:
    if not target.channels:
        yield from every([fact.number for fact in TRAINING], untestable("no training data was given"))
        return
    progress("running `train`")
    whole = training.run(target, folder / "train", target.channels)
    yield from each(training.WHOLE_CHECKS, whole)
    yield "19.6", untestable(_why_not_served(target, whole))
    if whole.status != 0:
        others = (*training.WITHOUT_DATA_CHECKS, *training.STOPPED_CHECKS)
        yield from every(others, untestable("no job succeeded to compare with"))
        return
    progress("running `train` on empty channels")
    without = training.run(target, folder / "train-without-data", dict.fromkeys(target.channels))
    yield from each(training.WITHOUT_DATA_CHECKS, without)
    progress("running `train`, to stop it half way")
    stopped = training.run(target, folder / "train-stopped", target.channels, stop_after=whole.seconds / 2)
    yield from each(training.STOPPED_CHECKS, stopped)


def _why_not_served(target: Target, whole: training.Job) -> str:
    if target.model is not None:
        return "another model was given to serve"
    return "it left none" if player.readable(whole.model) else "it left one that this user can't read"


def _hosting(
    target: Target, payloads: Payloads, folder: Path, model: Path | None, progress: Progress
) -> Generator[tuple[str, Finding], None, Known | None]:
    """Start it with a full environment and, where that ends it, with a small one; returns what is known once ready."""
    progress("starting `serve`")
    with lifecycle.serving(target, folder / "serve", model, lifecycle.variables()) as start:
        if start.client is not None or start.container.process.poll() is None:
            yield "11.1", passed(f"{player.MAP_ENTRIES} variables") if start.client else untestable(NEVER_READY)
            known = lifecycle.known(start, payloads.first)
            yield from _hosted(start, payloads, progress)
            return known
        failure = start.failure
    progress("starting `serve` with a small environment")
    with lifecycle.serving(target, folder / "serve-small", model, {}) as start:
        yield "11.1", missed(failure) if start.client else untestable(NEVER_READY)
        known = lifecycle.known(start, payloads.first)
        yield from _hosted(start, payloads, progress)
        return known


def _hosted(start: Start, payloads: Payloads, progress: Progress) -> Findings:
    yield from each(lifecycle.START_CHECKS, start)
    if start.target.channels and start.target.model is None and start.model_before:
        yield "19.6", lifecycle.starts(start)
    if start.client is None:
        return
    yield "3.1", lifecycle.runs_as_root(start)
    yield from each(lifecycle.READY_CHECKS, start)
    yield from each(hosting.CHECKS, Server(start.client, payloads))
    progress("stopping it while requests are under way")
    yield from _stopping(start, start.client, payloads)


def _stopping(start: Start, client: ContainerClient, payloads: Payloads) -> Findings:
    try:
        stop = lifecycle.stop(start, client, payloads.first)
    except Unanswered as error:
        yield from every(lifecycle.STOP_CHECKS, missed(f"it took no request before SIGTERM: {error}"))
        return
    yield from each(lifecycle.STOP_CHECKS, stop)


def _asking(
    checks: Mapping[str, Callable[[Subject], Finding]], start: Start, subject: Callable[[ContainerClient], Subject]
) -> Findings:
    """The checks of a start that should be ready; otherwise the first of them is a miss."""
    if start.client is None:
        first, *others = checks
        yield first, missed(start.failure)
        yield from every(others, untestable(NEVER_READY))
    else:
        yield from each(checks, subject(start.client))


def each(checks: Mapping[str, Callable[[Subject], Finding]], subject: Subject) -> Findings:
    """The findings of these checks of the subject, by number; an error of a check is a miss."""
    yield from ((number, _judged(judge, subject)) for number, judge in checks.items())


def _judged(judge: Callable[[Subject], Finding], subject: Subject) -> Finding:
    try:
        return judge(subject)
    except Unanswered as error:
        return missed(f"no answer: {error}")
    except Exception as error:
        # Unforeseen responses of a container cost one fact, not the report. The error's text may repeat anything.
        return missed(f"its response could not be evaluated: {type(error).__name__}")


def every(numbers: Iterable[str], finding: Finding) -> Findings:
    """The same finding for each of these facts."""
    yield from ((number, finding) for number in numbers)


def _client(target: Target) -> ContainerClient:
    host, port = http_address(target.url, "the check")
    return ContainerClient(host, port, target.limits)
