"""Our engine without our HTTP layer: a bare ASGI application that reads, ranks and writes as the service does.

It has none of the service's limits, checks of headers, batching, metrics or fault containment.
"""

import os
from pathlib import Path

from firstspin.service.process.worker import load
from firstspin.serving.bodies.encodings import Encoding
from firstspin.serving.policy import DEFAULTS, decide

serving = load(Path(os.environ["BUNDLE"]))
JSON = [(b"content-type", b"application/json")]


async def app(scope, receive, send):
    if scope["type"] != "http":  # no lifespan
        return
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    [registration] = serving.reader.read(body, Encoding.json).registrations
    answer = serving.responses.json(registration, decide(registration, None, serving.bundle, None, DEFAULTS))
    headers = [*JSON, (b"content-length", str(len(answer)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})
