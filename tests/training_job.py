"""The image's entrypoint as SageMaker runs it, in a private /opt/ml."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from firstspin.cli.container import train

ENTRYPOINT = (sys.executable, "-c", "from firstspin.cli.entrypoint import main; main()")


def prepared(base: Path, hyperparameters: bytes) -> None:
    """The folders that SageMaker makes."""
    for name in ("input/config", "input/data/training", "model", "output/data", "checkpoints"):
        (base / name).mkdir(parents=True, exist_ok=True)
    (base / "input/config/hyperparameters.json").write_bytes(hyperparameters)


def failure(base: Path) -> str | None:
    """What the job wrote into `output/failure`, if anything."""
    path = base / "output" / "failure"
    return path.read_text() if path.exists() else None


def trained(base: Path, told: dict[str, str]) -> int:
    """The exit status of a job, in this process."""
    prepared(base, json.dumps(told).encode())
    return train(base)


def start(base: Path, hyperparameters: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    """A training job on whatever lies in its channel."""
    prepared(base, json.dumps(hyperparameters or {}).encode())
    environment = os.environ | {"SAGEMAKER_BASE_DIR": str(base)}  # and as many threads as in the image
    words = [*ENTRYPOINT, "train"]
    with (base / "log").open("wb") as log:
        return subprocess.Popen(words, env=environment, stdout=log, stderr=log)
