"""Webhooks to a receiver that fails in every way: each notice arrives, signed, with one id, and the rest is counted."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import os
import random
import re
import signal
import ssl
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime
from pathlib import Path
from time import monotonic, time
from typing import Any

import msgspec
import pytest
from in_threads import at_work
from made_bundles import pack
from made_experiments import PLAN
from made_service import QUICK, Service, counted, serving, until, workers
from stand_in_server import StandInServer, answer, close, drip, hang, reset, standing_in

from firstspin.experiment.monitor import Day, Progress
from firstspin.experiment.plan import freeze
from firstspin.records import InputError
from firstspin.service.notices import causes, notify_of
from firstspin.service.process.clock import set_clock
from firstspin.webhooks import delivery
from firstspin.webhooks.delivery import Delivery, Receiver, read_receiver, signature
from firstspin.webhooks.outbox import notify, pending

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()
FINE = answer(204)


class Time:
    """A time of day that a test moves."""

    def __init__(self) -> None:
        self.seconds = 2e9

    def __call__(self) -> float:
        return self.seconds


class Sender:
    """A delivery to a server, with a clock of its own."""

    def __init__(self, folder: Path, server: StandInServer) -> None:
        self.outbox, self.now, self.counts = folder / "outbox", Time(), Counter[str]()
        self.url = f"http://127.0.0.1:{server.port}/hook"
        self._receiver = read_receiver(self.url, None, {"FIRSTSPIN_WEBHOOK_SECRET": SECRET})

    def queue(self, subject: str = "first@3f2a9c1b") -> None:
        notify(self.outbox, "experiment.no_data", subject, "No exposure.", at=NOON)
        for one in pending(self.outbox):
            os.utime(one.path, (self.now(), self.now()))

    def run(self, receiver: Receiver | None = None) -> None:
        """What a process that is started now does."""
        Delivery(
            self.outbox,
            receiver or self._receiver,
            lambda outcome: self.counts.update([outcome]),
            self.now,
            monotonic,
            random.Random(0),
        ).run()

    def is_due(self) -> bool:
        return Delivery(self.outbox, self._receiver, print, self.now, self.now, random.Random()).is_due()


def header(request: bytes, name: str) -> str:
    lines = request.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    return next(line.partition(": ")[2] for line in lines if line.lower().startswith(f"{name}: "))


def body(request: bytes) -> bytes:
    return request.partition(b"\r\n\r\n")[2]


def test_a_notice_is_signed_as_standard_webhooks_says(tmp_path: Path) -> None:
    with standing_in(FINE) as server:
        sender = Sender(tmp_path, server)
        sender.queue()
        sender.run()
        [request] = server.received
    assert request.startswith(b"POST /hook HTTP/1.1\r\n")
    assert header(request, "content-type") == "application/json"
    sent = json.loads(body(request))
    assert sent == {
        "type": "experiment.no_data",
        "timestamp": "2026-01-31T12:00:00Z",
        "data": {"subject": "first@3f2a9c1b", "sentence": "No exposure."},
    }
    signed = f"{header(request, 'webhook-id')}.{header(request, 'webhook-timestamp')}.".encode() + body(request)
    expected = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    assert header(request, "webhook-signature") == f"v1,{expected}"
    assert header(request, "webhook-timestamp") == "2000000000"
    assert sender.counts == {"sent": 1}


def test_the_signature_is_that_of_the_reference() -> None:
    """The example of the specification's reference libraries (their test of `sign`)."""
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signed = signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


REDIRECT = answer(301, location="http://127.0.0.1:1/")


@pytest.mark.parametrize("failure", [*map(answer, (404, 429, 500)), REDIRECT, close, reset, b"garbage\r\n\r\n"])
def test_a_failed_notice_is_sent_again_later_with_the_same_id(
    failure: bytes | Callable[..., None], tmp_path: Path
) -> None:
    with standing_in(failure, FINE) as server:
        sender = Sender(tmp_path, server)
        sender.queue()
        sender.run()
        assert not sender.is_due()
        sender.now.seconds += 5
        assert sender.is_due()
        sender.run()
        first, second = server.received
    assert header(first, "webhook-id") == header(second, "webhook-id")
    assert header(first, "webhook-timestamp") != header(second, "webhook-timestamp")
    assert sender.counts == {"failed": 1, "sent": 1}
    assert not sender.is_due()


