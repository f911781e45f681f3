"""No bundle takes a service down: what can't answer is refused, and the service's own copies are kept whole."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from forked_service import ended
from made_app import ask, new_app
from made_bundles import NO_ANSWERS, edit, pack
from made_service import QUICK, Callers, Service, admin, point, serving, until
from preloaded import preloaded
from small_disk import fill_up, small_disk

from firstspin.service.bundles.store import BundleStore
from firstspin.service.bundles.watch import MAX_DEATHS, BundleWatch
from firstspin.service.metrics import SharedMetrics
from firstspin.service.process import worker
from firstspin.service.process.crew import Crew, Slot
from firstspin.service.process.worker import Order, Worker, WorkerConfig, WorkerIO, WorkerMessage
from firstspin.service.served_model import ServedModel
from firstspin.serving import bundle


def state(service: Service) -> dict[str, object]:
    return admin(service, "GET", "/state")[1]


def replace_workers(service: Service) -> None:
    """Kill every worker, and wait for those in their places."""
    told = [worker["pid"] for worker in state(service)["workers"]]  # type: ignore[attr-defined]
    for pid in told:
        os.kill(pid, signal.SIGKILL)
    until(lambda: not {worker["pid"] for worker in state(service)["workers"]} & {*told, 0})  # type: ignore[attr-defined]


# ------------------------------------------------------------------------------------------------- refused by the probe


HOSTILE: dict[str, Callable[[Path], object]] = {
    "requests use this name": lambda folder: extra(folder, "instances"),
    "this column is always used": lambda folder: extra(folder, "user_id"),
    "a name is letters, digits": lambda folder: extra(folder, "a b"),
    "bundle format x": lambda folder: edit(folder, lambda manifest: manifest.update(format="x" + "é" * 4_000)),
    "not part of the bundle": lambda folder: Path(os.fsdecode(os.fsencode(folder) + b"/\xff.npy")).touch(),
    **NO_ANSWERS,
}


def extra(folder: Path, name: str) -> None:
    """As a version before the names were checked would have trained it."""
    edit(folder, lambda manifest: manifest.update(extra={name: "text"}, golden_rule=None, golden_further=None))


def test_what_can_not_answer_is_refused_and_the_model_that_answers_is_the_one_that_state_names(
    current: Path, bundles: tuple[Path, Path], tmp_path: Path
) -> None:
    with serving(current, "--workers", "2", "--admin-port", "0", *QUICK) as service:
        first = service.recommend(age=31)["model"]
        for number, (reason, harm) in enumerate(HOSTILE.items()):
            bad = tmp_path / str(number)
            shutil.copytree(bundles[1], bad)
            harm(bad)
            point(current, bad)
            service.process.send_signal(signal.SIGHUP)  # it is looked at now
            words = reason.replace("\\", "")
            until(lambda words=words: words in str(state(service)["refusal"]))  # others are tried again meanwhile
            assert state(service)["model"] == first
            assert service.recommend(age=31)["model"] == first
        point(current, bundles[1])
        service.wait_for("a worker serves a model", times=4)
        assert state(service)["model"] == service.recommend(age=31)["model"] != first
        replace_workers(service)  # the state folder is still there
        assert service.recommend(age=31)["model"] != first


def test_a_bundle_of_an_earlier_version_is_served(tmp_path: Path) -> None:
    shutil.copytree((Path(__file__).parent.parent.parent / "bundles_of_0.1") / "blend", tmp_path / "b")
    with serving(tmp_path / "b", "--admin-port", "0", *QUICK) as service:
        assert service.recommend(age=31, genres=["Rock"])["source"] == "model"
        assert state(service)["refusal"] == ""


def probe_alone(bundle: Path, to: Path, room: int, seconds: float) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "firstspin.service.bundles.probe_process",
        bundle,
        to,
        str(room),
        "{}",
        str(seconds),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_the_probe_takes_no_more_memory_than_it_is_given(tmp_path: Path) -> None:
    pack(tmp_path / "b")
    edit(tmp_path / "b", lambda manifest: manifest.update(scorecard={"x": "y" * 20_000_000}))
    assert probe_alone(tmp_path / "b", tmp_path / "one", 200_000_000, 30).returncode == 0
    short = probe_alone(tmp_path / "b", tmp_path / "two", 25_000_000, 30).returncode
    assert short in (2, -signal.SIGSEGV)  # a library may not survive it: that is why it is a process of its own


HANGING = """
import sys
from pathlib import Path
from firstspin.service.bundles import probe_process
from firstspin.service.process.worker import WorkerConfig
probe_process.copy_files = lambda source, _: source.read_bytes()  # of a pipe that nobody writes to
probe_process.outcome(Path(sys.argv[1]), Path("copy"), 10**9, WorkerConfig(), 0.5 - probe_process.GRACE_SECONDS)
"""


def test_a_probe_that_hangs_ends_by_itself_where_nobody_is_left_to_end_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "endless")
    hung = subprocess.run([sys.executable, "-c", HANGING, tmp_path / "endless"], check=False, timeout=60)
    assert hung.returncode == -signal.SIGALRM


# -------------------------------------------------------------------------------------------------- refused by a worker


def test_a_model_that_the_probe_takes_and_a_worker_can_not_load_is_taken_back(
    current: Path, bundles: tuple[Path, Path]
) -> None:
    with serving(current, "--workers", "2", "--admin-port", "0", *QUICK) as service:
        first = service.recommend(age=31)["model"]
        short = state(service)["workers"][1]["pid"]  # type: ignore[index]
        limits = resource.prlimit(short, resource.RLIMIT_NOFILE)
        used = len(list(Path(f"/proc/{short}/fd").iterdir()))
        resource.prlimit(short, resource.RLIMIT_NOFILE, (used + 1, limits[1]))  # each array of a model needs one
        with Callers(service).calling() as callers:
            point(current, bundles[1])
            service.wait_for("a model that a worker could not load was given up")
            until(lambda: {worker["model"] for worker in state(service)["workers"]} == {first})  # type: ignore[attr-defined]
            assert state(service)["model"] == state(service)["wanted"] == first
            assert state(service)["refusal"]
            accepted = service.log.read_text().count("a bundle was accepted")
            time.sleep(3)  # it is not tried again by itself
        # Of idle connections closed to make room, and of new ones while no other was idle.
        assert set(callers.failures) <= {"ConnectionResetError", "503 too_many_connections"}
        assert service.log.read_text().count("a bundle was accepted") == accepted
        assert service.recommend(age=31)["model"] == first
        resource.prlimit(short, resource.RLIMIT_NOFILE, limits)
        assert admin(service, "POST", "/reload")[0] == 200
        until(lambda: {worker["model"] for worker in state(service)["workers"]} - {first}, 30)  # type: ignore[attr-defined]
        until(lambda: state(service)["model"] != first)


# ------------------------------------------------------------------------------------------------------ the own copies


def harms(copy: Path) -> dict[str, Callable[[], object]]:
    weights = copy / "predictor.weights.npy"
    return {
        "truncated": lambda: os.truncate(weights, weights.stat().st_size // 2),
        "flipped": lambda: weights.write_bytes(weights.read_bytes()[:-1] + b"\x01"),
        "one file missing": weights.unlink,
        "manifest missing": (copy / "manifest.json").unlink,
        "all of it missing": lambda: shutil.rmtree(copy),
        "replaced by a file": lambda: (shutil.rmtree(copy), copy.write_text("")),
    }


@pytest.fixture(scope="module")
def kept(bundles: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state folder of a service that has served the first bundle."""
    folder: Path = tmp_path_factory.mktemp("kept") / "state"
    with serving(bundles[0], "--state", str(folder), *QUICK):
        return folder


