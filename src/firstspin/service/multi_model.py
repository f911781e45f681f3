"""Multi-model hosting, one model per country for example: SageMaker's API of a multi-model endpoint.

Loaded models are in a folder that all workers share: each model has a folder with its verified copy and its entry. A
model is loaded and unloaded by renaming that folder, so the change holds for all workers at once, whichever worker made
it. Each worker has the models in memory that it has been called with.

Loading uses a process of its own, so one model is loaded at a time by all workers together.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import logging
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import parse_qs

import msgspec

from firstspin.records import InputError, readable
from firstspin.service import routes
from firstspin.service.app import App
from firstspin.service.bundles.probe_process import OUT_OF_MEMORY, AcceptedBundle
from firstspin.service.bundles.watch import PROBE_SECONDS
from firstspin.service.http.answers import ListedModel, ModelPage
from firstspin.service.http.cross_origin import refuse_other_types, refuse_pages
from firstspin.service.http.messages import Reply, Request
from firstspin.service.process.worker import WorkerConfig, load
from firstspin.service.served_model import ServedModel
from firstspin.serving.refusal import Refusal

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 0.02
MAX_LOADS: Final = 4
"""Max number of load requests in a worker, the one in work included."""

_BUNDLE, _ENTRY, _LOCK, _LOADING = "bundle", "entry.json", "lock", "loading"

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=routes.MAX_NAME)]


class LoadRequest(msgspec.Struct, frozen=True):
    """The body of a load request: the model's name, and the folder of its unpacked bundle."""

    model_name: Name
    url: Name


class LoadedModel(msgspec.Struct, frozen=True):
    """A loaded model. `bytes` is its size in one worker's memory."""

    modelName: str
    modelUrl: str
    bytes: int

    def shown(self) -> ListedModel:
        """The model in the form of SageMaker's API."""
        return ListedModel(self.modelName, self.modelUrl)


@dataclass(frozen=True, slots=True)
class ModelCache:
    """The loaded models, in `folder`; models below `root` may be loaded, into `room` bytes of memory for all."""

    folder: Path
    root: Path
    room: int

    def empty(self) -> None:
        """Remove all models: SageMaker expects none in a container that has just started."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        (self.folder / _LOCK).touch()
        (self.folder / _LOADING).touch()

    def place(self, name: str) -> Path:
        """The folder of a model, loaded or not; its name is a hash, so that a model may have any name."""
        return self.folder / hashlib.sha256(name.encode()).hexdigest()[:32]

    def holds(self, url: str) -> bool:
        """Whether the path is below `root`."""
        try:
            return Path(url).resolve().is_relative_to(self.root.resolve())
        except (OSError, RuntimeError, ValueError):  # a cycle of links, a NUL byte
            return False

    def entry(self, name: str) -> LoadedModel:
        """The loaded model of this name. Raises Refusal 404 where there is none."""
        try:
            return _entry(self.place(name))
        except FileNotFoundError:
            raise _unknown() from None

    def entries(self) -> list[LoadedModel]:
        """All loaded models, by name."""
        entries = []
        self.folder.mkdir(parents=True, exist_ok=True)  # a cleaner of temporary files may have removed it
        for place in self.folder.iterdir():
            if place.is_dir() and not place.name.startswith("."):
                with suppress(FileNotFoundError):  # unloaded in the meantime
                    entries.append(_entry(place))
        return sorted(entries, key=lambda entry: entry.modelName)

    def left(self) -> int:
        """Memory left for further models, in bytes."""
        return self.room - sum(entry.bytes for entry in self.entries())

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """While this lasts no other worker loads a model. Refusal 503 where that takes too long."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / _LOADING).open("a") as lock:
            for _ in range(int(PROBE_SECONDS / LOOK_SECONDS)):
                with suppress(BlockingIOError):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                await asyncio.sleep(LOOK_SECONDS)
            else:
                raise _too_many()
            yield

    def add(self, incoming: Path, entry: LoadedModel) -> None:
        """Make a checked copy a model that is loaded. Refusal 409 or 507 where that can't be."""
        (incoming / _ENTRY).write_bytes(msgspec.json.encode(entry))
        with (self.folder / _LOCK).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two workers may load at a time
            place = self.place(entry.modelName)
            if place.exists():
                raise _loaded_already()
            if entry.bytes > self.left():
                raise _no_room()
            incoming.rename(place)

    def remove(self, name: str) -> None:
        """Refusal 404 where nothing is loaded under this name."""
        gone = self.folder / f".gone-{os.getpid()}-{self.place(name).name}"
        try:
            self.place(name).rename(gone)
        except FileNotFoundError:
            raise _unknown() from None
        shutil.rmtree(gone, ignore_errors=True)


