"""The Lambda answers inside its budget, whatever the endpoint does. boto3 is real; only AWS is stood in for."""

from __future__ import annotations

import csv
import io
import json
import logging
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import msgspec
import pytest
from gateway_events import BODY, balancer, http_api, of_user, rest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from library import Recommender
from stand_in_runtime import Endpoint
from stand_in_runtime import endpoint as running_endpoint
from stand_in_sagemaker import control_plane

from firstspin.aws.front.gateway import Gateway, from_environment
from firstspin.records import InputError, Ranking, Registration
from firstspin.serving import bundle
from firstspin.serving.bodies import wire
from firstspin.serving.bodies.encodings import Encoding, csv_row, encoding_of
from firstspin.serving.bodies.wire import BodyReader
from firstspin.serving.content import recommendation
from firstspin.serving.lookups import FAILURES
from firstspin.serving.score_stores import DynamoScores

TABLE_WORDS = {
    "KeySchema": [
        {"AttributeName": "user_id", "KeyType": "HASH"},
        {"AttributeName": "version", "KeyType": "RANGE"},
    ],
    "AttributeDefinitions": [
        {"AttributeName": "user_id", "AttributeType": "S"},
        {"AttributeName": "version", "AttributeType": "S"},
    ],
    "BillingMode": "PAY_PER_REQUEST",
}


