"""A stand-in for Kinesis Data Firehose on loopback: its limits, its partial failures, its bad hours."""

from __future__ import annotations

import base64
import json
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from in_threads import served


class Firehose(ThreadingHTTPServer):
    """What arrived, and how it behaves; both may be changed and read while it runs."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.calls: list[list[bytes]] = []  # the records of every call, accepted or not
        self.lines: dict[str, list[dict[str, Any]]] = defaultdict(list)  # stream -> what it accepted, in order
        self.refuses: Callable[[bytes], bool] = lambda record: False  # noqa: ARG005
        self.error: tuple[int, str] | None = None  # what every call is answered with
        self.forgets_to_answer = False  # accepts, then cuts the connection

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def put(self, stream: str, records: list[bytes]) -> tuple[int, dict[str, Any]]:
        self.calls.append(records)
        if self.error:
            status, code = self.error
            return status, {"__type": code, "message": "not now"}
        too_large = len(records) > 500 or sum(map(len, records)) > 4 << 20 or max(map(len, records)) > 1000 << 10
        if too_large:
            return 400, {"__type": "InvalidArgumentException", "message": "beyond the limits"}
        responses = []
        for record in records:
            if self.refuses(record):
                responses.append({"ErrorCode": "ServiceUnavailableException", "ErrorMessage": "Slow down."})
            else:
                self.lines[stream] += map(json.loads, record.splitlines())
                responses.append({"RecordId": str(len(self.calls))})
        failed = sum("ErrorCode" in response for response in responses)
        return 200, {"FailedPutCount": failed, "Encrypted": False, "RequestResponses": responses}


class _Handler(BaseHTTPRequestHandler):
    server: Firehose

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.headers["X-Amz-Target"] == "Firehose_20150804.PutRecordBatch"
        records = [base64.b64decode(record["Data"]) for record in body["Records"]]
        status, answer = self.server.put(body["DeliveryStreamName"], records)
        if self.server.forgets_to_answer:
            self.close_connection = True
            return
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing on stderr."""


def firehose() -> AbstractContextManager[Firehose]:
    """One that runs."""
    return served(Firehose(), poll=0.01)
