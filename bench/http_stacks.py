"""Claim: a full answer over HTTP costs an eighth of FastAPI + pydantic + `lgb.predict`, a fifteenth of the classic way.

Every stack serves the same model of 3,225 trees on one core and answers about 2.9 kB (stations, message, carousels);
wrk asks on the other core over 64 connections with 500 different registrations. The stacks take turns; each figure is
the median over the turns. The ratio that counts is of server CPU time a request (user and system, from the process
accounts, over all processes of the stack): requests a second depend on what else the machine does. The floor is a C
program that answers with fixed bytes. Needs wrk, nginx and gcc; the other stacks' environments are made at first use.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import engines
import msgspec
import numpy as np

from firstspin.models.features import PICKED
from firstspin.models.predictor import Predictor
from firstspin.models.scorers import RuleScorer, TreeScorer
from firstspin.models.trees.bitrows import tables
from firstspin.records import Registration, Station
from firstspin.serving import bundle
from firstspin.serving.policy import DEFAULTS, decide
from firstspin.serving.responses import recommendation
from firstspin.serving.stations import Catalogue

HERE = Path(__file__).parent
PORT, CONNECTIONS, SECONDS, TURNS = 18_080, 64, 3, 3
SERVER_CORE, CLIENT_CORE = "0", "1"
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Run:
    """What one turn of a stack showed."""

    cpu_us: float
    per_second: float
    p50_ms: float
    p99_ms: float
    rss_mb: float
    errors: int


def make_bundle(folder: Path) -> tuple[bundle.Bundle, str]:
    """Model M as a bundle with a catalogue of 25 genres x 50 stations, and its text."""
    rng = np.random.default_rng(0)
    text = engines.train(rng).model_to_string()
    encoder, genres = engines.ENCODER, tuple(engines.GENRES)
    picked = encoder.of_kind(PICKED)
    rule = Predictor(encoder, genres, RuleScorer(np.log(np.arange(25, 0, -1) / 325), picked, 3.0), "popularity")
    predictor = Predictor(encoder, genres, TreeScorer.of(engines.COLUMNS, text, tables(text)), "lightgbm")
    stations = [
        (Station(f"{genre[-2:]}{n:02}-" + "0123456789abcdef" * 2, f"The {genre} station {n}", genre), float(n))
        for genre in genres
        for n in range(50)
    ]
    about: dict[str, object] = {}
    packed = bundle.save(
        folder,
        predictor,
        rule,
        Catalogue.of(stations),
        known_genres=genres,
        extra={},
        label=about,
        data=about,
        scorecard=None,
    )
    return packed, text


def make_classic(folder: Path, packed: bundle.Bundle, text: str) -> None:
    """The same model, columns and content as the other stacks read them."""
    folder.mkdir(parents=True)
    (folder / "model.txt").write_text(text)
    names = [engines.ENCODER.columns[i] for i in engines.COLUMNS]
    (folder / "columns.json").write_text(json.dumps(names))
    (folder / "genres.json").write_text(json.dumps(engines.GENRES))
    answers = {}
    for registration in engines.registrations(np.random.default_rng(1), 3_000):
        answer = msgspec.to_builtins(
            recommendation(registration, decide(registration, None, packed, None, DEFAULTS), packed)
        )
        first = answer["genres"][0]["genre"]
        answers.setdefault(first, {key: answer[key] for key in ("stations", "message", "carousels")})
    example = next(iter(answers.values()))
    (folder / "content.json").write_text(json.dumps({genre: answers.get(genre, example) for genre in engines.GENRES}))


def write_script(path: Path) -> None:
    """What wrk sends, and how it tells what it saw."""
    asked = [
        msgspec.json.encode(registration).decode()
        for registration in engines.registrations(np.random.default_rng(2), 500)
        if registration != Registration()
    ]
    bodies = ",".join(f"[=[{body}]=]" for body in asked)
    path.write_text(f"""
