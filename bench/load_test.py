"""What `firstspin sagemaker load-test` finds for the image's entrypoint on this machine: one worker, 3,225 trees.

Played as SageMaker hosts it, in a private /opt/ml, with the bundle of bench/http_stacks.py. The load test runs beside
it and takes processor time from it, so the figure is this machine's and too low: yours is measured on your instance.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import engines
import http_stacks
import msgspec
import numpy as np

from firstspin.cli.commands.aws.load_test import measure, show
from firstspin.tools.load_test.run import LoadPlan
from firstspin.tools.sagemaker_check.lifecycle import serving
from firstspin.tools.sagemaker_check.payloads import Payload
from firstspin.tools.sagemaker_check.player import Target

OURS = (str(Path(sys.executable).with_name("firstspin-container")),)
PLAN = LoadPlan(seconds=4, first=200)


def main() -> None:
    rng = np.random.default_rng(2)
    asked = engines.registrations(rng, 500)
    bodies = [Payload("application/json", msgspec.json.encode(registration)) for registration in asked]
    with tempfile.TemporaryDirectory(prefix="firstspin-bench-") as work:
        http_stacks.make_bundle(Path(work, "bundle"))
        target, one_worker = Target(OURS, environment=os.environ), {"SAGEMAKER_MODEL_SERVER_WORKERS": "1"}
        with serving(target, Path(work, "hosted"), Path(work, "bundle"), one_worker) as start:
            if start.client is None:
                sys.exit(start.failure)
            show(measure(PLAN, bodies, rng, url=f"http://127.0.0.1:{start.client.port}"))


if __name__ == "__main__":
    main()
