"""What the classic SageMaker image misses of SageMaker's contract: the table kept in docs/sagemaker-check.md.

    python bench/sagemaker_check.py

Trains the image of bench/classic on a small made-up table and serves what it trained; nothing of it is real.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from firstspin.cloud.check import report, run
from firstspin.cloud.check.payloads import Payload, Payloads
from firstspin.cloud.check.player import Target

COMMAND = (sys.executable, str(Path(__file__).resolve().parent / "classic" / "container.py"))
COLUMNS = "age,gender=female,gender=male,picked=Rock,picked=Jazz"
PAYLOADS = Payloads(
    (
        Payload("application/json", b'{"age": 31, "gender": "female", "genres": ["Rock", "Jazz"]}'),
        Payload("text/csv", b"31,1,0,1,1\n"),
        Payload("application/jsonlines", b'{"age": 31, "gender": "female", "genres": ["Rock"]}\n'),
    )
)


def main() -> None:
    if shutil.which("nginx") is None:
        print("not run: nginx is not installed (apt-get install nginx-light)")
        return
    subprocess.run([*COMMAND, "setup"], check=True)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "listeners.csv").write_text(listeners(random.Random(7), 3000))
        classic = Target(
            command=COMMAND,
            environment=dict(os.environ),
            training=Path(folder),
            hyperparameters={"num_rounds": "300"},
        )
        found = run.check(classic, payloads=PAYLOADS, progress=lambda line: print(line, file=sys.stderr))
    print(report.as_markdown(found))
    print()
    print(report.summary(found))


def listeners(rng: random.Random, n: int) -> str:
    """People who love what they picked more often than not."""
    lines = [f"genre,{COLUMNS}"]
    for _ in range(n):
        female, rock, jazz = (rng.randint(0, 1) for _ in range(3))
        loved = rng.choice(["Rock"] * (1 + 3 * rock) + ["Jazz"] * (1 + 3 * jazz) + ["Pop"])
        lines.append(f"{loved},{rng.randint(13, 80)},{female},{1 - female},{rock},{jazz}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
