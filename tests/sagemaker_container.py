"""A container that keeps SageMaker's contract, in the standard library alone, and breaks it where it is told to.

    python sagemaker_container.py [--port N] [--fault NAME] [--channel NAME] serve|train

The model is a word in model/word.txt; it is answered with every record. Each fault breaks one fact.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from in_threads import served

JSON, CSV, LINES = "application/json", "text/csv", "application/jsonlines"
PARAMETERS = {"MaxConcurrentTransforms": 2, "BatchStrategy": "MULTI_RECORD", "MaxPayloadInMB": 6}
METRICS = '# TYPE answers counter\nanswers_total{source="model"} 1.0\nlatency_bucket{le="+Inf"} 3\n'
OTHERS = {"takes pictures": "image/jpeg", "takes bytes": "application/octet-stream"}
SMALL = 50_000
SECONDS_AN_ANSWER = {"busy": 0.05, "drops": 0.3, "slow": 1.0}


class Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 128

    def __init__(self, port: int, *, fault: str = "", word: str = "", many: bool = False) -> None:
        self.fault, self.word, self.many = fault, word, many
        self.models: dict[str, str] = {}
        self.draining = False
        self.busy = 0
        super().__init__(("127.0.0.1", port), Handler)

    def handle_error(self, *_: object) -> None:
        """Callers that hang up are none of its business."""


def up(fault: str = "", *, many: bool = False) -> AbstractContextManager[Server]:
    """The container's server in a thread of this process."""
    return served(Server(0, fault=fault, word="hello", many=many))


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    timeout = 10
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def faulty(self, name: str) -> bool:
        return self.server.fault == name

    def reply(self, status: int, body: bytes = b"", kind: str = JSON) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if self.server.draining or self.close_connection or self.faulty("closes"):
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def body(self) -> bytes | None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = self.chunks()
            return b"" if self.faulty("chunks") else body
        length = int(self.headers.get("Content-Length", 0))
        if length > {"small bodies": SMALL, "a megabyte": 1 << 20}.get(self.server.fault, length):
            self.close_connection = True
            return None
        body = self.rfile.read(length)
        if self.faulty("dies of a cut") and len(body) < length:
            self.server.fault = "ping 404"
        return body

    def chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def do_GET(self) -> None:
        pages = {
            "/ping": self.ping,
            "/metrics": self.metrics,
            "/execution-parameters": lambda: self.reply(200, self.parameters()),
        }
        if self.path in pages and not self.faulty("no " + self.path):
            pages[self.path]()
        elif self.server.many and self.path.startswith("/models"):
            self.show_models(self.path.removeprefix("/models").strip("/"))
        else:
            self.reply(404)

    def parameters(self) -> bytes:
        odd = {"parameters not UTF-8": b'{"BatchStrategy": "\xff"}', "parameters too deep": b"[" * 100_000}
        return odd.get(self.server.fault) or json.dumps(PARAMETERS | self.announced()).encode()

    def announced(self) -> dict[str, object]:
        single, small = self.faulty("single records"), self.faulty("a megabyte")
        return ({"BatchStrategy": "SINGLE_RECORD"} if single else {}) | ({"MaxPayloadInMB": 1} if small else {})

    def ping(self) -> None:
        if self.faulty("slow ping") or (self.faulty("busy") and self.server.busy):
            time.sleep(1)
        self.reply(404 if self.faulty("ping 404") else 200, b"\n" if self.faulty("ping body") else b"")

    def metrics(self) -> None:
        page = "<html>metrics</html>" if self.faulty("metrics in HTML") else METRICS
        self.reply(200, page.encode(), "text/plain; version=0.0.4")

    def do_POST(self) -> None:
        body = self.body()
        name = self.path.removeprefix("/models").removesuffix("/invoke").strip("/")
        if body is None:
            self.reply(413)
        elif self.path == "/invocations":
            self.server.busy += 1
            self.invoke(body, self.server.word)
            self.server.busy -= 1
        elif self.server.many and self.path == "/models":
            self.load(json.loads(body))
        elif self.server.many and (name in self.server.models or self.faulty("invokes anything")):
            self.invoke(body, "many")
        else:
            self.reply(404)

    def do_DELETE(self) -> None:
        name = self.path.removeprefix("/models/")
        known = name in self.server.models
        if known and not self.faulty("never unloads"):
            del self.server.models[name]
        self.reply(200 if known else 404)

    def show_models(self, name: str) -> None:
        listed = [{"modelName": key, "modelUrl": url} for key, url in self.server.models.items()]
        if not name:
            self.reply(200, json.dumps({"models": [] if self.faulty("lists none") else listed}).encode())
        elif name in self.server.models and not self.faulty("shows none"):
            self.reply(200, json.dumps(next(one for one in listed if one["modelName"] == name)).encode())
        else:
            self.reply(404)

    def load(self, wanted: dict[str, str]) -> None:
        if self.faulty("never loads"):
            self.reply(507)
        elif wanted["model_name"] in self.server.models and not self.faulty("loads twice"):
            self.reply(409)
        else:
            self.server.models[wanted["model_name"]] = wanted["url"]
            self.reply(200)

    def invoke(self, body: bytes, word: str) -> None:
        time.sleep(SECONDS_AN_ANSWER.get(self.server.fault, 0))
        time.sleep(body.count(b"\n") * 0.01 if self.faulty("slow records") else 0)
        given = self.headers.get("Content-Type", "")
        kind = given if self.faulty("exact type") else given.partition(";")[0]
        if self.faulty("any type") and kind not in (JSON, CSV, LINES):
            kind = JSON
        if self.faulty("strange headers") and "X-Unheard-Of" in self.headers:
            self.reply(400)
        elif self.faulty("long headers") and any(len(value) > 512 for value in self.headers.values()):
            self.reply(431)
        elif self.server.fault in OTHERS:
            self.classify(body, kind)
        elif kind not in (JSON, CSV, LINES) or self.faulty("no " + kind):
            self.reply(415)
        else:
            self.predict(body, kind, word)

    def classify(self, body: bytes, kind: str) -> None:
        """A container of another kind: takes one type, and answers JSON to whoever accepts that."""
        if kind != OTHERS[self.server.fault]:
            self.reply(415)
        elif self.headers.get("Accept", "*/*") not in (JSON, "*/*"):
            self.reply(406)
        elif kind == "image/jpeg" and not body.startswith(b"\xff\xd8"):
            self.reply(400)
        else:
            self.reply(200, b'{"cat": 0.9}')

    def predict(self, body: bytes, kind: str, word: str) -> None:
        try:
            answer = answered(body.decode(), kind, word, self.server.fault)
        except ValueError:
            status = {"blames itself": 500, "swallows": 200}.get(self.server.fault, 400)
            self.reply(status, b'{"error": "not understood"}')
            return
        if self.faulty("few records") and answer.count("\n") > 1000:
            self.reply(413)
        elif self.faulty("never answers"):
            self.reply(500)
        elif self.faulty("one answer for all") and kind != JSON:
            self.reply(200, b"1\n", kind)
        elif self.faulty("not " + kind):
            self.reply(200, b"{oops", kind)
        else:
            answer = answer.replace("\n", " " * 30 + "\n") if self.faulty("long answers") else answer
            self.reply(200, answer.encode(), CSV if self.faulty("always a table") else kind)


