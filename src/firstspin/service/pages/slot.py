"""The page `/exploration`: the file that the last analysis of the exploration slot wrote (`slot_analysis`)."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Final

from firstspin.service.http.messages import Reply
from firstspin.service.pages.experiments import STALE, STALE_AFTER, WANTED
from firstspin.service.pages.site import Site

PATH: Final = "/exploration"
SECTION: Final = (PATH, "Exploration")
PAGE: Final = "page.html"

NO_SLOT: Final = """<section class="card prose"><h1>Exploration</h1><p>No carousel explores here. Start the service with
<code>--explore 5 --events sqlite:///events.sqlite</code>: the fifth carousel then tries stations whose click rates are
not known yet, within a budget of clicks.</p></section>"""
AWAITED: Final = """<section class="card notice"><h1>Exploration</h1><p>The figures are being computed. They need
<code>pip install 'firstspin[report]'</code> and the event store.</p></section>"""


def page(site: Site, folder: Path | None, now: datetime) -> Reply:
    """The page of a slot whose files are in `folder`, or of a service without a slot; `now` is the time of day.

    The next analysis is asked for. The page says so where its figures are old.
    """
    if folder is None:
        return site.page("Exploration", NO_SLOT, PATH)
    with suppress(OSError):
        (folder / WANTED).touch()
    try:
        content = (folder / PAGE).read_text(encoding="utf-8", errors="replace")
        age = now.timestamp() - (folder / PAGE).stat().st_mtime
    except OSError:
        awaited = site.page("Exploration", AWAITED, PATH)
        return awaited._replace(headers=awaited.headers + b"refresh: 2\r\n")
    return site.page("Exploration", (STALE if age > STALE_AFTER.total_seconds() else "") + content, PATH)
