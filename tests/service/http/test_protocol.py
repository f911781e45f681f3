"""What strangers do to a socket, against the real process: raw bytes in, and what must come out."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from made_service import Service, closes, exchange, reply, request, serving

from firstspin.serving.bodies.limits import MAX_BODY_BYTES

TIMES = ("--head-seconds", "1", "--body-seconds", "1", "--idle-seconds", "2", "--drain-delay", "0")


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[Service]:
    with serving(folder, *TIMES, "--connections", "200") as running:
        yield running


@pytest.fixture(autouse=True)
def unharmed(service: Service) -> Iterator[None]:
    """After each test the service answers, from the same process."""
    yield
    assert service.recommend(age=31)["source"] == "model"
    assert service.process.poll() is None
    assert "a worker ended" not in service.log.read_text()


def answered(service: Service, sent: bytes) -> tuple[int, str]:
    """Status and code of what comes back on a connection that must then end."""
    with service.connect() as connection:
        with suppress(ConnectionError):  # it may refuse before all is sent
            connection.sendall(sent)
        status, _, body = reply(connection)
        assert closes(connection)
    return status, json.loads(body)["error"]["code"]


POST = b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        POST + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"transfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n{}",
        POST + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}",
        POST + b"content-length: -1\r\n\r\n",
        POST + b"content-length: 0x2\r\n\r\n{}",
        POST + b"transfer-encoding: chunked\r\n\r\n-1\r\n{}\r\n0\r\n\r\n",
        POST + b"transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        b"GET /ping HTTP/1.1\nhost: x\n\n",
        b"GET /ping HTTP/1.1\r\nhost : x\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nhost: x\r\n folded\r\n\r\n",
        b"GET /ping HTTP/1.1\r\n\r\n",
        b"GET /ping HTTP/9.9\r\nhost: x\r\n\r\n",
        b"GET /pi ng HTTP/1.1\r\nhost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x00" * 64,
        b"CONNECT elsewhere:443 HTTP/1.1\r\nhost: elsewhere\r\n\r\n",
    ],
)
def test_case_13_what_is_not_plain_http_is_400_and_the_connection_ends(service: Service, sent: bytes) -> None:
    status, code = answered(service, sent)
    assert (status, code) in {(400, "malformed_request"), (400, "upgrade_refused")}


@pytest.mark.parametrize(
    "head",
    [
        b"GET /ping\r\n",
        b"GET /ping HTTP/0.9\r\nhost: x\r\n",
        b"GET /ping HTTP/1.2\r\nhost: x\r\n",
        b"GET /ping HTTP/2.0\r\nhost: x\r\n",
        b"GET /ping HTTP/2\r\nhost: x\r\n",
        b"GET /ping HTTP/3.0\r\nhost: x\r\n",
        b"GET /ping HTTP/2.0\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n",
        b"GET /ping http/1.1\r\nhost: x\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n",
        b"GET /ping HTTP/1.1\r\n",
        b"GET http://x/ping HTTP/1.1\r\n",
        b"GET /ping HTTP/1.1\r\nhost: x\r\nhost: x\r\n",
        b"GET /ping HTTP/1.1\r\nhost: x\r\nHost: y\r\n",
        b"GET /ping HTTP/1.0\r\nhost: x\r\nHost: y\r\n",
        b"GET /ping HTTP/1.1\r\nhost: x, y\r\n",
        b"GET /ping HTTP/1.1\r\nhost: x/ping\r\n",
        b"GET /ping HTTP/1.1\r\nhost: http://x\r\n",
        b"GET /ping HTTP/1.1\r\nhost: x y\r\n",
        b"GET /ping HTTP/1.1\r\nhost: x:y\r\n",
        b"GET /ping HTTP/1.1\r\nhost: \xff\r\n",
        b"GET ftp://x/ping HTTP/1.1\r\nhost: x\r\n",
        b"GET http:///ping HTTP/1.1\r\nhost: x\r\n",
        b"GET http://name:word@x/ping HTTP/1.1\r\nhost: x\r\n",
        b"GET http://x/ping#there HTTP/1.1\r\nhost: x\r\n",
        b"GET /ping#there HTTP/1.1\r\nhost: x\r\n",
        b"GET x:80 HTTP/1.1\r\nhost: x\r\n",
        b"GET ping HTTP/1.1\r\nhost: x\r\n",
        b"POST /invocations HTTP/1.0\r\nhost: x\r\ntransfer-encoding: chunked\r\n",
        POST + b"transfer-encoding: gzip, chunked\r\n",
        POST + b"content-length: 2\r\ncontent-length: 2\r\n",
        POST + b"content-type: text/csv\r\n",
        POST + b"Content-Type: application/json\r\n",
        POST + b"content-encoding: gzip\r\ncontent-encoding: identity\r\n",
        POST + b"x-api-key: a\r\nx-api-key: b\r\n",
        POST + b"authorization: Bearer a\r\nauthorization: Bearer b\r\n",
        POST + b"expect: 100-continue\r\nexpect: 100-continue\r\ncontent-length: 2\r\n",
    ],
)
def test_case_13_a_head_that_two_readers_could_take_differently_is_400(service: Service, head: bytes) -> None:
    assert answered(service, head + b"\r\n") == (400, "malformed_request")


@pytest.mark.parametrize(
    "head",
    [
        b"GET http://x/ping HTTP/1.1\r\nhost: x\r\n",
        b"GET HTTP://x:8080/ping HTTP/1.1\r\nhost: another\r\n",
        b"GET https://[::1]:8080/ping?deep=1 HTTP/1.1\r\nhost:\r\n",
        b"GET http://x/ping HTTP/1.0\r\n",
        b"GET /ping HTTP/1.0\r\n",
        b"GET /ping HTTP/1.1\r\nhost:\r\n",
        b"GET /ping HTTP/1.1\r\nhost: [::1]:8080\r\n",
        b"GET http://x HTTP/1.1\r\nhost: x\r\n",
        b"GET http://x?a=/b HTTP/1.1\r\nhost: x\r\n",
        b"GET /ping HTTP/1.1\r\nhost: x\r\naccept: text/html\r\naccept: */*\r\nx-trace: 1\r\nx-trace: 2\r\n",
        b"GET http://x/ping HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n",
        b"GET /ping HTTP/1.0\r\nconnection: upgrade\r\nupgrade: websocket\r\n",
    ],
)
def test_targets_in_absolute_form_and_headers_that_are_lists_are_served(service: Service, head: bytes) -> None:
    with service.connect() as connection:
        assert exchange(connection, head + b"\r\n")[0] == 200


def test_a_registration_is_posted_to_an_absolute_target_and_accepts_are_joined(service: Service) -> None:
    body = b'{"age":31}'
    head = POST.replace(b" /", b" http://anywhere/") + b"accept: text/html\r\naccept: application/json\r\n"
    with service.connect() as connection:
        sent = head + b"content-length: %d\r\n\r\n" % len(body) + body
        first, second = exchange(connection, sent), exchange(connection, sent)  # the connection stays
    assert first[0] == second[0] == 200
    assert json.loads(first[2])["source"] == "model"
    with service.connect() as connection:
        assert exchange(connection, b"OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n")[0] == 404


def test_case_10_a_head_of_a_megabyte_is_431(service: Service) -> None:
    assert answered(service, b"GET /ping HTTP/1.1\r\nx: " + b"a" * 1_000_000)[0] == 431
    many = b"".join(b"x-%d: 1\r\n" % number for number in range(10_000))
    assert answered(service, b"GET /ping HTTP/1.1\r\n" + many + b"\r\n")[0] == 431
    assert answered(service, b"GET /" + b"a" * 100_000)[0] == 431


def test_case_9_a_body_over_the_limit_is_413_before_it_is_read(service: Service) -> None:
    announced = POST + b"content-length: 50000000\r\n\r\n{"
    assert answered(service, announced) == (413, "body_too_large")
    chunk = b"10000\r\n" + b" " * 65_536 + b"\r\n"
    assert answered(service, POST + b"transfer-encoding: chunked\r\n\r\n" + chunk * 120) == (413, "body_too_large")


def test_the_largest_body_sagemaker_lets_through_is_answered(service: Service) -> None:
    body = b'{"age":31}'.ljust(MAX_BODY_BYTES)
    assert service.ask("POST", "/invocations", body)[0] == 200
    assert service.ask("POST", "/invocations", body + b" ")[0] == 413


def test_case_9_a_body_in_65536_chunks_is_answered(service: Service) -> None:
    body = b'{"age":31}'.ljust(65_536)
    chunked = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    with service.connect() as connection:
        assert exchange(connection, POST + b"transfer-encoding: chunked\r\n\r\n" + chunked)[0] == 200


def test_case_14_slow_headers_and_a_stalled_body_end_at_the_deadline(service: Service) -> None:
    with service.connect() as slow, service.connect() as stalled, service.connect() as silent:
        slow.sendall(b"POST /invocations HTTP/1.1\r\nho")
        stalled.sendall(POST + b"content-length: 10\r\n\r\n{")
        assert service.recommend(age=31)
        assert reply(slow)[0] == 408
        assert reply(stalled)[0] == 408
        assert closes(slow)
        assert closes(stalled)
        assert closes(silent)


def test_case_14_a_drip_of_bytes_does_not_move_the_deadline(service: Service) -> None:
    with service.connect() as drip:
        with suppress(ConnectionError):
            for _ in range(40):
                drip.sendall(b"x: 1\r\n" if _ else b"GET /ping HTTP/1.1\r\n")
                time.sleep(0.1)
        with suppress(ConnectionError):
            assert reply(drip)[0] == 408
        assert closes(drip)


def test_case_14_a_slow_reader_is_cut_off_and_others_are_answered(service: Service) -> None:
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.connect(("127.0.0.1", service.port))
    slow.settimeout(0.5)
    lines = b"{}\n" * 9_000
    sent = request("POST", "/invocations", lines, content_type="application/jsonlines")
    slow.sendall(sent)
    time.sleep(0.5)
    assert service.recommend(age=31)
    until = time.monotonic() + 15
    while "firstspin_connections 1.0" not in service.ask("GET", "/metrics")[2].decode():
        assert time.monotonic() < until
        time.sleep(0.2)
    slow.close()


def test_case_15_clients_that_leave_in_the_middle_leave_nothing_behind(service: Service) -> None:
    for part in (5, 60, 120, 10_000):
        for _ in range(10):
            with service.connect() as connection:
                connection.sendall(request("POST", "/invocations", b'{"age":31}' + b" " * 100)[:part])
    assert service.recommend(age=31)


def test_who_closes_the_sending_half_still_gets_the_answer(service: Service) -> None:
    lines = b"{}\n" * 200
    with service.connect() as connection:
        connection.sendall(request("POST", "/invocations", lines, content_type="application/x-ndjson"))
        connection.shutdown(socket.SHUT_WR)
        status, _, body = reply(connection)
        assert (status, body.count(b"\n")) == (200, 200)


def test_pipelined_requests_are_answered_in_order(service: Service) -> None:
    many = request("POST", "/invocations", b"{}\n" * 100, content_type="application/x-ndjson")
    with service.connect() as connection:
        connection.sendall(
            request("GET", "/ping") + many + request("GET", "/nowhere") + request("POST", "/invocations", b"{}")
        )
        received = b""
        while received.count(b"HTTP/1.1 ") < 4 or not received.endswith(b"]}"):
            received += connection.recv(65_536)
    statuses = [part[:3] for part in received.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"200", b"200", b"404", b"200"]


def test_http_1_0_and_connection_close_are_kept(service: Service) -> None:
    for sent in (b"GET /ping HTTP/1.0\r\n\r\n", b"GET /ping HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"):
        with service.connect() as connection:
            status, headers, _ = exchange(connection, sent)
            assert (status, headers["connection"]) == (200, "close")
            assert closes(connection)


def test_head_has_no_body_and_expect_is_encouraged(service: Service) -> None:
    with service.connect() as connection:
        connection.sendall(request("HEAD", "/metrics"))
        status, headers, body = reply(connection, head=True)
        assert (status, body) == (200, b"")
        assert int(headers["content-length"]) > 0
        connection.sendall(POST + b"content-length: 2\r\nexpect: 100-continue\r\n\r\n")
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert exchange(connection, b"{}")[0] == 200


def test_case_17_idle_connections_are_bounded_and_a_new_client_is_served(service: Service) -> None:
    with ExitStack() as stack:
        for _ in range(400):
            idle = stack.enter_context(service.connect())
            assert exchange(idle, request("GET", "/ping"))[0] == 200
        assert service.ask("GET", "/ping")[0] == 200
        assert service.recommend(age=31)


def test_case_16_a_burst_is_answered_or_told_to_come_back(service: Service, tmp_path: Path) -> None:
    shutil.copytree(service.bundle, tmp_path / "b")
    with serving(tmp_path / "b", "--in-flight", "8", "--drain-delay", "0") as small, ExitStack() as stack:
        connections = [stack.enter_context(small.connect()) for _ in range(41)]
        assert {exchange(connection, request("GET", "/ping"))[0] for connection in connections} == {200}
        os.killpg(small.process.pid, signal.SIGSTOP)  # so that all arrive in one turn of its loop
        for connection in connections[:-1]:
            connection.sendall(request("POST", "/invocations", b'{"age":31}'))
        connections[-1].sendall(request("GET", "/ping"))
        os.killpg(small.process.pid, signal.SIGCONT)
        replies = [reply(connection) for connection in connections]
        assert {status for status, _, _ in replies} == {200, 503}
        assert all(headers["retry-after"] == "1" for status, headers, _ in replies if status == 503)
        assert replies[-1][0] == 200  # /ping always gets through
        assert small.recommend(age=31)["source"] == "model"


def test_many_requests_on_one_connection_are_all_answered_in_their_order(service: Service) -> None:
    with service.connect() as connection:
        asked = [request("POST", "/invocations", b'{"age":31}'), request("GET", "/ping"), request("GET", "/nowhere")]
        connection.sendall(b"".join(asked) * 40)
        answered = b""
        while answered.count(b"HTTP/1.1 ") < 120 or not answered.endswith(b"}}"):
            answered += connection.recv(1_000_000)
        statuses = [part[:3] for part in answered.split(b"HTTP/1.1 ")[1:]]
        assert statuses == [b"200", b"200", b"404"] * 40


def test_what_comes_before_a_broken_request_is_still_answered(service: Service) -> None:
    with service.connect() as connection:
        connection.sendall(request("POST", "/invocations", b'{"age":31}') * 3 + b"no request at all\r\n\r\n")
        answered = b"".join(iter(lambda: connection.recv(1_000_000), b""))
        assert [part[:3] for part in answered.split(b"HTTP/1.1 ")[1:]] == [b"200", b"200", b"200", b"400"]


def test_a_request_that_begins_behind_another_has_its_deadline_too(service: Service) -> None:
    with service.connect() as connection:
        connection.sendall(request("POST", "/invocations", b'{"age":31}') + b"POST /invocations HTTP/1.1\r\n")
        assert reply(connection)[0] == 200
        assert reply(connection)[0] == 408


def test_an_offer_of_http_2_is_answered_in_http_1_1(service: Service) -> None:
    sent = (
        POST
        + b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AA\r\ncontent-length: 10\r\n\r\n"
    )
    with service.connect() as connection:
        connection.sendall(sent + b'{"ag')
        time.sleep(0.1)
        assert exchange(connection, b'e":31}')[0] == 200
        assert exchange(connection, request("GET", "/ping"))[0] == 200


def test_cases_1_and_3_go_through_the_socket_unharmed(service: Service) -> None:
    for body in (b"", b"[", b"\xff\xfe", b'{"gender":"\\ud800"}', b'{"age":1e400}', b'{"x":' + b"[" * 100_000):
        status, _, said = service.ask("POST", "/invocations", body)
        assert status in (400, 422)
        assert json.loads(said)["error"]["code"]


def test_case_47_nothing_personal_is_logged(service: Service) -> None:
    service.ask("POST", "/invocations", b'{"gender":"telltale","genres":["telltale"]}')
    service.ask("POST", "/invocations", b'{"telltale":1}')
    service.ask("GET", "/nowhere?user=telltale", authorization="Bearer telltale")
    assert "telltale" not in service.log.read_text()
    assert "telltale" not in service.ask("GET", "/metrics")[2].decode()
