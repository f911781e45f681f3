"""The page `/report`: the study of the bundle in service, a file that `firstspin report` wrote beside the bundle."""

from __future__ import annotations

import gzip
import re
import shlex
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Final

from firstspin.service.http.messages import Reply, Request
from firstspin.service.pages.site import Site
from firstspin.serving.bundle import report_path

PATH: Final = "/report"
MAX_BYTES: Final = 4 * 2**20
"""The page is made in a worker's event loop, in about 10 ms a MB; a report has less than 1 MB."""

REPORT: Final = re.compile(
    r"""(?>.*?<meta\ name="bundle"\ content=")(?P<bundle>[0-9a-f]{8})">"""
    r"""(?>.*?style-src\ ')(?P<hash>sha256-[A-Za-z0-9+/=]+)'"""
    r"""(?>.*?<style>)(?>(?P<style>.*?)</style>)(?>.*?<main>)(?P<content>.*)</main>""",  # atomic: no backtracking
    re.DOTALL | re.VERBOSE,
)
NOT_OURS: Final = "The file is not a page of <code>firstspin report</code>, or of another version: write it again."
UNREADABLE: Final = "The file of the study can't be read."
TOO_LARGE: Final = f"The file of the study is larger than {MAX_BYTES / 2**20:.0f} MB."


@dataclass(slots=True)
class StudyPage:
    """The page, made again when its file or the model in service changes, and while the file can't be read.

    `report` is a file given in place of the one beside the folder `bundle`.
    """

    site: Site
    report: Path | None
    bundle: Path | None
    _key: object = None
    _replies: dict[bool, Reply] = field(default_factory=dict)  # by whether it is compressed

    def reply(self, request: Request, model: str) -> Reply:
        """The study, with a note where it is about another bundle than `model`, or a page with the command for one."""
        path = self.report or (report_path(self.bundle) if self.bundle else None)
        if path is None:
            return self._none()
        try:
            stat = path.stat()
            key = path, stat.st_mtime_ns, stat.st_size, stat.st_ino, model
            if key != self._key:
                self._replies = {False: self._page(path, stat.st_size, model)}
                self._key = key
        except FileNotFoundError:
            return self._none()
        except OSError:  # not stored: it may be temporary
            return self._none(UNREADABLE)
        compressed = b"gzip" in request.headers.get(b"accept-encoding", b"")
        if compressed not in self._replies:
            self._replies[compressed] = _compressed(self._replies[False])
        return self._replies[compressed]

    def _page(self, path: Path, size: int, model: str) -> Reply:
        if size > MAX_BYTES:
            return self._none(TOO_LARGE)
        try:
            found = REPORT.match(path.read_text(encoding="utf-8"))
        except UnicodeDecodeError:
            return self._none(UNREADABLE)
        if found is None:
            return self._none(NOT_OURS)
        about, note = found["bundle"], ""
        if model and about != model:
            note = (
                f'<p class="note" role="alert">This study is about the bundle {about}; {escape(model)} is in service. '
                f"Its study is made by <code>{self._command()}</code></p>"
            )
        page = self.site.page(
            "Study",
            note + found["content"],
            PATH,
            facts=f"study of the bundle {about}",
            style=(found["style"], found["hash"]),
        )
        return page._replace(headers=page.headers + b"vary: accept-encoding\r\n")

    def _none(self, reason: str = "") -> Reply:
        content = (
            f'<section class="card notice"><h1>No study yet</h1>{f"<p>{reason}</p>" if reason else ""}'
            "<p>The study is one page about the users and the model: accuracy against the business rule, listening by "
            "cohort, the value of each question. It is computed from the tables, outside the service:</p>"
            f'<pre class="command" tabindex="0">{self._command()}</pre><p class="muted">DATA is the folder of the '
            "tables. The command needs <code>pip install 'firstspin[report]'</code> and minutes; the study is shown "
            "here as soon as it is written.</p></section>"
        )
        return self.site.page("Study", content, PATH)

    def _command(self) -> str:
        """The command that writes the file, as HTML."""
        bundle = shlex.quote(str(self.bundle)) if self.bundle else "BUNDLE"
        out = f" --out {shlex.quote(str(self.report))}" if self.report else ""
        return escape(f"firstspin report --data DATA --bundle {bundle}{out}", quote=False)


def _compressed(page: Reply) -> Reply:
    body = gzip.compress(page.body, 1, mtime=0)  # in an event loop: the fastest level
    return page._replace(body=body, headers=page.headers + b"content-encoding: gzip\r\n")
