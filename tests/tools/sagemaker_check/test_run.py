"""The check against a container that keeps the contract, and against many that each break one fact of it."""

from __future__ import annotations

import doctest
import json
import os
import random
import shutil
import socket
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import container_engine
import pytest
import sagemaker_container
from sagemaker_container import up

from firstspin.records import InputError
from firstspin.tools.sagemaker_check import (
    batch,
    facts,
    hosting,
    image,
    lifecycle,
    multimodel,
    payloads,
    player,
    report,
    run,
    training,
)
from firstspin.tools.sagemaker_check.client import ContainerClient, ReadLimits, Unanswered, decoded
from firstspin.tools.sagemaker_check.payloads import Payload, Payloads
from firstspin.tools.sagemaker_check.player import Target
from firstspin.tools.sagemaker_check.report import FactOutcome, Finding

EXAMPLES = Payloads(
    (
        Payload("application/json", b'{"age": 31, "genres": ["Rock"]}'),
        Payload("text/csv", b"age,genre\n31,Rock\n"),
        Payload("application/jsonlines", b'{"age": 31}\n{"age": 40, "genre": "Jazz"}\n'),
    )
)
BODY = sagemaker_container.SMALL * 5 // 4
PATIENT = ReadLimits(ready=20, ping=2, answer=20, drain=20, training=20, training_stop=20, body=BODY)
HURRIED = ReadLimits(ready=20, ping=0.5, answer=2, drain=6, training=20, training_stop=1, body=BODY)
NEVER_DRAINED = replace(HURRIED, drain=1)
LIVE = {**hosting.CHECKS, **batch.CHECKS}


def target(
    fault: str = "",
    *,
    limits: ReadLimits = PATIENT,
    training: Path | None = None,
    hyperparameters: Mapping[str, str] | None = None,
) -> Target:
    port = player.free_port()
    return Target(
        command=(sys.executable, "-S", sagemaker_container.__file__, "--port", str(port), "--fault", fault),
        environment=dict(os.environ),
        channels={"training": training} if training else {},
        hyperparameters=hyperparameters or {},
        port=port,
        limits=limits,
    )


def misses(found: Mapping[str, Finding]) -> set[str]:
    return {number for number, finding in found.items() if finding.outcome == FactOutcome.MISS}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "words.txt").write_text("hello\n")
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "word.txt").write_text("hello")
    return folder