class ManyModels:
    """Answers `/models` and the routes below it in one worker."""

    def __init__(self, cache: ModelCache, config: WorkerConfig) -> None:
        self._cache, self._config = cache, config
        self._serving: dict[str, tuple[tuple[int, int], ServedModel]] = {}
        self._number = count()
        self._loading = asyncio.Lock()
        self._loads = 0
        self._one_load = asyncio.Lock()

    def __call__(self, app: App, request: Request) -> Reply | Awaitable[Reply]:
        """The reply. Raises Refusal 404 where no route of models has the path."""
        path, names = routes.fitting(routes.MODEL_ROUTES, request.path)
        match request.method, path, names:
            case "GET" | "HEAD", routes.MODELS, _:
                return self._listed(request.query)
            case "POST", routes.MODELS, _:
                refuse_pages(request.headers)
                refuse_other_types(request.headers)
                return self._load(request.body)
            case "GET" | "HEAD", routes.MODEL, [name]:
                return _json(self._cache.entry(name).shown())
            case "DELETE", routes.MODEL, [name]:
                refuse_pages(request.headers)
                return self._unload(name)
            case "POST", routes.INVOKE, [name]:
                return self._invoke(app, request, name)
        return routes.not_taken(routes.MODEL_ROUTES, path)

    def _listed(self, query: bytes) -> Reply:
        """A page of the loaded models; its token is the last name on it."""
        parameters = parse_qs(query.decode("latin-1"))
        after = parameters.get("next_page_token", [""])[-1]
        limit = parameters.get("limit", [str(routes.MODELS_PAGE)])[-1]
        if not re.fullmatch("[0-9]{1,3}", limit) or not 1 <= int(limit) <= routes.MODELS_PAGE:
            raise Refusal(400, "invalid", f"limit takes a number from 1 to {routes.MODELS_PAGE}")
        entries = [entry for entry in self._cache.entries() if entry.modelName > after]
        page = entries[: int(limit)]
        more = page[-1].modelName if len(page) < len(entries) else None
        return _json(ModelPage([entry.shown() for entry in page], more))

    async def _load(self, body: bytes | bytearray) -> Reply:
        wanted = _wanted(body)
        if self._loads >= MAX_LOADS:
            raise _too_many()
        self._loads += 1
        try:
            async with self._one_load, self._cache.turn():
                return await self._load_model(wanted)
        finally:
            self._loads -= 1

    async def _load_model(self, wanted: LoadRequest) -> Reply:
        if self._cache.place(wanted.model_name).exists():
            raise _loaded_already()
        source = Path(wanted.url)
        if not self._cache.holds(wanted.url):
            raise Refusal(400, "invalid", "the url is not below the folder of models")
        incoming = self._cache.folder / f".incoming-{os.getpid()}-{next(self._number)}"
        incoming.mkdir(parents=True)
        try:
            accepted = await self._probed(source, incoming / _BUNDLE)
            entry = LoadedModel(wanted.model_name, wanted.url, accepted.bytes)
            await asyncio.to_thread(self._cache.add, incoming, entry)
        finally:
            shutil.rmtree(incoming, ignore_errors=True)
        await self._in_memory(wanted.model_name)
        return _json({"status": f"model {accepted.id} is loaded"})

    async def _probed(self, source: Path, to: Path) -> AcceptedBundle:
        """Copied and checked in a process of its own. Refusal 400 where it is no bundle, 507 where there is no room."""
        config = msgspec.json.encode(self._config).decode()
        words = [str(source), str(to), str(max(self._cache.left(), 0)), config, str(PROBE_SECONDS)]
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "firstspin.service.bundles.probe_process",
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            output, _ = await asyncio.wait_for(child.communicate(), PROBE_SECONDS)
        except TimeoutError:
            child.kill()
            await child.wait()
            raise Refusal(400, "not_a_bundle", f"loading it takes over {PROBE_SECONDS:g} s") from None
        if child.returncode == 0:
            return msgspec.json.decode(output, type=AcceptedBundle)
        if child.returncode == OUT_OF_MEMORY:
            raise _no_room()
        reason = msgspec.json.decode(output, type=str) if output else f"loading it ended with {child.returncode}"
        raise Refusal(
            400,
            "not_a_bundle",
            reason.replace(readable(str(to)), "the folder").replace(readable(str(source)), "the folder"),
        )

    async def _unload(self, name: str) -> Reply:
        self._serving.pop(name, None)
        await asyncio.to_thread(self._cache.remove, name)
        return _json({"status": "model is unloaded"})

    def _invoke(self, app: App, request: Request, name: str) -> Reply | Awaitable[Reply]:
        mark = self._mark(name)
        loaded = self._serving.get(name)
        if loaded and loaded[0] == mark:
            return app.answered(request, loaded[1])
        return self._invoke_cold(app, request, name)

    async def _invoke_cold(self, app: App, request: Request, name: str) -> Reply:
        reply = app.answered(request, await self._in_memory(name))
        return reply if isinstance(reply, Reply) else await reply

    async def _in_memory(self, name: str) -> ServedModel:
        """A model in this worker's memory; concurrent requests load it once."""
        async with self._loading:
            mark = self._mark(name)
            loaded = self._serving.get(name)
            if loaded and loaded[0] == mark:
                return loaded[1]
            self._forget_gone()
            try:
                serving = await asyncio.to_thread(load, self._cache.place(name) / _BUNDLE, self._config)
            except InputError as problem:
                self._mark(name)  # unloaded in the meantime?
                log.error("the copy of a model is damaged; it is unloaded", extra={"reason": readable(str(problem))})
                with suppress(Refusal):
                    self._cache.remove(name)
                raise _unknown() from None
            except (OSError, MemoryError) as problem:
                self._mark(name)
                log.error("a model could not be loaded", extra={"reason": str(problem)})
                raise Refusal(503, "no_model", "the model can't be loaded now; try again in a moment") from None
            self._serving[name] = mark, serving
            return serving

    def _forget_gone(self) -> None:
        """Drop the models that another worker has unloaded."""
        for name in [name for name in self._serving if not self._cache.place(name).exists()]:
            del self._serving[name]

    def _mark(self, name: str) -> tuple[int, int]:
        """What is another when a model is loaded again under the same name. Refusal 404 where none is loaded."""
        try:
            stat = (self._cache.place(name) / _ENTRY).stat()
        except FileNotFoundError:
            self._serving.pop(name, None)
            raise _unknown() from None
        return stat.st_ino, stat.st_mtime_ns


def _wanted(body: bytes | bytearray) -> LoadRequest:
    try:
        return msgspec.json.decode(body, type=LoadRequest)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Refusal(400, "malformed", "a model is loaded by its model_name and url, in JSON") from None


def _entry(place: Path) -> LoadedModel:
    return msgspec.json.decode((place / _ENTRY).read_bytes(), type=LoadedModel)


def _json(content: object) -> Reply:
    return Reply(200, msgspec.json.encode(content))


def _unknown() -> Refusal:
    return Refusal(404, "unknown_model", "no model of this name is loaded")


def _loaded_already() -> Refusal:
    return Refusal(409, "model_loaded", "a model of this name is loaded already")


def _too_many() -> Refusal:
    return Refusal(503, "overloaded", "other models are being loaded; try again in a moment")


def _no_room() -> Refusal:
    return Refusal(507, "no_memory", "there is no memory for one more model; unload another first")
