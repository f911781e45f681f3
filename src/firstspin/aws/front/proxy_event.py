"""The event of API Gateway or a load balancer -> route, encoding, headers and body of a request."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from firstspin.records import MAX_TEXT
from firstspin.serving.bodies.encodings import Encoding, check_accept, encoding_of, refuse_twice
from firstspin.serving.bodies.limits import MAX_BODY_BYTES
from firstspin.serving.refusal import Refusal

ROUTE: Final = "/invocations"
USERS_ROUTE: Final = "/recommendations"
"""Below the stage `v1` of the API, so that its path is the service's."""
USER: Final = "x-firstspin-user"
MAX_BALANCED_BYTES: Final = 1_000_000
"""Max bytes of a request or a reply between a load balancer and a Lambda."""


class _Http(msgspec.Struct):
    method: str | None = None


class _Context(msgspec.Struct):
    http: _Http | None = None
    elb: object = None


class ProxyEvent(msgspec.Struct, rename="camel"):
    """The relevant fields of a proxy event, from API Gateway or a load balancer."""

    http_method: str | None = None
    path: str | None = None
    raw_path: str | None = None
    request_context: _Context | None = None
    headers: dict[str, str | None] | None = None
    multi_value_headers: dict[str, list[str]] | None = None
    body: str | None = None
    is_base64_encoded: bool | None = None

    @property
    def in_lists(self) -> bool:
        """Whether a load balancer sent it that lists the values of each header, and needs the reply in that form."""
        return self.headers is None and self.multi_value_headers is not None

    @property
    def max_bytes(self) -> int:
        """Max bytes of the body, and of the reply."""
        return MAX_BALANCED_BYTES if self.request_context and self.request_context.elb else MAX_BODY_BYTES

    def by_name(self) -> dict[str, str]:
        """The headers by their names in lower case. Raises Refusal (400) for a header that must not be repeated."""
        lists = (self.multi_value_headers or {}).items()
        listed = _by_name((name, value) for name, values in lists for value in values)
        return listed if self.headers is None else _by_name(self.headers.items())


def _by_name(headers: Iterable[tuple[str, str | None]]) -> dict[str, str]:
    joined: dict[str, str] = {}
    for written, value in headers:
        name = written.lower()
        if value is None:
            continue
        if name in joined:
            refuse_twice(name)
            value = f"{joined[name]}, {value}" if name == "accept" else value
        joined[name] = value
    return joined


def route_of(event: ProxyEvent) -> tuple[str, Encoding, Mapping[str, str]]:
    """The route, the encoding and the headers. Raises Refusal for another path, method or type than those served."""
    http = event.request_context and event.request_context.http
    method = event.http_method or (http and http.method)
    path = (event.path or event.raw_path or "").rstrip("/")
    route = next((route for route in (ROUTE, USERS_ROUTE) if path.endswith(route)), None)
    if route is None:
        raise Refusal(404, "not_found", f"only {ROUTE} and /v1{USERS_ROUTE} are here")
    if method != "POST":
        raise Refusal(405, "method_not_allowed", "only POST is allowed")
    headers = event.by_name()
    encoding = encoding_of(headers.get("content-type", ""))
    check_accept(headers.get("accept", "*/*"), encoding)
    return route, encoding, headers


def user_of_header(headers: Mapping[str, str]) -> str:
    """The user that a header names; empty where none does. Raises Refusal where it is too long."""
    user = headers.get(USER, "")
    if len(user) > MAX_TEXT:
        raise Refusal(422, "invalid", f"header {USER}: at most {MAX_TEXT} characters")
    return user


def body_of(event: ProxyEvent) -> bytes:
    """The decoded body. Raises Refusal where it can't be decoded (400) or is too long (413)."""
    text = event.body or ""
    try:
        body = base64.b64decode(text, validate=True) if event.is_base64_encoded else text.encode()
    except ValueError:  # no base64, or a lone surrogate
        raise Refusal(400, "malformed", "the body can't be read") from None
    if len(body) > event.max_bytes:
        raise Refusal(413, "body_too_large", f"at most {event.max_bytes} bytes")
    return body
