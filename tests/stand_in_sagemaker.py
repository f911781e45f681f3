"""SageMaker's control plane for tests: moto's own, with the life of an endpoint that moto leaves out.

moto puts every endpoint in service at once, knows no UpdateEndpoint, and forgets newer settings of a model or a
configuration. Here an endpoint is Creating or Updating for a few looks, and then changes over or is taken back by an
alarm, and what was made is described in full. Everything else goes on to moto.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cache, partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any

from in_threads import served
from moto.moto_api._internal.models import moto_api_backend
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.test import create_environ, run_wsgi_app

LOOKS = 2


@dataclass
class Life:
    """One endpoint's state."""

    configuration: str
    status: str = "Creating"
    looks: int = LOOKS
    pending: dict[str, Any] | None = None
    last: dict[str, Any] | None = None
    reason: str = ""
    running: int = 0  # instances, where autoscaling has changed their number

    def scale(self) -> None:
        """UpdateEndpointWeightsAndCapacities by autoscaling: Updating, without a pending deployment."""
        self.status, self.looks = "Updating", LOOKS


@dataclass
class Fate:
    """What will happen to changes, and what was asked for."""

    ringing: set[str] = field(default_factory=set)  # alarms
    fails_to_start: bool = False
    stuck: bool = False
    refuses: str = ""  # updates, for this reason
    hidden: set[str] = field(default_factory=set)  # models and configurations that may not be described
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    lives: dict[str, Life] = field(default_factory=dict)
    made: dict[str, dict[str, Any]] = field(default_factory=dict)  # models and configurations, as asked for

    def names(self) -> list[str]:
        """The verbs that changed something, in order."""
        return [verb for verb, _ in self.asked if verb.startswith(("Create", "Update"))]


class Moto(DomainDispatcherApplication):
    """The application of moto's server, without a search of its folders at each request."""

    get_backend_for_host = cache(DomainDispatcherApplication.get_backend_for_host)


class ControlPlane(ThreadingHTTPServer):
    """The address of all services of an account."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.moto, self.fate = Moto(create_backend_app), Fate()
        self.reset()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def reset(self) -> None:
        """Make the account empty."""
        moto_api_backend.reset()
        self.fate = Fate()


class Handler(BaseHTTPRequestHandler):
    server: ControlPlane
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer waits 40 ms for the client's delayed acknowledgement

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        service, _, verb = self.headers.get("x-amz-target", "").partition(".")
        if service != "SageMaker":
            return self.say(*self.ask(body))
        told = json.loads(body or b"{}")
        self.server.fate.asked.append((verb, told))
        answer = {
            "CreateModel": partial(self.make, "Model"),
            "DescribeModel": partial(self.show, "Model"),
            "CreateEndpointConfig": partial(self.make, "EndpointConfig"),
            "DescribeEndpointConfig": partial(self.show, "EndpointConfig"),
            "CreateEndpoint": self.create,
            "UpdateEndpoint": self.update,
            "DescribeEndpoint": self.describe,
        }
        status, said = answer[verb](told) if verb in answer else self.forward(verb, told)
        return self.say(status, {"content-type": "application/x-amz-json-1.1"}, json.dumps(said).encode())

    do_DELETE = do_GET = do_HEAD = do_PUT = do_POST

    def say(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in ({"content-length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def ask(self, body: bytes, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """moto's answer to this request, with another body and further headers."""
        told = dict(self.headers.items()) | headers
        environ = create_environ(self.path, method=self.command, headers=told, input_stream=BytesIO(body))
        said, status, answered = run_wsgi_app(self.server.moto, environ, buffered=True)
        return int(status.split()[0]), {name.lower(): value for name, value in answered}, b"".join(said)

    def forward(self, verb: str, told: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        body = json.dumps(told).encode()
        status, _, said = self.ask(body, **{"x-amz-target": f"SageMaker.{verb}", "content-length": str(len(body))})
        return status, json.loads(said or b"{}")

    def make(self, what: str, told: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        status, said = self.forward(f"Create{what}", told)
        if status == 200:
            self.server.fate.made[told[f"{what}Name"]] = {name: of for name, of in told.items() if name != "Tags"}
        return status, said

    def show(self, what: str, told: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if told[f"{what}Name"] in self.server.fate.hidden:
            return 400, {"__type": "AccessDeniedException", "message": f"not authorized to perform Describe{what}"}
        status, said = self.forward(f"Describe{what}", told)
        if status == 200:
            said |= self.server.fate.made[told[f"{what}Name"]]
        if url := said.get("PrimaryContainer", {}).get("ModelDataUrl"):
            source = {"S3DataSource": {"S3Uri": url, "S3DataType": "S3Object", "CompressionType": "Gzip"}}
            said["PrimaryContainer"] = {"ModelDataSource": source} | said["PrimaryContainer"]
        return status, said

    def create(self, told: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        status, said = self.forward("CreateEndpoint", told)
        if status == 200:
            self.server.fate.lives[told["EndpointName"]] = Life(
                told["EndpointConfigName"], last=told.get("DeploymentConfig")
            )
        return status, said

    def update(self, told: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        life = self.server.fate.lives[told["EndpointName"]]
        status, said = self.forward("DescribeEndpointConfig", {"EndpointConfigName": told["EndpointConfigName"]})
        if status != 200:
            return status, said
        if life.status != "InService":
            return 400, {
                "__type": "ValidationException",
                "message": f"Cannot update in-progress endpoint: {life.status}",
            }
        if self.server.fate.refuses:
            return 400, {"__type": "ResourceLimitExceeded", "message": self.server.fate.refuses}
        if told["EndpointConfigName"] == life.configuration:
            return 400, {"__type": "ValidationException", "message": "Cannot update to the configuration in use"}
        life.status, life.looks, life.pending, life.reason = "Updating", LOOKS, told, ""
        return 200, {"EndpointArn": "arn"}

    def describe(self, told: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        status, said = self.forward("DescribeEndpoint", told)
        if status != 200:
            return status, said
        life = self.server.fate.lives[told["EndpointName"]]
        live(life, self.server.fate)
        said |= {"EndpointStatus": life.status, "EndpointConfigName": life.configuration}
        if life.running:
            said["ProductionVariants"][0]["CurrentInstanceCount"] = life.running
        if life.pending:
            said["PendingDeploymentSummary"] = {"EndpointConfigName": life.pending["EndpointConfigName"]}
        if life.last:
            said["LastDeploymentConfig"] = life.last
        if life.reason:
            said["FailureReason"] = life.reason
        return 200, said


def live(life: Life, fate: Fate) -> None:
    """A look later."""
    if life.status not in ("Creating", "Updating") or fate.stuck:
        return
    life.looks -= 1
    if life.looks >= 0:
        return
    if life.pending is None:
        life.status = "Failed" if fate.fails_to_start else "InService"
        life.reason = "The primary container did not pass the ping health check" if fate.fails_to_start else ""
        return
    deployment = life.pending.get("DeploymentConfig", {})
    watched = {alarm["AlarmName"] for alarm in deployment.get("AutoRollbackConfiguration", {}).get("Alarms", [])}
    if rung := watched & fate.ringing:
        life.reason = f"Alarm {min(rung)} is in the ALARM state"
    else:
        life.configuration, life.last = life.pending["EndpointConfigName"], deployment or None
    life.status, life.pending = "InService", None


def control_plane() -> AbstractContextManager[ControlPlane]:
    return served(ControlPlane())
