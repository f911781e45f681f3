"""What the image does, in SageMaker's words: `firstspin-container train` and `firstspin-container serve`.

Folders lie under /opt/ml, or under SAGEMAKER_BASE_DIR where that is set, so that the same entrypoint runs in tests.
The hyperparameters are `firstspin train`'s options by name, all text, as SageMaker hands them over.
"""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from firstspin import pipeline
from firstspin.bundle import MANIFEST
from firstspin.records import BadRows, InputError, LabelRule
from firstspin.service.supervisor import MOST_WORKERS
from firstspin.service.wire import LARGEST_BODY

CHANNEL: Final = "training"
EARLY: Final = "early"
CHECKPOINTS: Final = "checkpoints"
Number = TypeVar("Number", int, float)
LONGEST_FAILURE: Final = 1024
"""SageMaker shows no more of output/failure."""

MOST_IN_BATCH: Final = 100
"""Megabytes, where a transform job sets no limit: SageMaker's own for all its concurrent requests."""

ONLINE: Final = {"--largest-answer": str(LARGEST_BODY)}
"""InvokeEndpoint hands on no more."""

BATCH_SECONDS: Final = "600"
"""SageMaker's default for a request of batch transform."""

YES: Final = frozenset({"1", "true", "yes"})
NO: Final = frozenset({"0", "false", "no", ""})
LOG_LEVELS: Final = {"10": "debug", "20": "info", "30": "warning", "40": "error"}