@pytest.mark.parametrize("harm", harms(Path()))
def test_a_damaged_copy_in_the_state_folder_is_replaced_at_the_start(
    current: Path, kept: Path, tmp_path: Path, harm: str
) -> None:
    folder, first = shutil.copytree(kept, tmp_path / "state"), bundle.load(current).id
    harms(folder / first)[harm]()
    with serving(current, "--state", str(folder), "--workers", "2", *QUICK) as service:
        assert service.recommend(age=31)["model"] == first
    with serving(tmp_path / "gone", "--state", str(folder), *QUICK) as service:  # the copy is whole again
        assert service.recommend(age=31)["model"] == first


@pytest.mark.parametrize("harm", ["truncated", "all of it missing"])
def test_a_copy_damaged_while_it_is_served_is_replaced(current: Path, tmp_path: Path, harm: str) -> None:
    folder = tmp_path / "state"
    with serving(current, "--state", str(folder), "--workers", "2", "--admin-port", "0", *QUICK) as service:
        first = service.recommend(age=31)["model"]
        before = sorted(path.name for path in (folder / first).iterdir())
        harms(folder / first)[harm]()
        service.wait_for("a bundle was accepted", times=2)
        replace_workers(service)
        assert service.recommend(age=31)["model"] == first
        assert sorted(path.name for path in (folder / first).iterdir()) == before


