"""Notices -> signed POST requests, by the convention of Standard Webhooks 1.0 (standardwebhooks.com).

A notice is sent until the receiver answers 2xx: at least once, always with the same `webhook-id`. Between attempts the
wait doubles up to an hour; after MAX_ATTEMPTS, about three days, or a 410, the notice is given up. Neither the URL nor
the secret is ever logged.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import logging
import random
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Final, Literal

from firstspin.http_call import Connections, HttpAnswer, NoAnswer, ServerAddress, retry_after, server_address
from firstspin.records import InputError
from firstspin.settings.environment import WEBHOOK_SECRET
from firstspin.webhooks.outbox import MAX_WAIT, Pending, forget_oldest, pending

log = logging.getLogger(__name__)

Outcome = Literal["sent", "failed", "dropped"]

PREFIX: Final = "whsec_"
MIN_KEY_BYTES: Final = 24
MAX_KEY_BYTES: Final = 64
MAX_KEYS: Final = 2
"""Two for a rotation: the receiver verifies with either."""

RUN_SECONDS: Final = 30.0
ATTEMPT_SECONDS: Final = 10.0
FIRST_WAIT: Final = 5.0
MAX_ATTEMPTS: Final = 80
GONE: Final = 410
MAX_ANSWER: Final = 4_096
"""Bytes of an answer that are read: only its status matters."""


@dataclass(frozen=True, slots=True, repr=False)
class Receiver:
    """Where notices are sent, and the keys of their signatures; `tls` are the certificates to trust, if not the usual.

    A repr would be logged.
    """

    address: ServerAddress
    keys: tuple[bytes, ...]
    tls: ssl.SSLContext | None = None


def read_receiver(url: str, secret_file: Path | None, environment: Mapping[str, str]) -> Receiver:
    """The receiver at this URL, with the secret in the file, or else in the environment.

    Raises InputError where one of them is missing or invalid; the message repeats neither.
    """
    address = server_address(url, "the webhook's URL")
    if address.scheme != "https" and not _is_this_machine(address.host):
        raise InputError("the webhook's URL begins with http://: only a receiver on this machine may, use https://")
    if secret_file is not None:
        try:
            text, where = secret_file.read_text(encoding="utf-8"), str(secret_file)
        except (OSError, UnicodeDecodeError) as problem:
            reason = problem.strerror if isinstance(problem, OSError) else "it is no text"
            raise InputError(f"{secret_file}: the webhook's secret can't be read: {reason}") from None
    elif WEBHOOK_SECRET in environment:
        text, where = environment[WEBHOOK_SECRET], WEBHOOK_SECRET
    else:
        raise InputError(f"the webhook has no secret: set {WEBHOOK_SECRET}, or name a file with --webhook-secret-file")
    return Receiver(address, _keys(text, where))


def _keys(text: str, where: str) -> tuple[bytes, ...]:
    words = text.split()
    try:
        keys = tuple(base64.b64decode(word.removeprefix(PREFIX), validate=True) for word in words)
    except (binascii.Error, ValueError):
        keys = ()
    wrong = any(not MIN_KEY_BYTES <= len(key) <= MAX_KEY_BYTES for key in keys)
    if wrong or not 1 <= len(keys) <= MAX_KEYS or not all(word.startswith(PREFIX) for word in words):
        raise InputError(
            f"{where}: not a webhook's secret: {PREFIX} and {MIN_KEY_BYTES} to {MAX_KEY_BYTES} random bytes in base64, "
            f"as printed by: echo {PREFIX}$(openssl rand -base64 32). During a rotation, two, in two lines"
        )
    return keys


def _is_this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def signature(key: bytes, notice_id: str, timestamp: int, body: bytes) -> str:
    """The signature v1: HMAC-SHA256 of id, timestamp and body, joined by dots, in base64."""
    signed = f"{notice_id}.{timestamp}.".encode() + body
    return f"v1,{base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()}"


@dataclass(frozen=True, slots=True)
class Delivery:
    """Sends the notices that are due; `count` is called with each outcome.

    `now` is the time of day in seconds since 1970, `clock` a monotonic one.
    """

    outbox: Path
    receiver: Receiver
    count: Callable[[Outcome], None]
    now: Callable[[], float]
    clock: Callable[[], float]
    rng: random.Random

    def is_due(self) -> bool:
        """Whether a notice is to be sent now."""
        now = self.now()
        return any(one.is_due(now) for one in pending(self.outbox))

    def run(self) -> None:
        """Send what is due, oldest first, until a failure or for RUN_SECONDS; the next run goes on."""
        end = self.clock() + RUN_SECONDS
        connections = Connections(self.receiver.address, self.clock, MAX_ANSWER, self.receiver.tls)
        now = self.now()
        try:
            for one in sorted((one for one in pending(self.outbox) if one.is_due(now)), key=lambda one: one.next_at):
                if self.clock() + ATTEMPT_SECONDS > end or not self._send(one, connections):
                    break
        finally:
            connections.close()
        forget_oldest(self.outbox)

    def _send(self, one: Pending, connections: Connections) -> bool:
        """Send a notice once; whether it is done."""
        body, timestamp = one.path.read_bytes(), int(self.now())
        headers = {
            "content-type": "application/json",
            "user-agent": "firstspin",
            "webhook-id": one.notice_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": _signatures(self.receiver.keys, one.notice_id, timestamp, body),
        }
        answer: HttpAnswer | None = None
        try:
            until = self.clock() + ATTEMPT_SECONDS
            answer = connections.exchange("POST", self.receiver.address.target, headers, body, until)
            problem = f"status {answer.status}"
        except NoAnswer as failed:
            problem = str(failed)
        if answer is not None and 200 <= answer.status < 300:
            one.done()
            self.count("sent")
            return True
        return self._failed(one, answer, problem)

    def _failed(self, one: Pending, answer: HttpAnswer | None, problem: str) -> bool:
        """Record a failed attempt; whether the notice is given up."""
        self.count("failed")
        about = {"notice": one.notice_id, "failures": one.failures + 1, "problem": problem}
        if one.failures + 1 >= MAX_ATTEMPTS or (answer is not None and answer.status == GONE):
            one.done()
            self.count("dropped")
            log.error("a webhook was given up", extra=about)
            return True
        one.failed(self.now() + self._wait(one.failures, answer))
        log.warning("a webhook failed; it is sent again later", extra=about)
        return False

    def _wait(self, failures: int, answer: HttpAnswer | None) -> float:
        """Seconds to the next attempt: doubling from FIRST_WAIT, with jitter, and not before a Retry-After."""
        wait = min(MAX_WAIT, FIRST_WAIT * 2.0 ** min(failures, 20)) * self.rng.uniform(0.75, 1.0)
        asked = retry_after(answer, datetime.fromtimestamp(self.now(), UTC)) if answer else 0.0
        return max(wait, min(asked, MAX_WAIT))


def _signatures(keys: Sequence[bytes], notice_id: str, timestamp: int, body: bytes) -> str:
    return " ".join(signature(key, notice_id, timestamp, body) for key in keys)
