"""What one client can make the service spend is bounded by what it sends, and ends when it leaves: real sockets."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import made_report
import pytest
from made_service import Service, closes, exchange, reply, request, resident, serving, until, workers

from firstspin.serving.bodies.limits import MAX_BODY_BYTES

MEGABYTE = 2**20
CHUNKED = (
    b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
)
LINES = "application/jsonlines"


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[Service]:
    with serving(folder, "--drain-delay", "0") as running:
        yield running


@pytest.fixture(autouse=True)
def unharmed(service: Service) -> Iterator[None]:
    yield
    assert service.recommend(age=31)["source"] == "model"
    assert "a worker ended" not in service.log.read_text()


def counted(service: Service, name: str) -> int:
    """The sum of a counter over its labels."""
    text = service.ask("GET", "/metrics")[2].decode()
    return int(sum(float(value) for value in re.findall(rf"^{name}_total(?:{{.*}})? (\S+)$", text, re.MULTILINE)))


def lines(number: int) -> bytes:
    return request("POST", "/invocations", b"{}\n" * number, content_type=LINES)


# ------------------------------------------------------------------------------------------------------------ trailers


@pytest.mark.parametrize("path", ["/invocations", "/nowhere"])
@pytest.mark.parametrize("piece", [b"x: " + b"a" * 60_000 + b"\r\n", b"a" * 60_000, b"a: b\r\n" * 10_000])
def test_trailers_beyond_the_limit_of_a_head_are_431_and_take_no_memory(
    service: Service, path: str, piece: bytes
) -> None:
    (worker,) = workers(service)
    before = resident(worker)
    with service.connect() as connection:
        sent = 0
        with suppress(ConnectionError):
            connection.sendall(CHUNKED.replace(b"/invocations", path.encode()) + b"2\r\n{}\r\n0\r\nx: ")
            while sent < 60 * MEGABYTE:
                connection.sendall(piece)
                sent += len(piece)
        with suppress(ConnectionError):  # it may be reset while it still sends
            assert reply(connection)[0] == 431
        assert closes(connection)
    assert resident(worker) < before + 20


def test_the_extensions_of_a_chunk_are_bounded_too(service: Service) -> None:
    (worker,) = workers(service)
    before = resident(worker)
    with service.connect() as connection:
        with suppress(ConnectionError):
            connection.sendall(CHUNKED + b"2;")
            for _ in range(1_000):
                connection.sendall(b"a" * 60_000)
        assert closes(connection)
    assert resident(worker) < before + 20


def test_short_trailers_are_dropped_and_change_nothing(service: Service) -> None:
    body = b"8\r\n" + b'{"age":3' + b"\r\n2\r\n1}\r\n0\r\n"
    with service.connect() as connection:
        trailers = b"content-type: text/csv\r\naccept: text/html\r\ncontent-encoding: gzip\r\n\r\n"
        status, headers, answer = exchange(connection, CHUNKED + body + trailers)
        assert (status, headers["content-type"]) == (200, "application/json")
        assert json.loads(answer)["source"] == "model"
        assert exchange(connection, CHUNKED + body + b"\r\n")[0] == 200  # the connection goes on


@pytest.mark.parametrize(
    "trailers",
    [
        b"host: x",
        b"connection: close",
        b"connection: upgrade\r\nupgrade: h2c",
        b"content-length: 5",
        b"transfer-encoding: chunked",
    ],
)
@pytest.mark.parametrize("head", [CHUNKED, CHUNKED.replace(b"host: x\r\n", b"")])
def test_a_trailer_that_would_frame_or_address_a_request_is_400(service: Service, head: bytes, trailers: bytes) -> None:
    after = request("POST", "/invocations", b"{}")
    with service.connect() as connection:
        connection.sendall(head + b"2\r\n{}\r\n0\r\n" + trailers + b"\r\n\r\n" + after)
        status, _, answer = reply(connection)
        assert (status, json.loads(answer)["error"]["code"]) == (400, "malformed_request")
        assert closes(connection)


def test_a_key_in_a_trailer_opens_nothing(folder: Path, tmp_path: Path) -> None:
    keys = {"keys": [{"name": "app", "sha256": "2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683"}]}
    (tmp_path / "keys.json").write_text(json.dumps(keys))  # the SHA-256 of "key"
    (tmp_path / "b").symlink_to(folder)
    body = b'{"user_id":"1","age":31}'
    with serving(tmp_path / "b", "--keys", str(tmp_path / "keys.json"), "--drain-delay", "0") as service:
        assert service.ask("POST", "/v1/recommendations", body, x_api_key="key")[0] == 200
        head = CHUNKED.replace(b"/invocations", b"/v1/recommendations")
        for trailer in (b"x-api-key: key", b"authorization: Bearer key"):
            with service.connect() as connection:
                sent = head + b"%x\r\n%b\r\n0\r\n%b\r\n\r\n" % (len(body), body, trailer)
                assert exchange(connection, sent)[0] == 401


# -------------------------------------------------------------------------------------------------------------- chunks


def test_a_body_in_chunks_of_two_bytes_takes_the_memory_of_the_body_and_gives_it_back(service: Service) -> None:
    (worker,) = workers(service)
    before = resident(worker)
    chunks = b"2\r\n  \r\n" * 100_000
    size = 30 * 200_000  # 6 MB in each connection, sent in 21 MB
    with ExitStack() as stack:
        connections = [stack.enter_context(service.connect()) for _ in range(3)]
        for connection in connections:
            connection.sendall(CHUNKED)
            for _ in range(size // 200_000):
                connection.sendall(chunks)
        assert service.recommend(age=31)
        assert resident(worker) < before + len(connections) * 2 * MAX_BODY_BYTES / MEGABYTE
        for connection in connections:
            assert exchange(connection, b"2\r\n{}\r\n0\r\n\r\n")[0] == 200
    until(lambda: resident(worker) < before + MAX_BODY_BYTES / MEGABYTE)


def test_a_second_request_is_not_read_into_memory_while_the_first_is_answered(service: Service) -> None:
    (worker,) = workers(service)
    before = resident(worker)
    with service.connect() as connection:
        connection.settimeout(1)
        connection.sendall(lines(10_000))
        with suppress(TimeoutError):  # nobody reads the answer, so at some point nobody reads this
            for _ in range(20):
                connection.sendall(request("POST", "/invocations", b"{}".ljust(6_000_000)))
        assert service.recommend(age=31)
        assert resident(worker) < before + 2 * MAX_BODY_BYTES / MEGABYTE  # the answer has 25 MB


# ------------------------------------------------------------------------------------------------------- long answers


def test_a_long_answer_takes_less_memory_than_two_bodies_while_nobody_reads_it(service: Service) -> None:
    (worker,) = workers(service)
    with service.connect() as connection:
        before = resident(worker)
        connection.sendall(lines(10_000))
        peak = max(resident(worker) for _ in range(100) if not time.sleep(0.02))
        assert peak < before + 2 * MAX_BODY_BYTES / MEGABYTE
        status, headers, body = reply(connection)
    assert (status, headers["transfer-encoding"], "content-length" in headers) == (200, "chunked", False)
    assert len(set(body.splitlines())) == 1
    assert body.count(b"\n") == 10_000


@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
def test_a_long_answer_is_that_of_its_parts(service: Service, version: bytes) -> None:
    """HTTP/1.0 has no chunks: the end of the connection is the end of the answer."""
    bodies = [b'{"age": %d, "genres": ["Rock"]}' % (20 + age % 50) for age in range(3_000)]
    parts = [b"".join(bodies[at : at + 1_000]).replace(b"}{", b"}\n{") for at in range(0, 3_000, 1_000)]
    answers = [service.ask("POST", "/invocations", part, content_type=LINES)[2] for part in parts]
    sent = request("POST", "/invocations", b"\n".join(bodies), content_type=LINES).replace(b"HTTP/1.1", version, 1)
    with service.connect() as connection:
        connection.sendall(sent)
        if version == b"HTTP/1.1":
            assert reply(connection)[2] == b"".join(answers)
            assert exchange(connection, request("POST", "/invocations", b"{}"))[0] == 200  # and it goes on
        else:
            received = b"".join(iter(lambda: connection.recv(65_536), b""))
            assert received.partition(b"\r\n\r\n")[2] == b"".join(answers)


def test_what_is_sent_behind_a_long_answer_is_answered_after_it(service: Service) -> None:
    with service.connect() as connection:
        connection.sendall(lines(3_000) + request("POST", "/invocations", b"{}"))
        received = b""
        while b"\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n" not in received:
            received += connection.recv(65_536)
    long_answer, _, _ = received.rpartition(b"HTTP/1.1")
    assert long_answer.count(b'{"model":') == 3_000


# ---------------------------------------------------------------------------------------------------------------- work


def test_work_ends_when_its_client_has_left(service: Service) -> None:
    """40 requests about 10,000 newcomers each, whose connections are closed at once."""
    (worker,) = workers(service)
    before, memory = counted(service, "firstspin_answers"), resident(worker)
    for _ in range(40):
        with service.connect() as connection:
            connection.sendall(lines(10_000))
    until(lambda: b"firstspin_connections 1.0" in service.ask("GET", "/metrics")[2])
    assert counted(service, "firstspin_answers") - before < 40_000  # of 400,000
    assert b'status="499"' in service.ask("GET", "/metrics")[2]
    assert resident(worker) < memory + 60


def test_work_ends_when_its_connection_is_reset(service: Service) -> None:
    before = counted(service, "firstspin_answers")
    for _ in range(10):
        connection = service.connect()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.sendall(lines(10_000))
        connection.close()
    until(lambda: b"firstspin_connections 1.0" in service.ask("GET", "/metrics")[2])
    assert counted(service, "firstspin_answers") - before < 20_000  # of 100,000


def test_a_client_that_closes_its_sending_half_gets_a_short_answer_and_no_long_one(service: Service) -> None:
    for number, status in ((1_000, 200), (2_000, None)):
        with service.connect() as connection:
            connection.sendall(lines(number))
            connection.shutdown(socket.SHUT_WR)
            if status:
                assert reply(connection)[0] == status
            assert closes(connection)


def all_at_once(service: Service, connections: list[socket.socket], sent: bytes) -> None:
    """So that all arrive in one turn of the service's loop."""
    os.killpg(service.process.pid, signal.SIGSTOP)
    for connection in connections:
        connection.sendall(sent)
    os.killpg(service.process.pid, signal.SIGCONT)


