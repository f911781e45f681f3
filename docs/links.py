"""MkDocs hook: links from the docs to files outside of them, which are right in a checkout, become their text."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
OUTSIDE = re.compile(r"\[([^\]]+)\]\((\.\./[^)#\s]+)[^)]*\)")


def on_page_markdown(markdown: str, *, page: Any, **_: object) -> str:
    """The page without links that leave the docs; one that leads nowhere stays, and fails the strict build."""

    def text_alone(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page.file.src_uri), link[2]))
        is_outside = not target.startswith("docs/") and (ROOT / target).exists()
        return link[1] if is_outside else link[0]

    return OUTSIDE.sub(text_alone, markdown)
