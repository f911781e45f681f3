"""Many models in one service: what one worker loads all of them answer from, and nothing takes the others along."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import pytest
from library import Recommender
from made_bundles import edit, pack
from made_service import Service, reply, request, serving, until, workers

from firstspin.records import Registration
from firstspin.service.multi_model import MAX_LOADS
from firstspin.serving import bundle

BODY = b'{"age": 31, "genres": ["Rock"]}'


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What SageMaker has unpacked: two models, one that is cut short, and one that is none."""
    folder: Path = tmp_path_factory.mktemp("opt") / "models"
    pack(folder / "se" / "model")
    pack(folder / "dk" / "model", seed=3)
    shutil.copytree(folder / "se" / "model", folder / "cut" / "model")
    largest = max((folder / "cut" / "model").glob("*.npy"), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-8])
    (folder / "none" / "model").mkdir(parents=True)
    return folder


@contextmanager
def serving_many(root: Path, folder: Path) -> Iterator[Service]:
    pack(folder / "b", seed=5)
    options = ("--models", str(root), "--workers", "2", "--drain-delay", "0", "--state", str(folder / "state"))
    with serving(folder / "b", *options) as running:
        yield running


@pytest.fixture
def service(root: Path, tmp_path: Path) -> Iterator[Service]:
    with serving_many(root, tmp_path) as running:
        yield running


