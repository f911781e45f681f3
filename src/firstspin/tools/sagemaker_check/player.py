"""Plays the machine: a private /opt/ml, the environment SageMaker sets, the container's process and its end."""

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
from firstspin.tools.sagemaker_check.client import ContainerClient, NoAnswer, ReadLimits

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
    """What is checked: a command that starts the container, or the address of a server that runs already.

    The command gets `serve` or `train` as its last word and finds its /opt/ml through SAGEMAKER_BASE_DIR. A word of it
    may hold `{root}`, the folder to be mounted at /opt/ml (then SAGEMAKER_BASE_DIR is not set), `{env}`, a file of
    NAME=VALUE lines, and `{name}`, by which the engine is told to remove a container that heeds no SIGTERM:
    `docker run --rm --name {name} --network host -v {root}:/opt/ml --env-file {env} IMAGE`.

    `environment` is what an image would bring with it (PATH ...); `model` a folder or tar.gz for /opt/ml/model;
    `channels` the training job's folders of data by their names; `port` the one to listen on when nothing else is said;
    `inspected` a file of what `docker image inspect IMAGE` prints.
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
            raise InputError("the check needs either a command or an address, and not both")
        if self.names and not self.engine:
            raise InputError("{name} is for an engine: its `run` is not in the command")
        if self.port not in PORTS:
            raise InputError(f"{self.port}: a port is a number from 1 to {PORTS[-1]}")
        for path in (self.model, self.inspected):
            if path is not None and not path.exists():
                raise InputError(f"{path}: no such file or folder")
        for name, folder in self.channels.items():
            if not CHANNEL.fullmatch(name):
                raise InputError(f"{name!r} can't be a channel's name: 1 to 64 of A-Z a-z 0-9 . - _")
            if not folder.is_dir():
                raise InputError(f"{folder}: no such folder")

    @property
    def subject(self) -> str:
        return self.url or " ".join(self.command)

    @property
    def mounts(self) -> bool:
        return any("{root}" in word for word in self.command)

    @property
    def names(self) -> bool:
        return any("{name}" in word for word in self.command)

    @property
    def engine(self) -> tuple[str, ...]:
        """The words before `run`: the engine, with the options that each of its commands needs."""
        return self.command[: self.command.index("run")] if "run" in self.command else ()


@dataclass(frozen=True, slots=True)
class PrivateRoot:
    """A private /opt/ml: `root` on this machine, `inside` as the container names it."""

    root: Path
    inside: str

    @property
    def model(self) -> Path:
        return self.root / "model"


@dataclass(frozen=True, slots=True)
class Container:
    """A running command at its place; `log` holds what it wrote to stdout and stderr, `name` is its engine's for it."""

    target: Target
    process: subprocess.Popen[bytes]
    place: PrivateRoot
    log: Path
    name: str

    def written(self) -> str:
        """What it wrote so far, with its folder called /opt/ml."""
        return named_as_mounted(self.log.read_text(errors="replace"), self.place)


def prepare(target: Target, folder: Path, model: Path | None = None) -> PrivateRoot:
    """An /opt/ml below `folder` with the folders SageMaker makes, and the model unpacked in its own."""
    root = folder / "ml"
    for name in ("model", "models", "input/config", "input/data", "output/data", "checkpoints"):
        (root / name).mkdir(parents=True)
    if model is not None:
        unpack(model, root / "model")
    return PrivateRoot(root, MOUNT if target.mounts else str(root))


def unpack(model: Path, into: Path) -> None:
    """A model folder or its tar.gz, as SageMaker lays it out for the container."""
    if model.is_dir():
        shutil.copytree(model, into, dirs_exist_ok=True)
        return
    try:
        with tarfile.open(model) as archive:
            archive.extractall(into, filter="data")
    except (tarfile.TarError, EOFError, zlib.error) as error:
        # without the error's text, which has a line for every compression that was tried
        told = f"neither a folder nor a tar archive that can be unpacked ({type(error).__name__})"
        raise InputError(f"{model}: {told}") from error


