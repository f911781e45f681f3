"""The facts of a training job, from three jobs: a complete one, one without data, one stopped half way."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from firstspin.tools.sagemaker_check import player
from firstspin.tools.sagemaker_check.player import Container, PrivateRoot, Target
from firstspin.tools.sagemaker_check.report import Finding, judged, untestable

FAILURE_CHARACTERS = 1024
HOST = "algo-1"
METRIC = re.compile(r"(?<![\w.])[A-Za-z_][\w.@-]{0,254}=[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?;")
OWN = ("model", "output", "checkpoints", "input", "models")


@dataclass(frozen=True, slots=True)
class Job:
    """The result of a job.

    `status` is None where it had to be killed; `stopped` is the seconds from SIGTERM to its end, None without SIGTERM;
    `failure` is the text of the failure file, None without one.
    """

    target: Target
    status: int | None
    seconds: float
    stopped: float | None
    log: str
    model: Path
    failure: str | None
    input_changed: str
    strewn: str

    @property
    def left_a_model(self) -> bool:
        """Whether the model folder has a file."""
        return any(path.is_file() for path in self.model.rglob("*"))

    @property
    def how(self) -> str:
        """How it ended, with the last line of its log after a failure."""
        if self.status == 0:
            return f"status 0 after {self.seconds:.1f} s"
        how = "had to be killed" if self.status is None else f"status {self.status}"
        return f"{how} after {self.seconds:.1f} s; its last words: {player.last_words(self.log)}"


def run(target: Target, folder: Path, channels: Mapping[str, Path | None], *, stop_after: float | None = None) -> Job:
    """Run a job like SageMaker, with each channel's folder (None: an empty channel).

    With `stop_after`, SIGTERM is sent after so many seconds, as by StopTrainingJob.
    """
    folder.mkdir(parents=True)
    place = player.prepare(target, folder)
    _write_input(place, channels, target.hyperparameters)
    given, around = player.contents(place.root / "input"), _around(place)
    started = time.monotonic()
    with player.running(target, place, "train", _variables()) as container:
        status, stopped = _wait(container, target, stop_after)
        seconds = time.monotonic() - started
    failure = place.root / "output" / "failure"
    return Job(
        target,
        status,
        seconds,
        stopped,
        container.written(),
        place.model,
        _text(failure, place) if failure.is_file() else None,
        player.changes(given, player.contents(place.root / "input")),
        player.changes(around, _around(place)),
    )


def _ends_well(whole: Job) -> Finding:
    return judged(whole.status == 0, whole.how)


def _understands_strings(whole: Job) -> Finding:
    given = ", ".join(f"{name}={value!r}" for name, value in whole.target.hyperparameters.items())
    return (
        judged(whole.status == 0, given if whole.status == 0 else whole.how) if given else untestable("none were given")
    )


def _runs_beside_the_configuration(whole: Job) -> Finding:
    return judged(whole.status == 0, "" if whole.status == 0 else whole.how)


def _leaves_its_input_alone(whole: Job) -> Finding:
    return judged(not whole.input_changed, whole.input_changed and f"changed: {whole.input_changed}")


def _leaves_a_model(whole: Job) -> Finding:
    names = sorted(str(path.relative_to(whole.model)) for path in whole.model.rglob("*") if path.is_file())
    return judged(bool(names), ", ".join(names[:4]) if names else "the folder is empty")


def _writes_nowhere_else(whole: Job) -> Finding:
    return judged(not whole.strewn, whole.strewn and f"written: {whole.strewn}")


def _runs_with_the_environment(whole: Job) -> Finding:
    return judged(whole.status == 0, f"{len(_variables())} variables" if whole.status == 0 else whole.how)


def _prints_metrics(whole: Job) -> Finding:
    metrics = [match.group() for match in METRIC.finditer(whole.log)]
    return judged(bool(metrics), " ".join(metrics[:3]) if metrics else "no line of its log has one")


WHOLE_CHECKS: Mapping[str, Callable[[Job], Finding]] = {
    "16.1": _ends_well,
    "17.1": _understands_strings,
    "17.2": _runs_beside_the_configuration,
    "18.2": _leaves_its_input_alone,
    "19.1": _leaves_a_model,
    "19.2": _writes_nowhere_else,
    "20.1": _runs_with_the_environment,
    "22.1": _prints_metrics,
}


def _needs_its_channel(without: Job) -> Finding:
    ignored = without.status == 0 and without.left_a_model
    return judged(not ignored, "it made a model from empty channels" if ignored else f"status {without.status}")


def _fails_with_a_status(without: Job) -> Finding:
    if without.status == 0 and without.left_a_model and without.failure is None:
        return untestable("the job without data did not fail")
    return judged(without.status not in (0, None), f"status {without.status}")


def _says_why(without: Job) -> Finding:
    if without.status == 0 and without.left_a_model and without.failure is None:
        return untestable("the job without data did not fail")
    words = (without.failure or "").strip()
    return judged(bool(words), words.splitlines()[0][:100] if words else "no failure file, or an empty one")


def _says_it_briefly(without: Job) -> Finding:
    if not without.failure:
        return untestable("there is no failure file to read")
    return judged(len(without.failure) <= FAILURE_CHARACTERS, f"{len(without.failure)} characters")


WITHOUT_DATA_CHECKS: Mapping[str, Callable[[Job], Finding]] = {
    "18.1": _needs_its_channel,
    "19.3": _fails_with_a_status,
    "19.4": _says_why,
    "19.5": _says_it_briefly,
}


def _ends_when_told(stopped: Job) -> Finding:
    if stopped.stopped is None:
        return untestable("the job was over before it could be stopped")
    if stopped.status is None:
        return judged(False, f"had to be killed {stopped.stopped:.0f} s after SIGTERM")
    return judged(True, f"{stopped.stopped:.1f} s, status {stopped.status}")


def _saves_what_it_has(stopped: Job) -> Finding:
    if stopped.stopped is None:
        return untestable("the job was over before it could be stopped")
    return judged(stopped.left_a_model, "" if stopped.left_a_model else "the model folder is empty")


STOPPED_CHECKS: Mapping[str, Callable[[Job], Finding]] = {"21.1": _ends_when_told, "21.2": _saves_what_it_has}


def _text(failure: Path, place: PrivateRoot) -> str:
    try:
        return player.named_as_mounted(failure.read_text(errors="replace"), place)
    except PermissionError:  # the container wrote it as root, and we are not
        return "there, but not for this user to read"


def _write_input(place: PrivateRoot, channels: Mapping[str, Path | None], hyperparameters: Mapping[str, str]) -> None:
    for name, given in channels.items():
        channel = place.root / "input" / "data" / name
        channel.mkdir()
        if given is not None:
            shutil.copytree(given, channel, dirs_exist_ok=True)
    resources = {
        "current_host": HOST,
        "current_instance_type": "ml.m5.large",
        "current_group_name": "homogeneousCluster",
        "hosts": [HOST],
        "instance_groups": [
            {"instance_group_name": "homogeneousCluster", "instance_type": "ml.m5.large", "hosts": [HOST]}
        ],
        "network_interface_name": "eth0",
    }
    data = {"TrainingInputMode": "File", "S3DistributionType": "FullyReplicated", "RecordWrapperType": "None"}
    files = {
        "hyperparameters": dict(hyperparameters),
        "inputdataconfig": dict.fromkeys(channels, data),
        "resourceconfig": resources,
    }
    for name, value in files.items():
        (place.root / "input" / "config" / f"{name}.json").write_bytes(msgspec.json.encode(value))


def _variables() -> dict[str, str]:
    return {
        "TRAINING_JOB_NAME": "firstspin-check",
        "TRAINING_JOB_ARN": "arn:aws:sagemaker:eu-north-1:000000000000:training-job/firstspin-check",
        **player.user_map(),
    }


def _around(place: PrivateRoot) -> dict[str, tuple[int, int]]:
    """What lies in /opt/ml beside the folders that have their own facts."""
    return {name: state for name, state in player.contents(place.root).items() if name.partition("/")[0] not in OWN}


def _wait(container: Container, target: Target, stop_after: float | None) -> tuple[int | None, float | None]:
    """Exit status and seconds from SIGTERM to the end, each None where there was none."""
    status = player.ended(container, target.limits.training if stop_after is None else stop_after)
    signalled, stopped = time.monotonic(), None
    if stop_after is not None and status is None:
        player.terminate(container)
        status = player.ended(container, target.limits.training_stop)
        stopped = time.monotonic() - signalled
    if status is None:
        player.kill(container)
    return status, stopped
