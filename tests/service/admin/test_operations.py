"""The page of operations at the real admin port: who may read it, what runs in it, and its stream of events."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from made_service import Service, admin, exchange, point, request, serving, until

from firstspin.service.admin.app import MAX_STREAMS
from firstspin.service.pages.site import SECURITY

KEY, OTHER = "open sesame", "another"
BEARER = {"authorization": f"Bearer {KEY}"}


def port(service: Service) -> int:
    return int(next(line["port"] for line in service.lines() if line["event"] == "admin port"))


def ask(service: Service, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    with service.connect(port(service)) as connection:
        return exchange(connection, request(method, path, connection="close", **headers))


@pytest.fixture(scope="module")
def service(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    place: Path = tmp_path_factory.mktemp("operations")
    (place / "b").symlink_to(folder)
    with serving(place / "b", "--admin-port", "0", "--drain-delay", "0") as started:
        yield started


@pytest.fixture(scope="module")
def locked(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose admin port needs a key."""
    place: Path = tmp_path_factory.mktemp("locked")
    (place / "b").symlink_to(folder)
    hashes = {name: hashlib.sha256(name.encode()).hexdigest() for name in (KEY, OTHER)}
    keys = [{"name": name, "sha256": of, "admin": name == KEY} for name, of in hashes.items()]
    (place / "keys.json").write_text(json.dumps({"keys": keys}))
    with serving(place / "b", "--admin-port", "0", "--drain-delay", "0", "--keys", str(place / "keys.json")) as started:
        yield started


class Stream:
    """A reader of the events."""

    def __init__(self, service: Service, **headers: str) -> None:
        self._connection = service.connect(port(service))
        self._connection.sendall(request("GET", "/ops/live", **headers))
        self._received = b""
        self.head = self._until(b"\r\n\r\n").decode()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def _more(self) -> None:
        more = self._connection.recv(65_536)
        if not more:
            raise EOFError
        self._received += more

    def _until(self, end: bytes) -> bytes:
        while end not in self._received:
            self._more()
        found, _, self._received = self._received.partition(end)
        return found

    def event(self) -> dict[str, str]:
        """The panels of the next event; none of a comment. Raises EOFError at the end of the stream."""
        size = int(self._until(b"\r\n"), 16)
        while len(self._received) < size + 2:
            self._more()
        chunk, self._received = self._received[:size].decode(), self._received[size + 2 :]
        if not chunk:
            raise EOFError
        if chunk.startswith(":"):
            return {}
        kind, data, _, _ = chunk.split("\n")
        assert kind == "event: panels"
        return json.loads(data.removeprefix("data: "))  # type: ignore[no-any-return]

    def to_its_end(self) -> bool:
        """Whether the stream ends, read until then."""
        with suppress(EOFError):
            while True:
                self.event()
        return True


def facts(service: Service) -> dict[str, Any]:
    return admin(service, "GET", "/ops.json")[1]


def test_the_page_runs_only_files_of_the_port_and_each_of_them_is_there(service: Service) -> None:
    until(lambda: (facts(service)["service"] or {}).get("model"))
    for path in ("/ops", "/"):
        status, headers, body = ask(service, path)
        assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert f"content-security-policy: {headers['content-security-policy']}".encode() in SECURITY
        assert b"style=" not in body
        assert re.search(rb"<script[^>]*>[^<]", body) is None
        linked = set(re.findall(r'(?:src|href)="(/static/[^"]+)"', body.decode()))
        assert len(linked) == 4
        for file in linked:
            assert ask(service, file)[1]["cache-control"] == "public, max-age=31536000, immutable"
    assert facts(service)["service"]["model"] in ask(service, "/ops")[2].decode()


def test_the_navigation_leads_to_the_pages_of_the_service(service: Service) -> None:
    page = ask(service, "/ops", host=f"localhost:{port(service)}")[2].decode()
    assert f'<a href="http://localhost:{service.port}/">Try it</a>' in page
    assert '<a href="/ops" aria-current="page">Operations</a>' in page
    assert "<script>x" not in ask(service, "/ops", host='"><script>x:1')[2].decode()


def test_a_refusal_is_a_page_for_a_browser_which_leads_to_the_operations(service: Service) -> None:
    for path, more, status, words in (
        ("/nothing", {}, 404, "There is nothing at this path."),
        ("/ops", {"sec-fetch-site": "cross-site"}, 403, "Cross-origin requests are not allowed."),
    ):
        found, headers, body = ask(service, path, accept="text/html", **more)
        assert (found, headers["content-type"]) == (status, "text/html; charset=utf-8")
        assert words in body.decode()
        assert '<a class="button" href="/ops">Operations</a>' in body.decode()
        assert b"data-panel" not in body
        assert ask(service, path, **more)[1]["content-type"] == "application/json"


def test_the_page_of_a_refused_host_does_not_repeat_it(service: Service) -> None:
    status, headers, body = ask(service, "/ops", accept="text/html", host="evil.example:9090")
    assert (status, headers["content-type"]) == (403, "text/html; charset=utf-8")
    assert b"evil" not in body
    assert set(re.findall(r'<a[^>]* href="([^"]*)"', body.decode())) == {"#content", "/", "/ops"}