class TestTheWholeCheck:
    def test_a_container_that_keeps_the_contract_misses_nothing(self, data: Path) -> None:
        said: list[str] = []
        honest = target(training=data, hyperparameters={"rounds": "6"})
        found = run.check(honest, payloads=EXAMPLES, progress=said.append)

        assert [(r.fact.number, r.finding.detail) for r in found.of(FactOutcome.MISS)] == []
        # It serves what it trained; whether the check runs as root is not the container's doing.
        assert {r.fact.number for r in found.of(FactOutcome.UNTESTABLE) if not r.fact.beyond} <= {"3.1", *image.CHECKS}
        assert report.exit_status(found) == 0
        assert "running `train`" in said
        assert "6.1 pass: status 200" in said

    def test_what_the_engine_tells_of_the_image_stands_whatever_else_was_not_given(self, tmp_path: Path) -> None:
        told = [{"Size": 1, "Config": TestImages.GOOD | {"WorkingDir": "/opt/ml/code"}}]
        (tmp_path / "inspect.json").write_text(json.dumps(told))
        with up() as server:
            url = f"http://127.0.0.1:{server.server_port}"
            running = Target(url=url, limits=PATIENT, inspected=tmp_path / "inspect.json")
            found = run.check(running, payloads=EXAMPLES)
            dead = (sys.executable, "-c", "")
            never = Target(command=dead, limits=HURRIED, inspected=tmp_path / "inspect.json")
            without = run.check(never, payloads=EXAMPLES)
        for report_ in (found, without):
            assert {r.fact.number for r in report_.of(FactOutcome.MISS)} & image.CHECKS.keys() == {"19.7"}

    def test_a_running_server_is_checked_as_far_as_possible(self) -> None:
        with up("ping body") as server:
            running = Target(url=f"http://127.0.0.1:{server.server_port}", limits=PATIENT)
            found = run.check(running, payloads=EXAMPLES)
        assert [r.fact.number for r in found.of(FactOutcome.MISS)] == ["6.2"]
        assert {r.fact.number for r in found.of(FactOutcome.PASS)} == hosting.CHECKS.keys() - {"6.2"}
        assert report.exit_status(found) == 1

    def test_a_command_that_never_serves_is_reported_with_its_last_words(self) -> None:
        words = (sys.executable, "-c", "print('no libgomp here')")
        dead = Target(command=words, port=player.free_port(), limits=HURRIED)
        found = {r.fact.number: r.finding for r in run.check(dead, payloads=EXAMPLES).results}
        assert found["1.1"].outcome == FactOutcome.MISS
        assert "no libgomp here" in found["1.1"].detail
        assert found["7.2"] == report.untestable("it never became ready")
        assert found["16.1"] == report.untestable("no training data was given")

    def test_a_command_that_is_not_there_is_refused(self) -> None:
        with pytest.raises(InputError, match="no-such-command: No such file"):
            run.check(Target(command=("no-such-command",)), payloads=EXAMPLES)

    @pytest.mark.parametrize("url", ["https://example.com", "127.0.0.1:8080", "http://127.0.0.1:8080/path"])
    def test_an_address_it_cannot_use_is_refused(self, url: str) -> None:
        with pytest.raises(InputError, match="needs one like"):
            run.check(Target(url=url), payloads=EXAMPLES)

    def test_a_folder_that_cannot_be_removed_is_named_at_the_end(self) -> None:
        # In place of what a container writes as root: its start puts the folder elsewhere, and a link there.
        folder = "folder = pathlib.Path(os.environ['SAGEMAKER_BASE_DIR']).parents[1]"
        moves = "kept = folder.with_suffix('.kept'); os.rename(folder, kept); folder.symlink_to(kept)"
        words = (sys.executable, "-c", f"import os, pathlib; {folder}; {moves}")
        found = run.check(Target(command=words, port=player.free_port(), limits=HURRIED), payloads=EXAMPLES)
        link = Path(found.left)
        assert link.is_symlink()
        kept = link.resolve()
        link.unlink()
        shutil.rmtree(kept)
        assert [r.fact.number for r in found.of(FactOutcome.MISS)] == ["1.1", "6.4"]

    def test_of_the_folder_nothing_is_left(self) -> None:
        with up() as server:
            running = Target(url=f"http://127.0.0.1:{server.server_port}", limits=PATIENT)
            assert run.check(running, payloads=EXAMPLES).left == ""

    def test_a_model_that_cannot_be_read_is_reported_and_not_served(self, data: Path) -> None:
        # A link into nothing is unreadable for root too.
        words = (
            sys.executable,
            "-c",
            "import os; os.symlink('nothing', os.environ['SAGEMAKER_BASE_DIR'] + '/model/x')",
        )
        target = Target(command=words, channels={"training": data}, port=player.free_port(), limits=HURRIED)
        found = {r.fact.number: r.finding for r in run.check(target, payloads=EXAMPLES).results}
        assert found["19.6"] == report.untestable("it left one that this user can't read")

    @pytest.mark.parametrize("port", [-1, 0, 65536, 99999])
    def test_a_port_that_cannot_be_is_refused(self, port: int) -> None:
        with pytest.raises(InputError, match="expected 1 to 65535"):
            Target(command=("serve",), port=port)

    def test_a_target_is_a_command_or_an_address(self) -> None:
        with pytest.raises(InputError, match="either a command or a URL"):
            Target()
        with pytest.raises(InputError, match="either a command or a URL"):
            Target(command=("serve",), url="http://127.0.0.1:8080")
        with pytest.raises(InputError, match="no such file"):
            Target(command=("serve",), model=Path("not-there"))
        with pytest.raises(InputError, match="not-there: no such folder"):
            Target(command=("serve",), channels={"train": Path("not-there")})
        with pytest.raises(InputError, match="the command has no `run`"):
            Target(command=("serve", "{name}"))


