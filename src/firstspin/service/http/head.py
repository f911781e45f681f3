"""Checks of a request's first line and headers (RFC 9112), against request smuggling.

llhttp accepts more than a server should: HTTP/0.9 and HTTP/2.0 in the first line, two Host headers, a Transfer-Encoding
in HTTP/1.0. A head that two parsers could read as different requests is refused.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from firstspin.serving.bodies.encodings import refuse_twice
from firstspin.serving.refusal import Refusal

_AUTHORITY: Final = rb"(?:\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._~%!$&'()*+;=-]*)(?::[0-9]*)?"
_HOST: Final = re.compile(_AUTHORITY)
_ABSOLUTE: Final = re.compile(rb"(?i:https?)://(%b)(/[^?#]*)?(\?[^#]*)?" % _AUTHORITY)


def joined(name: bytes, first: bytes, second: bytes) -> bytes:
    """The value of a header (name in lower case) that is repeated. Raises Refusal where it must not be repeated."""
    refuse_twice(name.decode())
    return first + b", " + second if name == b"accept" else second


def origin_form(version: str, target: bytes, headers: dict[bytes, bytes]) -> bytes:
    """The path and query of a request's target. The authority of a target in absolute form replaces Host.

    The target `*` is returned unchanged; no route has it. Raises Refusal where the head is malformed.
    """
    host = headers.get(b"host")
    if version == "1.1":
        if host is None:
            raise _malformed("there is no Host header")
    elif version != "1.0":
        raise _malformed("this service supports HTTP/1.1")
    if host is not None and not _is_host(host):
        raise _malformed("the Host header is invalid")
    coding = headers.get(b"transfer-encoding")
    if coding is not None and (version == "1.0" or coding.lower() != b"chunked"):
        raise _malformed("the only transfer coding is chunked, in HTTP/1.1")
    if target == b"*" or (target.startswith(b"/") and b"#" not in target):
        return target
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None or not absolute[1]:
        raise _malformed("the target is neither a path nor an http address")
    headers[b"host"] = absolute[1]
    return (absolute[2] or b"/") + (absolute[3] or b"")


@lru_cache(maxsize=256)
def _is_host(host: bytes) -> bool:
    return _HOST.fullmatch(host) is not None


def _malformed(reason: str) -> Refusal:
    return Refusal(400, "malformed_request", reason)
