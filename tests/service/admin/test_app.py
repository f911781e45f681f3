"""The admin port against web pages, failures and curious eyes: raw requests to the real process."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from made_bundles import pack
from made_service import Service, closes, exchange, reply, serving, until, workers

ROUTES = [
    ("GET", "/state"),
    ("POST", "/reload"),
    ("POST", "/rollback"),
    ("POST", "/erase"),
    ("GET", "/docs"),
    ("GET", "/openapi.json"),
    ("GET", "/nowhere"),
    ("OPTIONS", "/rollback"),
]
CHANGING = [path for method, path in ROUTES if method == "POST"]
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def service(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    place: Path = tmp_path_factory.mktemp("admin")
    (place / "b").symlink_to(folder)
    kept = ("--state", str(place / "state"), "--events", f"sqlite:///{place / 'events.sqlite'}")
    with serving(place / "b", "--admin-port", "0", "--admin-names", "ops.example", "--drain-delay", "0", *kept) as own:
        yield own


@pytest.fixture(autouse=True)
def unharmed(service: Service) -> Iterator[None]:
    yield
    assert call(service, "GET", "/state")[0] == 200
    assert "a request failed" not in service.log.read_text()
    assert "the admin process ended" not in service.log.read_text()


def port(service: Service) -> int:
    return int(next(line["port"] for line in service.lines() if line["event"] == "admin port"))


def connect(service: Service) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port(service)), timeout=20)


def call(
    service: Service, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    """One request with exactly these headers beside Host, where they name none, and Content-Length."""
    told = {"host": f"127.0.0.1:{port(service)}"} | (headers or {})
    if body or method == "POST":
        told |= {"content-length": str(len(body))}
    head = "".join(f"{name}: {value}\r\n" for name, value in told.items())
    with connect(service) as connection:
        return exchange(connection, f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body)


def error(answer: tuple[int, dict[str, str], bytes]) -> tuple[int, str]:
    """Status and code of a failure, which must have the documented form and nothing else."""
    status, headers, body = answer
    told = json.loads(body)
    assert headers["content-type"] == "application/json"
    assert list(told) == ["error"]
    assert list(told["error"]) == ["code", "message"]
    return status, told["error"]["code"]


# -------------------------------------------------------------------------------------------------------------- pages


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "10.0.0.5:80", "[::2]", ""]
)
def test_a_request_by_another_name_is_refused_whatever_it_asks(
    service: Service, method: str, path: str, host: str
) -> None:
    """DNS rebinding: the page's own name points here, so its requests have no other origin, but its name in Host."""
    assert error(call(service, method, path, b"{}", JSON | {"host": host})) == (403, "wrong_host")


def test_the_name_in_an_absolute_target_is_the_one_that_counts(service: Service) -> None:
    for host, target in (("localhost", "http://evil.example/state"), ("evil.example", "http://localhost/state")):
        answer = call(service, "GET", target, headers={"host": host})
        assert answer[0] == (200 if host == "evil.example" else 403)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost:80", "LocalHost", "[::1]:8080", "x.localhost", "ops.example.", "pod:80"]
)
def test_the_port_goes_by_loopback_names_and_those_it_was_given(service: Service, host: str) -> None:
    assert call(service, "GET", "/state", headers={"host": host})[0] == 200


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize(
    "sent",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_a_page_of_another_origin_is_refused_whatever_it_asks(
    service: Service, method: str, path: str, sent: dict[str, str]
) -> None:
    status, headers, body = call(service, method, path, b"{}", JSON | sent)
    assert error((status, headers, body)) == (403, "cross_origin")
    assert not [name for name in headers if name.startswith("access-control")]


def test_a_page_of_the_port_itself_may_ask(service: Service) -> None:
    own = {"origin": f"http://127.0.0.1:{port(service)}", "sec-fetch-site": "same-origin"}
    assert call(service, "POST", "/reload", b"{}", JSON | own)[0] == 200
    assert call(service, "GET", "/docs", headers={"sec-fetch-site": "none"})[0] == 200


@pytest.mark.parametrize("path", CHANGING)
@pytest.mark.parametrize(
    "kind",
    [
        None,
        "text/plain",
        "text/plain; application/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonp",
    ],
)
def test_what_a_browser_sends_without_asking_first_changes_nothing(
    service: Service, path: str, kind: str | None
) -> None:
    body = b'{"user_ids":["1"]}' if path == "/erase" else b"{}"
    answer = call(service, "POST", path, body, {"content-type": kind} if kind else {})
    assert error(answer) == (415, "unsupported_content_type")


def test_where_it_listens_on_more_than_loopback_any_address_is_a_name_and_no_other(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "b").symlink_to(folder)
    with serving(tmp_path / "b", "--admin-port", "0", "--admin-host", "0.0.0.0", "--drain-delay", "0") as service:
        for host in ("10.0.0.5:80", "[fe80::1]", "127.0.0.1"):
            assert call(service, "GET", "/state", headers={"host": host})[0] == 200
        assert error(call(service, "GET", "/state", headers={"host": "evil.example"})) == (403, "wrong_host")


def test_the_page_of_the_port_holds_nothing_that_runs_and_nothing_of_another_host(service: Service) -> None:
    status, headers, body = call(service, "GET", "/docs")
    text = body.decode()
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert headers["content-security-policy"].startswith("default-src 'none';")
    assert headers["x-content-type-options"] == "nosniff"
    assert not re.search(r"<script|<link|<img|<iframe|src=|\son\w+=|https:|//cdn", text)
    assert set(re.findall(r'href="([^"]*)"', text)) == {"/openapi.json"}
    described = json.loads(call(service, "GET", "/openapi.json")[2])
    assert all(path in text for path in described["paths"])


# ------------------------------------------------------------------------------------------------------------ failures


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("GET", "/nowhere", b"", (404, "not_found")),
        ("GET", "/rollback", b"", (405, "method_not_allowed")),
        ("DELETE", "/state", b"", (405, "method_not_allowed")),
        ("POST", "/rollback", b"{}", (409, "conflict")),
        ("POST", "/erase", b"", (400, "malformed")),
        ("POST", "/erase", b"[" * 100_000, (422, "invalid")),
        ("POST", "/erase", b'{"user_ids":["\\ud800"]}', (400, "malformed")),
        ("POST", "/erase", b'{"user_ids":["\xff"]}', (400, "malformed")),
        ("POST", "/erase", b'{"user_ids":[]}', (422, "invalid")),
        ("POST", "/erase", b'{"user_ids":["%b"]}' % (b"x" * 201), (422, "invalid")),
        ("POST", "/erase", b'{"user_ids":[%b"x"]}' % (b'"x",' * 1_000), (422, "invalid")),
        ("POST", "/erase", b" " * 5_000_000, (413, "body_too_large")),
    ],
)
def test_every_failure_has_the_documented_form(
    service: Service, method: str, path: str, body: bytes, expected: tuple[int, str]
) -> None:
    answer = call(service, method, path, body, JSON)
    assert error(answer) == expected
    assert ("allow" in answer[1]) is (answer[0] == 405)


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"no request at all\r\n\r\n", (400, "malformed_request")),
        (b"GET /state HTTP/1.1\r\n\r\n", (400, "malformed_request")),
        (b"GET /state HTTP/1.1\r\nhost: localhost\r\nx: " + b"a" * 20_000, (431, "header_too_large")),
        (b"GET /state HTTP/1.1\r\nho", (408, "too_slow")),
    ],
)
def test_so_has_what_never_becomes_a_request(service: Service, sent: bytes, expected: tuple[int, str]) -> None:
    with connect(service) as connection:
        connection.sendall(sent)
        assert error(reply(connection)) == expected
        assert closes(connection)