@pytest.mark.parametrize("slow", [hang, drip])
def test_a_receiver_that_hangs_is_left_within_the_time_of_an_attempt(
    slow: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "ATTEMPT_SECONDS", 0.2)
    with standing_in(slow) as server:
        sender = Sender(tmp_path, server)
        sender.queue()
        sender.run()
    assert sender.counts == {"failed": 1}


def test_waits_double_up_to_an_hour_and_a_notice_is_given_up_after_three_days(tmp_path: Path) -> None:
    with standing_in(answer(500)) as server:
        sender = Sender(tmp_path, server)
        sender.queue()
        begin, waits = sender.now(), []
        while notices := list(pending(sender.outbox)):
            waits.append(max(0.0, notices[0].next_at - sender.now()))
            sender.now.seconds = max(sender.now(), notices[0].next_at)
            sender.run()
    for wait, full in zip(waits[1:12], [5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600], strict=True):
        assert 0.74 * full <= wait <= full
    assert max(waits) <= 3600
    assert 2 * 86_400 < sender.now() - begin < 4 * 86_400
    assert sender.counts == {"failed": delivery.MAX_ATTEMPTS, "dropped": 1}


def test_retry_after_is_waited_for_and_gone_ends_a_notice(tmp_path: Path) -> None:
    with standing_in(answer(503, retry_after="600"), answer(410)) as server:
        sender = Sender(tmp_path, server)
        sender.queue()
        sender.run()
        [one] = pending(sender.outbox)
        assert one.next_at == sender.now() + 600
        sender.now.seconds += 600
        sender.run()
    assert sender.counts == {"failed": 2, "dropped": 1}
    assert list(pending(sender.outbox)) == []


def test_a_receiver_that_is_down_is_asked_once_a_run_and_then_gets_all(tmp_path: Path) -> None:
    with standing_in(answer(500), FINE) as server:
        sender = Sender(tmp_path, server)
        for number in range(3):
            sender.queue(f"{number}")
        sender.run()
        assert len(server.received) == 1
        sender.now.seconds += 10
        sender.run()
        assert len(server.received) == 4
    assert len({header(request, "webhook-id") for request in server.received}) == 3


def test_a_notice_whose_sender_was_killed_before_it_was_recorded_comes_again_with_its_id(tmp_path: Path) -> None:
    with standing_in(FINE) as server:
        sender = Sender(tmp_path, server)
        sender.queue()
        [one] = pending(sender.outbox)
        kept = one.path.read_bytes()
        sender.run()
        one.path.write_bytes(kept)  # as if `done` had not been reached
        os.utime(one.path, (sender.now(), sender.now()))
        sender.run()
    assert len({header(request, "webhook-id") for request in server.received}) == 1
    assert sender.counts == {"sent": 2}


def test_during_a_rotation_both_secrets_sign(tmp_path: Path) -> None:
    other = "whsec_" + base64.b64encode(bytes(24)).decode()
    with standing_in(FINE) as server:
        sender = Sender(tmp_path, server)
        sender.queue()
        (tmp_path / "secret").write_text(f"{SECRET}\n{other}\n")
        sender.run(read_receiver(sender.url, tmp_path / "secret", {}))
        [request] = server.received
    assert len(header(request, "webhook-signature").split(" v1,")) == 2


def test_over_tls_the_certificate_is_checked(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=localhost "
        f"-addext subjectAltName=DNS:localhost -keyout {key} -out {certificate}".split(),
        check=True,
        capture_output=True,
    )
    serving_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving_tls.load_cert_chain(certificate, key)
    with standing_in(FINE, tls=serving_tls) as server:
        sender = Sender(tmp_path, server)
        sender.queue()
        usual = read_receiver(f"https://localhost:{server.port}/", None, {"FIRSTSPIN_WEBHOOK_SECRET": SECRET})
        sender.run(usual)
        assert server.received == []
        sender.now.seconds += 5
        trusting = Receiver(usual.address, usual.keys, ssl.create_default_context(cafile=certificate))
        sender.run(trusting)
        assert len(server.received) == 1
    assert sender.counts == {"failed": 1, "sent": 1}