@pytest.fixture(scope="module")
def empty(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service into which no model is loaded."""
    with serving_many(root, tmp_path_factory.mktemp("empty")) as running:
        yield running


def load(service: Service, name: str, folder: Path) -> int:
    body = json.dumps({"model_name": name, "url": str(folder)}).encode()
    return service.ask("POST", "/models", body)[0]


def invoke(service: Service, name: str) -> tuple[int, bytes]:
    status, _, body = service.ask("POST", f"/models/{quote(name, safe='')}/invoke", BODY)
    return status, body


def test_every_worker_answers_from_the_model_that_was_asked_for(service: Service, root: Path) -> None:
    assert load(service, "se", root / "se" / "model") == 200
    assert load(service, "dk", root / "dk" / "model") == 200
    for market in ("se", "dk"):
        loaded = bundle.load(root / market / "model")
        best = Recommender(loaded).rank(Registration(age=31, genres=("Rock",))).genres[0]
        told = [json.loads(invoke(service, market)[1]) for _ in range(12)]  # a connection each: both workers
        assert {answer["model"] for answer in told} == {loaded.id}
        assert {answer["genres"][0]["genre"] for answer in told} == {best}
    assert service.recommend(age=31)["model"] == bundle.load(service.bundle).id


def test_a_name_is_any_text(service: Service, root: Path) -> None:
    name = "a/b c%2F../ö"
    assert load(service, name, root / "se" / "model") == 200
    status, _, body = service.ask("GET", f"/models/{quote(name, safe='')}")
    assert (status, json.loads(body)) == (200, {"modelName": name, "modelUrl": str(root / "se" / "model")})
    assert invoke(service, name)[0] == 200


def test_what_is_unloaded_is_gone_from_every_worker_and_can_come_back_as_another(service: Service, root: Path) -> None:
    assert load(service, "m", root / "se" / "model") == 200
    assert load(service, "m", root / "dk" / "model") == 409
    assert {invoke(service, "m")[0] for _ in range(12)} == {200}
    assert service.ask("DELETE", "/models/m")[0] == 200
    assert {invoke(service, "m")[0] for _ in range(12)} == {404}
    assert service.ask("DELETE", "/models/m")[0] == 404
    assert service.ask("GET", "/models/m")[0] == 404
    assert load(service, "m", root / "dk" / "model") == 200
    assert {json.loads(invoke(service, "m")[1])["model"] for _ in range(12)} == {bundle.load(root / "dk" / "model").id}


def test_models_outlive_the_worker_that_loaded_them(service: Service, root: Path) -> None:
    assert load(service, "se", root / "se" / "model") == 200
    before = workers(service)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    until(lambda: len(set(workers(service)) - set(before)) == 2)
    assert {invoke(service, "se")[0] for _ in range(8)} == {200}


def test_the_list_comes_in_pages(service: Service, root: Path) -> None:
    for name in "bca":
        assert load(service, name, root / "se" / "model") == 200
    names, token = [], ""
    while True:
        status, _, body = service.ask("GET", f"/models?limit=2&next_page_token={token}")
        assert status == 200
        page = json.loads(body)
        names.append([model["modelName"] for model in page["models"]])
        if not (token := page.get("nextPageToken", "")):
            break
    assert names == [["a", "b"], ["c"]]
    for limit in ("0", "101", "-1", "two", "9" * 5_000):
        assert service.ask("GET", f"/models?limit={limit}")[0] == 400


def test_a_model_that_would_be_accepted_and_not_answer_is_refused(empty: Service, root: Path) -> None:
    bad = root / "bad" / "model"
    pack(bad)
    edit(bad, lambda manifest: manifest.update(extra={"a b": "text"}, golden_rule=None, golden_further=None))
    assert load(empty, "m", bad) == 400
    shutil.rmtree(bad.parent)


def test_a_model_whose_copy_was_damaged_is_unloaded_and_can_be_loaded_again(service: Service, root: Path) -> None:
    assert load(service, "m", root / "se" / "model") == 200
    [copy] = [path for path in tmp_copies(service) if path.name == "predictor.weights.npy"]
    os.truncate(copy, 100)
    for pid in workers(service):  # those that have it in memory
        os.kill(pid, signal.SIGKILL)
    until(lambda: service.ask("GET", "/ping")[0] == 200)
    assert {invoke(service, "m")[0] for _ in range(8)} == {404}
    assert load(service, "m", root / "se" / "model") == 200
    assert {invoke(service, "m")[0] for _ in range(8)} == {200}


def test_models_are_loaded_again_where_their_folder_was_removed(service: Service, root: Path) -> None:
    assert load(service, "m", root / "se" / "model") == 200
    shutil.rmtree(next(iter(tmp_copies(service))).parents[2])
    assert {invoke(service, "m")[0] for _ in range(8)} == {404}
    assert json.loads(service.ask("GET", "/models")[2]) == {"models": []}
    assert load(service, "m", root / "se" / "model") == 200
    assert {invoke(service, "m")[0] for _ in range(8)} == {200}


def tmp_copies(service: Service) -> list[Path]:
    """The files of the models that are loaded, in the service's own folder."""
    return list((service.bundle.parent / "state" / "models").rglob("*.npy"))


@pytest.mark.parametrize("broken", ["cut", "none", "not there"])
def test_what_is_no_bundle_is_refused_and_leaves_nothing(empty: Service, root: Path, broken: str) -> None:
    assert load(empty, "m", root / broken / "model") == 400
    assert json.loads(empty.ask("GET", "/models")[2]) == {"models": []}
    assert empty.recommend(age=31)


def test_only_the_folder_of_models_is_loaded_from(empty: Service, root: Path, tmp_path: Path) -> None:
    assert load(empty, "m", empty.bundle) == 400
    assert load(empty, "m", root / ".." / ".." / empty.bundle.name) == 400
    (root / "link").unlink(missing_ok=True)
    (root / "link").symlink_to(tmp_path)
    assert load(empty, "m", root / "link" / "b") == 400


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"model_name": "", "url": "x"}', b'{"model_name": 1, "url": "x"}', b"\xff"]
)
def test_what_asks_for_no_model_is_refused(empty: Service, body: bytes) -> None:
    assert empty.ask("POST", "/models", body)[0] == 400