def test_the_facts_are_those_of_the_metrics(service: Service) -> None:
    before = sum(one["total"] for one in facts(service)["answers"])
    for _ in range(3):
        service.recommend(age=31, genres=["Rock"])
    until(lambda: sum(one["total"] for one in facts(service)["answers"]) == before + 3)
    shown = facts(service)
    model = service.recommend()["model"]
    assert {one["model"] for one in shown["answers"]} == {model}
    whole = next(one for one in shown["latency"] if one["hop"] == "whole")
    assert 0 < whole["p50"] <= whole["p95"] <= whole["p99"]
    assert shown["service"]["workers"][0]["state"] == "answering"


def test_the_shell_needs_no_key_and_has_no_fact_and_everything_else_needs_one(locked: Service) -> None:
    until(lambda: admin(locked, "GET", "/ops.json", **BEARER)[1]["service"])
    model = admin(locked, "GET", "/state", **BEARER)[1]["model"]
    status, _, body = ask(locked, "/ops")
    assert status == 200
    assert str(model).encode() not in body
    assert b'data-keyed="yes"' in body
    for path in ("/ops.json", "/ops/live", "/state", "/nothing"):
        assert ask(locked, path)[0] == 401
        assert ask(locked, path, authorization=f"Bearer {OTHER}")[0] == 403
        assert ask(locked, f"{path}?key={KEY.replace(' ', '+')}")[0] == 401
    with Stream(locked, **BEARER) as stream:
        assert str(model) in stream.event()["model"]


def test_a_stream_ends_when_its_key_is_revoked(locked: Service) -> None:
    keys = Path(locked.bundle.parent / "keys.json")
    whole = keys.read_text()
    with Stream(locked, **BEARER) as stream:
        stream.event()
        keys.write_text('{"keys": []}')
        assert stream.to_its_end()
    keys.write_text(whole)
    until(lambda: ask(locked, "/state", **BEARER)[0] == 200)


def test_an_event_has_the_panels_that_changed(service: Service) -> None:
    with Stream(service) as stream:
        assert "content-type: text/event-stream" in stream.head
        assert "cache-control: no-store" in stream.head
        first = stream.event()
        events = [stream.event() for _ in range(2)]
    assert {"status", "store", "changes", "chart_latency"} <= first.keys()
    assert all("store" not in event for event in events)


def is_open(service: Service) -> bool:
    with Stream(service) as stream:
        return stream.head.startswith("HTTP/1.1 200")


def test_readers_are_bounded_and_those_that_left_or_do_not_read_cost_no_place_and_no_order(service: Service) -> None:
    with ExitStack() as stack:
        for _ in range(MAX_STREAMS):
            stack.enter_context(Stream(service))
        status, headers, body = ask(service, "/ops/live")
        assert (status, json.loads(body)["error"]["code"]) == (503, "overloaded")
        assert headers["retry-after"] == "1"
        assert admin(service, "GET", "/state")[0] == 200
    until(lambda: is_open(service))
    assert ask(service, "/ops/live", "HEAD")[0] == 200


def test_sigterm_ends_the_streams_and_the_service_in_time(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "b").symlink_to(folder)
    with serving(tmp_path / "b", "--admin-port", "0", "--drain-delay", "0") as service:
        with Stream(service) as stream:
            stream.event()
            service.process.terminate()
            assert stream.to_its_end()
        assert service.process.wait(20) == 0
        until(lambda: not subprocess.run(["pgrep", "-g", str(service.process.pid)], capture_output=True).stdout)


def test_while_the_supervisor_is_silent_the_page_says_so_and_goes_on(service: Service) -> None:
    with Stream(service) as stream:
        stream.event()
        os.kill(service.process.pid, signal.SIGSTOP)
        try:
            seen: dict[str, str] = {}
            while "supervisor silent" not in seen.get("status", ""):
                seen |= stream.event()
            assert "has not answered since" in seen["notices"]
            service_state = facts(service)
            assert service_state["silent_since"] is not None
            assert service_state["service"]["model"]
        finally:
            os.kill(service.process.pid, signal.SIGCONT)
        assert admin(service, "POST", "/reload", b"{}")[0] == 200  # an answer is asked for again at once
        while "supervisor silent" in seen["status"]:
            seen |= stream.event()


def test_a_rollback_is_only_to_the_model_that_was_confirmed(bundles: tuple[Path, Path], current: Path) -> None:
    with serving(current, "--admin-port", "0", "--drain-delay", "0") as service:
        first = service.recommend()["model"]
        point(current, bundles[1])
        until(lambda: service.recommend()["model"] != first)
        second = service.recommend()["model"]
        for body in (b'{"to": "x"}', b'{"to": 1}', b'{"model": "00000000"}'):
            assert admin(service, "POST", "/rollback", body)[0] == 422
        status, refusal = admin(service, "POST", "/rollback", json.dumps({"to": second}).encode())
        assert status == 409
        assert f"another one by now: {first}" in str(refusal)
        assert service.recommend()["model"] == second
        assert admin(service, "POST", "/rollback", json.dumps({"to": first}).encode())[1]["model"] == first
        until(lambda: service.recommend()["model"] == first)
        until(lambda: facts(service)["changes"][0]["text"] == f"Rolled back: {first} was put in place of {second}")
