"""Bundles with a damaged manifest, arrays, stations or text, signed again, probed and asked as the service does."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from made_app import new_app
from made_bundles import pack, pack_with_further_fields, sign

from firstspin.records import InputError
from firstspin.service.bundles.probe import probe
from firstspin.service.http.messages import Request
from firstspin.service.served_model import ServedModel
from firstspin.serving import bundle
from fuzz import http, values
from fuzz.commands import CONTROL, FOREIGN
from fuzz.inputs import Broken, Check, Input
from fuzz.scorer import changed

MODELS = ("popularity", "logistic", "forest", "network", "lightgbm", "auto")
BODIES = (
    ("json", b"{}"),
    ("json", b'{"age":31,"gender":"female","country":"US","genres":["Rock","Jazz"]}'),
    ("json", b'{"age":9,"genres":["Pop"]}'),
    ("json", b'{"instances":[{},{"age":120},{"country":"DE"},{"genres":["Polka"]}]}'),
    ("lines", b'{"age":31}\n{}\n'),
    ("csv", b"age,genres\n31,Rock|Jazz\n,\n"),
)
LARGEST = 4_000_000
"""Bytes of an array that a crafted file may ask for."""


@contextmanager
def opened(folder: Path) -> Iterator[Check]:
    bundles = []
    for name in MODELS:
        pack(folder / name, name)
        bundles.append(folder / name)
    pack_with_further_fields(folder / "further")
    bundles.append(folder / "further")
    loop = asyncio.new_event_loop()
    with http.logged() as log:

        def check(made: Input) -> str:
            copy = made.folder / "copy"
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(made.pick(bundles), copy)
            _damage(made, copy)
            try:
                loaded = bundle.load(copy)
                served = ServedModel.of(loaded)
                probe(loaded, served)
            except (InputError, OSError) as problem:
                said = str(problem.strerror if isinstance(problem, OSError) else problem).replace(str(copy), "")
                made.note("refused", said)
                if (found := FOREIGN.search(said)) or (found := CONTROL.search(said)) or len(said) > 2_000:
                    raise Broken(f"the reason of {len(said)} characters says {found and found[0]!r}") from None
                return "refused"
            app = new_app()
            app.serve(served)
            for kind, body in BODIES:
                request = Request("POST", "/invocations", b"", {b"content-type": http.TYPES[kind]}, body)
                reply = http.replied(loop, app, request)
                made.note("reply", reply)
                if reply.status != 200:
                    raise Broken(f"{body!r} is answered with status {reply.status}")
                http.check_answers(reply.body, kind)
            request = Request("POST", "/v1/explanations", b"", {b"content-type": b"application/json"}, b'{"age":31}')
            http.replied(loop, app, request)
            fell_back = bool(log.records)
            log.records.clear()
            return "fell back" if fell_back else "answers"

        yield check
    loop.close()


def _damage(made: Input, folder: Path) -> None:
    """Change one part or two, then sign: the manifest vouches for what is there."""
    for _ in range(made.pick((0, 1, 1, 1, 2))):
        made.pick((_array, _array, _array, _text, _manifest, _file, _header))(made, folder)
    if made.chance(0.9):
        _sign(folder)


def _array(made: Input, folder: Path) -> None:
    path = made.pick(sorted(folder.glob("*.npy")))
    try:
        array = np.load(path)
    except Exception:  # its header was changed before
        return
    changed_to = changed(made, array.copy())
    if isinstance(changed_to, np.ndarray) and not changed_to.dtype.hasobject and changed_to.nbytes < LARGEST:
        made.note(path.name, changed_to)
        np.save(path, changed_to, allow_pickle=False)


def _text(made: Input, folder: Path) -> None:
    texts = [*folder.glob("*.txt"), *folder.glob(bundle.STATIONS)]
    if not texts:  # the damage before removed them
        return
    path = made.pick(sorted(texts))
    content = values.mutated(made, path.read_bytes())
    if path.suffix == ".json" and made.chance(0.5):
        content = values.as_json(made, _edited(made, _told(path)))
    made.note(path.name, content[:2000])
    path.write_bytes(content)


def _manifest(made: Input, folder: Path) -> None:
    path = folder / bundle.MANIFEST
    edited = _edited(made, _told(path))
    made.note("manifest", edited)
    path.write_bytes(values.as_json(made, edited))


def _file(made: Input, folder: Path) -> None:
    """A file more, or a file less."""
    if made.chance(0.5):
        made.pick(sorted(folder.iterdir())).unlink()
        return
    name = made.pick(
        ("surprise.npy", "predictor.more.npy", "rule.more.npy", "model.pkl", "predictor.x.txt", "\udcff.npy", ".hidden")
    )
    made.note("more", name)
    (folder / name).write_bytes(made.pick((b"", b"x", b"\x93NUMPY\x01\x00\x06\x00{}    \n")))


def _header(made: Input, folder: Path) -> None:
    """A file of an array with a header of its own making."""
    path = made.pick(sorted(folder.glob("*.npy")))
    content = path.read_bytes()
    head = made.pick(
        (values.mutated(made, content[:128]), values.mutated(made, content[:128]), content[:10] + b"{" * 100)
    )
    made.note(path.name, head)
    path.write_bytes(head + content[128:])


def _told(path: Path) -> Any:
    """The JSON of a file, or nothing where it was damaged before."""
    try:
        return json.loads(path.read_bytes())
    except (ValueError, OSError):
        return {}


def _edited(made: Input, told: Any) -> Any:
    """The JSON with one value somewhere replaced, removed or added."""
    parent, key, here = None, None, told
    for _ in range(made.number(1, 4)):
        if not (isinstance(here, dict | list) and here):
            break
        parent = here
        key = made.pick(sorted(here)) if isinstance(here, dict) else made.number(0, len(here) - 1)
        here = here[key]
    if parent is None:
        return values.json_value(made)
    kind = made.number(0, 5)
    if kind == 0:
        del parent[key]
    elif kind == 1 and isinstance(parent, dict):
        parent[values.name(made)] = here
    elif kind == 2 and isinstance(here, list):
        parent[key] = here * made.pick((0, 2, 50))
    elif kind == 3 and isinstance(parent, list):
        parent.append(here)
    else:
        parent[key] = values.json_value(made, 2)
    return told


def _sign(folder: Path) -> None:
    """Proofs of the files that are there, and golden answers as they come out now, where any do."""
    try:
        sign(folder)
        path = folder / bundle.MANIFEST
        manifest = msgspec.json.decode(path.read_bytes(), type=bundle.Manifest)
        predictor, rule, _ = bundle._parts(folder, manifest)
        asked, further = (
            bundle._golden_registrations(predictor),
            bundle._further_registrations(predictor, manifest.extra),
        )
        golden = {
            "golden": bundle._golden(predictor, asked),
            "golden_rule": bundle._golden(rule, asked),
            "golden_further": bundle._golden(predictor, further),
        }
        path.write_bytes(msgspec.json.encode(msgspec.structs.replace(manifest, **golden)))
    except Exception:  # what can't be signed is refused for that
        return