def test_no_more_is_loaded_than_memory_was_given_for(root: Path, tmp_path: Path) -> None:
    pack(tmp_path / "b", seed=5)
    with serving(tmp_path / "b", "--models", str(root), "--models-memory", "5", "--drain-delay", "0") as service:
        loaded = []
        for number in range(64):
            status = load(service, f"m{number}", root / "se" / "model")
            if status != 200:
                break
            loaded.append(f"m{number}")
        assert (status, len(loaded) > 2) == (507, True)
        for name in loaded[:2]:  # two: the memory of one model, which is measured, differs by some pages
            assert service.ask("DELETE", f"/models/{name}")[0] == 200
        assert load(service, "again", root / "se" / "model") == 200
        assert {invoke(service, name)[0] for name in loaded[2:]} == {200}


def test_a_verb_that_is_none_is_told_so(empty: Service) -> None:
    status, headers, _ = empty.ask("PUT", "/models")
    assert (status, headers["allow"]) == (405, "GET, HEAD, POST")
    assert empty.ask("POST", "/models/m")[0] == 405
    assert empty.ask("POST", "/models/m/explain", BODY)[0] == 404
    assert empty.ask("GET", "/modelsx")[0] == 404


def test_without_the_option_there_are_no_such_verbs_but_the_limits_of_batch_are_told(tmp_path: Path) -> None:
    pack(tmp_path / "b")
    with serving(tmp_path / "b", "--workers", "2", "--drain-delay", "0") as service:
        assert service.ask("GET", "/models")[0] == 404
        status, _, body = service.ask("GET", "/execution-parameters")
        expected = {"MaxConcurrentTransforms": 2, "BatchStrategy": "MULTI_RECORD", "MaxPayloadInMB": 1}
        assert (status, json.loads(body)) == (200, expected)
        assert service.ask("POST", "/execution-parameters")[0] == 405


def test_what_is_no_path_is_refused(empty: Service) -> None:
    for url in ("\0", "/" + "a/" * 500, "x" * 1_000, "/proc/self/environ"):
        assert empty.ask("POST", "/models", json.dumps({"model_name": "m", "url": url}).encode())[0] == 400


def loading(service: Service) -> int:
    """How many processes load a model."""
    arguments = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if os.getpgid(int(process.name)) == service.process.pid:
                arguments.append((process / "cmdline").read_bytes())
    return sum(b"firstspin.service.bundles.probe_process" in words for words in arguments)


def test_sixty_loads_at_once_take_one_process_and_what_is_too_many_is_told_to_come_back(
    service: Service, root: Path
) -> None:
    most = 0
    with ExitStack() as stack:
        asking = []
        for number in range(60):
            body = json.dumps({"model_name": f"m{number}", "url": str(root / "se" / "model")}).encode()
            asking.append(stack.enter_context(service.connect()))
            asking[-1].sendall(request("POST", "/models", body))
        waiting = list(asking)
        while waiting:
            most = max(most, loading(service))
            answered, _, _ = select.select(waiting, [], [], 0.01)
            waiting = [connection for connection in waiting if connection not in answered]
        replies = [reply(connection) for connection in asking]
    assert most == 1
    statuses = Counter(status for status, _, _ in replies)
    assert set(statuses) == {200, 503}
    assert statuses[200] <= 2 * MAX_LOADS  # of two workers
    for status, headers, answer in replies:
        if status == 503:
            assert (headers["retry-after"], json.loads(answer)["error"]["code"]) == ("1", "overloaded")
    assert load(service, "later", root / "se" / "model") == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"content_type": "text/plain"},
        {"content_type": "application/x-www-form-urlencoded"},
        {"content_type": ""},
        {"origin": "https://evil.example"},
        {"origin": "http://test"},
        {"sec_fetch_site": "cross-site"},
    ],
)
def test_no_web_page_loads_or_unloads_a_model(empty: Service, root: Path, headers: dict[str, str]) -> None:
    body = json.dumps({"model_name": "m", "url": str(root / "se" / "model")}).encode()
    assert empty.ask("POST", "/models", body, **headers)[0] == (415 if "content_type" in headers else 403)
    if "content_type" not in headers:
        assert empty.ask("DELETE", "/models/m", **headers)[0] == 403
    assert json.loads(empty.ask("GET", "/models")[2]) == {"models": []}
