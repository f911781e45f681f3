"""Alerts beside real services in trouble, in a real Prometheus in fast motion: each fires on its cause, and only then.

The alerts of services that are down, refuse bundles, lose workers or answer without a model are in test_prometheus.py.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import made_people
import msgspec
import numpy as np
import pytest
from compiled import where_it_compiles
from in_threads import at_work
from made_answers_of_days import answered
from made_bundles import pack
from made_experiments import PLAN
from made_service import Service, ask_for, counted, kill_group, serving, until, workers
from prometheus_server import scraping
from scarcity import descriptors, fill_pipe, limited
from stand_in_server import answer, standing_in

from firstspin.data.dataset import Reading, write_labels
from firstspin.events.answer_counts import InputCounts
from firstspin.experiment.plan import experiment_key, freeze
from firstspin.models.calibration import TOPS, CalibrationBin, HoldOutCalibration
from firstspin.models.compiled import CompiledScorer
from firstspin.models.input_reference import InputReference
from firstspin.records import Ranking
from firstspin.service.challenger.canary import stop, stop_file
from firstspin.service.process.clock import set_clock
from firstspin.serving.bundle import Bundle
from firstspin.serving.score_stores import SqliteScores

SOURCE = Path(__file__).parents[2] / "src" / "firstspin"
NO_STORE = ("--events", "postgresql://127.0.0.1:1/none")
QUICK = ("--drain-delay", "0.2", "--log-level", "warning")


@dataclass
class Trouble:
    """Services in one kind of trouble, the alerts that it must raise, and what is done to them again and again."""

    services: list[Service]
    alerts: set[str]
    repeat: Callable[[], object]


class Troubles:
    """Starts services in trouble, each kind as a job of its own."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder, self._stack = folder, stack
        for name, seed in (("one", 1), ("two", 2)):
            pack(folder / name, seed=seed)

    def _serve(self, *options: str, bundle: str = "one", **process: object) -> Service:
        return self._stack.enter_context(serving(self._folder / bundle, *QUICK, *options, **process))  # type: ignore[arg-type]

    def _state(self, name: str) -> tuple[str, str]:
        return ("--state", str(self._folder / f"state of {name}"))

    def none(self) -> Trouble:
        service = self._serve()
        return Trouble([service], set(), lambda: service.recommend(age=31))

    def without_a_bundle(self) -> Trouble:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "firstspin.service", "--bundle", self._folder / "absent", "--port", str(port)]
        process = subprocess.Popen([*command, *QUICK], stderr=subprocess.DEVNULL, start_new_session=True, text=True)
        alerts = {"FirstspinNotReady", "FirstspinQuiet", "FirstspinBundleRefused"}
        self._stack.callback(process.wait)
        self._stack.callback(kill_group, process.pid)
        service = Service(process, port, self._folder, self._folder)
        return Trouble([service], alerts, lambda: None)  # it says nothing before a bundle

    def without_users(self) -> Trouble:
        service = self._serve()
        return Trouble([service], {"FirstspinQuiet"}, lambda: service.ask("GET", "/ping"))

    def long_requests(self) -> Trouble:
        service = self._serve()
        body = b"\n".join([b'{"age":31,"genres":["Jazz"]}'] * 4_000)

        def ask_about_many() -> None:
            assert service.ask("POST", "/invocations", body, content_type="application/jsonlines")[0] == 200

        return Trouble([service], {"FirstspinSlow"}, ask_about_many)

    def two_bundles(self) -> Trouble:
        services = [self._serve(), self._serve(bundle="two")]
        return Trouble(services, {"FirstspinModelsDiffer"}, lambda: [one.recommend(age=31) for one in services])

    def no_descriptor(self) -> Trouble:
        service = self._serve("--workers", "2")
        failures = 'firstspin_supervisor_errors_total{step="start"}'

        def starve() -> None:
            service.recommend(age=31)
            if not counted(service, failures):
                with limited(service.process.pid, "nofile", descriptors(service.process.pid) - 1):
                    os.kill(workers(service)[0], signal.SIGKILL)  # no other can be started
                    until(lambda: counted(service, failures))

        return Trouble([service], {"FirstspinContained"}, starve)

    def no_store(self) -> Trouble:
        service = self._serve(*NO_STORE, *self._state("no store"), "--listens-from-events")
        alerts = {"FirstspinEventStoreFails", "FirstspinListenLookupsFail"}
        return Trouble([service], alerts, lambda: ask_for(service, "anna"))

    def experiment_without_its_store(self) -> Trouble:
        service = self._serve(*NO_STORE, *self._state("the experiment"), *self._experiment())
        for thousand in range(0, 55, 5):  # more exposures than wait for a store
            users = [{"user_id": str(1000 * thousand + number)} for number in range(5_000)]
            body = msgspec.json.encode({"instances": users})
            assert service.ask("POST", "/v1/recommendations", body, content_type="application/json")[0] == 200
        alerts = {"FirstspinEventStoreFails", "FirstspinExposuresLost"}
        return Trouble([service], alerts, lambda: ask_for(service, "anna"))

    def unreadable_answers(self) -> Trouble:
        path = self._folder / "scores.db"
        with closing(SqliteScores(path)) as scores:
            scores.write("v", iter([(["anna"], [Ranking(("Jazz",), (1.0,), "batch")])]))
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE scores SET answer = x'00'")
        service = self._serve("--scores", f"sqlite:{path}", "--scores-first")
        return Trouble([service], {"FirstspinStoredAnswersFail"}, lambda: ask_for(service, "anna"))

    def answers_that_miss(self) -> Trouble:
        """The labels are far better than the hold-out was, and half of the registrations come from another country."""
        bins = tuple(CalibrationBin("model", "all", top, 0, 1_000, 500_000_000, 10) for top in TOPS)
        reference = InputReference({"registrations": {"all": 1_000}, "country": {"us": 1_000, "other": 0}})
        made = pack(self._folder / "missing" / "b", calibration=HoldOutCalibration(bins), inputs=reference)
        inputs = InputCounts(made.id, {"registrations": {"all": 50}, "country": {"us": 25, "other": 25}})
        return self._labelled("missing", made, {"FirstspinDrift", "FirstspinHitsDiffer"}, (inputs,))

    def model_below_its_rule(self) -> Trouble:
        """The model learned that everybody prefers the genre after their favourite; the rule goes by their picks."""
        people = made_people.examples(120)
        wrong = replace(people, tops=(people.tops + 1) % 4, shares=np.roll(people.shares, 1, axis=1))
        made = pack(self._folder / "below" / "b", people=wrong)
        return self._labelled("below", made, {"FirstspinBelowRule"})

    def canary_stopped_by_hand(self) -> Trouble:
        shares = {"model": 19.0, "challenger": 1.0}
        plan = msgspec.structs.replace(
            PLAN, control="model", arms=shares, harm_margin=0.05, peeking="always-valid", name="canary"
        )
        freeze(plan, self._folder / "canary.toml")
        running = ("--experiment", str(self._folder / "canary.toml"), "--challenger", str(self._folder / "two"))
        store = ("--events", f"sqlite:///{self._folder / 'canary.sqlite'}")
        service = self._serve(*store, *self._state("canary"), *running)
        stop(stop_file(self._folder / "state of canary", experiment_key(plan)), "by hand", datetime.now(UTC))
        return Trouble([service], {"FirstspinCanaryStopped"}, lambda: ask_for(service, "anna"))

    def _labelled(self, name: str, made: Bundle, alerts: set[str], inputs: Sequence[InputCounts] = ()) -> Trouble:
        """A service whose bundle has answered for 300 days, with the labels of these days."""
        days = [date(2025, 1, 1) + timedelta(days=i) for i in range(300)]
        store = answered(self._folder / name, made, days, inputs)
        labels = self._folder / "labels.parquet"
        if not labels.exists():
            write_labels(made_people.tables(self._folder / "tables", 300), labels, Reading())
        service = self._serve(*store, *self._state(name), "--labels", str(labels), bundle=f"{name}/b")
        return Trouble([service], alerts, lambda: service.recommend(age=31))

    def dead_collector(self) -> Trouble:
        """Nothing listens where the spans are sent."""
        variables = {"OTLP_ENDPOINT": "http://127.0.0.1:1", "OTLP_TIMEOUT": "1"}
        environment = [f"OTEL_EXPORTER_{name}={value}" for name, value in variables.items()]
        service = self._serve(through=("env", *environment, "OTEL_BSP_SCHEDULE_DELAY=200"))
        return Trouble([service], {"FirstspinTelemetryLost"}, lambda: service.recommend(age=31))

    def a_receiver_that_is_gone(self) -> Trouble:
        """The notice of an experiment without exposures is answered 410 once Prometheus has seen the service."""
        scraped = threading.Event()

        def gone(connection: socket.socket) -> None:
            scraped.wait(60)  # an attempt that takes longer than 10 s is made again
            connection.sendall(answer(410))

        server = self._stack.enter_context(standing_in(gone))
        secret = self._folder / "webhook.secret"
        secret.write_text("whsec_" + "A" * 40)
        hook = ("--webhook-url", f"http://127.0.0.1:{server.port}", "--webhook-secret-file", str(secret))
        store = ("--events", f"sqlite:///{self._folder / 'gone.sqlite'}")
        service = self._serve(*store, *self._state("a receiver"), *self._experiment(), *hook)
        assert service.ask("GET", "/experiments/first")[0] == 200  # wanted: it is analysed now
        until(lambda: server.received)

        def use() -> None:
            scraped.set()
            service.recommend(age=31)

        return Trouble([service], {"FirstspinNoticesLost"}, use)

    def _experiment(self) -> tuple[str, ...]:
        """The options of a running experiment."""
        plan, clock = self._folder / "plan.toml", self._folder / "clock"
        if not plan.exists():
            freeze(PLAN, plan)
            set_clock(clock, datetime(2026, 1, 27, tzinfo=UTC))
        return "--experiment", str(plan), "--clock", str(clock)

    def idle_clients(self) -> Trouble:
        service = self._serve("--connections", "4")

        def stay_idle() -> None:
            with ExitStack() as idle:
                for _ in range(6):
                    idle.enter_context(service.connect())
                service.recommend(age=31)

        return Trouble([service], {"FirstspinConnectionsScarce"}, stay_idle)

    def log_that_nobody_reads(self) -> Trouble:
        reading, writing = os.pipe()
        self._stack.callback(os.close, reading)
        service = self._serve(stderr=writing)
        fill_pipe(writing)
        os.close(writing)

        def let_it_log() -> None:
            if not counted(service, "firstspin_log_lines_dropped_total"):
                os.kill(workers(service)[0], signal.SIGKILL)
                until(lambda: counted(service, "firstspin_log_lines_dropped_total"))
            service.recommend(age=31)

        return Trouble([service], {"FirstspinLogsDropped"}, let_it_log)

    def not_compiled(self) -> Trouble:
        ignored = shutil.ignore_patterns("*.so", "__pycache__")
        shutil.copytree(SOURCE, self._folder / "uncompiled" / "firstspin", ignore=ignored)
        service = self._serve(through=("env", f"PYTHONPATH={self._folder / 'uncompiled'}"))
        return Trouble([service], {"FirstspinNotCompiled"}, lambda: service.recommend(age=31))


