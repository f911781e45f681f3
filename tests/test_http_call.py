"""Calls to a server that fails in every way: what is safe is repeated, and nothing outlasts its deadline."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import pytest
from stand_in_server import StandInServer, Step, answer, close, drip, hang, reset, standing_in

from firstspin.http_call import (
    Backoff,
    Caller,
    Connections,
    DeadlineExceeded,
    HttpAnswer,
    NoAnswer,
    retry_after,
    server_address,
)
from firstspin.records import InputError

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
FINE = answer(200, b"fine")


class Pauses:
    """A clock that only pauses move, and their seconds."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def now(self) -> float:
        return sum(self.seconds)

    def sleep(self, seconds: float) -> None:
        self.seconds.append(seconds)


def caller(server: StandInServer, pauses: Pauses, **backoff: float) -> Caller:
    address = server_address(f"http://127.0.0.1:{server.port}", "the URL")
    settings = Backoff(**backoff)  # type: ignore[arg-type]
    return Caller(Connections(address, pauses.now), settings, random.Random(7), pauses.sleep, lambda: NOON)


def call(
    server: StandInServer, pauses: Pauses, *, seconds: float = 60.0, is_idempotent: bool = True, **backoff: float
) -> HttpAnswer:
    calls = caller(server, pauses, **backoff)
    try:
        return calls.call("GET", "/", {}, seconds=seconds, is_idempotent=is_idempotent)
    finally:
        calls.connections.close()


@pytest.fixture
def pauses() -> Pauses:
    return Pauses()


PASSING = (*map(answer, (429, 502, 503, 504)), close, reset, b"garbage\r\n\r\n")


@pytest.mark.parametrize("failure", PASSING)
def test_a_failure_that_may_pass_is_tried_again(failure: Step, pauses: Pauses) -> None:
    with standing_in(failure, failure, FINE) as server:
        assert call(server, pauses).body == b"fine"
        assert len(server.received) == 3
    assert len(pauses.seconds) == 2


@pytest.mark.parametrize("status", [400, 401, 404, 409, 500, 501, 302])
def test_another_failure_is_the_answer(status: int, pauses: Pauses) -> None:
    with standing_in(answer(status, location="/elsewhere"), FINE) as server:
        assert call(server, pauses).status == status
        assert len(server.received) == 1


@pytest.mark.parametrize("failure", [answer(503), close])
def test_a_call_that_is_not_safe_to_repeat_is_sent_once(failure: Step, pauses: Pauses) -> None:
    with standing_in(failure, FINE) as server:
        if failure is close:
            with pytest.raises(NoAnswer):
                call(server, pauses, is_idempotent=False)
        else:
            assert call(server, pauses, is_idempotent=False).status == 503
        assert len(server.received) == 1


def test_any_call_is_tried_again_where_no_server_listens(pauses: Pauses) -> None:
    with standing_in(FINE) as server:
        pass
    with pytest.raises(NoAnswer, match="ConnectionRefusedError") as caught:
        call(server, pauses, is_idempotent=False)
    assert not caught.value.sent
    assert len(pauses.seconds) == 3


def test_the_attempts_are_bounded_and_the_last_failure_is_the_outcome(pauses: Pauses) -> None:
    with standing_in(answer(503, b"busy")) as server:
        assert call(server, pauses, attempts=3).body == b"busy"
        assert len(server.received) == 3


def test_pauses_are_random_below_a_bound_that_doubles_up_to_a_max() -> None:
    backoff, rng = Backoff(base=1.0, max_wait=5.0), random.Random(0)
    for failures, bound in ((1, 1.0), (2, 2.0), (3, 4.0), (4, 5.0), (2_000, 5.0)):
        waits = [backoff.wait(failures, rng) for _ in range(2_000)]
        assert max(waits) <= bound
        assert sum(waits) / len(waits) == pytest.approx(bound / 2, rel=0.05)


def test_retry_after_is_waited_for(pauses: Pauses) -> None:
    with standing_in(answer(503, retry_after="7"), FINE) as server:
        assert call(server, pauses).body == b"fine"
    assert 7.0 <= pauses.seconds[0] <= 7.1


def test_a_retry_after_beyond_the_deadline_is_not_waited_for(pauses: Pauses) -> None:
    with standing_in(answer(503, retry_after="61"), FINE) as server:
        assert call(server, pauses).status == 503
    assert pauses.seconds == []


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("3", 3.0),
        ("Sat, 31 Jan 2026 12:00:09 GMT", 9.0),
        ("Sat, 31 Jan 2026 11:00:00 GMT", 0.0),
        ("-1", 0.0),
        ("soon", 0.0),
        ("1e9", 0.0),
        ("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", 0.0),
        ("Mon, 01 Jan 2099 00:00:00 +99999999999999999999", 0.0),
        ("", 0.0),
    ],
)
def test_a_retry_after_is_seconds_or_a_date(text: str, seconds: float) -> None:
    assert retry_after(HttpAnswer(503, {"retry-after": text}, b""), NOON) == seconds


@pytest.mark.parametrize("slow", [hang, drip])
def test_a_slow_server_does_not_outlast_the_deadline(slow: Step) -> None:
    with standing_in(slow) as server:
        address = server_address(f"http://127.0.0.1:{server.port}", "the URL")
        with pytest.raises(DeadlineExceeded):
            Caller(Connections(address)).call("GET", "/", {}, seconds=0.2, is_idempotent=True)
        assert len(server.received) == 1


def test_the_deadline_is_of_all_attempts_together() -> None:
    with standing_in(answer(503), answer(503), hang) as server:
        address = server_address(f"http://127.0.0.1:{server.port}", "the URL")
        with pytest.raises(DeadlineExceeded):
            Caller(Connections(address), Backoff(base=0.01)).call("GET", "/", {}, seconds=2.0, is_idempotent=True)
        assert len(server.received) == 3


def test_a_connection_is_used_again_until_its_server_closes_it(pauses: Pauses) -> None:
    def then_close(connection: object) -> None:
        connection.sendall(FINE)  # type: ignore[attr-defined]
        connection.close()  # type: ignore[attr-defined]

    with standing_in(FINE, FINE, then_close, FINE) as server:
        calls = caller(server, pauses)
        for number in range(4):  # the close may come while the last call is sent, which is sent again then
            assert calls.call("GET", "/", {}, seconds=60, is_idempotent=number == 3).body == b"fine"
        assert server.connections == 2
        calls.connections.close()


def test_an_answer_is_read_up_to_the_max(pauses: Pauses) -> None:
    with standing_in(answer(200, b"x" * 100_000)) as server:
        address = server_address(f"http://127.0.0.1:{server.port}", "the URL")
        connections = Connections(address, pauses.now, max_body=10)
        assert connections.exchange("GET", "/", {}, None, 60.0).body == b"x" * 10


@pytest.mark.parametrize(
    "url",
    [
        "example.com",
        "ftp://example.com",
        "http://",
        "http://a b",
        "http://example.com:99999",
        "http://example.com/#part",
        "http://example.com\r\nx: y",
        "http://user:secret@example.com",
        "http://alerts..example.com",
        f"https://{'a' * 64}.example.com",
        "",
    ],
)
def test_a_url_that_is_none_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(InputError, match="the URL") as caught:
        server_address(url, "the URL")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "target"), [("http://a.com", "/"), ("http://a.com?k=1", "/?k=1"), ("http://a.com/b?k=1", "/b?k=1")]
)
def test_the_target_of_a_url_begins_with_a_slash(url: str, target: str) -> None:
    assert server_address(url, "the URL").target == target
