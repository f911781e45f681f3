"""The verbs of a multi-model endpoint, in the order SageMaker uses them on one model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from firstspin.tools.sagemaker_check import player
from firstspin.tools.sagemaker_check.client import Answer, ContainerClient, decoded
from firstspin.tools.sagemaker_check.payloads import Payload
from firstspin.tools.sagemaker_check.player import PrivateRoot
from firstspin.tools.sagemaker_check.report import Finding, judged

VARIABLES = {"SAGEMAKER_MULTI_MODEL": "true"}
NAME, UNKNOWN = "a1b2c3", "never-loaded"
TARGET_MODEL = {"X-Amzn-SageMaker-Target-Model": "one/se.tar.gz"}


@dataclass(frozen=True, slots=True)
class OneOfMany:
    """A model of a multi-model endpoint: its client, a valid body, and the model's folder as the container's path."""

    client: ContainerClient
    payload: Payload
    url: str

    def load(self) -> Answer:
        """POST /models."""
        body = msgspec.json.encode({"model_name": NAME, "url": self.url})
        return self.client.post("/models", Payload("application/json", body))

    def forget(self, name: str) -> Answer:
        """DELETE /models/NAME."""
        return self.client.ask("DELETE", f"/models/{name}", within=self.client.limits.answer)

    def invoke(self, name: str) -> Answer:
        """POST /models/NAME/invoke."""
        return self.client.post(f"/models/{name}/invoke", self.payload, TARGET_MODEL)


def unpacked(place: PrivateRoot, model: Path) -> str:
    """Unpack the model at SageMaker's path of a multi-model endpoint; returns the path in the container."""
    player.unpack(model, place.root / "models" / NAME / "model")
    return f"{place.inside}/models/{NAME}/model"


def _loads(one: OneOfMany) -> Finding:
    status = one.load().status
    return judged(status == 200, f"status {status}")


def _refuses_to_load_twice(one: OneOfMany) -> Finding:
    status = one.load().status
    return judged(status == 409, f"status {status}")


def _lists(one: OneOfMany) -> Finding:
    answer = one.client.get("/models")
    value = decoded(answer.body)
    listed = value.get("models") if isinstance(value, dict) else None
    entry = {"modelName": NAME, "modelUrl": one.url}
    is_listed = isinstance(listed, list) and any(
        isinstance(one, dict) and entry.items() <= one.items() for one in listed
    )
    detail = f"status {answer.status}, {'listed' if is_listed else 'not listed'}"
    return judged(answer.status == 200 and is_listed, detail)


def _shows(one: OneOfMany) -> Finding:
    answer = one.client.get(f"/models/{NAME}")
    value = decoded(answer.body)
    right = isinstance(value, dict) and value.get("modelName") == NAME and value.get("modelUrl") == one.url
    return judged(
        answer.status == 200 and right, f"status {answer.status}{'' if right else ', without its name and url'}"
    )


def _invokes(one: OneOfMany) -> Finding:
    answer = one.invoke(NAME)
    return judged(answer.fine, f"status {answer.status}")


def _knows_what_it_lacks(one: OneOfMany) -> Finding:
    got = {
        "GET": one.client.get(f"/models/{UNKNOWN}").status,
        "DELETE": one.forget(UNKNOWN).status,
        "invoke": one.invoke(UNKNOWN).status,
    }
    listed = one.client.get("/models").status
    # A server without these verbs answers 404 to everything: that is not what is meant.
    detail = ", ".join(f"{verb} {status}" for verb, status in got.items()) + f"; GET /models {listed}"
    return judged(set(got.values()) == {404} and listed == 200, detail)


def _unloads(one: OneOfMany) -> Finding:
    deleted = one.forget(NAME).status
    after = one.client.get(f"/models/{NAME}").status
    return judged(deleted == 200 and after == 404, f"status {deleted}, then GET {after}")


CHECKS: Mapping[str, Callable[[OneOfMany], Finding]] = {
    "26.1": _loads,
    "26.2": _refuses_to_load_twice,
    "26.3": _lists,
    "26.4": _shows,
    "26.5": _invokes,
    "26.6": _knows_what_it_lacks,
    "26.7": _unloads,
}
