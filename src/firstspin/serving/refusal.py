"""How a request is refused, at every entry point that answers with an HTTP status."""

from __future__ import annotations

import msgspec


class Refusal(Exception):
    """A refused request: the HTTP status, a stable code for programs, and a message for people."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status, self.code, self.message = status, code, message

    def body(self) -> bytes:
        """The JSON body of the response."""
        return msgspec.json.encode({"error": {"code": self.code, "message": self.message}})

    def in_line(self, number: int) -> Refusal:
        """The refusal with the number of the line in its message."""
        return Refusal(self.status, self.code, f"line {number}: {self.message}")
