"""The routes of the admin port, defined once: for dispatch, OpenAPI and the page at /docs."""

from __future__ import annotations

from html import escape
from string import Template
from typing import Final

import msgspec

from firstspin.events.database import Deleted
from firstspin.records import MAX_TEXT
from firstspin.service.admin.recorder import ServiceState
from firstspin.service.http.messages import Reply
from firstspin.service.http.openapi import describe
from firstspin.service.routes import JSON, Route, array_of, component, object_of

_NOTHING: Final = {JSON: {"type": "object", "additionalProperties": False}}
_USERS: Final = object_of(
    user_ids=array_of({"type": "string", "minLength": 1, "maxLength": MAX_TEXT}, minItems=1, maxItems=1_000)
)
BUNDLE_ID: Final = "^[0-9a-f]{8}$"
_ROLLBACK: Final = {
    JSON: {
        "type": "object",
        "properties": {"to": {"type": ["string", "null"], "pattern": BUNDLE_ID}},
        "additionalProperties": False,
    }
}
_STATE: Final = {JSON: component("ServiceState")}
REFUSALS: Final = {
    400: "The request or its body can't be read.",
    401: "A key is required.",
    403: "The key has expired or is not an admin key; or the request has another Host or comes from another origin.",
    404: "The path does not exist.",
    405: "The method is not allowed; see Allow.",
    408: "The request did not arrive in time.",
    413: "The body is too large.",
    415: "The body is not declared as application/json.",
    422: "The body does not match its schema.",
    431: "The headers are too large.",
    503: "The supervisor or the event store is unavailable. See Retry-After.",
}
CONFLICT: Final = {409: "Not possible in the current state; the message has the reason."}


class Erased(msgspec.Struct, frozen=True):
    """The answer to an erasure: the deleted rows, and whether the store's files are free of them."""

    ok: bool
    deleted: Deleted
    compacted: bool


ROUTES: Final = (
    Route(
        "GET",
        "/state",
        "The current and the previous model, the end of their data, the reason of the last refused bundle, the workers "
        "and their restarts, and whether answers are computed in C.",
        _STATE,
        keyed=True,
    ),
    Route(
        "POST",
        "/reload",
        "Probe the bundle again now; /state has the result.",
        _STATE,
        body=_NOTHING,
        keyed=True,
        example="{}",
    ),
    Route(
        "POST",
        "/rollback",
        "Serve the previous bundle; 409 where there is none, or where it is another one than `to`, if that is given.",
        _STATE,
        body=_ROLLBACK,
        keyed=True,
        refusals=CONFLICT,
        example='{"to": "3f2a9c1b"}',
    ),
    Route(
        "POST",
        "/erase",
        "Erase users: their stored data is deleted, and later data is refused.",
        {JSON: component("Erased")},
        body={JSON: _USERS},
        keyed=True,
        refusals=CONFLICT,
        example='{"user_ids": ["0042"]}',
    ),
    Route("GET", "/ops", "The page of operations; where keys are required, it asks for one.", {"text/html": {}}),
    Route("GET", "/", "The same page.", {"text/html": {}}),
    Route("GET", "/ops.json", "The facts of the page /ops.", keyed=True),
    Route("GET", "/ops/live", "The panels of /ops that change, as events.", {"text/event-stream": {}}, keyed=True),
    Route("GET", "/openapi.json", "This interface as OpenAPI.", keyed=True),
    Route("GET", "/docs", "This page.", {"text/html": {}}, keyed=True),
)

_PAGE: Final = Template("""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>firstspin: admin</title>
<h1>firstspin: admin port</h1>
<p>A POST is declared as <code>application/json</code>. Errors are <code>{"error": {"code", "message"}}</code>.
For programs: <a href="/openapi.json">/openapi.json</a>.</p>
$routes
<h2>Errors</h2>
<dl>$refusals</dl>
""")
_PAGE_HEADERS: Final = (
    b"content-security-policy: default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n"
    b"x-content-type-options: nosniff\r\nreferrer-policy: no-referrer\r\n"
)


def page() -> Reply:
    """The page at /docs, without scripts, styles or resources of other hosts."""
    routes = "".join(map(_shown, ROUTES))
    refusals = "".join(f"<dt>{status}</dt><dd>{escape(text)}</dd>" for status, text in (REFUSALS | CONFLICT).items())
    body = _PAGE.substitute(routes=routes, refusals=refusals).encode()
    return Reply(200, body, b"text/html; charset=utf-8", _PAGE_HEADERS)


def _shown(route: Route) -> str:
    sent = f" -H 'content-type: application/json' -d '{route.example}'" if route.example else ""
    call = f"curl -X {route.method}{sent} http://127.0.0.1:ADMIN_PORT{route.path}"
    return f"<h2><code>{route.method} {route.path}</code></h2><p>{escape(route.summary)}</p><pre>{escape(call)}</pre>"


def description() -> bytes:
    """The OpenAPI 3.1 description, as JSON."""
    _, schemas = msgspec.json.schema_components([ServiceState, Erased], ref_template="#/components/schemas/{name}")
    return describe({"title": "firstspin: admin", "version": "1"}, ROUTES, REFUSALS, schemas)
