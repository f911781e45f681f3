"""Protection against cross-origin requests (CSRF, DNS rebinding) from web pages in a browser that reaches the port.

With DNS rebinding, `Host` has the attacker's name. A form or a fetch of a page of another origin is known by `Origin`
or `Sec-Fetch-Site`. Without a CORS preflight, a browser sends only the content types of forms, or none.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from firstspin.serving.refusal import Refusal

_OWN_SITES: Final = (b"same-origin", b"none")  # none: typed into the address bar


@dataclass(frozen=True, slots=True)
class Hosts:
    """The host names of a port: `names`, loopback addresses, and any other address with `any_address`.

    Names without a dot are accepted too, such as `localhost` and the names of a container network: they do not exist in
    public DNS, so DNS rebinding can't use them.
    """

    names: frozenset[str]
    any_address: bool

    def has(self, host: str) -> bool:
        """Whether a Host header, without its port, is a name of this port."""
        name = _without_port(host.strip().lower())
        if name in self.names or name.endswith(".localhost") or (name and not {".", ":"} & set(name)):
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return self.any_address or address.is_loopback


def hosts(listens_on: str, further: str | None = None) -> Hosts:
    """The host names of a port that listens on this address or name, and the `further` ones, separated by commas."""
    names = frozenset(name.strip().lower().rstrip(".") for name in (further or "").split(",")) - {""}
    own = Hosts(names | {listens_on.lower()}, any_address=True)
    return Hosts(own.names, any_address=not Hosts(names, any_address=False).has(listens_on))


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a port that listens on this address or name."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def refuse_foreign(headers: Mapping[bytes, bytes], ours: Hosts) -> None:
    """Check Host and origin. Raises Refusal 403 where the request has another Host or comes from another origin."""
    host = headers.get(b"host", b"").decode("latin-1")
    if not ours.has(host):
        raise Refusal(403, "wrong_host", "this is not a host name of this port; see --admin-names")
    refuse_other_origins(headers)


def refuse_other_origins(headers: Mapping[bytes, bytes]) -> None:
    """Check the origin. Raises Refusal 403 where the request comes from a page of another origin."""
    origin = headers.get(b"origin")
    if origin is not None and origin.lower().rpartition(b"://")[2] != headers.get(b"host", b"").lower():
        raise Refusal(403, "cross_origin", "cross-origin requests are not allowed")
    if headers.get(b"sec-fetch-site", b"none").lower() not in _OWN_SITES:
        raise Refusal(403, "cross_origin", "cross-origin requests are not allowed")


def refuse_pages(headers: Mapping[bytes, bytes]) -> None:
    """Check that no page sent the request. Raises Refusal 403 where one did, the port's own pages included."""
    if b"origin" in headers or headers.get(b"sec-fetch-site", b"none").lower() != b"none":
        raise Refusal(403, "cross_origin", "requests of web pages are not allowed")


def refuse_other_types(headers: Mapping[bytes, bytes]) -> None:
    """Check the content type. Raises Refusal 415 unless it is JSON, which needs a CORS preflight."""
    media = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if media != b"application/json":
        raise Refusal(415, "unsupported_content_type", "send content-type: application/json")


def _without_port(host: str) -> str:
    if host.startswith("["):  # an IPv6 address
        return host[1:].partition("]")[0]
    return host.partition(":")[0].rstrip(".")
