"""Protection against cross-origin requests (CSRF, DNS rebinding) from web pages in a browser that reaches the port.

Three ways lead there. A page of a name that its owner points at our address (DNS rebinding) has that name in `Host`. A
page of another origin that sends a form or a fetch says so in `Origin` or `Sec-Fetch-Site`. And without asking first
(CORS preflight) a browser sends only the content types of forms, or none.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from firstspin.serving.wire import Refusal

_OWN_SITES: Final = (b"same-origin", b"none")  # none: typed into the address bar


@dataclass(frozen=True, slots=True)
class Hosts:
    """What we may be called: one of `names`, a loopback address, or any address where we listen on more than that.

    A name without a dot is taken too, as `localhost` and the names of a container network are: there is no such name in
    public DNS that could be pointed here.
    """

    names: frozenset[str]
    any_address: bool

    def has(self, host: str) -> bool:
        """Whether a Host header, its port left out, names us."""
        name = _without_port(host.strip().lower())
        if name in self.names or name.endswith(".localhost") or (name and not {".", ":"} & set(name)):
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return self.any_address or address.is_loopback


def hosts(listens_on: str, further: str | None = None) -> Hosts:
    """The names of a port that listens on this address or name; `further` ones are given with commas between."""
    names = frozenset(name.strip().lower().rstrip(".") for name in (further or "").split(",")) - {""}
    own = Hosts(names | {listens_on.lower()}, any_address=True)
    return Hosts(own.names, any_address=not Hosts(names, any_address=False).has(listens_on))


def refuse_foreign(headers: Mapping[bytes, bytes], ours: Hosts) -> None:
    """Raises Refusal (403) where a request names another host, or comes from a page of another origin."""
    host = headers.get(b"host", b"").decode("latin-1")
    if not ours.has(host):
        raise Refusal(403, "wrong_host", "this port is not called so; see --admin-names")
    refuse_other_origins(headers)


def refuse_other_origins(headers: Mapping[bytes, bytes]) -> None:
    """Raises Refusal (403) where a request comes from a page of another origin than its host."""
    origin = headers.get(b"origin")
    if origin is not None and origin.lower().rpartition(b"://")[2] != headers.get(b"host", b"").lower():
        raise Refusal(403, "cross_origin", "pages of other origins may not ask this")
    if headers.get(b"sec-fetch-site", b"none").lower() not in _OWN_SITES:
        raise Refusal(403, "cross_origin", "pages of other origins may not ask this")


def refuse_pages(headers: Mapping[bytes, bytes]) -> None:
    """Raises Refusal (403) where a request comes from any page, also of the same origin."""
    if b"origin" in headers or headers.get(b"sec-fetch-site", b"none").lower() != b"none":
        raise Refusal(403, "cross_origin", "pages may not ask this")


def refuse_other_types(headers: Mapping[bytes, bytes]) -> None:
    """Raises Refusal (415) unless the body is declared as JSON, which pages of other origins can't send unasked."""
    media = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if media != b"application/json":
        raise Refusal(415, "unsupported_content_type", "send content-type: application/json")


def _without_port(host: str) -> str:
    if host.startswith("["):  # an address of IPv6
        return host[1:].partition("]")[0]
    return host.partition(":")[0].rstrip(".")
