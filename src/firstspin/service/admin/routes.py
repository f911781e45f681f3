"""What there is on the admin port, written once: for the app, for programs (OpenAPI) and for people (/docs)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from string import Template
from typing import Any, Final

import msgspec

from firstspin.records import MAX_TEXT
from firstspin.service.http.connection import Reply

_USER_ID: Final = {"type": "string", "minLength": 1, "maxLength": MAX_TEXT}
_USERS: Final = {
    "type": "object",
    "required": ["user_ids"],
    "additionalProperties": False,
    "properties": {"user_ids": {"type": "array", "items": _USER_ID, "minItems": 1, "maxItems": 1_000}},
}
_NOTHING: Final = {"type": "object", "additionalProperties": False}
_TEXT: Final = {"type": "string"}
_ERROR: Final = {
    "type": "object",
    "required": ["error"],
    "additionalProperties": False,
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "additionalProperties": False,
            "properties": {"code": _TEXT, "message": _TEXT},
        }
    },
}
REFUSALS: Final = {
    400: "The request or its body can't be read.",
    401: "A key is needed.",
    403: "The key has ended, or is no admin key; or the request names another host or comes from another origin.",
    404: "There is nothing at this path.",
    405: "The path takes another method, named in Allow.",
    408: "The request did not arrive in time.",
    413: "The body is too large.",
    415: "The body is not declared as application/json.",
    422: "The body is not what is asked for.",
    431: "The headers are too large.",
    503: "The supervisor, or the event store, can't be used just now. See Retry-After.",
}
CONFLICT: Final = {409: "This can't be done as things are; the message says why."}


@dataclass(frozen=True, slots=True)
class AdminRoute:
    """One path: its methods, what it does, the schema and an example of its body, and refusals of its own."""

    methods: tuple[str, ...]
    summary: str
    body: Mapping[str, Any] | None = None
    example: str = ""
    refusals: Mapping[int, str] = field(default_factory=dict)
    media: str = "application/json"


_GET: Final = ("GET", "HEAD")
_POST: Final = ("POST",)
ROUTES: Final[Mapping[str, AdminRoute]] = {
    "/state": AdminRoute(
        _GET,
        "The model in use, the one before, why a bundle was refused last, the workers and their restarts, and whether "
        "answers are computed in C.",
    ),
    "/reload": AdminRoute(_POST, "Look at the bundle again now; /state tells what came of it.", _NOTHING, "{}"),
    "/rollback": AdminRoute(_POST, "Serve the previous bundle; 409 when there is none.", _NOTHING, "{}", CONFLICT),
    "/erase": AdminRoute(
        _POST,
        "Forget users: what was kept of them is deleted, and what comes later is refused.",
        _USERS,
        '{"user_ids": ["0042"]}',
        CONFLICT,
    ),
    "/openapi.json": AdminRoute(_GET, "This interface, for programs."),
    "/docs": AdminRoute(_GET, "This page.", media="text/html"),
}

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
    """The page at /docs: no script, no style, nothing of another host."""
    routes = "".join(_shown(path, route) for path, route in ROUTES.items())
    refusals = "".join(f"<dt>{status}</dt><dd>{escape(text)}</dd>" for status, text in (REFUSALS | CONFLICT).items())
    body = _PAGE.substitute(routes=routes, refusals=refusals).encode()
    return Reply(200, body, b"text/html; charset=utf-8", _PAGE_HEADERS)


def _shown(path: str, route: AdminRoute) -> str:
    method = route.methods[0]
    sent = f" -H 'content-type: application/json' -d '{route.example}'" if method == "POST" else ""
    call = f"curl -X {method}{sent} http://127.0.0.1:ADMIN_PORT{path}"
    return f"<h2><code>{method} {path}</code></h2><p>{escape(route.summary)}</p><pre>{escape(call)}</pre>"


def description() -> bytes:
    """OpenAPI 3.1, as JSON."""
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {"title": "firstspin: admin", "version": "1"},
            "paths": {path: {route.methods[0].lower(): _operation(route)} for path, route in ROUTES.items()},
            "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        }
    )


def _operation(route: AdminRoute) -> dict[str, Any]:
    refusals = {
        str(status): {"description": text, "content": {"application/json": {"schema": _ERROR}}}
        for status, text in (REFUSALS | dict(route.refusals)).items()
    }
    done = {"200": {"description": "Done.", "content": {route.media: {"schema": {}}}}}
    operation: dict[str, Any] = {"summary": route.summary, "responses": done | refusals, "security": [{}, {"key": []}]}
    if route.body is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": route.body}}}
    return operation