@pytest.mark.parametrize(
    "url", ["http://example.com/hook", "ftp://example.com", "hook", "https://user:s3cret@example.com/"]
)
def test_a_url_that_is_not_safe_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="the webhook's URL") as caught:
        read_receiver(url, None, {"FIRSTSPIN_WEBHOOK_SECRET": SECRET})
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://localhost:9/", "http://[::1]:9/", "https://example.com/hook?a=b"])
def test_a_url_of_this_machine_or_with_tls_is_taken(url: str) -> None:
    assert read_receiver(url, None, {"FIRSTSPIN_WEBHOOK_SECRET": SECRET}).keys == (KEY,)


@pytest.mark.parametrize(
    "secret", ["", "whsec_", "whsec_c2hvcnQ=", "whsec_not base64", SECRET[6:], f"{SECRET} {SECRET} {SECRET}"]
)
def test_a_secret_that_is_none_is_not_repeated(secret: str) -> None:
    with pytest.raises(InputError, match="FIRSTSPIN_WEBHOOK_SECRET: not a webhook's secret") as caught:
        read_receiver("https://example.com", None, {"FIRSTSPIN_WEBHOOK_SECRET": secret})
    assert not secret[6:] or secret[6:] not in str(caught.value)


def test_a_missing_secret_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no secret"):
        read_receiver("https://example.com", None, {})
    with pytest.raises(InputError, match="missing: the webhook's secret can't be read: No such file"):
        read_receiver("https://example.com", tmp_path / "missing", {})