KINDS = [name for name in vars(Troubles) if not name.startswith("_")]


@pytest.mark.skipif(not shutil.which("prometheus"), reason="needs Prometheus (apt-get install prometheus)")
@where_it_compiles(CompiledScorer)
def test_each_kind_of_trouble_raises_its_own_alerts_and_no_other(tmp_path: Path) -> None:
    with ExitStack() as stack:
        (tmp_path / "prometheus").mkdir()
        makers = Troubles(tmp_path, stack)
        troubles: dict[str, Trouble] = {name: getattr(makers, name)() for name in KINDS}
        ports = {name: [service.port for service in of.services] for name, of in troubles.items()}
        server = stack.enter_context(scraping(ports, tmp_path / "prometheus"))
        expected = {name: of.alerts for name, of in troubles.items()} | {
            "firstspin": {"FirstspinMissing"}
        }  # no such job
        seen: dict[str, set[str]] = {name: set() for name in expected}
        until(lambda: len(server.query("count_over_time(up[1m]) > 1")) == sum(map(len, ports.values())), 60)
        stack.enter_context(at_work(len(troubles), repeating(list(troubles.values()))))

        def all_seen() -> bool:
            for name in seen:
                seen[name] |= server.firing(name)
            return all(seen[name] >= expected[name] for name in expected)

        with suppress(AssertionError):  # the difference says more
            until(all_seen, 120)
        assert seen == expected


def repeating(troubles: list[Trouble]) -> Callable[[int, threading.Event], None]:
    """What the thread of each trouble does until the end."""

    def repeat(number: int, end: threading.Event) -> None:
        while not end.wait(0.2):
            troubles[number].repeat()

    return repeat
