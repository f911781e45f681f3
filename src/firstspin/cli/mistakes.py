"""A mistake of ours where stderr is kept as a log: its kind and place, never its text, which may quote a row."""

from __future__ import annotations

import traceback


def places(problem: Exception) -> str:
    """Where it happened, a line a frame."""
    where = traceback.extract_tb(problem.__traceback__)
    return "".join(f"{frame.filename}:{frame.lineno} {frame.name}\n" for frame in where)


def kind(problem: Exception) -> str:
    """What it is called, in one line."""
    return f"this is our mistake ({type(problem).__name__}); the log names the place"
