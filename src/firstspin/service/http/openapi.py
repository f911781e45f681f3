"""The service described exactly, for programs: OpenAPI 3.1, made from the types that it reads and writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from firstspin.data.further_fields import with_further_fields
from firstspin.data.schema import INSTANCES
from firstspin.events.schema import MAX_EVENTS, EventResult, SentEvent
from firstspin.lazily import lazily
from firstspin.records import MAX_TEXT, Recommendation, Registration
from firstspin.serving.explanations import Explanation
from firstspin.serving.wire import MOST_INSTANCES, SPELLINGS, Encoding

metadata = lazily("importlib.metadata")

ERRORS: Final = {
    400: "The request or its body can't be read.",
    401: "A key is needed.",
    403: "The key has ended, or the policy does not allow an answer.",
    404: "There is nothing at this path.",
    405: "The path takes another method, named in Allow.",
    406: "The answer can only be in the encoding of the request.",
    408: "The request did not arrive in time.",
    409: "A model of this name is loaded already.",
    413: "The body is too large, or asks about too many.",
    415: "The body is in an encoding that this service does not read.",
    422: "The body is not a registration.",
    429: "The key is over its rate.",
    431: "The headers are too large.",
    507: "There is no memory for one more model.",
    503: "Not now: no model yet, overloaded, or events can't be kept. See Retry-After.",
}


_TEXT: Final = {"type": "string"}
_NAME: Final = {"type": "string", "minLength": 1, "maxLength": 1024}
_MODEL: Final = {"name": "model_name", "in": "path", "required": True, "schema": _NAME}


def schema(extra: Mapping[str, str], most: int | None = MOST_INSTANCES) -> bytes:
    """The description of a service that asks the `extra` fields too, about so many at once, as JSON."""
    described = [with_further_fields(tuple(extra), extra), Recommendation, Explanation, SentEvent, EventResult]
    _, found = msgspec.json.schema_components(described, ref_template="#/components/schemas/{name}")
    components = {name.removeprefix("firstspin.records."): part for name, part in found.items()}
    registration = components["Registration"]
    user = {"user_id": {"type": "string", "minLength": 1, "maxLength": MAX_TEXT}}
    components["User"] = registration | {
        "title": "User",
        "properties": user | registration["properties"],
        "required": ["user_id"],
    }
    components["Error"] = _object(error=_object(code={"type": "string"}, message={"type": "string"}))
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {"title": "firstspin", "version": metadata.version("firstspin"), "summary": Registration.__doc__},
            "paths": _paths({"maxItems": most} if most is not None else {}),
            "components": {
                "schemas": components,
                "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            },
        }
    )


def _paths(limit: Mapping[str, int]) -> dict[str, Any]:
    sent = _object(events={"type": "array", "maxItems": MAX_EVENTS, "items": _named("SentEvent")})
    events = {"application/json": {"schema": sent}}
    results = _object(results={"type": "array", "items": _named("EventResult")})
    return {
        "/invocations": {"post": _asking("Recommend to newcomers", "Registration", limit)},
        "/v1/recommendations": {
            "post": _asking("Recommend to users, who take part in the experiment", "User", limit)
            | {"security": [{}, {"key": []}]}
        },
        "/v1/events": {
            "post": {
                "summary": "Keep clicks and listens",
                "requestBody": {"required": True, "content": events},
                "responses": _responses("202", "All that could be kept is on the disk.", "application/json", results),
                "security": [{}, {"key": []}],
            }
        },
        "/v1/explanations": {
            "post": {
                "summary": "Say how much each answer of a newcomer moved each genre",
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": _named("Registration")}},
                },
                "responses": _responses("200", "The reasons.", "application/json", _named("Explanation")),
                "security": [{}, {"key": []}],
            }
        },
        "/models": {
            "get": _getting("Models that are loaded, a page of them", "application/json")
            | {
                "parameters": [
                    _query("limit", {"type": "integer", "minimum": 1, "maximum": 100}),
                    _query("next_page_token", _TEXT),
                ]
            },
            "post": {
                "summary": "Load a model",
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": _object(model_name=_NAME, url=_NAME)}},
                },
                "responses": _responses("200", "It is loaded.", "application/json", {}),
            },
        },
        "/models/{model_name}": {
            "parameters": [_MODEL],
            "get": _getting("A model that is loaded", "application/json"),
            "delete": _getting("Unload a model", "application/json"),
        },
        "/models/{model_name}/invoke": {
            "parameters": [_MODEL],
            "post": _asking("Recommend to newcomers from one of many models", "Registration", limit),
        },
        "/execution-parameters": {"get": _getting("The limits, for SageMaker's batch transform", "application/json")},
        "/report": {"get": _getting("The study that led to the model, where the service has it", "text/html")},
        "/experiments": {"get": _getting("What is being tried, on whom, until when", "text/html")},
        "/ping": {"get": _getting("Ready; the body is empty", "text/plain")},
        "/metrics": {"get": _getting("Counts for Prometheus", "text/plain")},
        "/openapi.json": {"get": _getting("This description", "application/json")},
        "/": {"get": _getting("A page to try it", "text/html")},
    }


def _asking(summary: str, about: str, limit: Mapping[str, int]) -> dict[str, Any]:
    one, answer = _named(about), _named("Recommendation")
    several = _object(**{INSTANCES: {"type": "array", "items": one, **limit}})
    predictions = _object(predictions={"type": "array", "items": answer})
    text = {"schema": {"type": "string"}}
    others = {name: text for name, kind in SPELLINGS.items() if kind is Encoding.lines or about == "Registration"}
    asked = others | {"application/json": {"schema": {"anyOf": [one, several]}}}
    responses = _responses(
        "200", "The answer, in the encoding of the request.", "application/json", {"anyOf": [answer, predictions]}
    )
    responses["200"]["content"] |= {"application/jsonlines": text, "text/csv": text}
    return {"summary": summary, "requestBody": {"required": True, "content": asked}, "responses": responses}


def _query(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema}


def _getting(summary: str, media: str) -> dict[str, Any]:
    return {"summary": summary, "responses": _responses("200", summary, media, {})}


def _responses(status: str, summary: str, media: str, content: dict[str, Any]) -> dict[str, Any]:
    error = {"application/json": {"schema": _named("Error")}}
    refused = {str(code): {"description": text, "content": error} for code, text in ERRORS.items()}
    return {status: {"description": summary, "content": {media: {"schema": content}}}} | refused


def _object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": sorted(properties),
        "additionalProperties": False,
    }


def _named(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}
