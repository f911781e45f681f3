"""The client against a real service and against its description: every operation has a method, of the same types."""

from __future__ import annotations

import doctest
import io
import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import jsonschema
import made_report
import pytest
from made_bundles import pack
from made_experiments import PLAN
from made_service import Service, serving, until
from stand_in_server import answer, close, drip, standing_in

from firstspin.client import (
    AdminClient,
    Backoff,
    DeadlineExceeded,
    ErrorAnswer,
    NoAnswer,
    Registration,
    SentEvent,
    ServiceClient,
    UnreadableAnswer,
)
from firstspin.events.schema import read_secret
from firstspin.experiment.plan import freeze
from firstspin.http_call import Connections, HttpAnswer
from firstspin.records import InputError, Listen

FORM = Registration(age=31, genres=("Jazz",), listens=(Listen("9", 180.0), Listen("4", skipped=True)))
CLICK = SentEvent("e1", "click", "007", "9", "2026-01-31T12:00:00Z")


class Clients(NamedTuple):
    service: ServiceClient
    admin: AdminClient
    models: Path


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder: Path = tmp_path_factory.mktemp("called")
    pack(folder / "b")
    pack(folder / "models" / "se" / "model")
    freeze(PLAN, folder / "experiment.toml")
    (folder / "b-report.html").write_text(made_report.least(), encoding="utf-8")
    options = ["--state", str(folder / "state"), "--events", f"sqlite:///{folder / 'events.sqlite'}"]
    options += ["--experiment", str(folder / "experiment.toml"), "--models", str(folder / "models")]
    options += ["--admin-port", "0", "--drain-delay", "0", "--shadow", str(folder / "b")]
    with serving(folder / "b", *options) as service:
        yield service


@pytest.fixture(scope="module")
def clients(running: Service) -> Iterator[Clients]:
    admin_port = next(line["port"] for line in running.lines() if line["event"] == "admin port")
    with ExitStack() as stack:
        service = stack.enter_context(ServiceClient(f"http://127.0.0.1:{running.port}", seconds=20))
        admin = stack.enter_context(AdminClient(f"http://127.0.0.1:{admin_port}", seconds=20))
        until(lambda: admin.state().model)
        yield Clients(service, admin, running.bundle.parent / "models")


# ------------------------------------------------------------------------------------------- beside the description


class Call(NamedTuple):
    method: str
    target: str
    body: bytes | None
    answer: HttpAnswer


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """What the clients send and receive from now on."""
    seen: list[Call] = []
    exchange = Connections.exchange

    def recorded(self: Connections, method: str, target: str, headers: Any, body: Any, until: float) -> HttpAnswer:
        received = exchange(self, method, target, headers, body, until)
        seen.append(Call(method, target, body, received))
        return received

    monkeypatch.setattr(Connections, "exchange", recorded)
    return seen


def checked(description: dict[str, Any], calls: list[Call]) -> set[tuple[str, str]]:
    """The operations of these calls, each of which fits its description: path, body, status and answer."""
    operations = set()
    for call in calls:
        path, operation = described(description, call)
        if call.body is not None:
            fits(description, operation["requestBody"]["content"]["application/json"]["schema"], json.loads(call.body))
        content = operation["responses"][str(call.answer.status)]["content"]
        media = call.answer.headers["content-type"].split(";")[0]
        if media == "application/json":
            fits(description, content.get(media, {}).get("schema", {}), json.loads(call.answer.body))
        operations.add((call.method, path))
    return operations


def described(description: dict[str, Any], call: Call) -> tuple[str, dict[str, Any]]:
    path = urlsplit(call.target).path
    for template, operations in sorted(description["paths"].items(), key=lambda one: "{" in one[0]):
        if re.fullmatch(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(template)), path):
            return template, operations[call.method.lower()]
    raise AssertionError(f"{call.method} {path} is not in the description")


def fits(description: dict[str, Any], schema: dict[str, Any], value: Any) -> None:
    jsonschema.Draft202012Validator(schema | {"components": description["components"]}).validate(value)


def operations_of(description: dict[str, Any]) -> set[tuple[str, str]]:
    return {
        (method.upper(), path)
        for path, operations in description["paths"].items()
        for method in operations.keys() - {"parameters"}
    }


