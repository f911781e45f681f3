"""The service against its own description, and against anything at all: what is valid is answered, nothing is a 5xx.

Schemathesis makes requests that the description allows, and others that it does not; hypothesis makes the bodies of
every subset of fields. All are sent to real processes. SCHEMA_EXAMPLES sets how many a test sends.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import made_people
import made_report
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_bundles import pack_with_further_fields
from made_experiments import PLAN
from made_service import Service, exchange, request, serving
from schemathesis import GenerationMode, checks

from firstspin.experiment.plan import freeze

EXAMPLES = int(os.environ.get("SCHEMA_EXAMPLES", "20"))
HOLDS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]
POSTS = ("/invocations", "/v1/recommendations", "/v1/explanations", "/v1/events")
PATHS = (*POSTS, "/execution-parameters", "/ping", "/metrics", "/openapi.json", "/stations.json", "/report", "/")
MODELS = ("/models", "/models/{model_name}", "/models/{model_name}/invoke")
ADMIN_PATHS = ("/state", "/reload", "/rollback", "/erase")


class Running(NamedTuple):
    service: Service
    admin_port: int


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder: Path = tmp_path_factory.mktemp("described")
    pack_with_further_fields(folder / "b")
    freeze(PLAN, folder / "experiment.toml")
    kept = ("--state", str(folder / "state"), "--events", f"sqlite:///{folder / 'events.sqlite'}")
    (folder / "b-report.html").write_text(made_report.least(), encoding="utf-8")
    options = (
        *kept,
        "--experiment",
        str(folder / "experiment.toml"),
        "--admin-port",
        "0",
        "--drain-delay",
        "0",
    )
    with serving(folder / "b", *options) as service:
        port = next(line["port"] for line in service.lines() if line["event"] == "admin port")
        yield Running(service, port)
        assert "a worker ended" not in service.log.read_text()
        assert "a request failed" not in service.log.read_text()


def conforms(port: int, path: str, mode: GenerationMode, examples: int) -> None:
    """Send so many requests that the description of this path makes, and check every answer."""
    base = f"http://127.0.0.1:{port}"
    with requests.Session() as session:
        described = schemathesis.openapi.from_dict(session.get(f"{base}/openapi.json").json())
        found = [operation.ok() for operation in described.get_all_operations()]
        operations = [operation for operation in found if operation.path == path]
        assert operations

        @settings(max_examples=examples, database=None, suppress_health_check=list(HealthCheck))
        @given(st.one_of([operation.as_strategy(generation_mode=mode) for operation in operations]))
        def answered(case: schemathesis.Case) -> None:
            response = case.call(base_url=base, session=session, timeout=20)
            case.validate_response(response, checks=HOLDS)
            if mode.is_positive and path not in MODELS and case.media_type in (None, "application/json"):
                assert response.status_code in (200, 202, 409), response.content

        answered()


@pytest.mark.parametrize(
    ("path", "mode"), [(path, mode) for mode in GenerationMode for path in (POSTS if mode.is_negative else PATHS)]
)
def test_what_the_description_allows_is_answered_and_nothing_is_a_5xx(
    running: Running, path: str, mode: GenerationMode
) -> None:
    conforms(running.service.port, path, mode, EXAMPLES)


@pytest.mark.parametrize(
    ("path", "mode"),
    [(path, mode) for mode in GenerationMode for path in ADMIN_PATHS[-1 if mode.is_negative else None :]],
)
def test_the_admin_port_keeps_to_its_description(running: Running, path: str, mode: GenerationMode) -> None:
    conforms(running.admin_port, path, mode, EXAMPLES // 2)


@pytest.mark.parametrize("path", MODELS)
def test_the_verbs_of_many_models_keep_to_their_description(running: Running, path: str) -> None:
    conforms(running.service.port, path, GenerationMode.POSITIVE, EXAMPLES)
    if path == MODELS[0]:
        conforms(running.service.port, path, GenerationMode.NEGATIVE, EXAMPLES)


@pytest.mark.soak
@pytest.mark.parametrize("path", [*POSTS, *MODELS])
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_a_thousand_of_each(running: Running, path: str, mode: GenerationMode) -> None:
    conforms(running.service.port, path, mode, 1_000)


# ------------------------------------------------------------------------------------------------------ every subset

TEXT = st.text(st.characters(codec="utf-8"), max_size=30)
GENRE = st.sampled_from((*made_people.GENRES, " Rock", "ROCK", "Polka")) | TEXT
VALID: dict[str, st.SearchStrategy[Any]] = {
    "age": st.none() | st.integers(0, 120) | st.integers(0, 120).map(float),
    "gender": st.none() | st.sampled_from(["female", "male"]) | TEXT,
    "country": st.none() | st.sampled_from(["US", "de"]) | TEXT,
    "genres": st.none() | st.lists(st.none() | GENRE, max_size=12),
    "device": st.none() | st.sampled_from(["phone", "car"]) | TEXT,
    "visits": st.none() | st.integers(-(10**6), 10**6) | st.floats(allow_nan=False, allow_infinity=False),
}
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
MASKS = [{name for bit, name in enumerate(VALID) if mask >> bit & 1} for mask in range(2 ** len(VALID))]


def subsets(running: Running, examples: int) -> None:
    """Every subset of fields, valid and not, on both paths, over connections that stay."""
    with running.service.connect() as connection:

        def status_of(path: str, told: dict[str, Any]) -> int:
            body = json.dumps(told).encode()
            return exchange(connection, request("POST", path, body))[0]

        for mask in MASKS:

            @settings(max_examples=examples, database=None, suppress_health_check=list(HealthCheck))
            @given(st.fixed_dictionaries({name: VALID[name] for name in mask}))
            def valid(told: dict[str, Any]) -> None:
                assert status_of("/invocations", told) == 200
                assert status_of("/v1/recommendations", told | {"user_id": "u"}) == 200

            @settings(max_examples=examples, database=None, suppress_health_check=list(HealthCheck))
            @given(st.fixed_dictionaries({name: VALID[name] | ANY for name in mask}), ANY)
            def anything(told: dict[str, Any], user: Any) -> None:
                assert status_of("/invocations", told) < 500
                assert status_of("/v1/recommendations", told | {"user_id": user}) < 500

            valid()
            anything()


def test_every_subset_of_fields_is_answered_and_nothing_is_a_5xx(running: Running) -> None:
    subsets(running, EXAMPLES // 10)


@pytest.mark.soak
def test_every_subset_of_fields_at_length(running: Running) -> None:
    subsets(running, 200)


@settings(max_examples=10 * EXAMPLES, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(POSTS),
    st.sampled_from(["application/json", "application/jsonlines", "text/csv", "text/plain", ""]),
    st.binary(max_size=60) | ANY.map(lambda told: json.dumps(told).encode()),
)
def test_any_bytes_are_answered(running: Running, path: str, media: str, body: bytes) -> None:
    assert running.service.ask("POST", path, body, content_type=media)[0] < 500
