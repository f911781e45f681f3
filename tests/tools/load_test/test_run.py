"""The load test finds what a server holds, and says when it is not the server that gave way."""

from __future__ import annotations

import heapq
import json
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from command_line import sagemaker
from made_bundles import pack
from made_service import serving
from sagemaker_container import up
from stand_in_runtime import endpoint

from firstspin.records import InputError, Registration
from firstspin.tools.load_test import run, senders
from firstspin.tools.load_test.run import Limit, LoadPlan, Rig
from firstspin.tools.sagemaker_check.payloads import Payload

BODY = Payload("application/json", b'{"age": 31, "genres": ["Rock"]}')
PATIENT = 60.0


@dataclass
class Time:
    """A clock that moves when somebody sleeps or works, and a machine that may wake up late."""

    now: float = 0.0
    oversleeps: float = 0.0

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds + self.oversleeps


class Senders(Executor):
    """So many, each beside the others and beside whoever plans: they have their own now."""

    def __init__(self, time: Time, number: int) -> None:
        self.time, self.free = time, [0.0] * number

    def submit(self, ask: Callable[..., Any], /, *words: Any, **named: Any) -> Future[Any]:
        planned = self.time.now
        self.time.now = max(planned, heapq.heappop(self.free))
        ask(*words, **named)
        heapq.heappush(self.free, self.time.now)
        self.time.now = planned
        return Future()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002
        self.time.now = max(self.time.now, *self.free)


class Server:
    """Answers one after the other, unless `wide`, in so many seconds each; some numbers are other than that."""

    def __init__(self, time: Time, seconds: float, *, wide: bool = False) -> None:
        self.time, self.seconds, self.wide, self.free = time, seconds, wide, 0.0
        self.stalls: dict[int, float] = {}
        self.fails: dict[int, str] = {}
        self.asked = 0

    def __call__(self, _: Payload) -> str:
        begins = self.time.now if self.wide else max(self.time.now, self.free)
        self.time.now = self.free = begins + self.stalls.get(self.asked, self.seconds)
        self.asked += 1
        return self.fails.get(self.asked - 1, "")


def rig(server: Server, seed: int = 0, senders: int = 10_000) -> Rig:
    time = server.time
    return Rig(server, [BODY], np.random.default_rng(seed), time.clock, time.sleep, lambda: Senders(time, senders))


def real(send: run.Send, bodies: list[Payload]) -> Rig:
    """Real threads on a clock of no account: nobody waits for a moment to come."""
    time = Time()
    return Rig(send, bodies, np.random.default_rng(0), time.clock, time.sleep)


def test_arrivals_are_a_poisson_process_of_the_seed() -> None:
    moments = run.arrivals(50, 20, np.random.default_rng(3))
    assert len(moments) == 1_000
    assert 0 <= moments[0] <= moments[-1] < 20
    assert (np.diff(moments) >= 0).all()
    assert moments.tolist() == run.arrivals(50, 20, np.random.default_rng(3)).tolist()


@pytest.mark.parametrize("capacity", [300, 777, 2_000])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_search_finds_what_a_server_holds_within_a_step(capacity: int, seed: int) -> None:
    steps = list(run.search(LoadPlan(seconds=20, first=30), rig(Server(Time(), 1 / capacity), seed)))
    best, worst = run.best(steps), run.worst(steps)
    assert best is not None
    assert worst is not None
    assert capacity / 1.5 <= best.rate <= capacity
    assert best.rate < worst.rate <= best.rate * 1.5
    assert worst.limit is Limit.PROMISE


def test_between_the_last_that_held_and_the_first_that_did_not_one_more_is_tried() -> None:
    steps = list(run.search(LoadPlan(seconds=20, first=100, factor=4), rig(Server(Time(), 1 / 300))))
    assert [(step.rate, step.limit) for step in steps] == [(100, None), (400, Limit.PROMISE), (200, None)]


def test_the_search_ends_at_the_max_rate() -> None:
    steps = list(run.search(LoadPlan(seconds=1, first=100, most=200), rig(Server(Time(), 0.0001))))
    assert [(step.rate, step.limit) for step in steps] == [(100, None), (150, None), (200, None)]


def test_a_first_rate_that_does_not_hold_ends_it() -> None:
    steps = list(run.search(LoadPlan(seconds=1), rig(Server(Time(), 0.051))))
    assert [step.limit for step in steps] == [Limit.PROMISE]
    assert run.best(steps) is None


