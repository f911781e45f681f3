"""Claim: by CPU per request the service costs an eighth of FastAPI + pydantic + `lgb.predict`, `/v1` under twice that.

Two models: `small` is what `firstspin train --model lightgbm` makes of 40,000 simulated users (about 1,000 trees of 8
leaves), `large` has 3,225 trees of 31 leaves. All stacks serve the same model on one core and answer about 2.9 kB
(stations, message, carousels); wrk sends 500 different registrations from the other core over 64 connections. The
stacks take turns; each figure is the median over the turns. The ratio that counts is of server CPU time per request
(user and system, from the process accounts, summed over the processes of the stack): requests per second depend on
what else the machine does.

Three rows show where the time goes: `/v1/recommendations`, every request from another user; the same with a running
experiment, each exposure written to SQLite; and the same engine as a bare ASGI application behind uvicorn, without the
limits, the batching and the metrics of our HTTP layer. The floor is a C program that answers with fixed bytes.

    python bench/http_stacks.py [small|large] [part of a row's name ...]

Needs wrk, nginx and gcc; the other stacks' environments are made at first use.
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
from datetime import date
from pathlib import Path

import engines
import msgspec
import numpy as np
import pyarrow.parquet

from firstspin.experiment.plan import Plan, freeze
from firstspin.experiment.rules import Metric
from firstspin.models.features import PICKED, QUESTIONS
from firstspin.models.predictor import Predictor
from firstspin.models.scorers import RuleScorer, TreeScorer
from firstspin.models.trees.bitrows import tables
from firstspin.records import Registration, Station
from firstspin.serving import bundle
from firstspin.serving.content import recommendation
from firstspin.serving.policy import DEFAULTS, decide
from firstspin.serving.stations import Catalogue

HERE = Path(__file__).parent
PORT, CONNECTIONS, SECONDS, TURNS = 18_080, 64, 3, 3
SERVER_CORE, CLIENT_CORE = "0", "1"
TRAINED_ON = 40_000  # simulated users
TICKS = os.sysconf("SC_CLK_TCK")
OURS, BARE = "firstspin /invocations", "our engine, bare ASGI on uvicorn"
USERS, ARMS = "firstspin /v1 without an experiment", "firstspin /v1 with an experiment"
FASTAPI = "FastAPI + pydantic + lgb.predict"


@dataclass(frozen=True)
class Stack:
    """How a stack is started, and the path its requests go to."""

    command: list[str]
    environment: dict[str, str]
    path: str = "/invocations"


@dataclass(frozen=True)
class Run:
    """The figures of one turn of a stack; `exposures` is the number stored per request."""

    cpu_us: float
    per_second: float
    p50_ms: float
    p99_ms: float
    rss_mb: float
    errors: int
    exposures: float = 0.0


def make_bundle(folder: Path) -> tuple[bundle.Bundle, str]:
    """The large model as a bundle with a catalogue of 25 genres x 50 stations, and its LightGBM text."""
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


def large(work: Path) -> tuple[bundle.Bundle, str, list[Registration]]:
    """The large model: bundle, LightGBM text, and registrations to send."""
    packed, text = make_bundle(work / "bundle")
    return packed, text, engines.registrations(np.random.default_rng(2), 3_500)


def small(work: Path, *world_options: str) -> tuple[bundle.Bundle, str, list[Registration]]:
    """The small model, as the command line trains it: bundle, LightGBM text, and registrations to send."""
    world, folder = work / "world", work / "bundle"
    for arguments in (
        ["world", str(world), "--users", str(TRAINED_ON), "--seed", "1", *world_options],
        ["train", "--data", str(world), "--out", str(folder), "--model", "lightgbm"],
    ):
        subprocess.run([sys.executable, "-m", "firstspin", *arguments], check=True, stdout=subprocess.DEVNULL)
    packed = bundle.load(folder)
    assert isinstance(packed.predictor.scorer, TreeScorer)
    # Trained with an objective of our own, which its text does not name: with this line `lgb.predict` gives
    # probabilities, so that no stack has to compute the softmax in Python.
    text = packed.predictor.scorer.text
    text = text.replace(
        "\nfeature_names=", f"\nobjective=multiclass num_class:{len(packed.predictor.genres)}\nfeature_names=", 1
    )
    return packed, text, world_registrations(work, 3_500)


def world_registrations(work: Path, n: int) -> list[Registration]:
    """The first n registrations that the small model was trained on."""
    path, columns = work / "world" / "registrations.parquet", ["age", "gender", "country", "genres"]
    return msgspec.convert(
        pyarrow.parquet.read_table(path, columns=columns).slice(0, n).to_pylist(), list[Registration]
    )


MODELS = {"small": small, "large": large}


def make_classic(folder: Path, packed: bundle.Bundle, text: str, registrations: list[Registration]) -> None:
    """The same model, columns and content as the other stacks read them."""
    folder.mkdir(parents=True)
    (folder / "model.txt").write_text(text)
    assert isinstance(packed.predictor.scorer, TreeScorer)
    names = [packed.predictor.encoder.columns[i] for i in packed.predictor.scorer.columns]
    genres = packed.predictor.genres
    (folder / "columns.json").write_text(json.dumps(names))
    (folder / "genres.json").write_text(json.dumps(genres))
    answers = {}
    for registration in registrations:
        decision = decide(registration, None, packed, None, DEFAULTS)
        answer = msgspec.to_builtins(recommendation(registration, decision, packed))
        first = answer["genres"][0]["genre"]
        answers.setdefault(first, {key: answer[key] for key in ("stations", "message", "carousels")})
    example = next(iter(answers.values()))
    (folder / "content.json").write_text(json.dumps({genre: answers.get(genre, example) for genre in genres}))


def write_script(folder: Path, path: str, registrations: list[Registration]) -> Path:
    """A wrk script that posts the registrations to `path`, with another user id each time where it is under /v1."""
    answers = [
        {name: getattr(one, name) for name in QUESTIONS} for one in registrations
    ]  # other stacks know no listens
    bodies = [msgspec.json.encode(of_one)[1:].decode() for of_one in answers]
    user = '\'{"user_id":"user-\' .. string.format("%08d", n) .. \'",\'' if path.startswith("/v1") else '"{"'
    script = folder / f"{path.strip('/').replace('/', '-')}.lua"
    script.write_text(f"""
