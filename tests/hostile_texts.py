"""Texts that break out of quotes, run as SQL, or can be no name of a column."""

from __future__ import annotations

HOSTILE = (
    'market" AS zz, 1 AS "popularity',
    "'; COPY (SELECT 1) TO 'x'; --",
    "a;b",
    "line\nbreak\r\n",
    "nul\0byte",
    "x" * 10_000,
    '"' * 99,
    "\\'",
    " ",
    "row",
    "\u202eright to left",
)
