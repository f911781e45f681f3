"""What the registrations of the training tables look like, as counts: the reference of drift (`firstspin.watch`)."""

from __future__ import annotations

import msgspec


class InputReference(msgspec.Struct, frozen=True):
    """Numbers of registrations by column and category.

    Registrations without a label count too, because the service gets all. A category has at least 10 of them; rarer
    ones are "other". `edges` are the quartiles of numeric further columns.
    """

    columns: dict[str, dict[str, int]]
    edges: dict[str, tuple[float, ...]] = {}
