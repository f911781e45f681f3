"""Simulates SageMaker's host: a private /opt/ml, its environment variables, start and end of the container."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import tarfile
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread

from firstspin.records import InputError
from firstspin.service.process.signals import held_signals
from firstspin.tools.sagemaker_check.client import ContainerClient, ReadLimits, Unanswered

MOUNT = "/opt/ml"
PORTS = range(1, 65536)
POLL = 0.05
LAST_WORDS = 5.0
ENGINE_PATIENCE = 60.0
CHANNEL = re.compile(r"(?!\.\.?$)[A-Za-z0-9._-]{1,64}")
MAP_ENTRIES = 90  # with those that SageMaker itself sets, close to its limits of 100 entries and 32 KB
MAP_VALUE = "v" * 300


@dataclass(frozen=True, slots=True)
class Target:
    """The subject of the check: a command that starts the container, or the URL of a running server.

    The command gets `serve` or `train` as its last argument and its /opt/ml in SAGEMAKER_BASE_DIR. It may contain
    `{root}`, the folder to mount at /opt/ml (then SAGEMAKER_BASE_DIR is not set), `{env}`, a file of NAME=VALUE lines,
    and `{name}`, by which the engine removes a container that ignores SIGTERM:
    `docker run --rm --name {name} --network host -v {root}:/opt/ml --env-file {env} IMAGE`.

    `environment` are the image's own variables (PATH ...); `model` is a folder or tar.gz for /opt/ml/model; `channels`
    are the training job's data folders by name; `port` is the default port; `inspected` is a file with the output of
    `docker image inspect IMAGE`. Raises InputError where these are invalid or contradict each other.
    """

    command: tuple[str, ...] = ()
    url: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    model: Path | None = None
    channels: Mapping[str, Path] = field(default_factory=dict)
    hyperparameters: Mapping[str, str] = field(default_factory=dict)
    port: int = 8080
    limits: ReadLimits = field(default_factory=ReadLimits)
    inspected: Path | None = None

    def __post_init__(self) -> None:
        if bool(self.command) == bool(self.url):
            raise InputError("the check needs either a command or a URL, not both")
        if self.names and not self.engine:
            raise InputError("{name} needs a container engine: the command has no `run`")
        if self.port not in PORTS:
            raise InputError(f"invalid port {self.port}; expected 1 to {PORTS[-1]}")
        for path in (self.model, self.inspected):
            if path is not None and not path.exists():
                raise InputError(f"{path}: no such file or folder")
        for name, folder in self.channels.items():
            if not CHANNEL.fullmatch(name):
                raise InputError(f"invalid channel name {name!r}; expected 1 to 64 of A-Z a-z 0-9 . - _")
            if not folder.is_dir():
                raise InputError(f"{folder}: no such folder")

    @property
    def subject(self) -> str:
        """The URL or the command, as text."""
        return self.url or " ".join(self.command)

    @property
    def mounts(self) -> bool:
        """Whether the command mounts the folder with a container engine."""
        return any("{root}" in word for word in self.command)

    @property
    def names(self) -> bool:
        """Whether the command gives its container a name."""
        return any("{name}" in word for word in self.command)

    @property
    def engine(self) -> tuple[str, ...]:
        """The container engine with its global options: the words before `run`; empty without."""
        return self.command[: self.command.index("run")] if "run" in self.command else ()


@dataclass(frozen=True, slots=True)
class PrivateRoot:
    """A private /opt/ml: `root` is its path on this machine, `inside` its path in the container."""

    root: Path
    inside: str

    @property
    def model(self) -> Path:
        """The folder of the model."""
        return self.root / "model"


@dataclass(frozen=True, slots=True)
class Container:
    """A running command; `log` has its stdout and stderr, `name` is its name in the container engine."""

    target: Target
    process: subprocess.Popen[bytes]
    place: PrivateRoot
    log: Path
    name: str

    def written(self) -> str:
        """Its output so far, with the path of its folder replaced by /opt/ml."""
        return named_as_mounted(self.log.read_text(errors="replace"), self.place)


def prepare(target: Target, folder: Path, model: Path | None = None) -> PrivateRoot:
    """A /opt/ml below `folder` with SageMaker's folders and the unpacked model. Raises InputError as `unpack` does."""
    root = folder / "ml"
    for name in ("model", "models", "input/config", "input/data", "output/data", "checkpoints"):
        (root / name).mkdir(parents=True)
    if model is not None:
        unpack(model, root / "model")
    return PrivateRoot(root, MOUNT if target.mounts else str(root))


def unpack(model: Path, into: Path) -> None:
    """Unpack a model (a folder or tar.gz) like SageMaker. Raises InputError where it is neither."""
    if model.is_dir():
        shutil.copytree(model, into, dirs_exist_ok=True)
        return
    try:
        with tarfile.open(model) as archive:
            archive.extractall(into, filter="data")
    except (tarfile.TarError, EOFError, zlib.error) as error:
        # without the error's text, which has a line for every compression that was tried
        problem = f"neither a folder nor a readable tar archive ({type(error).__name__})"
        raise InputError(f"{model}: {problem}") from error