def test_a_latency_counts_from_the_scheduled_moment() -> None:
    server = Server(Time(), 0.001)
    server.stalls[100] = 1.0  # one answer of a thousand is slow; who waits behind it has waited all the same
    step = run.run(100, LoadPlan(seconds=10), rig(server))
    assert step.p50 == pytest.approx(0.001)
    assert step.p99 > 0.8
    assert step.limit is Limit.PROMISE


def test_one_slow_answer_in_a_hundred_is_within_the_promise() -> None:
    server = Server(Time(), 0.0)
    server.stalls = dict.fromkeys((10, 400), 0.06)
    assert run.run(1, LoadPlan(seconds=500), rig(server)).limit is None
    assert server.asked == 500


def test_an_answer_that_is_not_2xx_stops_the_step() -> None:
    server = Server(Time(), 0.001)
    server.fails[50] = "status 503"
    step = run.run(100, LoadPlan(seconds=10), rig(server))
    assert (step.limit, step.errors, server.asked) == (Limit.ERROR, 1, 51)
    assert "status 503" in step.why


def test_what_waits_behind_a_server_that_is_overrun_is_not_sent() -> None:
    server = Server(Time(), 1.0)
    run.run(100, LoadPlan(seconds=60), rig(server))
    assert server.asked < 70


def test_a_machine_that_sends_too_late_does_not_blame_the_server() -> None:
    step = run.run(100, LoadPlan(seconds=10), rig(Server(Time(oversleeps=0.06), 0.001)))
    assert step.limit is Limit.GENERATOR
    assert "this machine could not send more" in step.why


def test_too_few_senders_for_answers_that_take_their_time_do_not_blame_the_server() -> None:
    unhurried = Server(Time(), 0.4, wide=True)
    step = run.run(1_600, LoadPlan(promise=0.6, seconds=5, most=5_000), rig(unhurried, senders=500))
    assert step.limit is Limit.GENERATOR
    assert "none was free in time" in step.why
    assert run.run(1_600, LoadPlan(promise=0.6, seconds=5), rig(Server(Time(), 0.4, wide=True))).limit is None


def test_a_server_that_would_be_late_anyway_is_blamed_by_a_late_machine_too() -> None:
    step = run.run(100, LoadPlan(seconds=10), rig(Server(Time(oversleeps=0.01), 0.2)))
    assert step.late >= 0.01
    assert step.limit is Limit.PROMISE


def test_the_target_is_never_rounded_up() -> None:
    [step] = run.search(LoadPlan(seconds=1, first=12.59, most=12.59), rig(Server(Time(), 0.001)))
    assert (run.rps(step), run.a_minute(step)) == (12.5, 375)


def test_newcomers_are_made_up_from_a_seed_and_differ() -> None:
    made = senders.registrations(np.random.default_rng(5), 200)
    assert made == senders.registrations(np.random.default_rng(5), 200)
    people = [msgspec.json.decode(one.body, type=Registration) for one in made]
    assert len({person.age for person in people}) > 50
    assert len({person.genres for person in people}) > 100


def test_the_service_itself_answers_what_is_sent(tmp_path: Path) -> None:
    pack(tmp_path / "b")
    bodies = senders.registrations(np.random.default_rng(0), 50)
    with serving(tmp_path / "b") as service, senders.over_http(f"http://127.0.0.1:{service.port}", PATIENT) as send:
        step = run.run(300, LoadPlan(promise=PATIENT, seconds=1), real(send, bodies))
    assert (step.limit, step.errors) == (None, 0)


def test_what_a_server_refuses_is_an_error_and_the_connection_lives_on() -> None:
    with up() as server, senders.over_http(f"http://127.0.0.1:{server.server_port}", PATIENT) as send:
        assert [send(BODY), send(Payload("application/json", b"{")), send(BODY)] == ["", "status 400", ""]


def test_a_connection_that_the_server_let_go_of_is_no_error() -> None:
    answered, gone = threading.Event(), threading.Event()

    def answer_and_hang_up(listener: socket.socket) -> None:
        for _ in range(2):
            connection, _ = listener.accept()
            with connection:
                while (got := connection.recv(65536)) and not got.endswith(BODY.body):
                    pass
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
                answered.wait(20)
            gone.set()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer_and_hang_up, args=(listener,), daemon=True)
        thread.start()
        with senders.over_http(f"http://127.0.0.1:{listener.getsockname()[1]}", PATIENT) as send:
            assert send(BODY) == ""
            answered.set()
            assert gone.wait(20)
            assert send(BODY) == ""
        thread.join(20)