local bodies = {{{bodies}}}
local n = 0
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
request = function() n = n % #bodies + 1; return wrk.format(nil, "/invocations", nil, bodies[n]) end
done = function(s, l, r)
  local e = s.errors
  io.write(string.format("told %d %d %f %f %d\\n", s.requests, s.duration, l:percentile(50), l:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end""")


def environment(requirements: Path) -> Path:
    """The folder of programs of another stack's own environment, made at first use."""
    folder = Path(tempfile.gettempdir()) / f"firstspin-bench-{requirements.parent.name}"
    if not (folder / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([folder / "bin/pip", "install", "-qq", "--require-hashes", "-r", str(requirements)], check=True)
        (folder / "ready").touch()
    return folder / "bin"


Stack = tuple[list[str], dict[str, str]]


def python_stacks(work: Path) -> dict[str, Stack]:
    """Command and environment of ours and of FastAPI's."""
    port = str(PORT)
    uvicorn = [sys.executable, "-m", "uvicorn", "fastapi_app:app", "--app-dir", str(HERE / "stacks"), "--port", port]
    ours = [sys.executable, "-m", "firstspin.service", "--bundle", str(work / "bundle"), "--port", port]
    threads = {"OMP_NUM_THREADS": "1"}
    return {
        "firstspin": ([*ours, "--drain-delay", "0", "--log-level", "warning"], {}),
        "FastAPI + pydantic + lgb.predict": (
            [*uvicorn, "--no-access-log", "--log-level", "warning"],
            threads | {"MODEL_FOLDER": str(work / "model")},
        ),
    }


def serving_frameworks(work: Path) -> dict[str, Stack]:
    """Command and environment of the frameworks that serve any model."""
    found = {}
    for name, command, own in (
        ("MLServer", ["mlserver", "start"], {"MLSERVER_HTTP_PORT": str(PORT), "MLSERVER_PARALLEL_WORKERS": "0"}),
        ("BentoML", ["bentoml", "serve", "service:Newcomers", "--port", str(PORT)], {"BENTOML_DO_NOT_TRACK": "True"}),
    ):
        folder = HERE / "stacks" / name.lower()
        programs = environment(folder / "requirements.txt")
        told = {"PYTHONPATH": f"{folder}:{folder.parent}", "MODEL_FOLDER": str(work / "model"), "OMP_NUM_THREADS": "1"}
        told |= {"MLSERVER_DEBUG": "false", "BENTOML_HOME": str(work / "bentoml")} | own
        where = [str(folder)] if name == "MLServer" else ["--working-dir", str(folder)]
        found[f"{name} + lgb.predict"] = ([str(programs / command[0]), *command[1:], *where], told)
    return found


def stacks(work: Path) -> dict[str, Stack]:
    """Command and environment of every stack."""
    floor = str(work / "floor")
    subprocess.run(["gcc", "-O2", "-o", floor, str(HERE / "stacks/floor.c")], check=True)
    classic = {"SAGEMAKER_BASE_DIR": str(work), "MODEL_SERVER_WORKERS": "1", "OMP_NUM_THREADS": "1"}
    python = environment(HERE / "classic" / "requirements.txt") / "python"
    return {
        "C floor": ([floor, str(PORT), "2900"], {}),
        **python_stacks(work),
        "nginx + gunicorn + flask + lgb.predict": ([str(python), str(HERE / "classic/serve"), str(PORT)], classic),
        **serving_frameworks(work),
    }


@contextmanager
def running(command: list[str], environment: dict[str, str]) -> Iterator[int]:
    """The stack on its core; its process id."""
    process = subprocess.Popen(
        ["taskset", "-c", SERVER_CORE, *command],
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        body = json.dumps({"age": 31, "genres": ["genre 03"]}).encode()
        asked = urllib.request.Request(
            f"http://127.0.0.1:{PORT}/invocations", body, {"content-type": "application/json"}
        )
        for _ in range(600):
            with suppress(OSError):
                urllib.request.urlopen(asked, timeout=5).read()
                break
            time.sleep(0.1)
        yield process.pid
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(0.5)


def family(pid: int) -> list[Path]:
    """The /proc folders of a process and all below it."""
    found, waiting = [], [pid]
    while waiting:
        at = waiting.pop()
        found.append(Path(f"/proc/{at}"))
        with suppress(OSError):
            waiting += map(int, Path(f"/proc/{at}/task/{at}/children").read_text().split())
    return found


def cpu_seconds(pid: int) -> float:
    fields = [path.joinpath("stat").read_text().rsplit(")", 1)[1].split() for path in family(pid)]
    return sum(int(field[11]) + int(field[12]) for field in fields) / TICKS


def rss_mb(pid: int) -> float:
    """Proportional set size: what the processes share counts once."""
    total = 0
    for path in family(pid):
        told = re.search(r"^Pss:\s+(\d+)", path.joinpath("smaps_rollup").read_text(), re.MULTILINE)
        total += int(told[1]) if told else 0
    return total / 1024


def load(pid: int, script: Path, seconds: int) -> Run:
    command = ["taskset", "-c", CLIENT_CORE, "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(script)]
    before = cpu_seconds(pid)
    told = subprocess.run([*command, f"http://127.0.0.1:{PORT}"], capture_output=True, text=True, check=True).stdout
    spent = cpu_seconds(pid) - before
    words = next(line for line in told.splitlines() if line.startswith("told")).split()[1:]
    requests, duration, p50, p99, errors = map(float, words)
    return Run(spent / requests * 1e6, requests / duration * 1e6, p50 / 1e3, p99 / 1e3, rss_mb(pid), int(errors))


def main() -> None:
    work = Path(tempfile.mkdtemp(prefix="firstspin-bench-"))
    packed, text = make_bundle(work / "bundle")
    make_classic(work / "model", packed, text)
    write_script(work / "ask.lua")
    runs: dict[str, list[Run]] = {}
    all_stacks = stacks(work)
    for _ in range(TURNS):
        for name, (command, environment) in all_stacks.items():
            with running(command, environment) as pid:
                load(pid, work / "ask.lua", 1)
                runs.setdefault(name, []).append(load(pid, work / "ask.lua", SECONDS))
    shutil.rmtree(work)
    show(runs)


def show(runs: dict[str, list[Run]]) -> None:
    medians = {
        name: Run(*(statistics.median(getattr(run, field) for run in found) for field in Run.__dataclass_fields__))
        for name, found in runs.items()
    }
    own = medians["firstspin"]
    print(f"{TURNS} turns of {SECONDS} s, {CONNECTIONS} connections, medians")
    print(f"{'stack':40}{'CPU us/req':>11}{'x ours':>8}{'req/s':>9}{'p50 ms':>8}{'p99 ms':>8}{'MB':>7}{'errors':>8}")
    for name, run in medians.items():
        print(
            f"{name:40}{run.cpu_us:11.1f}{run.cpu_us / own.cpu_us:8.2f}{run.per_second:9.0f}"
            f"{run.p50_ms:8.2f}{run.p99_ms:8.2f}{run.rss_mb:7.0f}{sum(r.errors for r in runs[name]):8d}"
        )


if __name__ == "__main__":
    main()