local bodies = {{{",".join(f"[=[{body}]=]" for body in bodies)}}}
local n = tonumber(os.getenv("FIRST_USER"))
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
request = function() n = n + 1; return wrk.format(nil, "{path}", nil, {user} .. bodies[n % #bodies + 1]) end
done = function(s, l, r)
  local e = s.errors
  io.write(string.format("figures %d %d %f %f %d\\n", s.requests, s.duration, l:percentile(50), l:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end""")
    return script


def environment(requirements: Path) -> Path:
    """The folder of programs of another stack's own environment, made at first use."""
    folder = Path(tempfile.gettempdir()) / f"firstspin-bench-{requirements.parent.name}"
    if not (folder / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([folder / "bin/pip", "install", "-qq", "--require-hashes", "-r", str(requirements)], check=True)
        (folder / "ready").touch()
    return folder / "bin"


def python_stacks(work: Path) -> dict[str, Stack]:
    """The service, and FastAPI."""
    environment = {"OMP_NUM_THREADS": "1", "MODEL_FOLDER": str(work / "model")}
    return {OURS: Stack(service(work), {}), FASTAPI: Stack(uvicorn("fastapi_app:app"), environment)}


def service(work: Path) -> list[str]:
    """The command that serves the bundle, with all that the service checks and counts."""
    ours = [sys.executable, "-m", "firstspin.service", "--bundle", str(work / "bundle"), "--port", str(PORT)]
    return [*ours, "--drain-delay", "0", "--log-level", "warning"]


def uvicorn(app: str) -> list[str]:
    """The command that runs an application of the folder `stacks` on uvicorn, with uvloop and httptools."""
    command = [sys.executable, "-m", "uvicorn", app, "--app-dir", str(HERE / "stacks"), "--port", str(PORT)]
    return [*command, "--no-access-log", "--log-level", "warning"]


def own_stacks(work: Path) -> dict[str, Stack]:
    """The service for users, without and with an experiment, and its engine without its HTTP layer."""
    plan = work / "plan.toml"
    freeze(
        Plan(
            name="first-message",
            starts_on=date(2026, 1, 1),
            days=365,
            control="rule",
            arms={"rule": 0.5, "model": 0.5},
            metrics=(Metric("clicked", "binary"),),
            registrations_a_day=100_000,
            baseline=0.2,
            minimum_effect=0.05,
        ),
        plan,
    )
    store = ["--events", f"sqlite:///{work / 'events.sqlite'}", "--events-secret", str(work / "secret")]
    bare = Stack(uvicorn("asgi_app:app"), {"BUNDLE": str(work / "bundle")})
    return {
        USERS: Stack(service(work), {}, "/v1/recommendations"),
        ARMS: Stack([*service(work), *store, "--experiment", str(plan)], {}, "/v1/recommendations"),
        BARE: bare,
    }


def serving_frameworks(work: Path) -> dict[str, Stack]:
    """The frameworks that serve any model."""
    stacks = {}
    for name, command, own in (
        ("MLServer", ["mlserver", "start"], {"MLSERVER_HTTP_PORT": str(PORT), "MLSERVER_PARALLEL_WORKERS": "0"}),
        ("BentoML", ["bentoml", "serve", "service:Newcomers", "--port", str(PORT)], {"BENTOML_DO_NOT_TRACK": "True"}),
    ):
        folder = HERE / "stacks" / name.lower()
        programs = environment(folder / "requirements.txt")
        settings = {"PYTHONPATH": f"{folder}:{folder.parent}", "MODEL_FOLDER": str(work / "model")}
        settings |= {"OMP_NUM_THREADS": "1", "MLSERVER_DEBUG": "false", "BENTOML_HOME": str(work / "bentoml")} | own
        where = [str(folder)] if name == "MLServer" else ["--working-dir", str(folder)]
        stacks[f"{name} + lgb.predict"] = Stack([str(programs / command[0]), *command[1:], *where], settings)
    return stacks


def floor(work: Path) -> dict[str, Stack]:
    """Fixed bytes from C."""
    program = str(work / "floor")
    subprocess.run(["gcc", "-O2", "-o", program, str(HERE / "stacks/floor.c")], check=True)
    return {"C floor": Stack([program, str(PORT), "2900"], {})}


def classic_stack(work: Path) -> dict[str, Stack]:
    """The image of old: nginx, gunicorn and flask."""
    python = environment(HERE / "classic" / "requirements.txt") / "python"
    settings = {"SAGEMAKER_BASE_DIR": str(work), "MODEL_SERVER_WORKERS": "1", "OMP_NUM_THREADS": "1"}
    command = [str(python), str(HERE / "classic/serve"), str(PORT)]
    return {"nginx + gunicorn + flask + lgb.predict": Stack(command, settings)}


GROUPS = (
    (("C floor",), floor),
    ((OURS, FASTAPI), python_stacks),
    ((USERS, ARMS, BARE), own_stacks),
    (("nginx + gunicorn + flask + lgb.predict",), classic_stack),
    (("MLServer + lgb.predict", "BentoML + lgb.predict"), serving_frameworks),
)


def chosen_stacks(work: Path, parts: list[str]) -> dict[str, Stack]:
    """The stacks whose name contains one of the parts, all where there are none; only those are prepared."""

    def is_chosen(name: str) -> bool:
        return not parts or any(part in name for part in parts)

    groups = [make(work) for names, make in GROUPS if any(map(is_chosen, names))]
    return {name: stack for group in groups for name, stack in group.items() if is_chosen(name)}


@contextmanager
def running(stack: Stack) -> Iterator[int]:
    """The stack on its core, once it has answered; its process id."""
    process = subprocess.Popen(
        ["taskset", "-c", SERVER_CORE, *stack.command],
        env=os.environ | stack.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for_answer(stack.command)
        yield process.pid
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(0.5)


def wait_for_answer(command: list[str]) -> None:
    body = json.dumps({"age": 31}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}/invocations", body, {"content-type": "application/json"})
    for _ in range(600):
        with suppress(OSError):
            urllib.request.urlopen(request, timeout=5).read()
            return
        time.sleep(0.1)
    raise TimeoutError(f"no answer in a minute from {command}")


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
        size = re.search(r"^Pss:\s+(\d+)", path.joinpath("smaps_rollup").read_text(), re.MULTILINE)
        total += int(size[1]) if size else 0
    return total / 1024


def load(pid: int, script: Path, seconds: int) -> Run:
    """One run of wrk, and the CPU time that the stack spent on it, on the writing of exposures too."""
    command = ["taskset", "-c", CLIENT_CORE, "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(script)]
    first_user = {"FIRST_USER": str(time.time_ns() // 1_000 % 10**12)}
    with_users = "v1" in script.name
    stored, before = exposures_stored() if with_users else 0, cpu_seconds(pid)
    output = subprocess.run(
        [*command, f"http://127.0.0.1:{PORT}"], capture_output=True, text=True, check=True, env=os.environ | first_user
    ).stdout
    words = next(line for line in output.splitlines() if line.startswith("figures")).split()[1:]
    requests, duration, p50, p99, errors = map(float, words)
    if with_users:
        stored = wait_for_exposures() - stored
    spent = cpu_seconds(pid) - before
    return Run(
        spent / requests * 1e6,
        requests / duration * 1e6,
        p50 / 1e3,
        p99 / 1e3,
        rss_mb(pid),
        int(errors),
        stored / requests,
    )


def exposures_stored() -> int:
    """How many exposures the service has on the disk, by its own account."""
    text = urllib.request.urlopen(f"http://127.0.0.1:{PORT}/metrics", timeout=5).read().decode()
    found = re.search(r"^firstspin_exposures_stored_total (\S+)", text, re.MULTILINE)
    return int(float(found[1])) if found else 0


def wait_for_exposures() -> int:
    """The number stored once it no longer grows."""
    last = -1
    while (now := exposures_stored()) != last:
        last = now
        time.sleep(1.5)
    return now


def measure(model: str, parts: list[str]) -> dict[str, list[Run]]:
    """The runs of each chosen stack, which take turns."""
    work = Path(tempfile.mkdtemp(prefix="firstspin-bench-"))
    packed, text, registrations = MODELS[model](work)
    make_classic(work / "model", packed, text, registrations[500:])
    sent = [registration for registration in registrations[:500] if registration != Registration()]
    print(f"{model}: {text.count(chr(10) + 'Tree=')} trees, {len(packed.predictor.genres)} genres, bundle {packed.id}")
    runs: dict[str, list[Run]] = {}
    stacks = chosen_stacks(work, parts)
    scripts = {path: write_script(work, path, sent) for path in {stack.path for stack in stacks.values()}}
    for _ in range(TURNS):
        for name, stack in stacks.items():
            with running(stack) as pid:
                load(pid, scripts[stack.path], 1)
                runs.setdefault(name, []).append(load(pid, scripts[stack.path], SECONDS))
    shutil.rmtree(work)
    return runs


def show(runs: dict[str, list[Run]]) -> None:
    medians = {
        name: Run(*(statistics.median(getattr(run, field) for run in turns) for field in Run.__dataclass_fields__))
        for name, turns in runs.items()
    }
    own = medians.get(OURS) or next(iter(medians.values()))
    print(f"{TURNS} turns of {SECONDS} s, {CONNECTIONS} connections, medians")
    print(
        f"{'stack':40}{'CPU us/req':>11}{'x ours':>8}{'req/s':>9}{'p50 ms':>8}{'p99 ms':>8}{'MB':>7}{'errors':>8}"
        f"{'exposures/req':>15}"
    )
    for name, run in medians.items():
        print(
            f"{name:40}{run.cpu_us:11.1f}{run.cpu_us / own.cpu_us:8.2f}{run.per_second:9.0f}"
            f"{run.p50_ms:8.2f}{run.p99_ms:8.2f}{run.rss_mb:7.0f}{sum(r.errors for r in runs[name]):8d}"
            f"{run.exposures:15.2f}"
        )


def main() -> None:
    parts = sys.argv[1:]
    models = [model for model in MODELS if model in parts] or list(MODELS)
    for model in models:
        show(measure(model, [part for part in parts if part not in MODELS]))


if __name__ == "__main__":
    main()
