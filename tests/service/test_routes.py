"""The route table is what the service answers, counts and describes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from made_app import ask, new_app

from firstspin.service import routes
from firstspin.service.http.openapi import ERRORS, schema
from firstspin.serving.refusal import Refusal

DOCS = Path(__file__).parent.parent.parent / "docs"
REGISTRATION = {"$ref": "#/components/schemas/Registration"}
USER = {"$ref": "#/components/schemas/User"}
JSON = ["application/json"]
LINES = ["application/json", "application/jsonlines", "application/x-ndjson"]
FIXED: dict[tuple[str, str], tuple[str, list[str]]] = {
    ("post", "/invocations"): ("200", [*LINES, "text/csv"]),
    ("post", "/v1/recommendations"): ("200", LINES),
    ("post", "/v1/events"): ("202", JSON),
    ("post", "/v1/explanations"): ("200", JSON),
    ("post", "/challenger"): ("200", JSON),
    ("get", "/ping"): ("200", []),
    ("get", "/metrics"): ("200", []),
    ("get", "/openapi.json"): ("200", []),
    ("get", "/stations.json"): ("200", []),
    ("get", "/report"): ("200", []),
    ("get", "/experiments"): ("200", []),
    ("get", "/exploration"): ("200", []),
    ("get", "/experiments/{name}"): ("200", []),
    ("get", "/"): ("200", []),
    ("get", "/execution-parameters"): ("200", []),
    ("get", "/models"): ("200", []),
    ("post", "/models"): ("200", JSON),
    ("get", "/models/{model_name}"): ("200", []),
    ("delete", "/models/{model_name}"): ("200", []),
    ("post", "/models/{model_name}/invoke"): ("200", [*LINES, "text/csv"]),
}


def operations(described: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (method, path): of
        for path, item in described["paths"].items()
        for method, of in item.items()
        if method != "parameters"
    }


def test_the_description_has_every_fixed_path_with_its_method_encodings_and_statuses() -> None:
    described = operations(json.loads(schema({})))
    assert {
        name: (next(iter(of["responses"])), sorted(of.get("requestBody", {}).get("content", {})))
        for name, of in described.items()
    } == FIXED
    refused = {str(status) for status in ERRORS}
    assert all(set(list(of["responses"])[1:]) == refused for of in described.values())
    assert [path for (_, path), of in described.items() if "security" in of] == [
        "/v1/recommendations",
        "/v1/events",
        "/v1/explanations",
    ]


def test_a_body_is_one_registration_or_a_bounded_list_of_instances() -> None:
    described = json.loads(schema({"device": "text"}, 7))
    schemas = described["components"]["schemas"]
    body = operations(described)["post", "/invocations"]["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"anyOf": [REGISTRATION, {"$ref": "#/components/schemas/Registrations"}]}
    assert schemas["Registrations"]["properties"] == {
        "instances": {"type": "array", "items": REGISTRATION, "maxItems": 7}
    }
    assert schemas["Users"]["properties"] == {"instances": {"type": "array", "items": USER, "maxItems": 7}}
    assert "device" in schemas["Registration"]["properties"]
    assert "maxItems" not in json.loads(schema({}, None))["components"]["schemas"]["Users"]["properties"]["instances"]


def test_every_reference_of_the_description_leads_somewhere() -> None:
    text = schema({}).decode()
    names = set(re.findall(r'"#/components/schemas/(\w+)"', text))
    assert names <= json.loads(text)["components"]["schemas"].keys()


def test_the_page_on_the_http_interface_lists_the_routes_of_every_service() -> None:
    listed = re.findall(r"^\| `([A-Z]+) (/\S*)` \|", (DOCS / "http-api.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted((route.method, route.path) for route in routes.ROUTES)


@pytest.mark.parametrize("route", routes.ROUTES, ids=lambda route: str(route.path))
def test_every_route_is_answered_and_counted_by_its_label(route: routes.Route) -> None:
    app = new_app(without_model=True)
    assert ask(app, route.method, route.path, b"{}").status in (200, route.done, 404, 422, 503)
    reply = ask(app, "PATCH", route.path)
    assert (reply.status, reply.headers) == (405, f"allow: {', '.join(route.methods)}\r\n".encode())
    counted = ask(app, "GET", "/metrics").body.decode()
    assert f'firstspin_requests_total{{route="{route.label}",status="405"}} 1.0' in counted


def test_parameters_of_a_path_are_decoded_and_never_hold_a_slash() -> None:
    table = routes.MODEL_ROUTES
    assert routes.fitting(table, "/models") == ("/models", [])
    assert routes.fitting(table, "/models/a%2Fb%20c") == ("/models/{model_name}", ["a/b c"])
    assert routes.fitting(table, "/models/a.b/invoke") == ("/models/{model_name}/invoke", ["a.b"])
    for path in ("/model", "/models/a/b", "/models/a/invoke/", "/modelsx"):
        with pytest.raises(Refusal, match="404"):
            routes.fitting(table, path)
