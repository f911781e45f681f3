"""The Lambda as AWS runs it: AWS's runtime client in a process of its own; what is around it is stood in for."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import msgspec
from gateway_events import BODY, http_api, of_user, rest
from library import Recommender
from stand_in_runtime import endpoint as running_endpoint
from stand_in_runtime import function, runtime_api

from firstspin.records import Registration
from firstspin.serving import bundle


def ended(process: subprocess.Popen[str]) -> str:
    """What the function has logged."""
    process.kill()
    assert process.stdout is not None
    return process.stdout.read()


def recommended(folder: Path) -> bytes:
    asked = msgspec.json.decode(BODY, type=Registration)
    return msgspec.json.encode(Recommender(bundle.load(folder)).recommend(asked))


def test_one_container_answers_both_shapes_good_days_and_bad(folder: Path) -> None:
    expected = recommended(folder)
    with (
        runtime_api() as api,
        running_endpoint(lambda *_: expected) as endpoint,
        function(api, endpoint, folder) as process,
    ):
        for event in (rest(), http_api()):
            kind, reply = api.invoke(event)
            assert (kind, reply["statusCode"]) == ("response", 200)
            assert reply["body"].encode() == expected  # bit for bit what `firstspin recommend` finds
        assert (endpoint.warmed, endpoint.connections) == (1, 1)  # opened before the first request, and used for it
        for mood in ("silent", "throttled", "internal", "nonsense", "missing"):
            endpoint.moods = [mood]
            kind, reply = api.invoke(of_user("user-4711"))
            assert (kind, json.loads(reply["body"])["source"]) == ("response", "rule"), mood
        endpoint.moods = ["well"]
        assert api.invoke(rest())[1]["body"].encode() == expected
        kind, reply = api.invoke(rest('{"age": "some-age"}'))
        assert (kind, reply["statusCode"]) == ("response", 422)
        logged = ended(process)
    assert logged.count("fell_back") == 5
    for personal in ("user-4711", "some-age", "female", "Rock"):
        assert personal not in logged


def test_a_bundle_that_cannot_be_loaded_is_told_before_the_first_request(tmp_path: Path) -> None:
    with (
        runtime_api() as api,
        running_endpoint(lambda *_: b"") as endpoint,
        function(api, endpoint, tmp_path) as process,
    ):
        kind, told = api.results.get(timeout=60)
        assert (kind, told["errorType"]) == ("init", "InputError")
        assert "is not a bundle" in told["errorMessage"]
        assert process.wait(60) == 1