def test_nothing_is_logged_of_the_url_or_the_secret(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with standing_in(answer(500)) as server, caplog.at_level(logging.DEBUG):
        sender = Sender(tmp_path, server)
        sender.queue()
        sender.run()
    assert caplog.records
    for record in caplog.records:
        assert "hook" not in str(vars(record)).replace("webhook", "")
        assert "whsec" not in str(vars(record))
    assert "whsec" not in repr(read_receiver("https://x.y", None, {"FIRSTSPIN_WEBHOOK_SECRET": SECRET}))


# ------------------------------------------------------------------------------------------- of a running service


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = tmp_path_factory.mktemp("hooks")
    pack(made / "b")
    freeze(msgspec.structs.replace(PLAN, starts_on=date(2026, 1, 26)), made / "experiment.toml")
    set_clock(made / "clock", datetime(2026, 1, 28, 12, tzinfo=UTC))
    return made


@contextmanager
def hooked(folder: Path, port: int) -> Iterator[Service]:
    options = ["--state", str(folder / "state"), "--events", f"sqlite:///{folder / 'events.sqlite'}"]
    options += ["--experiment", str(folder / "experiment.toml"), "--clock", str(folder / "clock"), *QUICK]
    options += ["--webhook-url", f"http://127.0.0.1:{port}/hook"]
    with serving(folder / "b", *options) as service:
        yield service


def test_a_service_killed_while_it_sends_sends_the_notice_after_its_restart(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTSPIN_WEBHOOK_SECRET", SECRET)
    with standing_in(hang, FINE) as server:
        with hooked(folder, server.port) as service:
            assert service.ask("GET", "/experiments/first")[0] == 200  # wanted: it is analysed now
            until(lambda: server.received)
            children = workers(service)
            service.process.kill()
            service.process.wait()
            for child in children:
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
        with hooked(folder, server.port) as service:
            until(lambda: counted(service, 'firstspin_webhooks_total{outcome="sent"}') == 1)
            assert SECRET not in service.log.read_text()
            assert "/hook" not in service.log.read_text()
            assert service.ask("GET", "/experiments/first")[0] == 200
            until(lambda: not (folder / "state" / "experiments" / "wanted").exists())
    assert len({header(request, "webhook-id") for request in server.received}) == 1
    assert len(server.received) == 2
    assert json.loads(body(server.received[1]))["data"]["sentence"] == "The experiment has no exposure so far."
    assert len(list((folder / "state" / "webhooks").glob("*.done"))) == 1


def test_the_receiver_of_the_page_takes_what_is_signed_once_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text(encoding="utf-8")
    [text] = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    monkeypatch.setenv("FIRSTSPIN_WEBHOOK_SECRET", SECRET)
    monkeypatch.setenv("PORT", "0")
    receiver: dict[str, Any] = {}
    exec(text, receiver)
    receiver["Hook"].log_message = lambda *_: None
    server = receiver["server"]
    url = f"http://127.0.0.1:{server.server_port}/"
    with at_work(1, lambda _number, _end: server.serve_forever()):
        try:
            sent = read_receiver(url, None, {"FIRSTSPIN_WEBHOOK_SECRET": SECRET})
            with standing_in(FINE) as unused:
                sender = Sender(tmp_path, unused)
            sender.queue()
            [one] = pending(sender.outbox)
            sender.run(Receiver(sent.address, (bytes(32),)))
            assert (sender.counts, receiver["received"]) == ({"failed": 1}, {})
            sender.now.seconds += 5
            sender.run(sent)  # its timestamp is in the year 2033
            assert (sender.counts, receiver["received"]) == ({"failed": 2}, {})
            for _ in range(2):
                [waiting] = pending(sender.outbox)
                sender.now.seconds = time()
                body_sent = waiting.path.read_bytes()
                os.utime(waiting.path, (0, 0))
                sender.run(sent)
                one.path.write_bytes(body_sent)
            assert sender.counts == {"failed": 2, "sent": 2}
            assert [json.loads(body)["type"] for body in receiver["received"].values()] == ["experiment.no_data"]
        finally:
            server.shutdown()
    server.server_close()


def progress(**fields: Any) -> Progress:
    """The state of a healthy experiment of 14 days on its third day, but for these fields."""
    usual: dict[str, Any] = dict.fromkeys(Progress.__struct_fields__) | {
        "experiment": "first@3f2a9c1b",
        "starts_on": date(2026, 1, 26),
        "days": 14,
        "as_of": datetime(2026, 1, 28, 12, tzinfo=UTC),
        "reads_at": datetime(2026, 2, 16, tzinfo=UTC),
        "users": 100,
        "daily": (Day(date(2026, 1, 27), {"model": 50, "rule": 50}),),
        "split_sound": True,
        "sentence": "Sentence.",
    }
    return Progress(**usual | fields)


@pytest.mark.parametrize(
    ("fields", "kinds"),
    [
        ({}, []),
        ({"users": 0, "daily": (), "as_of": datetime(2026, 1, 26, 23, tzinfo=UTC)}, []),
        ({"users": 0, "daily": (), "as_of": datetime(2026, 1, 27, tzinfo=UTC)}, ["experiment.no_data"]),
        ({"as_of": datetime(2026, 1, 29, tzinfo=UTC)}, ["experiment.no_data"]),
        ({"as_of": datetime(2026, 2, 10, tzinfo=UTC)}, []),  # all are assigned
        ({"as_of": datetime(2026, 1, 20, tzinfo=UTC), "users": 0, "daily": ()}, []),
        ({"split_sound": False}, ["experiment.sample_ratio"]),
        ({"as_of": datetime(2026, 2, 16, tzinfo=UTC)}, ["experiment.horizon_reached"]),
        ({"as_of": datetime(2026, 2, 16, tzinfo=UTC), "users": 0, "daily": ()}, ["experiment.no_data"]),
    ],
)
def test_each_state_of_an_experiment_gives_cause_for_its_notices(fields: dict[str, Any], kinds: list[str]) -> None:
    assert [kind for kind, _, _ in causes(progress(**fields))] == kinds


def test_a_state_seen_again_is_no_further_notice_and_a_full_disk_is_counted(tmp_path: Path) -> None:
    dropped: list[None] = []
    for hour in range(3):
        state = progress(as_of=datetime(2026, 1, 29, hour, tzinfo=UTC), split_sound=False)
        notify_of(state, tmp_path / "outbox", lambda: dropped.append(None))
    assert len(list(pending(tmp_path / "outbox"))) == 2
    (tmp_path / "file").write_text("")
    notify_of(progress(split_sound=False), tmp_path / "file", lambda: dropped.append(None))
    assert len(dropped) == 1