def test_the_limit_counts_registrations_and_what_is_beyond_it_is_told_to_come_back(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "b").symlink_to(folder)
    with serving(tmp_path / "b", "--in-flight", "100", "--drain-delay", "0") as small, ExitStack() as stack:
        connections = [stack.enter_context(small.connect()) for _ in range(6)]
        assert {exchange(connection, request("GET", "/ping"))[0] for connection in connections} == {200}
        all_at_once(small, connections, lines(40))
        replies = [reply(connection) for connection in connections]
        assert sorted(status for status, _, _ in replies) == [200, 200, 503, 503, 503, 503]
        for status, headers, body in replies:
            if status == 503:
                assert (headers["retry-after"], json.loads(body)["error"]["code"]) == ("1", "overloaded")
        assert {exchange(connection, lines(40))[0] for connection in connections} == {200}
        assert exchange(connections[0], lines(5_000))[0] == 200  # alone, any number is taken
        for path in ("/v1/explanations", "/invocations"):
            assert small.ask("POST", path, b'{"age":31}')[0] == 200


def test_an_answer_that_nobody_reads_is_in_work(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "b").symlink_to(folder)
    options = ("--in-flight", "10000", "--drain-delay", "0")
    with serving(tmp_path / "b", *options) as small, small.connect() as slow, small.connect() as other:
        slow.sendall(lines(10_000))
        until(lambda: counted(small, "firstspin_answers") >= 100)
        for _ in range(3):
            assert exchange(other, lines(50))[0] == 503
        assert exchange(other, request("POST", "/invocations", b"{}"))[0] == 200
        assert reply(slow)[0] == 200
        until(lambda: exchange(other, lines(50))[0] == 200)


def test_a_page_that_nobody_reads_is_in_memory_once(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "b").symlink_to(folder)
    (tmp_path / "report.html").write_text(made_report.least(" " * 4_000_000), encoding="utf-8")
    options = ("--report", str(tmp_path / "report.html"), "--drain-delay", "0")
    with serving(tmp_path / "b", *options) as service, ExitStack() as stack:
        connections = [stack.enter_context(service.connect()) for _ in range(20)]
        (worker,) = workers(service)
        assert len(service.ask("GET", "/report")[2]) > 4_000_000
        before = resident(worker)
        for connection in connections:
            connection.sendall(request("GET", "/report"))
            assert connection.recv(12) == b"HTTP/1.1 200"
        assert service.ask("GET", "/ping")[0] == 200
        assert resident(worker) < before + 40  # of 80