@pytest.fixture(autouse=True)
def account(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Lambda's environment tells boto3."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")


@pytest.fixture
def endpoint(folder: Path) -> Iterator[Endpoint]:
    answers = Recommender(bundle.load(folder))
    reader = BodyReader()

    def answer(body: bytes, content_type: str) -> bytes:
        asked = reader.read(body, encoding_of(content_type))
        if asked.encoding is Encoding.csv:
            return wire.join(map(csv_row, answers.rankings(asked.registrations)), asked)
        return wire.join(map(msgspec.json.encode, map(answers.recommend, asked.registrations)), asked)

    with running_endpoint(answer) as server:
        yield server


@pytest.fixture
def environment(folder: Path) -> dict[str, str]:
    return {"FIRSTSPIN_ENDPOINT": "newcomers", "FIRSTSPIN_BUNDLE": str(folder)}


@pytest.fixture
def gateway(endpoint: Endpoint, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Gateway:
    """For those who ask a good endpoint: a busy machine has the time it needs."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", endpoint.url)
    return from_environment(environment | {"FIRSTSPIN_BUDGET": "6"})


@pytest.fixture
def hasty(endpoint: Endpoint, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Gateway:
    """For those who wait in vain."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", endpoint.url)
    return from_environment(environment | {"FIRSTSPIN_BUDGET": "1.8"})


def answer_of(genres: str) -> bytes:
    """An answer of the endpoint, but for its genres."""
    return f'{{"model":"m","source":"model","genres":{genres}}}'.encode("latin-1")


def answered(reply: dict[str, Any]) -> dict[str, Any]:
    assert reply["statusCode"] == 200
    found: dict[str, Any] = json.loads(reply["body"])
    return found


@pytest.mark.parametrize(
    "event",
    [
        rest(),
        http_api(),
        balancer(),
        rest(path="/invocations/"),
        rest(requestContext=None, multiValueHeaders={"content-type": ["image/png"]}),
        rest(headers=None),
        rest(headers={"content-type": None}),
    ],
)
def test_the_endpoints_answer_comes_through_as_it_is(
    gateway: Gateway, endpoint: Endpoint, event: dict[str, Any]
) -> None:
    reply = gateway(event)
    assert reply["body"].encode() == endpoint.answer(BODY.encode(), "application/json")
    assert answered(reply)["source"] == "model"
    assert endpoint.asked == [BODY.encode()]


JSON_TWICE = ["text/csv", "application/json"]


@pytest.mark.parametrize(
    "event",
    [
        balancer() | {"multiValueHeaders": {"content-type": JSON_TWICE}},
        rest(multiValueHeaders={"Content-Type": JSON_TWICE}),
        rest(headers={"content-type": "text/csv", "Content-Type": "application/json"}),
        rest(multiValueHeaders={"X-Firstspin-User": ["1"], "x-firstspin-user": ["2"]}),
    ],
)
def test_a_header_that_decides_something_is_given_once(
    gateway: Gateway, endpoint: Endpoint, event: dict[str, Any]
) -> None:
    reply = gateway(event)
    assert (reply["statusCode"], json.loads(reply["body"])["error"]["code"]) == (400, "malformed_request")
    assert endpoint.asked == []


@pytest.mark.parametrize("accepts", [["text/html", "*/*"], ["*/*", "text/html"]])
def test_accepts_are_joined(gateway: Gateway, accepts: list[str]) -> None:
    event = balancer()
    event["multiValueHeaders"]["accept"] = accepts
    assert gateway(event)["statusCode"] == 200


@pytest.mark.parametrize(
    ("mood", "calls"),
    [
        ("silent", 2),
        ("trickling", 2),
        ("hanging up", 2),
        ("unavailable", 2),
        ("internal", 2),
        ("model failed", 2),
        ("throttled", 1),  # another try would make it worse
        ("not ready", 1),
        ("missing", 1),
        ("not allowed", 1),
        ("nonsense", 1),
    ],
)
def test_an_endpoint_that_does_not_answer_is_covered_by_the_rule(
    gateway: Gateway, hasty: Gateway, endpoint: Endpoint, mood: str, calls: int
) -> None:
    endpoint.moods = [mood]
    asked = hasty if mood in ("silent", "trickling") else gateway
    answer = answered(asked(rest()))
    assert answer["source"] == "rule"
    assert answer["genres"][0]["genre"] == "Rock"
    assert answer["model"] == asked.bundle.id
    assert len(endpoint.asked) == calls


@pytest.mark.parametrize("status", [400, 404, 413, 415, 422, 429, 499])
def test_what_the_endpoints_container_refuses_is_refused_with_its_status_and_nothing_that_was_sent(
    gateway: Gateway, endpoint: Endpoint, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint.moods = [f"refused {status}"]
    reply = gateway(rest())
    assert (reply["statusCode"], json.loads(reply["body"])) == (
        status,
        {"error": {"code": "refused", "message": "the endpoint refused the request"}},
    )
    assert len(endpoint.asked) == 1  # it would refuse again
    assert not any("fell_back" in message or "odd" in message for message in caplog.messages)


def test_an_endpoint_that_refuses_under_age_users_is_not_overruled(gateway: Gateway, endpoint: Endpoint) -> None:
    endpoint.moods = ["refused under age"]
    reply = gateway(rest() | {"body": '{"age": 14, "genres": ["Rock"]}'})
    assert (reply["statusCode"], json.loads(reply["body"])) == (
        403,
        {"error": {"code": "under_age", "message": "this service does not answer people of this age"}},
    )


@pytest.mark.parametrize("number", [1, 2])
def test_a_lambda_that_refuses_under_age_users_asks_no_endpoint_about_them(
    endpoint: Endpoint, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", endpoint.url)
    gateway = from_environment(environment | {"FIRSTSPIN_LEAST_AGE": "16", "FIRSTSPIN_UNDER_AGE": "refuse"})
    bodies = {1: '{"age": 15}', 2: '{"instances": [{"age": 40}, {"age": 15}]}'}
    assert gateway(rest(bodies[number]))["statusCode"] == 403
    assert endpoint.asked == []
    assert answered(gateway(rest('{"age": 16}')))["source"] == "model"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("FIRSTSPIN_LEAST_AGE", "sixteen", "FIRSTSPIN_LEAST_AGE: 'sixteen' is not a whole number from 0 to 120"),
        ("FIRSTSPIN_LEAST_AGE", "", "FIRSTSPIN_LEAST_AGE: '' is not a whole number from 0 to 120"),
        ("FIRSTSPIN_LEAST_AGE", "121", "FIRSTSPIN_LEAST_AGE: '121' is not a whole number from 0 to 120"),
        ("FIRSTSPIN_UNDER_AGE", "Refuse", "FIRSTSPIN_UNDER_AGE: 'Refuse' is not one of answer, refuse"),
        ("FIRSTSPIN_LEASTAGE", "16", "unknown variable FIRSTSPIN_LEASTAGE; did you mean FIRSTSPIN_LEAST_AGE?"),
    ],
)
def test_a_setting_about_age_that_cannot_be_read_stops_the_lambda_at_its_start(
    environment: dict[str, str], name: str, value: str, message: str
) -> None:
    with pytest.raises(InputError) as refused:
        from_environment(environment | {name: value})
    assert str(refused.value) == message


@pytest.mark.parametrize("mood", ["unavailable", "silent", "hanging up"])
def test_a_hiccup_is_tried_once_more(gateway: Gateway, endpoint: Endpoint, mood: str) -> None:
    endpoint.moods = [mood, "well"]
    assert answered(gateway(rest()))["source"] == "model"
    assert len(endpoint.asked) == 2


def test_warming_asks_no_endpoint_and_fails_no_start(hasty: Gateway, endpoint: Endpoint) -> None:
    hasty.warm()
    assert (endpoint.warmed, endpoint.asked) == (1, [])
    hasty.runtime = Unreachable()
    hasty.warm()


class Unreachable:
    """A runtime without a network."""

    def invoke_endpoint(self, **_: Any) -> dict[str, Any]:
        raise ConnectionError


def test_calls_that_never_end_do_not_pile_up(hasty: Gateway, endpoint: Endpoint) -> None:
    endpoint.moods = ["trickling"]
    assert {answered(hasty(rest()))["source"] for _ in range(6)} == {"rule"}
    assert len(endpoint.asked) == 8  # of twelve tries; the others found no free thread and were dropped


@pytest.mark.parametrize("accepts", [True, False])
def test_an_endpoint_that_is_gone_is_covered_too(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, accepts: bool
) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as gone:  # accepts connections and reads nothing
        monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", f"http://127.0.0.1:{gone.getsockname()[1]}")
        if not accepts:
            gone.close()
        assert answered(from_environment(environment)(rest()))["source"] == "rule"


@pytest.mark.parametrize(
    ("asked", "content_type", "wrong"),
    [
        ("{}", "application/json", b"{}"),
        ("{}", "application/json", b'{"predictions":[]}'),
        ("{}", "application/json", b""),
        ('{"instances": [{}, {}]}', "application/json", b'{"predictions":[]}'),
        ("{}\n{}\n", "application/jsonlines", b"{}\n{}\n"),
        ("31,female,US,Jazz\n", "text/csv", b""),
        ("31,female,US,Jazz\n", "text/csv", b"Rock|Jazz,0.5|0.5\nRock|Jazz,0.5|0.5\n"),
        ("31,female,US,Jazz\n", "text/csv", b"\xff,\n"),
        ("31,female,US,Jazz\n", "text/csv", b"<html>a,b</html>"),
        ("31,female,US,Jazz\n", "text/csv", b"error, no model"),
        ("31,female,US,Jazz\n", "text/csv", b"\0,\0\n"),
        ("31,female,US,Jazz\n", "text/csv", b'{"model":"m","source":"model"}'),
        ("31,female,US,Jazz\n", "text/csv", b",\n"),  # a service without a model
        ("31,female,US,Jazz\n", "text/csv", b"|,0.5|0.5\n"),
        ("31,female,US,Jazz\n", "text/csv", b"Rock|Jazz,0.5\n"),
        ("31,female,US,Jazz\n", "text/csv", b"Rock|Jazz,0.5|nan\n"),
        ("31,female,US,Jazz\n", "text/csv", b"Rock|Jazz,0.5|1.5\n"),
        ("31,female,US,Jazz\n", "text/csv", b"Rock,0.5,0.5\n"),
        ("31,female,US,Jazz\n", "text/csv", b"Rock,0.5\n\n"),
        ("31,female,US,Jazz\n", "text/csv", b"Rock,0.5\n|,0.5|0.5\n"),
        ("31,female,US,Jazz\n", "text/csv", b'"Rock,0.5\n'),
        ("{}", "application/json", answer_of("[]")),
        ("{}", "application/json", answer_of('[{"genre":"","probability":0.5}]')),
        ("{}", "application/json", answer_of('[{"genre":"Rock","probability":1.5}]')),
        ("{}", "application/json", answer_of('[{"genre":"Rock","probability":-0.5}]')),
        ("{}", "application/json", answer_of('[{"genre":"Rock","probability":0.5}],"more":"\xff"')),
        ("{}", "application/json", answer_of('[{"genre":"Rock","probability":0.5}],"more":' + "[" * 9999 + "]" * 9999)),
        ("{}\n", "application/jsonlines", answer_of("[]")),
        ('{"instances": [{}]}', "application/json", b'{"predictions":[' + answer_of("[]") + b"]}"),
    ],
)
def test_an_answer_to_something_else_is_not_passed_on(
    gateway: Gateway, endpoint: Endpoint, asked: str, content_type: str, wrong: bytes
) -> None:
    endpoint.answer = lambda *_: wrong
    reply = gateway(rest(asked, headers={"content-type": content_type}))
    assert reply["statusCode"] == 200
    assert reply["body"].encode() != wrong
    assert len(endpoint.asked) == 1


@pytest.mark.parametrize(
    "written", [b"Rock,1\n", b'"Rock, hard|Jazz",0.5|1e-06\r\n', "Schlager|Märsche,0.0|1.0".encode()]
)
def test_an_answer_in_csv_that_says_what_was_asked_is_passed_on_as_it_came(
    gateway: Gateway, endpoint: Endpoint, written: bytes
) -> None:
    endpoint.answer = lambda *_: written
    assert gateway(rest("31,female,US,Jazz\n", headers={"content-type": "text/csv"}))["body"].encode() == written


@pytest.mark.parametrize(
    ("event", "status", "code"),
    [
        (rest("{"), 400, "malformed"),
        (rest('{"age": 300}'), 422, "invalid"),
        (rest('{"age": "31"}'), 422, "invalid"),
        (rest('{"age": NaN}'), 400, "malformed"),
        (rest("\ud800"), 400, "malformed"),
        (rest(headers={"content-type": "image/png"}), 415, "unsupported_content_type"),
        (rest(headers={"accept": "image/png"}), 406, "not_acceptable"),
        (rest(path="/elsewhere"), 404, "not_found"),
        (rest(httpMethod="GET"), 405, "method_not_allowed"),
        (rest("%%%", isBase64Encoded=True), 400, "malformed"),
        (of_user("u" * 201), 422, "invalid"),
    ],
)
def test_a_bad_request_is_refused_without_a_call(
    gateway: Gateway, endpoint: Endpoint, event: dict[str, Any], status: int, code: str
) -> None:
    reply = gateway(event)
    assert (reply["statusCode"], json.loads(reply["body"])["error"]["code"]) == (status, code)
    assert endpoint.asked == []


@pytest.mark.parametrize(
    "event",
    [
        None,
        [],
        "text",
        rest(requestContext=[]),
        rest(requestContext={"http": "POST"}),
        rest(headers=[]),
        rest(headers={"accept": 5}),
        rest(headers={"accept": ["*/*"]}),
        rest(headers={5: "*/*"}),
        rest(headers=None, multiValueHeaders={"accept": "*/*"}),
        rest(path=5),
        rest(body={}),
        rest(body=5),
        rest(isBase64Encoded="no"),
        rest() | {"\ud800": 1},
        {5: 5},
    ],
)
def test_an_event_that_nobody_should_send_is_refused_too(gateway: Gateway, endpoint: Endpoint, event: object) -> None:
    reply = gateway(event)
    assert (reply["statusCode"], json.loads(reply["body"])["error"]["message"]) == (400, "malformed event")
    assert endpoint.asked == []


def test_a_load_balancer_is_sent_no_more_than_it_takes(gateway: Gateway, endpoint: Endpoint) -> None:
    endpoint.moods = ["missing"]
    many = json.dumps({"instances": [{}] * 1_500})
    assert gateway(rest(many))["statusCode"] == 200
    reply = gateway(balancer(many))
    assert (reply["statusCode"], json.loads(reply["body"])["error"]["code"]) == (413, "answer_too_large")
    assert gateway(balancer(" " * 1_000_001))["statusCode"] == 413


@pytest.mark.parametrize("mood", ["well", "missing"])
def test_a_load_balancer_that_lists_headers_is_answered_in_lists(
    gateway: Gateway, endpoint: Endpoint, mood: str
) -> None:
    endpoint.moods = [mood]
    reply = gateway(balancer("31,female,US,Jazz|Rock\n", "text/csv"))
    assert (reply["statusCode"], reply["multiValueHeaders"]) == (200, {"content-type": ["text/csv"]})
    assert "headers" not in reply
    assert gateway(balancer("{"))["multiValueHeaders"] == {"content-type": ["application/json"]}


SENT = "what-was-sent"
TEXTS = st.text().map(lambda text: SENT + text)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | TEXTS, inner, max_size=3),
)
FIELDS = ["httpMethod", "path", "rawPath", "requestContext", "headers", "multiValueHeaders", "body", "isBase64Encoded"]
HEADERS = st.sampled_from(["content-type", "accept", "x-firstspin-user"])
EVENTS = st.one_of(
    ANYTHING,
    st.builds(
        lambda good, field, value: good | {field: value},
        st.sampled_from([rest(), http_api(), balancer()]),
        st.sampled_from(FIELDS),
        ANYTHING | st.dictionaries(HEADERS, ANYTHING),
    ),
    st.builds(lambda http: http_api() | {"requestContext": {"http": http}}, ANYTHING),
    st.builds(lambda body: rest(json.dumps(body)), ANYTHING),
)


