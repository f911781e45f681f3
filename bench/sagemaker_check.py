"""What an image misses of SageMaker's contract: the tables kept in docs/sagemaker-check.md.

    python bench/sagemaker_check.py                  the classic image, on a small made-up table
    python bench/sagemaker_check.py --ours DATA_DIR  firstspin's entrypoint, on a folder of its three tables

Each trains, serves what it trained, and is stopped; nothing of the classic image's data is real.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from firstspin.tools.sagemaker_check import report, run
from firstspin.tools.sagemaker_check.payloads import REGISTRATIONS, Payload, Payloads
from firstspin.tools.sagemaker_check.player import Target

CLASSIC = (sys.executable, str(Path(__file__).resolve().parent / "classic" / "container.py"))
OURS = (str(Path(sys.executable).with_name("firstspin-container")),)
COLUMNS = "age,gender=female,gender=male,picked=Rock,picked=Jazz"
PAYLOADS = Payloads(
    (
        Payload("application/json", b'{"age": 31, "gender": "female", "genres": ["Rock", "Jazz"]}'),
        Payload("text/csv", b"31,1,0,1,1\n"),
        Payload("application/jsonlines", b'{"age": 31, "gender": "female", "genres": ["Rock"]}\n'),
    )
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", type=Path, metavar="DATA_DIR")
    data = parser.parse_args().ours
    if data is not None:
        told = {"model": "auto", "seed": "7"}
        show(Target(OURS, environment=os.environ, channels={"training": data}, hyperparameters=told), REGISTRATIONS)
    elif shutil.which("nginx") is None:
        print("not run: nginx is not installed (apt-get install nginx-light)")
    else:
        subprocess.run([*CLASSIC, "setup"], check=True)
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "listeners.csv").write_text(listeners(random.Random(7), 3000))
            rounds = {"num_rounds": "300"}
            show(
                Target(CLASSIC, environment=os.environ, channels={"training": Path(folder)}, hyperparameters=rounds),
                PAYLOADS,
            )


def show(target: Target, payloads: Payloads) -> None:
    found = run.check(target, payloads=payloads, progress=lambda line: print(line, file=sys.stderr))
    print(report.as_markdown(found), report.summary(found), sep="\n\n")


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