def test_every_operation_of_the_service_has_a_method_that_fits_its_description(
    clients: Clients, calls: list[Call]
) -> None:
    client, _, models = clients
    description = client.description()
    client.recommend("007", FORM)
    client.recommend_many([("007", FORM), ("008", {"age": 40, "country": None})])
    client.send_events([CLICK, {**as_dict(CLICK), "event_id": "e2", "type": "listen", "seconds": 30.0}])
    client.explain(FORM)
    assert client.challenge(FORM) == client.invoke(FORM)  # the shadow bundle is the same
    client.invoke_many([FORM, {}])
    client.load_model("se", str(models / "se" / "model"))
    client.models(limit=1, after="a")
    client.model("se")
    client.invoke(FORM, model_name="se")
    client.invoke_many([FORM], model_name="se")
    client.unload_model("se")
    client.is_ready()
    client.stations()
    client.metrics()
    client.batch_limits()
    for path in pages(description):
        with suppress(ErrorAnswer):  # of a feature that this service has not
            client.page(path)
    with pytest.raises(ErrorAnswer):  # of an experiment that is not analysed yet
        client.experiment("another")
    assert checked(description, calls) == operations_of(description)


def pages(description: dict[str, Any]) -> list[str]:
    """The paths of pages for browsers."""
    answers = {path: one.get("get", {}).get("responses", {}) for path, one in description["paths"].items()}
    return [
        path for path, of in answers.items() if "{" not in path and "text/html" in of.get("200", {}).get("content", {})
    ]


def as_dict(event: SentEvent) -> dict[str, object]:
    return {name: getattr(event, name) for name in ("user_id", "station_id", "at")}


FOR_BROWSERS = {("GET", path) for path in ("/", "/ops", "/ops/live", "/docs")}


def test_every_operation_of_the_admin_port_has_a_method_that_fits_its_description(
    clients: Clients, calls: list[Call]
) -> None:
    admin = clients.admin
    description = admin.description()
    admin.state()
    admin.facts()
    admin.reload()
    with pytest.raises(ErrorAnswer) as caught:
        admin.rollback("0badcafe")
    assert caught.value.status == 409
    admin.erase(["nobody"])
    assert checked(description, calls) == operations_of(description) - FOR_BROWSERS


# ------------------------------------------------------------------------------------------------ what it answers


def test_answers_are_the_types_of_the_service(clients: Clients) -> None:
    client, admin, _ = clients
    assert client.is_ready()
    recommendation = client.recommend("typed", FORM)
    assert recommendation == client.recommend_many([("typed", FORM)])[0]
    state = admin.state()
    assert state.model == client.stations().model == recommendation.model
    assert client.explain(FORM).genres[0].genre == client.invoke(FORM).genres[0].genre
    assert len(client.invoke_many([FORM] * 50)) == 50
    assert client.batch_limits().MaxConcurrentTransforms == len(state.workers) == 1


def test_an_event_sent_again_is_a_duplicate(clients: Clients) -> None:
    event = SentEvent("again", "listen", "007", "9", "2026-01-31T12:00:00Z", 30.0)
    wrong = {"event_id": "wrong"}
    assert [result.status for result in clients.service.send_events([event, wrong])] == ["stored", "invalid"]
    assert [result.status for result in clients.service.send_events([event])] == ["duplicate"]


def test_a_recommendation_asked_for_again_is_one_exposure(running: Service, clients: Clients) -> None:
    for _ in range(3):
        clients.service.recommend("once", FORM)
    folder = running.bundle.parent
    user = read_secret(folder / "state" / "events.secret").user_hash("once")
    with closing(sqlite3.connect(folder / "events.sqlite")) as store:
        until(lambda: store.execute("SELECT 1 FROM exposures WHERE user_hash = ?", (user,)).fetchone())
    assert clients.admin.erase(["once"]).deleted.exposures == 1


def test_a_refusal_has_the_code_and_the_message_of_the_service(clients: Clients) -> None:
    with pytest.raises(ErrorAnswer) as caught:
        clients.service.invoke({"age": 500})
    assert (caught.value.status, caught.value.code) == (422, "invalid")
    assert "500" not in caught.value.message


# ------------------------------------------------------------------------------------- a proxy that fails in front

RECOMMENDED = json.dumps({"model": "0badcafe", "source": "model", "genres": []}).encode()
QUICK = Backoff(base=0.001)
SAFE: list[Callable[[ServiceClient], object]] = [
    lambda client: client.recommend("007"),
    lambda client: client.invoke(),
    lambda client: client.invoke(model_name="se"),
]