def test_while_another_holds_the_store_an_erasure_is_503(service: Service) -> None:
    store = next(Path(service.log).parent.glob("events.sqlite"))
    assert call(service, "POST", "/erase", b'{"user_ids":["1"]}', JSON)[0] == 200
    with closing(sqlite3.connect(store, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        answer = call(service, "POST", "/erase", b'{"user_ids":["1"]}', JSON)
        assert error(answer) == (503, "events_unavailable")
        assert answer[1]["retry-after"] == "1"
        assert call(service, "GET", "/state")[0] == 200
        other.execute("ROLLBACK")
    until(lambda: call(service, "POST", "/erase", b'{"user_ids":["1"]}', JSON)[0] == 200)


def test_while_the_supervisor_does_not_answer_orders_are_503_and_no_answer_is_taken_for_another(
    service: Service,
) -> None:
    os.kill(service.process.pid, signal.SIGSTOP)
    try:
        answer = call(service, "POST", "/reload", b"{}", JSON)
        assert error(answer) == (503, "supervisor_unavailable")
        assert answer[1]["retry-after"] == "1"
        assert call(service, "GET", "/docs")[0] == 200
    finally:
        os.kill(service.process.pid, signal.SIGCONT)
    until(lambda: call(service, "GET", "/state")[0] == 200)
    assert error(call(service, "POST", "/rollback", b"{}", JSON)) == (409, "conflict")  # not the late word on /reload
    assert call(service, "GET", "/state")[0] == 200


def test_many_connections_that_send_nothing_shut_no_operator_out(service: Service) -> None:
    with ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(connect(service))
        assert call(service, "GET", "/state")[0] == 200


# ------------------------------------------------------------------------------------------------------------- secrets


@pytest.mark.parametrize("given", ["environment", "option"])
def test_the_password_of_the_event_store_is_shown_nowhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: str
) -> None:
    """Arguments are what every user of the machine can read."""
    pack(tmp_path / "b")
    address = "postgresql://user:telltale@127.0.0.1:1/none"
    (tmp_path / "events.secret").write_text("00" * 32 + "\n")
    options = ("--admin-port", "0", "--events-secret", str(tmp_path / "events.secret"), "--drain-delay", "0")
    if given == "environment":
        monkeypatch.setenv("FIRSTSPIN_EVENTS", address)
    else:
        options += ("--events", address)
    with serving(tmp_path / "b", *options) as service:
        until(lambda: (port(service), len(workers(service)) == 2)[1])
        shown = [
            b"".join(Path(f"/proc/{pid}/cmdline").read_bytes() for pid in (service.process.pid, *workers(service)))
        ]
        shown += [call(service, "GET", "/state")[2], service.ask("GET", "/metrics")[2]]
        shown += [call(service, "POST", "/erase", b'{"user_ids":["1"]}', JSON)[2]]
        event = (
            b'{"events":[{"event_id":"1","type":"click","user_id":"1","station_id":"1","at":"2026-01-31T12:00:00Z"}]}'
        )
        shown += [service.ask("POST", "/v1/events", event)[2]]
        shown += [service.log.read_bytes()]
    assert not [text for text in shown if b"telltale" in text]