def test_a_damaged_copy_that_no_bundle_can_replace_gives_way_to_the_previous_one(
    current: Path, bundles: tuple[Path, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "state"
    with serving(current, "--state", str(folder), *QUICK) as service:
        first = service.recommend(age=31)["model"]
        point(current, bundles[1])
        until(lambda: service.recommend(age=31)["model"] != first)
        second = service.recommend(age=31)["model"]
    harms(folder / second)["truncated"]()
    point(current, tmp_path / "gone")
    with serving(current, "--state", str(folder), *QUICK) as service:
        assert service.recommend(age=31)["model"] == first


def test_after_a_rollback_a_damaged_copy_gives_way_only_when_a_worker_needs_it(
    current: Path, bundles: tuple[Path, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "state"
    with serving(current, "--state", str(folder), "--workers", "2", "--admin-port", "0", *QUICK) as service:
        first = service.recommend(age=31)["model"]
        point(current, bundles[1])
        service.wait_for("a worker serves a model", times=4)
        assert admin(service, "POST", "/rollback")[1]["model"] == first
        service.wait_for("a worker serves a model", times=6)
        harms(folder / first)["flipped"]()
        service.wait_for("the copy of the model can't be replaced")
        assert {service.recommend(age=31)["model"] for _ in range(8)} == {first}
        with Callers(service).calling() as callers:
            os.kill(state(service)["workers"][0]["pid"], signal.SIGKILL)  # type: ignore[index]
            until(lambda: state(service)["model"] not in (first, None))
            until(lambda: {worker["model"] for worker in state(service)["workers"]} == {state(service)["model"]})  # type: ignore[attr-defined]
        assert set(callers.failures) <= {"ConnectionResetError"}  # of those that the killed one was answering
        assert {service.recommend(age=31)["model"] for _ in range(8)} == {state(service)["model"]}


def test_a_model_whose_loading_ends_workers_is_given_up(bundles: tuple[Path, Path], tmp_path: Path) -> None:
    """As where they are killed because they take too much memory."""
    with socket.create_server(("127.0.0.1", 0)) as port:
        shelf = BundleStore(tmp_path / "state")
        slot = Slot(0, port)
        watch = BundleWatch(bundles[1], shelf, Crew([slot], None, SharedMetrics(2), port), lambda *_: (1, b""))
        for folder in bundles:
            shutil.copytree(folder, shelf.incoming())
            shelf.accept(shelf.incoming(), bundle.load(folder).id)
        first, second = (bundle.load(folder).id for folder in bundles)
        watch.worker_loaded(slot, first)
        watch.restored = second  # copying it again was in vain
        for _ in range(MAX_DEATHS):
            wanted = watch.order()
            assert wanted
            assert wanted.id == second
            watch.worker_ended(slot)
        wanted = watch.order()
        assert wanted
        assert wanted.id == first
        for descriptor in shelf.private:
            os.close(descriptor)


def test_a_removed_state_folder_is_made_again_and_a_replaced_worker_answers(current: Path, tmp_path: Path) -> None:
    folder = tmp_path / "state"
    with serving(current, "--state", str(folder), "--workers", "2", "--admin-port", "0", *QUICK) as service:
        first = service.recommend(age=31)["model"]
        for times in (2, 3):
            shutil.rmtree(folder)
            replace_workers(service)
            service.wait_for("a bundle was accepted", times=times)
            until(lambda: {worker["model"] for worker in state(service)["workers"]} == {first})  # type: ignore[attr-defined]
            assert {service.recommend(age=31)["model"] for _ in range(8)} == {first}
        refused = second_service(current, folder)
        assert refused.returncode == 1


def test_the_default_state_folder_is_made_again_too(
    current: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    with serving(current, "--admin-port", "0", *QUICK) as service:
        first = service.recommend(age=31)["model"]
        [made] = (tmp_path / "tmp").iterdir()
        shutil.rmtree(made)
        replace_workers(service)
        until(lambda: state(service)["model"] == first)
        assert service.recommend(age=31)["model"] == first
        service.process.terminate()
        assert service.process.wait(20) == 0
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_service_starts_from_a_state_folder_that_is_mounted_read_only(current: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", megabytes=3) as disk:
        with serving(current, "--state", str(disk / "state"), *QUICK) as service:
            first = service.recommend(age=31)["model"]
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        with serving(current, "--state", str(disk / "state"), "--admin-port", "0", *QUICK) as service:
            assert service.recommend(age=31)["model"] == first
            until(lambda: "Read-only file system" in str(state(service)["refusal"]))
            assert second_service(current, disk / "state").returncode == 1


def test_a_model_is_given_up_though_the_disk_is_full(bundles: tuple[Path, Path], tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", megabytes=3) as disk:
        shelf = BundleStore(disk / "state")
        for folder in bundles:
            shutil.copytree(folder, shelf.incoming())
            shelf.accept(shelf.incoming(), bundle.load(folder).id)
        fill_up(disk)
        assert shelf.give_up() == shelf.names.current == bundle.load(bundles[0]).id
        assert not shelf.is_damaged()
        for descriptor in shelf.private:
            os.close(descriptor)


def second_service(bundle: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return ended(["--bundle", bundle, "--port", "0", "--state", folder])


def test_a_state_folder_is_used_by_one_service_and_given_back_by_a_killed_one(
    current: Path, bundles: tuple[Path, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "state"
    with serving(
        current, "--state", str(folder), "--workers", "2", "--drain-delay", "0", "--admin-port", "0"
    ) as service:
        first = service.recommend(age=31)["model"]
        refused = second_service(bundles[1], folder)
        assert refused.returncode == 1
        assert refused.stderr == (
            f"firstspin serve: another service uses the state folder {folder}; give this one its own\n"
        )
        assert (folder / first / "manifest.json").is_file()
        replace_workers(service)
        assert service.recommend(age=31)["model"] == first
        with never_read(service):  # a worker that can't end at once does not hold the folder
            service.process.kill()
            service.process.wait()
            with serving(bundles[1], "--state", str(folder), *QUICK) as other:
                until(lambda: other.recommend(age=31)["model"] != first)


def never_read(service: Service) -> socket.socket:
    """A connection whose request is not whole: the worker waits for the rest before it ends."""
    connection = service.connect()
    connection.sendall(b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{")
    return connection


def test_the_copies_are_on_the_disk_before_they_are_used(
    current: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library, synced = preloaded("synced_only", tmp_path), tmp_path / "synced"
    synced.mkdir()
    for name, value in {"LD_PRELOAD": str(library), "SYNCED": str(synced), "SYNCED_NAME": ""}.items():
        monkeypatch.setenv(name, value)
    with serving(current, "--state", str(tmp_path / "state"), *QUICK) as service:
        model = service.recommend(age=31)["model"]
    copied = [*(tmp_path / "state" / model).iterdir(), tmp_path / "state" / "current.json"]
    assert len(copied) > 5
    assert [path.name for path in copied if path.read_bytes() != (synced / path.name).read_bytes()] == []


def test_a_state_folder_may_have_any_name(current: Path, tmp_path: Path) -> None:
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\n state")
    for _ in range(2):
        with serving(current, "--state", folder, *QUICK) as service:
            assert service.recommend(age=31)["source"] == "model"


# ------------------------------------------------------------------------------------------------------ a worker's loop


class Channel:
    """A worker in this process, and the supervisor's end of the line to it."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.ours.setblocking(False)
        self.app = new_app()
        tallies = SharedMetrics(1)
        place = WorkerIO(socket.create_server(("127.0.0.1", 0)), self.theirs, tallies.row(0), lambda: "")
        self.worker = Worker(place, self.app, WorkerConfig(drain_delay=0, drain_seconds=0))
        self.left = b""

    async def send(self, line: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.ours, line + b"\n")

    async def word(self) -> WorkerMessage:
        """The next one from the worker."""
        while b"\n" not in self.left:
            more = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.ours, 65_536), 20)
            assert more, "the worker has ended"
            self.left += more
        line, _, self.left = self.left.partition(b"\n")
        return msgspec.json.decode(line, type=WorkerMessage)


def order(folder: Path, model: str, number: int = 0) -> bytes:
    return msgspec.json.encode(Order(os.fsencode(folder), model, number))


def through(talk: Callable[[Channel], Awaitable[None]], first: Order | None = None) -> None:
    """Run a worker while somebody talks to it."""

    async def both() -> None:
        channel = Channel()
        working = asyncio.create_task(channel.worker.run([first] if first else []))
        try:
            await talk(channel)
        finally:
            channel.ours.close()
            await asyncio.wait_for(working, 20)
            channel.theirs.close()

    asyncio.run(both())


def test_a_worker_survives_every_order_and_goes_on_with_its_model(bundles: tuple[Path, Path], tmp_path: Path) -> None:
    one, two = (bundle.load(folder).id for folder in bundles)
    cut = tmp_path / "cut"
    shutil.copytree(bundles[1], cut)
    os.truncate(cut / "predictor.weights.npy", 100)

    async def talk(channel: Channel) -> None:
        assert (await channel.word()).what == "up"
        await channel.send(order(bundles[0], one))
        assert await channel.word() == WorkerMessage("loaded", one)
        for line, reason in {
            b"garbage": "malformed",
            b"\xff": "",
            b"{}": "missing required field",
            b"[" * 60_000: "",
            order(tmp_path / "none", two): "has no manifest.json",
            order(tmp_path / "\0", two): "has no manifest.json",
            order(cut, two): "bytes instead of",
            order(bundles[1], "00000000"): f"the folder has the model {two}",
        }.items():
            await channel.send(line)
            refused = await channel.word()
            assert refused.what == "refused"
            assert reason in refused.reason
            assert json.loads(ask(channel.app, "POST", "/invocations", b"{}").body)["model"] == one
        await channel.send(order(bundles[1], two))
        assert await channel.word() == WorkerMessage("loaded", two)
        assert json.loads(ask(channel.app, "POST", "/invocations", b"{}").body)["model"] == two

    through(talk)


@pytest.mark.parametrize(
    "failure", [RuntimeError, MemoryError, RecursionError, KeyboardInterrupt, SystemExit, StopIteration]
)
def test_a_worker_survives_whatever_loading_does(
    bundles: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    failure: type[BaseException],
) -> None:
    caplog.set_level(logging.CRITICAL + 1)  # a captured lone surrogate would end the process that runs this test
    one, two = (bundle.load(folder).id for folder in bundles)
    loaded = worker.load

    def load(folder: Path, config: WorkerConfig) -> ServedModel:
        if folder == bundles[1]:
            raise failure("\udcff" * 5_000)
        return loaded(folder, config)

    monkeypatch.setattr(worker, "load", load)

    async def talk(channel: Channel) -> None:
        assert await channel.word() == WorkerMessage("loaded", one)
        assert (await channel.word()).what == "up"
        await channel.send(order(bundles[1], two, 7))
        refused = await channel.word()
        assert (refused.what, refused.number) == ("refused", 7)
        await channel.send(order(bundles[0], one))
        assert await channel.word() == WorkerMessage("loaded", one)

    through(talk, Order(os.fsencode(bundles[0]), one, 0))


def test_a_worker_that_can_not_load_its_first_model_listens_only_with_the_next_one(
    bundles: tuple[Path, Path], tmp_path: Path
) -> None:
    one = bundle.load(bundles[0]).id

    async def talk(channel: Channel) -> None:
        assert (await channel.word()).what == "refused"
        await channel.send(order(bundles[0], one))
        assert await channel.word() == WorkerMessage("loaded", one)
        assert (await channel.word()).what == "up"

    through(talk, Order(os.fsencode(tmp_path / "gone"), one, 0))