class TestServersThatBreakOneFact:
    @pytest.mark.parametrize(
        ("fault", "broken"),
        [
            ("ping body", {"6.2"}),
            ("closes", {"7.3"}),
            ("chunks", {"7.4"}),
            ("strange headers", {"8.1"}),
            ("long headers", {"8.2"}),
            ("small bodies", {"9.1", "23.3"}),
            ("long answers", {"9.2"}),
            ("swallows", {"10.1", "10.2"}),
            ("blames itself", {"10.2"}),
            ("not application/json", {"12.1"}),
            ("no text/csv", {"12.2"}),
            ("not application/jsonlines", {"12.3", "23.2", "23.3"}),
            ("exact type", {"12.4"}),
            ("any type", {"12.5"}),
            ("no /metrics", {"14.1"}),
            ("metrics in HTML", {"14.1"}),
            ("always a table", {"15.1"}),
            ("one answer for all", {"23.2", "23.3"}),
            ("few records", {"23.3"}),
            ("no /execution-parameters", {"24.1"}),
            ("parameters not UTF-8", {"24.1"}),
            ("parameters too deep", {"24.1"}),
        ],
    )
    def test_is_caught_at_that_fact_alone(self, fault: str, broken: set[str]) -> None:
        with up(fault) as server:
            client = ContainerClient("127.0.0.1", server.server_port, PATIENT)
            found = dict(run.each(LIVE, hosting.Server(client, EXAMPLES)))
        assert misses(found) == broken

    @pytest.mark.parametrize("kind", list(sagemaker_container.OTHERS))
    def test_a_container_of_another_kind_is_not_judged_by_what_it_need_not_do(self, kind: str) -> None:
        body = Payload(sagemaker_container.OTHERS[kind], b"\xff\xd8\xff\xe0 a picture")
        with up(kind) as server:
            client = ContainerClient("127.0.0.1", server.server_port, PATIENT)
            found = dict(run.each(LIVE, hosting.Server(client, Payloads((body,)))))
        assert misses(found) == set()
        assert {found[number].outcome for number in ("10.1", "10.2", "15.1")} == {FactOutcome.UNTESTABLE}
        assert found["10.1"] == report.untestable(hosting.ANY_BYTES)
        assert found["10.3"].outcome == found["8.2"].outcome == FactOutcome.PASS

    def test_only_bodies_of_text_are_broken_and_answered_in_kind(self) -> None:
        other = Payload("text/csv; x=1", EXAMPLES.examples[1].body)
        assert Payloads((Payload("image/jpeg", b"a"), other)).texts == (other,)

    def test_a_batch_is_as_large_as_the_container_says_and_may_take_its_time(self) -> None:
        limits = ReadLimits(ping=2, answer=2, body=3 << 20)
        with up("a megabyte") as server:  # refuses more, and says so
            found = dict(
                run.each(
                    batch.CHECKS, hosting.Server(ContainerClient("127.0.0.1", server.server_port, limits), EXAMPLES)
                )
            )
        assert misses(found) == set()
        assert "to 36,1" in found["23.3"].detail
        with up("single records") as server:
            client = ContainerClient("127.0.0.1", server.server_port, limits)
            alone = batch.answers_a_full_body(hosting.Server(client, EXAMPLES))
        assert alone == report.untestable("it asks for one record at a time")
        with up("slow") as server:
            client = ContainerClient("127.0.0.1", server.server_port, ReadLimits(answer=1.5, body=1000))
            assert batch.answers_a_full_body(hosting.Server(client, EXAMPLES)).outcome == FactOutcome.PASS
            hurried = ContainerClient("127.0.0.1", server.server_port, ReadLimits(answer=1.5, transform=0.1, body=1000))
            with pytest.raises(Unanswered):
                batch.answers_a_full_body(hosting.Server(hurried, EXAMPLES))

    def test_too_many_records_to_answer_in_time_say_nothing_of_the_answers_length(self) -> None:
        with up("slow records") as server:
            client = ContainerClient("127.0.0.1", server.server_port, ReadLimits(answer=0.5, body=3_000))
            found = hosting.sends_no_more_than_is_handed_on(hosting.Server(client, EXAMPLES))
        assert found.outcome == FactOutcome.UNTESTABLE

    @pytest.mark.parametrize(
        ("fault", "number"),
        [
            ("ping 404", "6.1"),
            ("slow ping", "6.3"),
            ("busy", "6.5"),
            ("never answers", "7.2"),
            ("slow", "7.2"),
            ("dies of a cut", "10.3"),
        ],
    )
    def test_is_caught_where_much_else_breaks_with_it(self, fault: str, number: str) -> None:
        with up(fault) as server:
            client = ContainerClient("127.0.0.1", server.server_port, ReadLimits(ping=0.5, answer=0.5))
            found = dict(run.each({number: LIVE[number]}, hosting.Server(client, EXAMPLES)))
        assert misses(found) == {number}

    def test_an_unforeseen_response_costs_one_fact_and_not_the_report(self) -> None:
        def strange(_: str) -> Finding:
            raise ZeroDivisionError("text of somebody else")

        found = dict(run.each({"6.1": strange, "6.2": report.passed}, "fine"))
        assert found["6.1"] == report.missed("its response could not be evaluated: ZeroDivisionError")
        assert found["6.2"] == report.passed("fine")

    @pytest.mark.parametrize("body", [b"{", b'"\xff"', b"[" * 100_000, b'{"a":' * 100_000])
    def test_what_is_no_json_that_can_be_read_is_none(self, body: bytes) -> None:
        assert decoded(body) is None

    def test_a_server_that_does_not_take_its_connections_is_caught(self) -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(0)
            client = ContainerClient("127.0.0.1", listener.getsockname()[1], ReadLimits(answer=0.6))
            found = dict(run.each({"7.1": hosting.accepts_quickly}, hosting.Server(client, EXAMPLES)))
        assert misses(found) == {"7.1"}