def answered(body: str, kind: str, word: str, fault: str = "") -> str:
    """The word with the number of fields, a record."""
    word = f"{word} {time.monotonic_ns()}" if fault == "varies" else word
    if kind == JSON:
        return json.dumps({"word": word, "fields": len(json.loads(body))})
    rows = [line for line in body.splitlines() if line.strip()]
    if kind == LINES:
        return "".join(json.dumps({"word": word[: len(json.loads(row))]}) + "\n" for row in rows)
    if any("{" in row for row in rows):
        raise ValueError("not a table")
    return "".join(f"{word},{len(row.split(','))}\n" for row in rows)


def serve(base: Path, port: int, fault: str) -> int:
    if fault == "small environment" and len(os.environ) > 60:
        sys.stdout.write("too many variables\n")
        return 3
    if fault == "writes its model":
        (base / "model" / "cache").write_text("cached")
    if fault != "own port":
        port = int(os.environ.get("SAGEMAKER_BIND_TO_PORT", port + 1 if fault == "odd port" else port))
    words = [] if fault == "no model read" else [path.read_text() for path in (base / "model").glob("word.txt")]
    if fault == "needs a model" and not words:
        return 1
    many = os.environ.get("SAGEMAKER_MULTI_MODEL") == "true"
    server = Server(port, fault=fault, word="".join(words), many=many)

    def drain(*_: object) -> None:
        if fault == "drops":
            os._exit(0)
        server.draining = True
        # Whoever is connecting at this moment is still served.
        threading.Timer(0.2, server.shutdown).start()

    signal.signal(signal.SIGTERM, signal.SIG_IGN if fault == "deaf" else drain)
    server.serve_forever(0.05)
    server.server_close()
    return 4 if fault == "odd status" else 0


def train(base: Path, fault: str, channel: str) -> int:
    settings = json.loads((base / "input" / "config" / "hyperparameters.json").read_text())
    told = json.loads((base / "input" / "config" / "inputdataconfig.json").read_text())
    files = sorted((base / "input" / "data" / channel).glob("*.txt")) if channel in told else []
    if fault == "fails" or (not files and fault != "ignores its channel"):
        return failed(base, fault)
    rounds = settings.get("rounds", "3")
    rounds = rounds + 1 if fault == "wants numbers" else int(rounds)
    word = files[0].read_text().strip() if files else "none"

    def stop(*_: object) -> None:
        if fault != "saves nothing":
            (base / "model" / "word.txt").write_text(word)
        sys.exit(0)

    signal.signal(signal.SIGTERM, signal.SIG_IGN if fault == "deaf" else stop)
    time.sleep(rounds * 0.1)
    if fault == "changes its input":
        files[0].write_text("changed")
    if fault == "strews":
        (base / "scratch").mkdir()
    if fault != "no model":
        (base / "model" / "word.txt").write_text(word)
    sys.stdout.write("done\n" if fault == "no metrics" else "valid_hit3=0.77;\n")
    return 0


def failed(base: Path, fault: str) -> int:
    reason = "no data in the channel training. "
    if fault != "fails silently":
        (base / "output" / "failure").write_text(reason * (99 if fault == "rambles" else 1))
    return 0 if fault == "fails with 0" else 1


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--fault", default="")
    parser.add_argument("--channel", default="training")
    parser.add_argument("verb", choices=["serve", "train"])
    options = parser.parse_args()
    base = Path(os.environ["SAGEMAKER_BASE_DIR"])
    if options.verb == "serve":
        return serve(base, options.port, options.fault)
    return train(base, options.fault, options.channel)


if __name__ == "__main__":
    sys.exit(main())