@contextmanager
def running(target: Target, place: PrivateRoot, argument: str, variables: Mapping[str, str]) -> Iterator[Container]:
    """The container started with this argument and these variables.

    Nothing of it is left afterwards, but for an engine's container that heeds no SIGTERM and was given no `{name}`.
    """
    folder = place.root.parent
    log, listed = folder / f"{argument}.log", folder / "variables"
    named = dict(variables) if target.mounts else {"SAGEMAKER_BASE_DIR": place.inside, **variables}
    listed.write_text("".join(f"{name}={value}\n" for name, value in named.items()))
    name = f"{folder.parent.name}-{folder.name}"  # of the temporary folder, whose name nobody else has
    words = _filled(target.command, {"{root}": str(place.root), "{env}": str(listed), "{name}": name})
    process = _start([*words, argument], {**target.environment, **named}, log)
    reaper = Thread(target=_reap, args=(process,))
    reaper.start()
    container = Container(target, process, place, log, name)
    try:
        yield container
    finally:
        _end(container)
        reaper.join()


def named_as_mounted(text: str, place: PrivateRoot) -> str:
    return text.replace(str(place.root), MOUNT)


def last_words(log: str) -> str:
    r"""The last line that has a word in it.

    >>> last_words("KeyError: 'rounds'\n]\n\n")
    "KeyError: 'rounds'"
    """
    lines = [line.strip() for line in log.splitlines() if any(map(str.isalnum, line))]
    return lines[-1][:200] if lines else "it wrote nothing"


def user_map() -> dict[str, str]:
    """An environment map about as large as SageMaker lets it be."""
    return {f"CHECKED_{i:03}": MAP_VALUE for i in range(MAP_ENTRIES)}


def terminate(container: Container) -> None:
    """SIGTERM to the first process alone, as a container engine sends it."""
    with suppress(ProcessLookupError):
        container.process.send_signal(signal.SIGTERM)


def kill(container: Container) -> None:
    """SIGKILL to all of it; an engine's client can't pass that on, so that its engine is told in words."""
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
                check=False,  # it may be gone already
            )


def ended(container: Container, within: float) -> int | None:
    """The exit status (a signal's number negative), or None when it still runs after so many seconds."""
    try:
        return container.process.wait(within)
    except subprocess.TimeoutExpired:
        return None


def first_ready(
    container: Container, clients: tuple[ContainerClient, ...], within: float
) -> tuple[ContainerClient | None, float, int | None]:
    """The client whose ping is first answered 200, the seconds until then, and the last status a ping got.

    There is no such client when the process ends or the time is over before.
    """
    started, status = time.monotonic(), None
    while (waited := time.monotonic() - started) < within and container.process.poll() is None:
        for client in clients:
            with suppress(NoAnswer):
                status = client.ping().status
                if status == 200:
                    return client, time.monotonic() - started, status
        time.sleep(POLL)
    return None, waited, status


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_free(port: int) -> bool:
    """Whether nobody listens there; what is left of closed connections does not count."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
        return True


def readable(folder: Path) -> bool:
    """Whether everything below can be read: files that a container wrote as root may not be, by another user."""
    return all(os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0)) for path in folder.rglob("*"))


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder below with its size and time of change: equal before and after means left alone."""
    found = {}
    for path in sorted(folder.rglob("*")):
        state = path.lstat()
        found[str(path.relative_to(folder))] = (0 if path.is_dir() else state.st_size, state.st_mtime_ns)
    return found


def changes(before: Mapping[str, tuple[int, int]], after: Mapping[str, tuple[int, int]]) -> str:
    """Names a few of the files that differ; empty where none does."""
    return ", ".join(sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))[:3])


def _filled(command: tuple[str, ...], told: Mapping[str, str]) -> list[str]:
    return [re.sub("|".join(map(re.escape, told)), lambda match: told[match.group()], word) for word in command]


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
    """In a container the end of the first process is the end of all: so it is here, at once."""
    process.wait()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _end(container: Container) -> None:
    # SIGTERM first: `docker run` passes it on to the container, SIGKILL would only end docker's client.
    terminate(container)
    if ended(container, LAST_WORDS) is None:
        kill(container)
    container.process.wait()