class TestImages:
    GOOD: ClassVar = {
        "Entrypoint": ["firstspin-container"],
        "User": "root",
        "WorkingDir": "/build",
        "Labels": {image.CAPABILITY + "multi-models": "true", image.CAPABILITY + "accept-bind-to-port": "true"},
    }

    def found(self, folder: Path, size: int = 400_000_000, **config: object) -> dict[str, Finding]:
        told = [{"Id": "sha256:…", "Size": size, "Config": self.GOOD | {"Cmd": None} | config}]
        (folder / "inspect.json").write_text(json.dumps(told))
        return dict(run.each(image.CHECKS, image.read(folder / "inspect.json")))

    def test_a_good_one_misses_nothing(self, tmp_path: Path) -> None:
        found = self.found(tmp_path)
        assert misses(found) == set()
        assert found["27.2"].detail == "0.40 GB"
        assert misses(self.found(tmp_path, User="", Volumes={"/var/cache": {}})) == set()

    @pytest.mark.parametrize(
        ("config", "broken"),
        [
            ({"Entrypoint": ["/bin/sh", "-c", "python serve.py"]}, {"1.2"}),
            ({"Entrypoint": ["/usr/bin/tini", "--", "serve"]}, {"1.2"}),
            ({"Entrypoint": ["/bin/bash", "-lc", "serve"]}, {"1.2"}),
            ({"Entrypoint": ["bash", "-o", "pipefail", "-c", "serve"]}, {"1.2"}),
            ({"Entrypoint": ["/usr/bin/env", "A=b", "sh", "-ec", "serve"]}, {"1.2"}),
            ({"Entrypoint": None}, set()),  # `serve` is then a program on its path
            ({"Entrypoint": ["/bin/sh", "/start.sh", "-c"]}, set()),
            ({"Entrypoint": ["/usr/bin/env", "python", "-c", "print()"]}, set()),
            ({"User": "1000:1000"}, {"3.1", "3.2"}),
            ({"WorkingDir": "/opt/ml/code"}, {"19.7"}),
            ({"Volumes": {"/opt/ml/model": {}}}, {"19.7"}),
            ({"Labels": None}, {"5.3", "26.9"}),
            ({"size": 11 * 10**9}, {"27.2"}),
        ],
    )
    def test_each_fault_is_caught_at_its_fact(self, config: dict[str, Any], broken: set[str], tmp_path: Path) -> None:
        assert misses(self.found(tmp_path, **config)) == broken

    @pytest.mark.parametrize("text", ["", "{}", "[]", '[{"Size": 1}]', '[{"Size": "1", "Config": {}}]'])
    def test_a_file_of_something_else_is_refused_before_anything_starts(self, text: str, tmp_path: Path) -> None:
        (tmp_path / "inspect.json").write_text(text)
        target = Target(command=("never-started",), inspected=tmp_path / "inspect.json")
        with pytest.raises(InputError, match="not the output of `docker image inspect IMAGE`"):
            run.check(target, payloads=EXAMPLES)


