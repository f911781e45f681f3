"""Claim: the gateway costs little beside the signed call that any route to an endpoint needs; Lambda about 1 ms more.

No AWS is here. SageMaker's runtime is a stand-in on loopback that answers at once with the 2.9 kB of a full answer, and
Lambda's Runtime API is one too; real are boto3 with its signing, AWS's runtime client for Python, our gateway and the
bundle (3,225 trees). So the table holds what code costs on each route, not what Amazon's network, API Gateway, Lambda's
own dispatch or TLS add; those are the same for both routes but for Lambda's dispatch. On the direct route API Gateway
signs and asks by itself: what boto3 needs to do so is the nearest that can be measured. One caller, one request at a
time; medians over turns that take turns.
"""

from __future__ import annotations

import http.client
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import boto3
import http_stacks
import msgspec

from firstspin.aws.front.gateway import from_environment
from firstspin.records import Registration
from firstspin.serving.content import recommendation
from firstspin.serving.policy import DEFAULTS, decide

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))
stand_in = importlib.import_module("stand_in_runtime")

ASKED = Registration(age=31, gender="female", country="US", genres=("genre 03", "genre 07"))
BODY = msgspec.json.encode(ASKED)
EVENT = {
    "httpMethod": "POST",
    "path": "/v1/invocations",
    "headers": {"Content-Type": "application/json"},
    "body": BODY.decode(),
}
TURNS, ASKS, STARTS = 7, 200, 5
ACCOUNT = {"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none", "AWS_DEFAULT_REGION": "eu-central-1"}


@contextmanager
def endpoint(answer: Path, mood: str) -> Iterator[str]:
    """The stand-in for SageMaker's runtime in a process of its own; its address."""
    command = [sys.executable, __file__, "endpoint", str(answer), mood]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.terminate()


def serve_endpoint(answer: Path, mood: str) -> None:
    body = answer.read_bytes()
    with stand_in.endpoint(lambda *_: body) as server:
        server.moods = [mood]
        print(server.url, flush=True)
        time.sleep(3600)


@contextmanager
def function(api: object, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """The Lambda's process, as AWS starts it."""
    command = [sys.executable, "-m", "awslambdaric", "firstspin.aws.lambda_handler.handler"]
    told = os.environ | environment | {"AWS_LAMBDA_RUNTIME_API": api.address}  # type: ignore[attr-defined]
    with subprocess.Popen(command, env=told, stdout=subprocess.DEVNULL) as process:
        yield process
        process.kill()


def seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def source(reply: object) -> str:
    kind, answer = reply  # type: ignore[misc]
    assert kind == "response"
    return str(json.loads(answer["body"])["source"])


def main() -> None:
    os.environ.update(ACCOUNT)
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="firstspin-bench-")))
        packed, _ = http_stacks.make_bundle(work / "bundle")
        answer = work / "answer.json"
        answer.write_bytes(
            msgspec.json.encode(recommendation(ASKED, decide(ASKED, None, packed, None, DEFAULTS), packed))
        )
        well, gone = (stack.enter_context(endpoint(answer, mood)) for mood in ("well", "missing"))
        told = {"FIRSTSPIN_ENDPOINT": "newcomers", "FIRSTSPIN_BUNDLE": str(work / "bundle"), "FIRSTSPIN_BUDGET": "3"}
        address = "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME"
        apis = [stack.enter_context(stand_in.runtime_api()) for _ in range(2)]
        for api, url in zip(apis, (well, gone), strict=True):
            stack.enter_context(function(api, told | {address: url}))
        assert [source(api.invoke(EVENT)) for api in apis] == ["model", "rule"]
        os.environ[address] = well
        plain = http.client.HTTPConnection(well.removeprefix("http://"))
        signed = {"content-type": "application/json", "authorization": "AWS4-HMAC-SHA256 Credential=of-nobody"}

        def unsigned() -> None:
            plain.request("POST", "/endpoints/newcomers/invocations", BODY, signed)
            plain.getresponse().read()

        runtime, gateway = boto3.client("sagemaker-runtime"), from_environment(told)
        words = {"EndpointName": "newcomers", "ContentType": "application/json", "Body": BODY}
        routes = {
            "floor: the stand-in over plain HTTP": unsigned,
            "direct: a signed call of the endpoint (boto3)": lambda: runtime.invoke_endpoint(**words)["Body"].read(),
            "gateway, called in the same process": lambda: gateway(EVENT),
            "Lambda: Runtime API, gateway, endpoint": lambda: apis[0].invoke(EVENT),
            "Lambda, endpoint missing: the rule answers": lambda: apis[1].invoke(EVENT),
        }
        show(measured(routes))
        starts = [first_answer(told | {address: well}) for _ in range(STARTS)]
        print(f"cold start, process to first answer: {statistics.median(starts):.2f} s (median of {STARTS})")


def measured(routes: dict[str, Callable[[], object]]) -> dict[str, list[list[float]]]:
    """For each route and turn, the milliseconds of every request."""
    found: dict[str, list[list[float]]] = {name: [] for name in routes}
    for _ in range(TURNS):
        for name, call in routes.items():
            call()
            found[name].append([1e3 * seconds(call) for _ in range(ASKS)])
    return found


def show(found: dict[str, list[list[float]]]) -> None:
    print(f"{TURNS} turns of {ASKS} requests, milliseconds, medians over the turns")
    print(f"{'route':48}{'p50':>8}{'p99':>8}{'over the floor':>16}")
    floor = 0.0
    for name, turns in found.items():
        middle = statistics.median(statistics.median(turn) for turn in turns)
        late = statistics.median(sorted(turn)[int(0.99 * ASKS)] for turn in turns)
        floor = floor or middle
        print(f"{name:48}{middle:8.2f}{late:8.2f}{middle - floor:16.2f}")


def first_answer(environment: dict[str, str]) -> float:
    """Seconds from the start of the Lambda's process to its first answer."""
    with stand_in.runtime_api() as api:
        began = time.perf_counter()
        with function(api, environment):
            assert source(api.invoke(EVENT)) == "model"
            return time.perf_counter() - began


if __name__ == "__main__":
    if sys.argv[1:2] == ["endpoint"]:
        serve_endpoint(Path(sys.argv[2]), sys.argv[3])
    else:
        main()