@pytest.mark.parametrize("url", ["https://127.0.0.1:1", "127.0.0.1:8080", "http://:1", "http://x:y", "http://x:1/ping"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="needs one like"), senders.over_http(url, PATIENT):
        pass


class TestThroughAws:
    """boto3 is real; SageMaker's runtime is stood in for."""

    @pytest.fixture(autouse=True)
    def account(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "none")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")

    def test_an_endpoint_is_invoked_on_schedule(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with endpoint(lambda *_: b"{}") as runtime:
            monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", runtime.url)
            with senders.through_aws("newcomers", PATIENT) as send:
                step = run.run(100, LoadPlan(promise=PATIENT, seconds=1), real(send, [BODY]))
        assert (step.limit, len(runtime.asked)) == (None, 100)
        assert set(runtime.asked) == {BODY.body}

    @pytest.mark.parametrize(
        ("mood", "told"),
        [("throttled", "ThrottlingException"), ("model failed", "ModelError"), ("hanging up", "Connection was closed")],
    )
    def test_a_failure_is_reported_without_a_retry(self, monkeypatch: pytest.MonkeyPatch, mood: str, told: str) -> None:
        with endpoint(lambda *_: b"{}") as runtime:
            monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", runtime.url)
            runtime.moods = [mood]
            with senders.through_aws("newcomers", PATIENT) as send:
                assert told in send(BODY)
        assert len(runtime.asked) == 1


LENIENT = ("--seconds", 0.2, "--from", 20, "--most", 20, "--p99", 60_000)


def test_the_command_ends_with_the_lines_to_paste(tmp_path: Path) -> None:
    (tmp_path / "body.json").write_bytes(BODY.body)
    told = ("--payload", tmp_path / "body.json", "--content-type", "application/json")
    with up() as server:
        done = sagemaker("load-test", "--url", f"http://127.0.0.1:{server.server_port}", *LENIENT, *told)
    assert done.returncode == 0, done.stderr
    assert "20.0 a second: holds" in done.stderr
    assert "load_test_rps = 20.0\nload_test_seconds = 0." in done.stdout
    assert "Target by the minute at safety 0.5: 600 invocations an instance." in done.stdout
    assert "only if the endpoint has one instance" in done.stdout


def test_programs_read_the_steps_as_json() -> None:
    with up() as server:
        done = sagemaker("load-test", "--json", "--url", f"http://127.0.0.1:{server.server_port}", *LENIENT)
    told = json.loads(done.stdout)
    assert (told["load_test_rps"], told["invocations_a_minute"], told["limit"]) == (20.0, 600, None)
    assert [step["rate"] for step in told["steps"]] == [20.0]


def test_where_not_even_the_first_rate_holds_the_exit_status_is_1_with_the_table() -> None:
    with up() as server:
        done = sagemaker("load-test", "--url", f"http://127.0.0.1:{server.server_port}", "--p99", 0.000001)
    assert done.returncode == 1
    assert "rate asked" in done.stdout
    assert "At 10.0 a second " in done.stdout
    assert "load_test_rps" not in done.stdout


def test_an_address_without_a_server_is_a_one_line_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    done = sagemaker("load-test", "--url", url)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith(f"{url}: ConnectionRefusedError")


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--url", "http://127.0.0.1:1", "--endpoint", "x"),
        ("--endpoint", "x", "--from", 0),
        ("--endpoint", "x", "--most", 5),
        ("--endpoint", "x", "--step", 1),
        ("--endpoint", "x", "--seconds", 0),
        ("--endpoint", "x", "--seconds", "inf"),
        ("--endpoint", "x", "--p99", "nan"),
        ("--endpoint", "x", "--payload", "body.json"),
        ("--endpoint", "x", "--content-type", "text/csv"),
    ],
)
def test_wrong_usage_is_an_exit_status_of_2(words: tuple[object, ...]) -> None:
    done = sagemaker("load-test", *words)
    assert (done.returncode, done.stdout) == (2, "")
