"""What the image does, in SageMaker's words: `firstspin-container train` and `firstspin-container serve`.

Folders lie under /opt/ml, or under SAGEMAKER_BASE_DIR where that is set, so that the same entrypoint runs in tests.
The hyperparameters are `firstspin train`'s options by name, all text, as SageMaker hands them over.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from firstspin.cli import mistakes
from firstspin.files import workspace
from firstspin.records import BadRows, Census, InputError
from firstspin.service.options import PORT, WORKERS
from firstspin.service.process.supervisor import MAX_WORKERS
from firstspin.serving.bodies.limits import MAX_BODY_BYTES
from firstspin.serving.bundle import MANIFEST
from firstspin.settings.environment import one_of, read, variable, whole, yes_or_no

CHANNEL: Final = "training"
EARLY: Final = "early"
CHECKPOINTS: Final = "checkpoints"
HYPERPARAMETERS: Final = Path("input") / "config" / "hyperparameters.json"
MAX_FAILURE_TEXT: Final = 1024
"""Max characters of output/failure that SageMaker shows."""

MAX_BATCH_MEGABYTES: Final = 100
"""Max payload in megabytes where a transform job sets none: SageMaker's limit for all concurrent requests."""

ONLINE: Final = {"--largest-answer": str(MAX_BODY_BYTES)}
"""The size limit of InvokeEndpoint's response."""

BATCH_SECONDS: Final = "600"
"""SageMaker's default for a request of batch transform."""

LOG_LEVELS: Final = {"0": "debug", "10": "debug", "20": "info", "30": "warning", "40": "error", "50": "error"}
"""SageMaker's log levels, which are Python's numbers."""


def main() -> None:
    """The container's entry point for SageMaker: one argument, train or serve."""
    base = Path(os.environ.get("SAGEMAKER_BASE_DIR") or "/opt/ml")
    what = sys.argv[1] if len(sys.argv) > 1 else ""
    if what == "train":
        sys.exit(train(base))
    if what == "serve":
        try:
            sys.argv[1:] = serving(base, os.environ, cores=len(os.sched_getaffinity(0)))
        except InputError as problem:
            sys.stderr.write(f"firstspin-container serve: {problem}\n")
            sys.exit(2)
        from firstspin.service.__main__ import main as serve  # the lean process, without what training imports

        serve()
        return
    sys.stderr.write("usage: firstspin-container train|serve\n")
    sys.exit(2)


def serving(base: Path, environment: Mapping[str, str], cores: int) -> list[str]:
    """The service's options as SageMaker's variables ask for them; what FIRSTSPIN_… variables say goes before.

    An empty variable of SageMaker's is as good as none. Raises InputError, with its name, for one that can't be read.
    """
    settings = {name: text for name, text in environment.items() if text}
    options = {"--host": "0.0.0.0", "--port": str(read(settings, "SAGEMAKER_BIND_TO_PORT", PORT) or 8080)}
    if read(settings, "SAGEMAKER_MULTI_MODEL", yes_or_no):
        options["--models"] = str(base / "models")
    else:
        options["--bundle"] = str(base / "model")
    workers = read(settings, "SAGEMAKER_MODEL_SERVER_WORKERS", WORKERS)
    options["--workers"] = str(workers or min(cores, MAX_WORKERS))
    options |= _in_batch(settings) if read(settings, "SAGEMAKER_BATCH", yes_or_no) else ONLINE
    if level := read(settings, "SAGEMAKER_CONTAINER_LOG_LEVEL", one_of(*LOG_LEVELS)):
        options["--log-level"] = LOG_LEVELS[level]
    own = {name for name in options if variable(name[2:]) in environment}
    return [word for name, value in options.items() if name not in own for word in (name, value)]


def _in_batch(environment: Mapping[str, str]) -> dict[str, str]:
    """The options for batch transform: long bodies, of a size that the job may set, and a long timeout."""
    options = {"--most-newcomers": "0", "--body-seconds": BATCH_SECONDS}
    megabytes = read(environment, "SAGEMAKER_MAX_PAYLOAD_IN_MB", whole(0))
    return options if megabytes is None else options | {"--largest-body": str((megabytes or MAX_BATCH_MEGABYTES) << 20)}