@contextmanager
def running(target: Target, place: PrivateRoot, argument: str, variables: Mapping[str, str]) -> Iterator[Container]:
    """The container, started with this argument and these variables, and ended on exit.

    A container that ignores SIGTERM survives only in an engine without a `{name}`. Raises InputError where the command
    can't be started.
    """
    folder = place.root.parent
    log, listed = folder / f"{argument}.log", folder / "variables"
    named = dict(variables) if target.mounts else {"SAGEMAKER_BASE_DIR": place.inside, **variables}
    listed.write_text("".join(f"{name}={value}\n" for name, value in named.items()))
    name = f"{folder.parent.name}-{folder.name}"  # of the temporary folder, so unique
    words = _filled(target.command, {"{root}": str(place.root), "{env}": str(listed), "{name}": name})
    container: Container | None = None
    try:
        with held_signals():
            process = _start([*words, argument], {**target.environment, **named}, log)
            reaper = Thread(target=_reap, args=(process,))
            reaper.start()
            container = Container(target, process, place, log, name)
        yield container
    finally:
        if container is not None:
            _end(container)
            reaper.join()


def named_as_mounted(text: str, place: PrivateRoot) -> str:
    """The text with the path of the private folder replaced by /opt/ml."""
    return text.replace(str(place.root), MOUNT)


def last_words(log: str) -> str:
    r"""The last line of a log with a letter or digit, cut to 200 characters.

    >>> last_words("KeyError: 'rounds'\n]\n\n")
    "KeyError: 'rounds'"
    """
    lines = [line.strip() for line in log.splitlines() if any(map(str.isalnum, line))]
    return lines[-1][:200] if lines else "it wrote nothing"


def user_map() -> dict[str, str]:
    """An environment map close to SageMaker's max size."""
    return {f"CHECKED_{i:03}": MAP_VALUE for i in range(MAP_ENTRIES)}


def terminate(container: Container) -> None:
    """SIGTERM to the first process alone, as a container engine sends it."""
    with suppress(ProcessLookupError):
        container.process.send_signal(signal.SIGTERM)


def kill(container: Container) -> None:
    """SIGKILL to the process group; an engine's client can't forward it, so its container is removed by name."""
    if container.process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(container.process.pid, signal.SIGKILL)
    if container.target.names:
        with suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(
                [*container.target.engine, "rm", "--force", container.name],
                env=dict(container.target.environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=ENGINE_PATIENCE,
                check=False,  # it may have ended already
            )


def ended(container: Container, within: float) -> int | None:
    """The exit status (negative: a signal's number); None where it still runs after `within` seconds."""
    try:
        return container.process.wait(within)
    except subprocess.TimeoutExpired:
        return None


def first_ready(
    container: Container, clients: tuple[ContainerClient, ...], within: float
) -> tuple[ContainerClient | None, float, int | None]:
    """The client of the first ping with status 200, the seconds until then, and the status of the last ping.

    The client is None where the process ends or `within` seconds pass before.
    """
    started, status = time.monotonic(), None
    while (waited := time.monotonic() - started) < within and container.process.poll() is None:
        for client in clients:
            with suppress(Unanswered):
                status = client.ping().status
                if status == 200:
                    return client, time.monotonic() - started, status
        time.sleep(POLL)
    return None, waited, status


def free_port() -> int:
    """A free TCP port of the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_free(port: int) -> bool:
    """Whether no socket listens on the port; connections in TIME_WAIT are ignored."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
        return True


def readable(folder: Path) -> bool:
    """Whether all files below can be read; those of a container's root user may not be readable by another user."""
    return all(os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0)) for path in folder.rglob("*"))


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder below with its size and modification time (ns), to detect changes."""
    states = {}
    for path in sorted(folder.rglob("*")):
        state = path.lstat()
        states[str(path.relative_to(folder))] = (0 if path.is_dir() else state.st_size, state.st_mtime_ns)
    return states


def changes(before: Mapping[str, tuple[int, int]], after: Mapping[str, tuple[int, int]]) -> str:
    """The names of up to three files that differ; empty without differences."""
    return ", ".join(sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))[:3])


def _filled(command: tuple[str, ...], values: Mapping[str, str]) -> list[str]:
    return [re.sub("|".join(map(re.escape, values)), lambda match: values[match.group()], word) for word in command]


def _start(words: list[str], environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        try:
            return subprocess.Popen(
                words,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise InputError(f"{words[0]}: {error.strerror}") from error


def _reap(process: subprocess.Popen[bytes]) -> None:
    """Kill the process group once its first process ends, as in a container."""
    process.wait()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _end(container: Container) -> None:
    # SIGTERM first: `docker run` forwards it to the container, SIGKILL would only end docker's client.
    terminate(container)
    if ended(container, LAST_WORDS) is None:
        kill(container)
    container.process.wait()
