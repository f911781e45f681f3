"""The facts about the image, from the output of `docker image inspect IMAGE`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import dropwhile, pairwise, takewhile
from pathlib import Path, PurePosixPath
from typing import Final

import msgspec

from firstspin.records import InputError
from firstspin.tools.sagemaker_check.player import MOUNT
from firstspin.tools.sagemaker_check.report import Finding, judged, missed, passed

INITS: Final = frozenset({"tini", "tini-static", "docker-init"})
SHELLS: Final = frozenset({"sh", "bash", "dash", "ash"})
SERVERLESS_BYTES: Final = 10 * 10**9
CAPABILITY: Final = "com.amazonaws.sagemaker.capabilities."


class Config(msgspec.Struct, frozen=True, rename="pascal"):
    """What starts the image's containers; null where the Dockerfile says nothing."""

    entrypoint: tuple[str, ...] | None = None
    user: str | None = None
    labels: dict[str, str] | None = None
    volumes: dict[str, object] | None = None
    working_dir: str | None = None


class Image(msgspec.Struct, frozen=True, rename="pascal"):
    """One image; `size` in bytes, unpacked."""

    config: Config
    size: int


def read(path: Path) -> Image:
    """The image that a file of `docker image inspect` describes. Raises InputError where it describes none."""
    try:
        (image,) = msgspec.json.decode(path.read_bytes(), type=tuple[Image])
    except OSError as problem:
        raise InputError(f"{path}: {problem.strerror}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as problem:
        reason = problem if isinstance(problem, msgspec.MsgspecError) else "not UTF-8 text"
        raise InputError(f"{path} is not the output of `docker image inspect IMAGE` for one image ({reason})") from None
    return image


def _hears_signals(image: Image) -> Finding:
    """No shell form (`sh -c`), in which the shell gets the signal and the program does not."""
    words = image.config.entrypoint or ()
    if not words:
        return passed("none: the program `serve` is started by itself")
    shown = " ".join(words)[:200]
    return missed(f"shell form: {shown}") if _is_shell(words) else judged(_name(words[0]) not in INITS, shown)


def _is_shell(words: Sequence[str]) -> bool:
    """Whether a shell reads what to do from its words: `sh -c`, `bash -euxc`, `env A=b bash -o pipefail -c`."""
    words = list(dropwhile(lambda word: _name(word) == "env" or "=" in word, words))
    if not words or _name(words[0]) not in SHELLS:
        return False
    # up to the first word that is neither an option nor one's value: that is a script
    options = takewhile(lambda pair: pair[1].startswith("-") or pair[0] in ("-o", "+o"), pairwise(words))
    return any(re.fullmatch("-[a-z]*c[a-z]*", option) for _, option in options)


def _name(program: str) -> str:
    return PurePosixPath(program).name


def _leaves_root(image: Image) -> Finding:
    user = image.config.user or "root"
    return judged(user.partition(":")[0] in ("root", "0"), f"USER {user}")


def keeps_off_the_mount(image: Image) -> Finding:
    """What is copied there, no engine tells."""
    places = [*(image.config.volumes or {}), image.config.working_dir or "/"]
    inside = [place for place in places if PurePosixPath(place).is_relative_to(MOUNT)]
    return judged(not inside, ", ".join(inside))


def _labelled(capability: str) -> Callable[[Image], Finding]:
    def check(image: Image) -> Finding:
        label = (image.config.labels or {}).get(CAPABILITY + capability)
        return judged(label == "true", "no such label" if label is None else label)

    return check


def _is_small_enough(image: Image) -> Finding:
    return (passed if image.size <= SERVERLESS_BYTES else missed)(f"{image.size / 1e9:.2f} GB")


CHECKS: Mapping[str, Callable[[Image], Finding]] = {
    "1.2": _hears_signals,
    "3.1": _leaves_root,
    "3.2": _leaves_root,
    "5.3": _labelled("accept-bind-to-port"),
    "19.7": keeps_off_the_mount,
    "26.9": _labelled("multi-models"),
    "27.2": _is_small_enough,
}
