"""A second bundle scores a share of the registrations: agreement is counted, and no answer depends on it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import made_people
import msgspec
import pytest
from made_app import ask, code, new_app
from made_bundles import edit, pack, pack_with_further_fields
from made_service import QUICK, Service, serving, until, workers

from firstspin.records import Ranking, Registration
from firstspin.service.challenger import shadow
from firstspin.service.challenger.shadow import Shadow, ShadowSampler
from firstspin.service.metrics import SharedMetrics
from firstspin.service.process.worker import load as ready_to_serve
from firstspin.serving.bundle import load
from firstspin.serving.policy import DEFAULTS, Decision, PolicySettings, decide
from firstspin.serving.refusal import Refusal

PEOPLE = made_people.examples(300, 5).registrations


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the business rule."""
    made = tmp_path_factory.mktemp("shadow") / "rule"
    pack(made, "popularity")
    return made


def copy_of(registration: Registration, bundle: Path) -> bytes:
    decision = decide(registration, None, load(bundle), None, DEFAULTS)
    return msgspec.json.encode((registration, decision.ranking.genres[:3], decision.source))


def test_a_bundle_agrees_with_itself(folder: Path) -> None:
    one = Shadow(load(folder), DEFAULTS)
    for registration in PEOPLE[:20]:
        assert one.agreement(copy_of(registration, folder)) == ["first genre", "first three", "source"]


def test_the_agreement_is_that_of_the_two_answers(folder: Path, other: Path) -> None:
    one, both = Shadow(load(other), DEFAULTS), [load(folder), load(other)]
    for registration in PEOPLE[:50]:
        answer, beside = (decide(registration, None, bundle, None, DEFAULTS).ranking.genres for bundle in both)
        same = one.agreement(copy_of(registration, folder))
        assert ("first genre" in same) == (answer[0] == beside[0])
        assert ("first three" in same) == (set(answer[:3]) == set(beside[:3]))


def test_further_fields_of_one_bundle_only_are_no_failure(folder: Path, tmp_path: Path) -> None:
    pack_with_further_fields(tmp_path / "more")
    assert Shadow(load(tmp_path / "more"), DEFAULTS).agreement(copy_of(Registration(age=31), folder))
    copy = b'[{"age":31,"device":"phone","visits":2,"genres":["Rock"],"user_id":"u"},["Rock"],"model"]'
    assert "source" in Shadow(load(folder), DEFAULTS).agreement(copy)


def test_a_share_of_the_answers_is_copied_and_none_while_the_queue_is_full(folder: Path) -> None:
    outbox, inbox = shadow.queue(folder)
    metrics = SharedMetrics(1)
    decision = Decision(Ranking(("Rock", "Pop"), (0.6, 0.4), "model"), "00000000")

    async def offer(share: float, registrations: Sequence[Registration]) -> None:
        sampler = ShadowSampler(outbox, share, metrics.row(0))
        sampler.offer(registrations, [decision] * len(registrations))
        assert not shadow.is_waiting(inbox)  # not before this turn of the loop has ended
        await asyncio.sleep(0)

    with outbox, inbox:
        asyncio.run(offer(0.25, [Registration(age=31)] * 100))
        copies = [inbox.recv(shadow.MAX_COPY) for _ in range(25)]
        assert set(copies) == {msgspec.json.encode((Registration(age=31), ("Rock", "Pop"), "model"))}
        assert not shadow.is_waiting(inbox)
        for _ in range(20):
            offered = [Registration(country="X" * 100)] * 1_100  # more than a turn may leave, and than the queue holds
            asyncio.run(offer_all(ShadowSampler(outbox, 1.0, metrics.row(0)), offered, decision))
        waiting = 0
        while shadow.is_waiting(inbox):
            inbox.recv(shadow.MAX_COPY)
            waiting += 1
        assert 100 < waiting < 5_000
        assert metrics.total("firstspin_shadow_answers", "dropped") == 20 * 1_100 - waiting


async def offer_all(sampler: ShadowSampler, registrations: Sequence[Registration], decision: Decision) -> None:
    sampler.offer(registrations, [decision] * len(registrations))
    await asyncio.sleep(0)


def in_service(bundle: Path, body: bytes) -> bytes:
    """What `/invocations` answers with this bundle in service."""
    app = new_app()
    app.serve(ready_to_serve(bundle))
    return bytes(ask(app, "POST", "/invocations", body).body)


ASKED = (
    b"{}",
    b'{"age":12,"gender":"female","genres":["Rock"]}',  # under the minimum age
    b'{"age":31,"country":"US","genres":["Blues","Nothing"]}',
    b'{"listens":[{"station_id":"1","seconds":180},{"station_id":"2","skipped":true}]}',
)


@pytest.mark.parametrize("body", ASKED)
def test_the_challenger_answers_as_if_it_were_in_service(folder: Path, other: Path, body: bytes) -> None:
    for bundle in (folder, other):
        assert Shadow(load(bundle), DEFAULTS).answer(body) == in_service(bundle, body)


def test_the_challenger_ignores_a_field_that_only_the_champion_has(folder: Path) -> None:
    body = b'{"age":31,"device":"phone","genres":["Rock"]}'
    assert Shadow(load(folder), DEFAULTS).answer(body) == in_service(folder, b'{"age":31,"genres":["Rock"]}')