@pytest.mark.parametrize("call", SAFE)
def test_calls_that_are_safe_to_repeat_survive_a_failing_proxy(call: Callable[[ServiceClient], object]) -> None:
    with (
        standing_in(answer(502, b"<html>"), close, answer(503), answer(200, RECOMMENDED)) as proxy,
        ServiceClient(f"http://127.0.0.1:{proxy.port}", backoff=QUICK, seconds=20) as client,
    ):
        call(client)
        assert len(proxy.received) == 4
        assert len({request.partition(b"\r\n\r\n")[2] for request in proxy.received}) == 1


def test_events_are_repeated_with_their_ids() -> None:
    done = b'{"results":[{"event_id":"e1","status":"duplicate"}]}'
    with (
        standing_in(close, answer(202, done)) as proxy,
        ServiceClient(f"http://127.0.0.1:{proxy.port}", backoff=QUICK, seconds=20) as client,
    ):
        assert client.send_events([CLICK])[0].status == "duplicate"
        assert [request.count(b'"event_id":"e1"') for request in proxy.received] == [1, 1]


@pytest.mark.parametrize("call", [lambda c: c.load_model("se", "/m"), lambda c: c.unload_model("se")])
def test_calls_that_change_a_model_are_sent_once(call: Callable[[ServiceClient], object]) -> None:
    with (
        standing_in(close) as proxy,
        ServiceClient(f"http://127.0.0.1:{proxy.port}", backoff=QUICK, seconds=20) as client,
    ):
        with pytest.raises(NoAnswer):
            call(client)
        assert len(proxy.received) == 1


def test_a_rollback_is_sent_once() -> None:
    with (
        standing_in(answer(503)) as proxy,
        AdminClient(f"http://127.0.0.1:{proxy.port}", backoff=QUICK, seconds=20) as client,
    ):
        with pytest.raises(ErrorAnswer):
            client.rollback()
        assert len(proxy.received) == 1


def test_a_call_has_its_own_deadline() -> None:
    with (
        standing_in(drip) as proxy,
        ServiceClient(f"http://127.0.0.1:{proxy.port}", seconds=600) as client,
        pytest.raises(DeadlineExceeded),
    ):
        client.recommend("007", seconds=0.2)


def test_the_answer_of_another_server_is_an_error() -> None:
    with (
        standing_in(answer(200, b"<html>"), answer(404, b"<html>")) as other,
        ServiceClient(f"http://127.0.0.1:{other.port}") as client,
    ):
        with pytest.raises(UnreadableAnswer):
            client.invoke()
        with pytest.raises(ErrorAnswer) as caught:
            client.invoke()
        assert caught.value.code == ""


def test_the_base_of_a_proxy_and_the_key_are_sent() -> None:
    with (
        standing_in(answer(200, RECOMMENDED)) as proxy,
        ServiceClient(f"http://127.0.0.1:{proxy.port}/music/", key="k3y") as client,
    ):
        client.recommend("007", {"age": 31})
        assert proxy.received[0].startswith(b"POST /music/v1/recommendations ")
        assert b"\r\nauthorization: Bearer k3y\r\n" in proxy.received[0]


def test_the_base_has_no_query_as_paths_are_appended_to_it() -> None:
    with pytest.raises(InputError, match="query"):
        ServiceClient("http://127.0.0.1:1/music?tenant=7")


@pytest.mark.parametrize("key", ["", "two words", "line\r\nx: y", "é"])
def test_a_key_that_is_none_is_not_repeated(key: str) -> None:
    with pytest.raises(InputError) as caught:
        ServiceClient("http://127.0.0.1:1", key=key)
    assert not key or key not in str(caught.value)


def test_the_name_of_a_model_or_an_experiment_is_one_part_of_the_path() -> None:
    with (
        standing_in(answer(200, b"{}")) as server,
        ServiceClient(f"http://127.0.0.1:{server.port}") as client,
    ):
        client.experiment("../a b?")
        target = server.received[0].split(b" ")[1].decode()
        assert target.count("/") == 2
        assert unquote(target) == "/experiments/../a b?.json"


def test_the_page_of_the_client_runs_as_written(running: Service, clients: Clients) -> None:  # noqa: ARG001
    page = (Path(__file__).parent.parent / "docs" / "client.md").read_text(encoding="utf-8")
    text = "\n".join(re.findall(r"^```pycon\n(.*?)^```", page, re.DOTALL | re.MULTILINE))
    text = text.replace("…", "...").replace(":8080", f":{running.port}").replace('"e1"', '"of the page"')
    examples = doctest.DocTestParser().get_doctest(text, {}, "client.md", None, 0)
    report = io.StringIO()
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(examples, out=report.write)
    assert len(examples.examples) > 8
    assert not report.getvalue(), report.getvalue()