class TestMultiModelServers:
    def found(self, fault: str, *, many: bool = True) -> dict[str, Finding]:
        with up(fault, many=many) as server:
            client = ContainerClient("127.0.0.1", server.server_port, PATIENT)
            one = multimodel.OneOfMany(client, EXAMPLES.first, "/opt/ml/models/a/model")
            return dict(run.each(multimodel.CHECKS, one))

    @pytest.mark.parametrize(
        ("fault", "broken"),
        [
            ("never loads", {"26.1", "26.2", "26.3", "26.4", "26.5", "26.7"}),
            ("loads twice", {"26.2"}),
            ("lists none", {"26.3"}),
            ("shows none", {"26.4"}),
            ("invokes anything", {"26.6"}),
            ("never unloads", {"26.7"}),
        ],
    )
    def test_a_verb_that_fails_is_caught(self, fault: str, broken: set[str]) -> None:
        assert misses(self.found(fault)) == broken

    def test_a_server_without_the_verbs_passes_none_of_them(self) -> None:
        assert misses(self.found("", many=False)) == multimodel.CHECKS.keys()


class TestContainersThatStartOrStopBadly:
    @pytest.mark.parametrize(
        ("fault", "broken"),
        [
            ("deaf", {"2.1"}),
            ("odd status", {"2.2"}),
            ("drops", {"2.3", "2.4"}),
            ("writes its model", {"4.2"}),
            ("own port", {"5.2"}),
        ],
    )
    def test_are_caught_at_that_fact(self, fault: str, broken: set[str], model: Path, tmp_path: Path) -> None:
        checked = target(fault, limits=NEVER_DRAINED if fault == "deaf" else HURRIED)
        with lifecycle.serving(checked, tmp_path / "run", model, lifecycle.variables()) as start:
            assert start.client is not None
            found = dict(run.each({**lifecycle.START_CHECKS, **lifecycle.READY_CHECKS}, start))
            found |= run.each(lifecycle.STOP_CHECKS, lifecycle.stop(start, start.client, EXAMPLES.first))
        assert misses(found) == broken

    def without_a_model(self, fault: str, model: Path, folder: Path) -> Finding:
        checked = target(fault, limits=HURRIED)
        with lifecycle.serving(checked, folder / "run", model, {}) as start:
            known = lifecycle.known(start, EXAMPLES.first)
        assert known is not None
        return lifecycle.serves_its_model(checked, folder / "without", EXAMPLES.first, known)

    @pytest.mark.parametrize(
        ("fault", "found"),
        [
            ("", report.passed("without it, it answers otherwise")),
            ("needs a model", report.passed("without it, it is not ready")),
            ("no model read", report.untestable("it answers the same without a model")),
            ("never answers", report.untestable("it answered nothing with one")),
            ("varies", report.untestable("its answers vary, with a model and without")),
        ],
    )
    def test_a_model_is_served_if_without_it_the_answer_is_another(
        self, fault: str, found: Finding, model: Path, tmp_path: Path
    ) -> None:
        assert self.without_a_model(fault, model, tmp_path) == found

    def test_a_model_that_is_not_read_is_no_pass_in_the_whole_check(self, model: Path) -> None:
        checked = replace(target("no model read", limits=HURRIED), model=model)
        found = {r.fact.number: r.finding for r in run.check(checked, payloads=EXAMPLES).results}
        assert found["4.1"] == report.untestable("it answers the same without a model")

    def test_the_user_is_read_from_the_image_or_for_a_program_from_the_check(self, tmp_path: Path) -> None:
        told = [{"Size": 1, "Config": TestImages.GOOD | {"User": "1000"}}]
        (tmp_path / "inspect.json").write_text(json.dumps(told))
        program = target(limits=HURRIED)
        engine = (sys.executable, container_engine.__file__, "--context", str(tmp_path))
        started = replace(program, command=(*engine, "run", "--name", "{name}", "{root}", *program.command))
        outcomes = []
        for checked in (program, started, replace(started, inspected=tmp_path / "inspect.json")):
            found = {r.fact.number: r.finding for r in run.check(checked, payloads=EXAMPLES).results}
            outcomes.append(found["3.1"].outcome)
        own = FactOutcome.PASS if os.geteuid() == 0 else FactOutcome.UNTESTABLE
        assert outcomes == [own, FactOutcome.UNTESTABLE, FactOutcome.MISS]

    def test_a_container_that_cannot_bear_its_environment_is_caught_and_checked_without(self) -> None:
        found = run.check(target("small environment", limits=HURRIED), payloads=EXAMPLES)
        assert [r.fact.number for r in found.of(FactOutcome.MISS)] == ["11.1"]
        assert "too many variables" in next(r.finding.detail for r in found.of(FactOutcome.MISS))

    def test_a_container_on_another_port_than_its_own_is_caught(self, model: Path, tmp_path: Path) -> None:
        checked = target("odd port", limits=ReadLimits(ready=1.5))
        assert lifecycle.listens_on_its_own_port(checked, tmp_path / "run", model).outcome == FactOutcome.MISS

    def test_a_port_that_somebody_has_is_no_fault_of_the_container(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(lifecycle, "PORT_RELEASE", 0.1)
        with up() as other:
            taken = Target(command=("unused",), port=other.server_port)
            found = lifecycle.listens_on_its_own_port(taken, tmp_path / "run", None)
        assert found == report.untestable(f"port {taken.port} is taken on this machine")

    def test_nothing_of_a_container_is_left(self, model: Path, tmp_path: Path) -> None:
        with lifecycle.serving(target("drops"), tmp_path / "run", model, {}) as start:
            process, client = start.container.process, start.client
            assert process.poll() is None
        assert process.returncode is not None
        assert client is not None
        with pytest.raises(Unanswered):
            client.ping()

    @pytest.mark.parametrize("stopped", [True, False])
    def test_a_deaf_container_of_an_engine_is_removed_by_its_name(
        self, stopped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(player, "LAST_WORDS", 0.5)
        deaf = target("deaf", limits=NEVER_DRAINED)
        engine = (sys.executable, container_engine.__file__, "--context", str(tmp_path))
        checked = replace(deaf, command=(*engine, "run", "--name", "{name}", "{root}", *deaf.command))
        with lifecycle.serving(checked, tmp_path / "run", None, {}) as start:
            assert (tmp_path / start.container.name).exists()
            assert start.client is not None
            if stopped:
                assert lifecycle.stop(start, start.client, EXAMPLES.first).status is None
        with pytest.raises(Unanswered):
            start.client.ping()
        assert not (tmp_path / start.container.name).exists()


class TestJobsThatBreakOneFact:
    @pytest.mark.parametrize(
        ("fault", "broken"),
        [
            ("fails", {"16.1", "17.1", "17.2", "19.1", "20.1", "22.1"}),
            ("wants numbers", {"16.1", "17.1", "17.2", "19.1", "20.1", "22.1"}),
            ("changes its input", {"18.2"}),
            ("no model", {"19.1"}),
            ("strews", {"19.2"}),
            ("no metrics", {"22.1"}),
        ],
    )
    def test_a_whole_job(self, fault: str, broken: set[str], data: Path, tmp_path: Path) -> None:
        checked = target(fault, hyperparameters={"rounds": "1"})
        found = dict(run.each(training.WHOLE_CHECKS, training.run(checked, tmp_path / "run", {"training": data})))
        assert misses(found) == broken

    @pytest.mark.parametrize(
        ("fault", "broken"),
        [
            ("ignores its channel", {"18.1"}),
            ("fails with 0", {"19.3"}),
            ("fails silently", {"19.4"}),
            ("rambles", {"19.5"}),
        ],
    )
    def test_a_job_without_data(self, fault: str, broken: set[str], tmp_path: Path) -> None:
        found = dict(
            run.each(training.WITHOUT_DATA_CHECKS, training.run(target(fault), tmp_path / "run", {"training": None}))
        )
        assert misses(found) == broken

    @pytest.mark.parametrize(("fault", "broken"), [("deaf", {"21.1", "21.2"}), ("saves nothing", {"21.2"})])
    def test_a_job_that_is_stopped(self, fault: str, broken: set[str], data: Path, tmp_path: Path) -> None:
        checked = target(fault, limits=HURRIED, hyperparameters={"rounds": "100"})
        stopped = training.run(checked, tmp_path / "run", {"training": data}, stop_after=1.5)
        assert misses(dict(run.each(training.STOPPED_CHECKS, stopped))) == broken

    def test_channels_have_the_names_they_are_given(self, data: Path, tmp_path: Path) -> None:
        checked = target()
        checked = replace(checked, command=(*checked.command, "--channel", "train"))
        found = training.run(checked, tmp_path / "run", {"train": data, "validation": None})
        assert (found.status, (found.model / "word.txt").read_text()) == (0, "hello")
        told = tmp_path / "run" / "ml" / "input"
        assert sorted(path.name for path in (told / "data").iterdir()) == ["train", "validation"]
        assert json.loads((told / "config" / "inputdataconfig.json").read_text()).keys() == {"train", "validation"}
        assert training.run(checked, tmp_path / "other", {"training": data}).status == 1

    @pytest.mark.parametrize("name", ["", "a/b", "..", "a" * 65])
    def test_a_name_no_channel_can_have_is_refused(self, name: str, data: Path) -> None:
        with pytest.raises(InputError, match="invalid channel name"):
            Target(command=("serve",), channels={name: data})

    def test_a_job_too_short_to_be_stopped_is_not_judged(self, data: Path, tmp_path: Path) -> None:
        short = training.run(
            target(hyperparameters={"rounds": "0"}), tmp_path / "run", {"training": data}, stop_after=20
        )
        outcomes = {finding.outcome for _, finding in run.each(training.STOPPED_CHECKS, short)}
        assert outcomes == {FactOutcome.UNTESTABLE}


class TestThePlayer:
    def test_a_model_archive_is_unpacked_as_sagemaker_does(self, model: Path, tmp_path: Path) -> None:
        with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as archive:
            archive.add(model / "word.txt", "word.txt")
        place = player.prepare(target(), tmp_path / "run", tmp_path / "model.tar.gz")
        assert (place.model / "word.txt").read_text() == "hello"

    def test_what_is_no_archive_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "model.txt").write_text("hello")
        with pytest.raises(InputError, match=r"^\S+model.txt: neither a folder nor a readable tar .*$") as problem:
            player.prepare(target(), tmp_path / "run", tmp_path / "model.txt")
        assert "\n" not in str(problem.value)

    def test_an_archive_that_was_cut_off_is_refused(self, tmp_path: Path) -> None:
        with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as archive:
            for name in ("one", "two"):
                (tmp_path / name).write_bytes(random.Random(0).randbytes(50_000))
                archive.add(tmp_path / name, name)
        whole = (tmp_path / "model.tar.gz").read_bytes()
        (tmp_path / "model.tar.gz").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(InputError, match=r"a readable tar archive \(EOFError\)$"):
            player.prepare(target(), tmp_path / "run", tmp_path / "model.tar.gz")

    def test_an_engine_gets_its_mount_and_its_variables_as_words(self, tmp_path: Path) -> None:
        script = 'test -d "$1/model" && cat "$2" && echo "base: $SAGEMAKER_BASE_DIR"'
        engine = Target(command=("sh", "-c", script, "sh", "{root}", "{env}"), environment={"PATH": os.environ["PATH"]})
        place = player.prepare(engine, tmp_path / "run")
        with player.running(engine, place, "serve", {"SAGEMAKER_BATCH": "true"}) as container:
            assert player.ended(container, 20) == 0
        assert container.log.read_text() == "SAGEMAKER_BATCH=true\nbase: \n"
        assert place.inside == "/opt/ml"

    def test_files_that_come_go_or_change_are_seen(self, tmp_path: Path) -> None:
        for name in ("kept", "changed", "removed"):
            (tmp_path / name).write_text("a")
        before = player.contents(tmp_path)
        (tmp_path / "changed").write_text("ab")
        (tmp_path / "removed").unlink()
        (tmp_path / "added").mkdir()
        assert player.changes(before, player.contents(tmp_path)) == "added, changed, removed"
        assert player.changes(before, before) == ""


class TestPayloads:
    def test_json_grows_to_the_byte_and_stays_the_same_value(self) -> None:
        full = payloads.filled(EXAMPLES.examples[0], 1000)
        assert full is not None
        assert len(full.body) == 1000
        assert json.loads(full.body) == {"age": 31, "genres": ["Rock"]}

    def test_json_lines_grow_to_the_byte_and_stay_as_many(self) -> None:
        full = payloads.filled(EXAMPLES.examples[2], 1000)
        assert full is not None
        assert len(full.body) == 1000
        assert [json.loads(line) for line in full.body.splitlines()] == [{"age": 31}, {"age": 40, "genre": "Jazz"}]

    def test_a_table_grows_by_its_last_row(self) -> None:
        full = payloads.filled(EXAMPLES.examples[1], 40)
        assert full is not None
        assert full.body == b"age,genre\n31,Rock\n31,Rock\n31,Rock\n"

    def test_a_table_without_a_last_newline_gets_its_row_whole(self) -> None:
        more = payloads.one_more(Payload("text/csv", b"31,Rock"))
        assert more is not None
        assert more.body == b"31,Rock\n31,Rock\n"

    def test_what_it_does_not_know_it_leaves(self) -> None:
        picture = Payload("image/png", b"\x89PNG")
        assert payloads.filled(picture, 1000) is None
        assert payloads.one_more(picture) is None

    def test_one_is_read_from_a_file_or_refused(self, tmp_path: Path) -> None:
        (tmp_path / "body.json").write_text('{"age": 31}')
        (tmp_path / "empty.json").write_text("\n")
        assert payloads.read(tmp_path / "body.json", "application/json").body == b'{"age": 31}'
        with pytest.raises(InputError, match="is empty"):
            payloads.read(tmp_path / "empty.json", "application/json")
        with pytest.raises(InputError, match="No such file"):
            payloads.read(tmp_path / "none.json", "application/json")

    def test_there_must_be_one(self) -> None:
        with pytest.raises(InputError, match="at least one valid body"):
            Payloads(())

    def test_the_examples_in_the_docstrings_hold(self) -> None:
        assert doctest.testmod(payloads).failed == 0
        assert doctest.testmod(player).failed == 0


class TestTheReport:
    def found(self, number: str, finding: Finding) -> report.Report:
        fine = {fact.number: report.passed("") for fact in facts.FACTS}
        return report.assemble("it", fine | {number: finding})

    def test_every_number_of_the_contract_is_there_once(self) -> None:
        numbers = [fact.number for fact in facts.FACTS]
        assert len(set(numbers)) == len(numbers)
        assert {int(number.partition(".")[0]) for number in numbers} == set(range(1, 41))

    def test_every_fact_is_tested_somewhere_or_says_why_it_cannot_be(self) -> None:
        tested = [
            *hosting.CHECKS,
            *batch.CHECKS,
            *multimodel.CHECKS,
            *lifecycle.START_CHECKS,
            *lifecycle.READY_CHECKS,
            *lifecycle.STOP_CHECKS,
            *training.WHOLE_CHECKS,
            *training.WITHOUT_DATA_CHECKS,
            *training.STOPPED_CHECKS,
            *image.CHECKS,
            "4.1",
            "5.1",
            "11.1",
            "19.6",
        ]
        assert len(set(tested)) == len(tested)
        assert {fact.number for fact in facts.FACTS if not fact.beyond} == set(tested)

    def test_every_source_is_spelled_out(self) -> None:
        named = {source for fact in facts.FACTS for source in fact.source.split(", ")}
        assert named <= facts.SOURCES.keys()

    def test_the_port_is_expected_of_an_image_whose_label_promises_it(self) -> None:
        fine = {fact.number: report.passed("") for fact in facts.FACTS} | {"5.2": report.missed("listens on 8080")}
        assert report.exit_status(report.assemble("it", fine)) == 1
        for label in (report.missed("no such label"), report.untestable("no file")):
            assert report.exit_status(report.assemble("it", fine | {"5.3": label})) == 0
        assert report.exit_status(report.assemble("it", fine | {"5.2": report.passed("")})) == 0

    def test_a_required_or_expected_miss_fails_and_an_optional_one_does_not(self) -> None:
        assert report.exit_status(self.found("6.1", report.missed("status 404"))) == 1
        assert report.exit_status(self.found("6.2", report.missed("1 byte"))) == 1
        assert report.exit_status(self.found("14.1", report.missed("status 404"))) == 0
        assert report.exit_status(self.found("6.1", report.untestable("no"))) == 0
        assert report.exit_status(self.found("6.1", report.passed(""))) == 0

    def test_it_reads_as_a_line_a_fact(self) -> None:
        lines = report.as_text(self.found("6.2", report.missed("a|b"))).splitlines()
        assert "✗ 6.2   miss              expected the body of that answer is empty: a|b" in lines
        assert lines[-1].startswith("it: ")
        assert "1 miss" in lines[-1]

    def test_it_reads_as_a_table_of_the_docs(self) -> None:
        table = report.as_markdown(self.found("6.2", report.missed("a|b")))
        assert "| 6.2 | the body of that answer is empty | expected | **miss** | a\\|b |" in table.splitlines()
        assert "| 40 |" not in table

    def test_a_program_reads_the_same(self) -> None:
        told = json.loads(report.as_json(self.found("6.2", report.missed("a|b"))))
        assert told["exit_status"] == 1
        assert len(told["results"]) == len(facts.FACTS)
        assert {
            "fact": "6.2",
            "title": "the body of that answer is empty",
            "source": "H",
            "severity": "expected",
            "outcome": "miss",
            "detail": "a|b",
        } in told["results"]