class Repeating:
    """A runtime whose every failure repeats what was sent."""

    def invoke_endpoint(self, **words: Any) -> dict[str, Any]:
        raise ConnectionError(words["Body"])


@pytest.mark.parametrize("examples", [150, pytest.param(1500, marks=pytest.mark.soak)])
def test_whatever_the_event_it_is_answered_and_not_repeated(
    folder: Path, caplog: pytest.LogCaptureFixture, examples: int
) -> None:
    gateway = Gateway(Repeating(), "newcomers", bundle.load(folder), BodyReader())

    @settings(max_examples=examples, suppress_health_check=list(HealthCheck))
    @given(EVENTS)
    def answered(event: object) -> None:
        caplog.clear()
        reply = gateway(event)
        assert isinstance(reply["body"], str)
        assert 200 <= reply["statusCode"] < 500
        assert SENT not in reply["body"] or reply["statusCode"] == 200
        assert SENT not in caplog.text

    answered()


class Answering:
    """A runtime that answers with these bytes."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer

    def invoke_endpoint(self, **_: Any) -> dict[str, Any]:
        return {"Body": io.BytesIO(self.answer)}


@pytest.mark.parametrize("examples", [100, pytest.param(1000, marks=pytest.mark.soak)])
def test_whatever_the_endpoint_answers_the_newcomer_gets_genres(folder: Path, examples: int) -> None:
    loaded = bundle.load(folder)

    @settings(max_examples=examples, suppress_health_check=list(HealthCheck))
    @given(st.binary() | st.text(alphabet='ab,|"\n\r 01.5').map(str.encode), st.sampled_from(list(Encoding)))
    def answered(answer: bytes, encoding: Encoding) -> None:
        body = "31,female,US,Jazz\n" if encoding is Encoding.csv else BODY
        with ThreadPoolExecutor(1) as threads:
            gateway = Gateway(Answering(answer), "newcomers", loaded, BodyReader(), threads=threads)
            reply = gateway(rest(body, headers={"content-type": encoding.value}))
        assert reply["statusCode"] == 200
        if encoding is Encoding.csv:
            [[genres, probabilities]] = csv.reader(io.StringIO(reply["body"], newline=""))
            assert len(genres.split("|")) == len([float(one) for one in probabilities.split("|")])
        else:
            assert json.loads(reply["body"])["genres"]

    answered()


@pytest.mark.parametrize("mood", ["well", "missing"])
def test_several_and_csv_are_answered_in_kind(gateway: Gateway, endpoint: Endpoint, mood: str) -> None:
    endpoint.moods = [mood]
    several = answered(gateway(rest('{"instances": [{}, {"genres": ["Jazz"]}]}')))
    sources = [answer["source"] for answer in several["predictions"]]
    assert sources == (["popular", "model"] if mood == "well" else ["rule", "rule"])
    lines = gateway(rest("{}\n{}\n", headers={"content-type": "application/x-ndjson"}))
    assert len(lines["body"].splitlines()) == 2
    reply = gateway(rest("31,female,US,Jazz|Rock\n", headers={"content-type": "text/csv"}))
    assert reply["headers"]["content-type"] == "text/csv"
    assert reply["body"].startswith(("Jazz|", "Rock|"))


def test_an_answer_longer_than_lambda_lets_through_is_refused_in_words(gateway: Gateway, endpoint: Endpoint) -> None:
    endpoint.moods = ["missing"]
    reply = gateway(rest('{"instances": [' + ",".join(['{"genres": ["Rock"]}'] * 9_000) + "]}"))
    assert (reply["statusCode"], json.loads(reply["body"])["error"]["code"]) == (413, "answer_too_large")


def test_no_answer_of_a_person_is_logged(
    gateway: Gateway, hasty: Gateway, endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    event = rest('{"age": 31, "gender": "some-gender", "genres": ["Rock"]}') | of_user("user-4711")
    with caplog.at_level(logging.DEBUG, logger="firstspin"):
        for mood in ("missing", "refused 422", "model failed", "silent", "nonsense"):
            endpoint.moods = [mood]
            (hasty if mood == "silent" else gateway)(event)
    logged = "\n".join(caplog.messages)
    assert "ValidationError" in logged
    assert logged.count("fell_back") == 4
    for personal in ("31", "some-gender", "user-4711", "Rock"):
        assert personal not in logged


def test_the_rule_is_the_bundles_own(gateway: Gateway, endpoint: Endpoint) -> None:
    endpoint.moods = ["missing"]
    asked = Registration(age=31, gender="female", genres=("Rock",))
    by_rule = Recommender(gateway.bundle).decide(asked, failure="the endpoint is missing")
    assert by_rule.source == "rule"
    assert gateway(rest())["body"].encode() == msgspec.json.encode(recommendation(asked, by_rule, gateway.bundle))


class TestWithStoredAnswers:
    """`firstspin score` has written this user's answer to DynamoDB (moto's)."""

    RANKING = Ranking(("Classical", "Jazz"), (0.6, 0.4), "model")

    @pytest.fixture
    def table(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
        with control_plane() as server:
            monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", server.url)
            boto3.client("dynamodb").create_table(TableName=tmp_path.name, **TABLE_WORDS)
            yield tmp_path.name

    @pytest.fixture
    def gateway(
        self, endpoint: Endpoint, environment: dict[str, str], table: str, monkeypatch: pytest.MonkeyPatch
    ) -> Gateway:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", endpoint.url)
        made = from_environment(
            environment | {"FIRSTSPIN_SCORES": table, "FIRSTSPIN_BUDGET": "9", "FIRSTSPIN_LEAST_AGE": "16"}
        )
        self.store(table, made.bundle.id)
        return made

    def store(self, table: str, model: str) -> None:
        """What `firstspin score` writes, run with this bundle."""
        DynamoScores(table, boto3.client("dynamodb")).write(
            f"{model}.20261123T040000", iter([(["u1"], [self.RANKING])])
        )

    def test_a_known_user_is_answered_as_the_batch_answered(self, gateway: Gateway, endpoint: Endpoint) -> None:
        endpoint.moods = ["missing"]
        answer = answered(gateway(of_user("u1")))
        assert (answer["source"], answer["model"]) == ("batch", gateway.bundle.id)
        assert answer["genres"][0] == {"genre": "Classical", "probability": 0.6}

    @pytest.mark.parametrize(("age", "source"), [(9, "under-age"), (15, "under-age"), (16, "batch")])
    def test_under_the_configured_age_no_stored_answer_is_served(
        self, gateway: Gateway, endpoint: Endpoint, age: int, source: str
    ) -> None:
        endpoint.moods = ["missing"]
        assert answered(gateway(of_user("u1") | {"body": f'{{"age": {age}}}'}))["source"] == source

    def test_the_endpoint_comes_first_and_the_rule_last(self, gateway: Gateway, endpoint: Endpoint) -> None:
        assert answered(gateway(of_user("u1")))["source"] == "model"
        endpoint.moods = ["missing"]
        assert answered(gateway(of_user("nobody-knows")))["source"] == "rule"
        assert answered(gateway(rest()))["source"] == "rule"

    def test_an_answer_that_another_bundle_stored_is_not_served(
        self, gateway: Gateway, endpoint: Endpoint, table: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        self.store(table, "3f2a9c1b")
        endpoint.moods = ["missing"]
        assert answered(gateway(of_user("u1")))["source"] == "rule"
        assert '{"event": "stored_answer", "outcome": "other-version"}' in caplog.messages

    def test_the_bundle_in_service_is_the_one_that_answered_last_at_the_endpoint(
        self, gateway: Gateway, endpoint: Endpoint, table: str
    ) -> None:
        newer = answer_of('[{"genre":"Rock","probability":0.5}]').replace(b'"m"', b'"3f2a9c1b"')
        for asked, kind, answer in (
            ("{}", "application/json", newer),
            ("{}\n", "application/jsonlines", newer + b"\n"),
            ('{"instances": [{}]}', "application/json", b'{"predictions":[' + newer + b"]}"),
        ):
            gateway.in_service = gateway.bundle.id
            endpoint.moods, endpoint.answer = [], lambda *_, answer=answer: answer
            assert gateway(rest(asked, headers={"content-type": kind}))["statusCode"] == 200
            assert gateway.in_service == "3f2a9c1b"
        endpoint.moods = ["missing"]
        assert answered(gateway(of_user("u1")))["source"] == "rule"  # stored by the bundle before
        self.store(table, "3f2a9c1b")
        by_batch = answered(gateway(of_user("u1")))
        assert (by_batch["source"], by_batch["model"]) == ("batch", "3f2a9c1b")

    def test_a_table_that_is_not_there_leaves_the_rule(
        self, gateway: Gateway, endpoint: Endpoint, table: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        boto3.client("dynamodb").delete_table(TableName=table)
        endpoint.moods = ["missing"]
        for _ in range(FAILURES + 1):
            assert answered(gateway(of_user("u1")))["source"] == "rule"
        outcomes = [json.loads(message).get("outcome") for message in caplog.messages if "stored_answer" in message]
        assert outcomes == ["failed"] * FAILURES + ["paused"]


def test_a_score_store_that_hangs_is_given_up_in_time_and_then_not_asked(
    endpoint: Endpoint, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts connections and answers nothing
        monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", endpoint.url)
        gateway = from_environment(environment | {"FIRSTSPIN_SCORES": "scores", "FIRSTSPIN_BUDGET": "0.6"})
        endpoint.moods = ["missing"]
        for _ in range(FAILURES + 2):
            assert answered(gateway(of_user("u1")))["source"] == "rule"
    outcomes = [json.loads(message).get("outcome") for message in caplog.messages if "stored_answer" in message]
    assert set(outcomes[:FAILURES]) <= {"late", "failed"}  # botocore's timeout is the same
    assert outcomes[FAILURES:] == ["paused"] * 2