def main() -> None:
    """Run as SageMaker runs it: one argument, train or serve."""
    base = Path(os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml"))
    what = sys.argv[1] if len(sys.argv) > 1 else ""
    if what == "train":
        sys.exit(train(base))
    if what == "serve":
        sys.argv[1:] = serving(base, os.environ, cores=len(os.sched_getaffinity(0)))
        importlib.import_module("firstspin.service.__main__").main()
        return
    sys.stderr.write("usage: firstspin-container train|serve\n")
    sys.exit(2)


def serving(base: Path, environment: Mapping[str, str], cores: int) -> list[str]:
    """The service's options as SageMaker's variables ask for them; what FIRSTSPIN_… variables say goes before."""
    told = {"--host": "0.0.0.0", "--port": environment.get("SAGEMAKER_BIND_TO_PORT", "8080")}
    if _yes(environment.get("SAGEMAKER_MULTI_MODEL", "")):
        told["--models"] = str(base / "models")
    else:
        told["--bundle"] = str(base / "model")
    told["--workers"] = environment.get("SAGEMAKER_MODEL_SERVER_WORKERS") or str(min(cores, MOST_WORKERS))
    told |= _in_batch(environment) if _yes(environment.get("SAGEMAKER_BATCH", "")) else ONLINE
    if (level := environment.get("SAGEMAKER_CONTAINER_LOG_LEVEL")) in LOG_LEVELS:
        told["--log-level"] = LOG_LEVELS[level]
    own = {name for name in told if f"FIRSTSPIN_{name[2:].replace('-', '_').upper()}" in environment}
    return [word for name, value in told.items() if name not in own for word in (name, value)]


def _in_batch(environment: Mapping[str, str]) -> dict[str, str]:
    """Batch transform fills a body with as many records as fit, of a size that its job may set, and has time."""
    told = {"--most-newcomers": "0", "--body-seconds": BATCH_SECONDS}
    job = environment.get("SAGEMAKER_MAX_PAYLOAD_IN_MB", "")
    return told | ({"--largest-body": str((int(job) or MOST_IN_BATCH) << 20)} if job.isdecimal() else {})


def train(base: Path) -> int:
    """Learn from the channel `training` and leave the bundle in `model`; on failure say why in `output/failure`.

    SageMaker stops a job by SIGTERM and kills it 120 s later. A job that is stopped ends at once and leaves the
    business rule's bundle, if the tables were read by then: it can be served, and the gate before a promotion knows it.
    What tuning has tried is in `checkpoints`, and a job that is started again with that folder goes on from there.
    """
    try:
        model, reading, learning = _options(_hyperparameters(base), base / CHECKPOINTS)
        with tempfile.TemporaryDirectory(prefix="firstspin-") as folder, _stoppable(base, Path(folder)) as ending:
            packed, _, card = pipeline.train(
                base / "input" / "data" / CHANNEL,
                Path(folder) / "bundle",
                model,
                reading=reading,
                learning=learning,
                progress=_tell,
                early=Path(folder) / EARLY,
            )
            ending.acquire()  # the model is made: no stop comes between it and its place
            _leave(Path(folder) / "bundle", base / "model")
    except BadRows as problem:
        return _fail(base, problem.bare)  # what stands in a row is a person's, and failures are read by many
    except (InputError, OSError) as problem:
        return _fail(base, str(problem))
    except Exception as problem:
        where = traceback.extract_tb(problem.__traceback__)
        sys.stderr.write("".join(f"{frame.filename}:{frame.lineno} {frame.name}\n" for frame in where))
        # never its text: that may quote a person's row
        return _fail(base, f"this is our mistake ({type(problem).__name__}); the log tells where")
    figures = card.figures[packed.manifest.predictor.model]
    for name in ("hit@1", "hit@3", "hit@5", "ndcg@5", "log_loss"):
        sys.stdout.write(f"valid_{name.replace('@', '')}={figures[name].value:.6f};\n")  # what tuning reads
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
    """Leave what there is, and give the exit status."""
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
    for path in sorted(bundle.iterdir(), key=lambda path: (path.name == MANIFEST, path.name)):
        shutil.copyfile(path, model / path.name)


def _hyperparameters(base: Path) -> dict[str, str]:
    path = base / "input" / "config" / "hyperparameters.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, str]) if path.exists() else {}
    except (msgspec.MsgspecError, UnicodeDecodeError) as problem:
        raise InputError(f"hyperparameters.json: {problem}") from None


def _options(told: dict[str, str], checkpoints: Path) -> tuple[str, pipeline.Reading, pipeline.Learning]:
    """`firstspin train`'s options out of hyperparameters; a word that is none of them is refused."""
    model = told.pop("model", "auto")
    skip = _yes_or_no("skip_bad_rows", told.pop("skip_bad_rows", "no"))
    reading = pipeline.Reading(_names(told.pop("extra", "")), skip, _rule(told))
    learning = pipeline.Learning(
        _names(told.pop("without", "")),
        _number("seed", told.pop("seed", "0"), int),
        _number("tune", told.pop("tune", "0"), float),
        _number("trials", told.pop("trials", "0"), int),
        checkpoints=checkpoints,
    )
    _refuse_unknown(told)
    return model, reading, learning


def _rule(told: dict[str, str]) -> LabelRule:
    ends = told.pop("data_ends", "")
    try:
        moment = datetime.fromisoformat(ends) if ends else None
    except ValueError:
        raise InputError(f"hyperparameter data_ends: {ends!r} is not a date or time") from None
    return LabelRule(
        _number("gap_days", told.pop("gap_days", "30"), int),
        _number("window_days", told.pop("window_days", "30"), int),
        _number("least_seconds", told.pop("least_seconds", "600"), float),
        moment.astimezone(UTC).replace(tzinfo=None) if moment and moment.tzinfo else moment,
    )


def _number(name: str, text: str, kind: type[Number]) -> Number:
    try:
        return kind(text)
    except ValueError:
        raise InputError(f"hyperparameter {name}: {text!r} is not a number") from None


def _yes_or_no(name: str, text: str) -> bool:
    if text.lower() not in YES | NO:
        raise InputError(f"hyperparameter {name}: {text!r} is neither true nor false")
    return _yes(text)


def _refuse_unknown(told: Mapping[str, str]) -> None:
    # SageMaker adds words of its own, each with this beginning
    if unknown := [name for name in told if not name.startswith(("sagemaker_", "_tuning"))]:
        raise InputError(f"hyperparameter {unknown[0]}: `firstspin train` has no such option")


def _fail(base: Path, reason: str) -> int:
    output = base / "output"
    with suppress(OSError):  # where nothing can be written, the log is left
        output.mkdir(parents=True, exist_ok=True)
        (output / "failure").write_text(reason[:LONGEST_FAILURE], encoding="utf-8")
    sys.stderr.write(reason + "\n")
    return 1


def _tell(step: str, done: float) -> None:
    sys.stderr.write(f"{done:6.1%} {step}\n")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _yes(text: str) -> bool:
    return text.lower() in YES