def train(base: Path) -> int:
    """Train on the channel `training` and write the bundle to `model`; a failure's reason goes to `output/failure`.

    SageMaker stops a job by SIGTERM and kills it 120 s later. A job that is stopped ends at once and leaves the
    business rule's bundle, if the tables were read by then: it can be served, and the gate before a promotion knows it.
    What tuning has tried is in `checkpoints`, and a job that is started again with that folder goes on from there.
    """
    from firstspin import learn, preflight
    from firstspin.cli.hyperparameters import job_options

    try:
        preflight.folder(base / "model")
        with (
            job_options(base / HYPERPARAMETERS, base / CHECKPOINTS) as (model, reading, learning),
            workspace("container") as folder,
            _stoppable(base, folder) as ending,
        ):
            packed, dataset, card = learn.train(
                base / "input" / "data" / CHANNEL,
                Path(folder) / "bundle",
                model,
                reading=reading,
                learning=learning,
                progress=_tell,
                early=Path(folder) / EARLY,
            )
            _tell_census(dataset.census)
            ending.acquire()  # from here on, SIGTERM does not interrupt saving the model
            _leave(Path(folder) / "bundle", base / "model")
    except InputError as problem:
        lines = [problem.bare]
        if isinstance(problem, BadRows):
            lines += [*problem.hints, "The hyperparameter skip_bad_rows=true drops bad rows."]
        return _fail(base, "\n".join(lines))  # without the row's values, which are personal data
    except OSError as problem:
        return _fail(base, str(problem))
    except Exception as problem:
        sys.stderr.write(mistakes.places(problem))
        return _fail(base, mistakes.kind(problem))
    for name, figure in card.figures[packed.manifest.predictor.model].items():
        sys.stdout.write(f"valid_{name.replace('@', '')}={figure.value:.6f};\n")  # read by SageMaker's model tuning
    sys.stdout.write(f"bundle={packed.id};\n")
    return 0


@contextmanager
def _stoppable(base: Path, folder: Path) -> Iterator[threading.Lock]:
    """SIGTERM ends the process, unless the lock is taken.

    A thread waits for it: a handler would run only when the main thread comes back from whatever library it is in.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    ending = threading.Lock()

    def wait() -> None:
        signal.sigwait({signal.SIGTERM})
        ending.acquire()
        status = _stopped(base, folder / EARLY)
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(status)

    threading.Thread(target=wait, daemon=True).start()
    try:
        yield ending
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _stopped(base: Path, early: Path) -> int:
    """Save the early bundle, if there is one; the exit status."""
    if not (early / MANIFEST).is_file():
        return _fail(base, "stopped before the tables were read")
    try:
        _leave(early, base / "model")
    except OSError as problem:
        return _fail(base, str(problem))
    sys.stderr.write("stopped: what is left is the business rule\n")
    sys.stderr.flush()
    return 0


def _leave(bundle: Path, model: Path) -> None:
    """Copy a bundle to its place, the manifest last: without it, what a full disk or a kill cut off is no bundle."""
    model.mkdir(parents=True, exist_ok=True)
    for path in sorted(bundle.iterdir(), key=lambda path: (path.name == MANIFEST, path.name)):
        shutil.copyfile(path, model / path.name)


def _fail(base: Path, reason: str) -> int:
    output = base / "output"
    with suppress(OSError):  # where nothing can be written, the log is left
        output.mkdir(parents=True, exist_ok=True)
        (output / "failure").write_text(reason[:MAX_FAILURE_TEXT], encoding="utf-8")
    sys.stderr.write(reason + "\n")
    return 1


def _tell(step: str, done: float) -> None:
    sys.stderr.write(f"{done:6.1%} {step}\n")


def _tell_census(census: Census) -> None:
    """Print the end of the data and the mismatches, without personal values."""
    lines = [f"data_ends {census.data_ends.isoformat()}Z"]
    lines += [f"mismatch: {mismatch.line(bare=True)}" for mismatch in census.mismatches]
    sys.stderr.write("".join(f"{line}\n" for line in lines))
