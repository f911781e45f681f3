"""A visit to a page in the browser of the fixture `browser`, which notes whatever goes wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle, product
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

AXE = Path(pytest.importorskip("axe_playwright_python").__file__).with_name("axe.min.js")
WIDE = {"width": 1280, "height": 980}
PHONE = {"width": 360, "height": 740}
Look = tuple[int, Literal["light", "dark"]]


def looks(*widths: int) -> list[Any]:
    """Each width of a window in one of the themes, in turn; in the soak each in both."""
    some: list[Look] = list(zip(widths, cycle(("dark", "light")), strict=False))
    return [some, pytest.param(list(product(widths, ("light", "dark"))), marks=pytest.mark.soak)]


def violations(page: Page) -> list[str]:
    """The rules of WCAG 2 A and AA, and of good practice, that the page breaks as it is now."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE.read_text(encoding="utf-8"))
    run = "axe.run({resultTypes: ['violations']}).then(result => result.violations)"
    found: list[dict[str, Any]] = page.evaluate(run)
    return [f"{one['id']}: {[node['html'][:200] for node in one['nodes']][:3]}" for one in found]


class Visit:
    """A page that is open, with all that it requested and complained of."""

    def __init__(self, page: Page, base: str) -> None:
        self.page, self.base = page, base
        self.trouble: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda line: self.trouble.append(line.text) if line.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.trouble.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))

    def open(self, path: str, until: str = "#reasons li, .notice") -> Page:
        """The page at a path, once something is at the selector `until`."""
        self.page.goto(self.base + path)
        expect(self.page.locator(until)).not_to_have_count(0)
        return self.page

    def violations(self) -> list[str]:
        return violations(self.page)


@contextmanager
def visiting(browser: Browser, port: int, **how: Any) -> Iterator[Visit]:
    """A visit to a port of this machine, after which nothing was wrong and no other host was asked."""
    context = browser.new_context(reduced_motion="reduce", **how)
    base = f"http://127.0.0.1:{port}"
    visit = Visit(context.new_page(), base)
    yield visit
    assert visit.trouble == []
    assert {urlsplit(url).netloc for url in visit.requests} == {urlsplit(base).netloc}
    context.close()
