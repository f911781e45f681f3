"""The classic SageMaker image without an engine: nginx, gunicorn, flask and `lgb.predict`, to compare with.

    python bench/classic/container.py [--model FILE|FOLDER] [--port N] [--workers N] setup|serve|train

Makes its own virtual environment from the lock beside it, once, in the temp folder (all that `setup` does), and then
becomes `serve` or `train`. nginx comes from the machine (`apt-get install nginx-light`). Without --model the folders
are SageMaker's, below SAGEMAKER_BASE_DIR.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
LOCK = HERE / "requirements.txt"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--port", default="8080")
    parser.add_argument("--workers")
    parser.add_argument("verb", choices=["setup", "serve", "train"])
    options = parser.parse_args()
    if shutil.which("nginx") is None:
        sys.exit("nginx is not installed: apt-get install nginx-light")
    python, variables = environment(), dict(os.environ)
    if options.verb == "setup":
        return
    if options.workers:
        variables["MODEL_SERVER_WORKERS"] = options.workers
    if options.model:
        variables["SAGEMAKER_BASE_DIR"] = str(based_on(options.model))
    os.execve(python, [str(python), str(HERE / options.verb), options.port], variables)


def environment() -> Path:
    """The python of an environment that holds exactly what the lock says."""
    name = f"firstspin-classic-{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]}"
    folder = Path(tempfile.gettempdir(), name)
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        venv.create(folder, with_pip=True, clear=True)
        install = [
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--require-hashes",
            "-r",
            str(LOCK),
        ]
        subprocess.run([python, *install], check=True, stdout=sys.stderr)
        (folder / "ready").touch()
    return python


def based_on(model: Path) -> Path:
    """A base folder whose `model` is this one: a folder as it is, a model text under its usual name."""
    base = Path(tempfile.mkdtemp(prefix="classic-model-"))
    if model.is_dir():
        shutil.copytree(model, base / "model")
    else:
        (base / "model").mkdir()
        shutil.copyfile(model, base / "model" / "model.txt")
    return base


if __name__ == "__main__":
    main()
