"""The look that all pages share: layout, navigation, static files, error pages. Files are read once, before a fork."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from http import HTTPStatus
from pathlib import Path
from string import Template
from typing import Final

import msgspec

from firstspin.service.http.messages import Reply, Request

HTML: Final = b"text/html; charset=utf-8"
SECURITY: Final = (
    b"content-security-policy: default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    b"object-src 'none'\r\nx-content-type-options: nosniff\r\nreferrer-policy: same-origin\r\n"
)
REVALIDATED: Final = b"no-cache"
IMMUTABLE: Final = b"public, max-age=31536000, immutable"

_FOLDER: Final = Path(__file__).parent
_TYPES: Final = {".css": b"text/css; charset=utf-8", ".js": b"text/javascript; charset=utf-8", ".svg": b"image/svg+xml"}
_FILES: Final = {
    path.name: Reply(200, path.read_bytes(), _TYPES[path.suffix], b"x-content-type-options: nosniff\r\n")
    for path in sorted((_FOLDER / "static").iterdir())
    if path.suffix in _TYPES
}
_VERSION: Final = hashlib.sha256(b"".join(file.body for file in _FILES.values())).hexdigest()[:12]
_LAYOUT: Final = Template((_FOLDER / "layout.html").read_text(encoding="utf-8"))

SECTIONS: Final = (("/", "Try it"), ("/report", "Study"), ("/experiments", "Experiments"))
"""The pages of a service in its navigation: paths and names."""

STATIC: Final = f"/static/{_VERSION}"
"""The path of the static files. It changes with any of them, so that browsers need never ask for one again."""

STATIC_FILES: Final[Mapping[str, Reply]] = {f"{STATIC}/{name}": file for name, file in _FILES.items()} | {
    "/favicon.ico": _FILES["icon.svg"]
}


def static_file(request: Request) -> Reply:
    """A static file, whose path is one of `STATIC_FILES`."""
    control = IMMUTABLE if request.path.startswith(STATIC) else REVALIDATED
    return cached(request, STATIC_FILES[request.path], _VERSION, control)


def cached(request: Request, reply: Reply, version: str, control: bytes = REVALIDATED) -> Reply:
    """The reply with an ETag and its caching; 304 (RFC 9110, 13.1.2) where the client has this version already."""
    tag = b'"%b"' % version.encode()
    status = 304 if tag in request.headers.get(b"if-none-match", b"") else reply.status
    return reply._replace(status=status, headers=reply.headers + b"etag: %b\r\ncache-control: %b\r\n" % (tag, control))


def template(name: str) -> Template:
    """A template of this folder."""
    return Template((_FOLDER / name).read_text(encoding="utf-8"))


@dataclass(frozen=True, slots=True)
class Site:
    """The pages of one port: the paths and names in its navigation, and the page that errors lead to."""

    sections: Sequence[tuple[str, str]] = SECTIONS
    start: tuple[str, str] = ("/", "Try the service")

    def page(
        self,
        title: str,
        content: str,
        here: str = "",
        *,
        facts: str = "",
        modules: Sequence[str] = (),
        style: tuple[str, str] = ("", ""),
    ) -> Reply:
        """A page at the path `here`. `content` and `facts` (about the model) are HTML; `modules` are static files.

        `style` is a style sheet of this page alone, with its hash as the content security policy names it.
        """
        current = {here: ' aria-current="page"'}
        nav = "".join(f'<a href="{path}"{current.get(path, "")}>{name}</a>' for path, name in self.sections)
        scripts = "".join(f'<script type="module" src="{STATIC}/{name}"></script>' for name in modules)
        if style[0]:
            scripts += f"<style>{style[0]}</style>"
        page = _LAYOUT.substitute(
            title=escape(title), static=STATIC, scripts=scripts, nav=nav, facts=facts, content=content
        )
        allowed = b"; style-src 'self' '%b'" % style[1].encode() if style[1] else b""
        security = SECURITY.replace(b"; object-src 'none'", b"; object-src 'none'" + allowed)
        return Reply(200, page.encode(), HTML, security + b"cache-control: no-cache\r\n")

    def error(self, request: Request, refusal: Reply) -> Reply:
        """A refusal as a page for a browser, that is, where the client accepts HTML; otherwise as it is."""
        if b"text/html" not in request.headers.get(b"accept", b""):
            return refusal
        name, message = HTTPStatus(refusal.status).phrase, msgspec.json.decode(refusal.body)["error"]["message"]
        path, words = self.start
        content = (
            f'<section class="card notice"><p class="status">{refusal.status}</p><h1>{name}</h1>'
            f"<p>{escape(message[:1].upper() + message[1:])}.</p>"
            f'<p><a class="button" href="{path}">{words}</a></p></section>'
        )
        page = self.page(name, content)
        return page._replace(status=refusal.status, headers=page.headers + refusal.headers)
