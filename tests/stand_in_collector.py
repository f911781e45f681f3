"""A collector: a process that decodes OTLP/HTTP and writes what it receives as lines of JSON, in the order received.

`python stand_in_collector.py PORT FILE [STATUS]`; STATUS is its answer, if not 200.
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

REQUESTS = {"/v1/traces": ExportTraceServiceRequest, "/v1/metrics": ExportMetricsServiceRequest}


class Collector(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        status = int(sys.argv[3]) if len(sys.argv) > 3 else 200
        body = self.rfile.read(int(self.headers["content-length"]))
        message = REQUESTS[self.path]()
        message.ParseFromString(body)
        with Path(sys.argv[2]).open("a") as file:
            file.write(json.dumps({"path": self.path, "message": MessageToDict(message)}) + "\n")
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Collector)
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()
