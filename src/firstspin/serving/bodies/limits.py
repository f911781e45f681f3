"""Limits of request bodies: the work for one registration and for one request is bounded before it begins."""

from __future__ import annotations

from typing import Final

from firstspin.serving.refusal import Refusal

MAX_BODY_BYTES: Final = 6_291_456  # SageMaker's limit
MAX_INSTANCES: Final = 10_000

Body = bytes | bytearray
Text = bytes | bytearray | memoryview

AT_ONCE: Final = 32
PIECE_BYTES: Final = 16_384
"""A piece of a list has AT_ONCE registrations, or as many as fit in PIECE_BYTES."""

SHORT: Final = 16_384
"""A body of up to this many bytes is parsed at once."""

MAX_LENGTH: Final = 1_048_576
MAX_VALUES: Final = 65_536
"""Maximum bytes and commas of one registration, about three times those of the largest valid one."""

MAX_OBJECTS: Final = 131_072
"""Maximum number of opening braces in a long JSON body, whatever the limit of registrations."""


def refuse_too_long(text: Text) -> None:
    """Raises Refusal where the text of one registration is too long or has too many values."""
    if len(text) > MAX_VALUES and (len(text) > MAX_LENGTH or bytes(text).count(b",") > MAX_VALUES):
        raise too_long()


def too_long() -> Refusal:
    """The refusal of a registration that is too long."""
    return Refusal(422, "invalid", "this is too long for a registration")