def test_what_is_refused_to_the_champion_never_reaches_the_challenger(folder: Path) -> None:
    outbox, inbox = shadow.queue(folder)
    with outbox, inbox:
        sampler = ShadowSampler(outbox, 0.0, SharedMetrics(1).row(0))
        app = new_app(shadow=sampler, policy=PolicySettings(refuse_under_age=True))
        app.serve(ready_to_serve(folder))
        for body in (b'{"age":12,"gender":"female"}', b'{"age":121}', b'{"unknown":1}', b"{", b'{"age":"31"}'):
            reply = ask(app, "POST", "/challenger", body)
            assert reply.status in (400, 403, 422)
            assert reply == ask(app, "POST", "/invocations", body)
        assert code(ask(app, "POST", "/challenger", b'{"instances":[{}]}')) == "invalid"
        assert ask(app, "POST", "/challenger", b"age\n31", content_type="text/csv").status == 415
        assert ask(app, "POST", "/challenger", b" " * 20_000).status == 413
        assert not shadow.is_waiting(inbox)


@pytest.mark.parametrize("options", [{}, {"pages": False}])
def test_without_a_challenger_or_pages_there_is_nothing_to_ask(folder: Path, options: dict[str, object]) -> None:
    app = new_app(**options)
    app.serve(ready_to_serve(folder))
    assert ask(app, "POST", "/challenger", b"{}").status == 404
    assert b'data-shadowed="no"' in ask(app, "GET", "/").body or options


@pytest.mark.parametrize("trouble", ["nobody reads", "the process ends", "many wait", "the queue is full"])
def test_a_challenger_that_does_not_answer_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    outbox, inbox = shadow.queue(folder)
    sampler = ShadowSampler(outbox, 0.0, SharedMetrics(1).row(0))

    async def asked() -> None:
        if trouble == "nobody reads":
            monkeypatch.setattr(shadow, "ANSWER_SECONDS", 0.01)
        if trouble == "the queue is full":
            while True:
                try:
                    outbox.send(b"x" * 1_000)
                except BlockingIOError:
                    break
        if trouble == "many wait":
            monkeypatch.setattr(shadow, "MAX_QUESTIONS", 0)
        answer = asyncio.ensure_future(sampler.answer(Registration(age=31)))
        if trouble == "the process ends":
            await asyncio.sleep(0)
            _, ends, _, _ = socket.recv_fds(inbox, shadow.MAX_COPY, 1)
            os.close(ends[0])
        with pytest.raises(Refusal, match="503 no_challenger"):
            await answer

    with outbox, inbox:
        asyncio.run(asked())
        assert sampler._questions == 0


# ------------------------------------------------------------------------------------------- in a service that runs


def answers(service: Service, people: Sequence[Registration]) -> list[bytes]:
    return [service.ask("POST", "/invocations", msgspec.json.encode(one))[2] for one in people]


def metrics(service: Service) -> dict[str, float]:
    lines = service.ask("GET", "/metrics")[2].decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}


def scored(service: Service, what: str = "scored") -> float:
    return metrics(service)[f'firstspin_shadow_answers_total{{outcome="{what}"}}']


def shadow_process(service: Service, before: Sequence[int]) -> int:
    """The process that scores, which is there once something was copied."""
    until(lambda: set(workers(service)) - set(before))
    return (set(workers(service)) - set(before)).pop()


def test_answers_are_the_same_bits_whatever_becomes_of_the_shadow(folder: Path, other: Path) -> None:
    with serving(folder, *QUICK) as service:
        alone = answers(service, PEOPLE[:30])
    with serving(folder, "--shadow", str(other), "--shadow-share", "1", *QUICK) as service:
        before = workers(service)
        assert answers(service, PEOPLE[:30]) == alone
        until(lambda: scored(service) == 30)
        pairs = zip(alone, PEOPLE[:30], strict=True)
        same = sum(json.loads(one)["genres"][0]["genre"] == first(other, who) for one, who in pairs)
        assert metrics(service)['firstspin_shadow_agreement_total{same="first genre"}'] == same
        process = shadow_process(service, before)
        for body in ASKED:
            assert service.ask("POST", "/challenger", body)[::2] == (200, in_service(other, body))
        assert scored(service) == 30  # what the page asks is no sample of the registrations
        os.kill(process, signal.SIGSTOP)
        batch = msgspec.json.encode({"instances": PEOPLE})
        until(lambda: service.ask("POST", "/invocations", batch)[0] == 200 and scored(service, "dropped"))
        assert answers(service, PEOPLE[:30]) == alone
        os.kill(process, signal.SIGKILL)
        until(lambda: scored(service) > 30)  # by its replacement
        assert service.ask("POST", "/challenger", b"{}")[::2] == (200, in_service(other, b"{}"))
        assert answers(service, PEOPLE[:30]) == alone
        assert metrics(service)['firstspin_supervisor_errors_total{step="shadow"}'] == 1
        assert service.process.poll() is None


def first(bundle: Path, registration: Registration) -> Any:
    return decide(registration, None, load(bundle), None, DEFAULTS).ranking.genres[0]


def test_a_shadow_bundle_that_can_not_be_loaded_costs_no_answer(folder: Path, tmp_path: Path) -> None:
    pack(tmp_path / "bad")
    edit(tmp_path / "bad", lambda manifest: manifest.update(format=99))
    with serving(folder, "--shadow", str(tmp_path / "bad"), "--shadow-share", "1", *QUICK) as service:
        assert service.recommend(age=31)["source"] == "model"
        until(lambda: metrics(service)['firstspin_supervisor_errors_total{step="shadow"}'])
        service.wait_for("bundle format 99")
        assert service.recommend(age=31)["source"] == "model"


def test_a_folder_without_a_bundle_is_refused_at_the_start(folder: Path, tmp_path: Path) -> None:
    refused = pytest.raises(AssertionError, match="is not a bundle: it has no manifest")
    with refused, serving(folder, "--shadow", str(tmp_path)):
        pass
