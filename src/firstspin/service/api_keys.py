"""API keys: authentication by hashed keys in a file, and a rate limit for each caller.

The file is JSON: {"keys": [{"name": "app", "sha256": "…", "rate": 200, "until": "2027-01-01T00:00:00Z"}, …]}. Two
entries of one name are two keys of one caller, for key rotation; `rate` is requests per second, shared by the keys of a
name, and a request about n users counts as n; with `admin` the key is valid for the admin port too. A key is 32 random
bytes, so a plain hash protects it.

The file is read again when it changes, so that a key can be revoked without a restart.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

import msgspec

from firstspin.records import InputError
from firstspin.serving.refusal import Refusal

log = logging.getLogger(__name__)


class Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One key of the file."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    rate: Annotated[float, msgspec.Meta(gt=0)] = 1_000.0
    until: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    admin: bool = False


class KeyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of the file."""

    keys: tuple[Key, ...]


@dataclass
class _Bucket:
    """A token bucket: `level` requests were left at `at` nanoseconds."""

    level: float
    at: int


class Keys:
    """Authentication and rate limits; `share` is this process's part of every rate, `path` the file to read again."""

    def __init__(self, keys: tuple[Key, ...], share: float = 1.0, path: Path | None = None) -> None:
        self._keys = keys
        self._share = share
        self._path = path
        self._buckets: dict[str, _Bucket] = {}
        self._seen: object = None
        self._failed: object = None
        self.refresh()  # the keys may be older than this process

    def refresh(self) -> None:
        """Read the file again where it has changed. Where it can't be read, the current keys stay."""
        if self._path is None or (now := _signature(self._path)) == self._seen:
            return
        try:
            self._keys = _read_again(self._path)
            self._seen = now
        except InputError as problem:
            if now != self._failed:
                log.error("the file of keys can't be read; the current keys stay", extra={"reason": str(problem)})
            self._failed = now
            if not isinstance(problem.__cause__, OSError):  # an OSError may be temporary: try again
                self._seen = now

    def check(self, headers: Mapping[bytes, bytes], date: datetime, *, admin: bool = False) -> Key:
        """The key of a request.

        Raises Refusal: 401 without a valid key, 403 where the key has expired or is insufficient.
        """
        secret = headers.get(b"x-api-key", b"")
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() == b"bearer":
            secret = token.strip()
        digest = hashlib.sha256(secret).hexdigest()
        # every key is compared, in constant time, so that the duration reveals nothing
        matches = [key for key in self._keys if hmac.compare_digest(key.sha256, digest)]
        if not matches:
            raise Refusal(401, "unauthorized", "send a key as `Authorization: Bearer …` or `X-API-Key: …`")
        if matches[0].until is not None and matches[0].until <= date:
            raise Refusal(403, "expired", "this key has expired")
        if admin and not matches[0].admin:
            raise Refusal(403, "forbidden", "this key is not for the admin port")
        return matches[0]

    def spend(self, key: Key, nanoseconds: int) -> None:
        """Count a request. Raises Refusal (429) where the key is over its rate."""
        rate = key.rate * self._share
        bucket = self._buckets.setdefault(key.name, _Bucket(max(1.0, rate), nanoseconds))
        bucket.level = min(max(1.0, rate), bucket.level + (nanoseconds - bucket.at) * rate / 1e9)
        bucket.at = nanoseconds
        if bucket.level < 1.0:
            raise Refusal(429, "too_many_requests", "this key is over its rate; try again in a moment")
        bucket.level -= 1.0

    def charge(self, key: Key, more: int) -> None:
        """Charge `more` further requests to the key: its next ones get 429 until the bucket is refilled."""
        self._buckets[key.name].level -= more


def _read_again(path: Path) -> tuple[Key, ...]:
    if path.exists() and not path.is_file():  # reading a pipe would block, or it was read at the start
        raise InputError(f"{path} is not a regular file")
    return read_keys(path)


def _signature(path: Path | None) -> object:
    """A value that changes with the file."""
    try:
        stat = path.stat() if path else None
    except OSError:
        return "nothing"
    return stat and (stat.st_ino, stat.st_mtime_ns, stat.st_size)


def read_keys(path: Path) -> tuple[Key, ...]:
    """The keys of a file. Raises InputError where it is not such a file; no key or hash is repeated."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=KeyFile).keys
    except OSError as problem:
        raise InputError(f"{path}: {problem.strerror}") from problem
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise InputError(f"{path} is not a file of keys; docs/http-api.md shows one") from None
