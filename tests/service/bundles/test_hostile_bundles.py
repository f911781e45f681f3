"""Bundles whose hashes are right and whose content is hostile: refused with a reason, or answered; nothing else."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_app import ask, new_app
from made_bundles import edit, pack, pack_with_further_fields, sign

from firstspin.records import InputError
from firstspin.service.bundles.probe import probe
from firstspin.service.served_model import ServedModel
from firstspin.serving import bundle

VALUES = (
    None,
    True,
    0,
    -1,
    1.5,
    1e308,
    10**400,
    "",
    "a b",
    "user_id",
    "\0",
    "x" * 100_000,
    [],
    {},
    ["Pop"],
    [[]],
    {"a": 1},
)


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a document: all keys, and the first and last item of every list."""
    if path:
        yield path
    if isinstance(node, dict):
        for key in node:
            yield from places(node[key], (*path, key))
    elif isinstance(node, list):
        for index in sorted({0, len(node) - 1}) if node else ():
            yield from places(node[index], (*path, index))


def without(text: str, path: tuple[Any, ...]) -> str:
    document = json.loads(text)
    parent(document, path).pop(path[-1])
    return json.dumps(document)


def replaced(text: str, path: tuple[Any, ...], value: object) -> str:
    document = json.loads(text)
    parent(document, path)[path[-1]] = value
    return json.dumps(document)


def parent(node: Any, path: tuple[Any, ...]) -> Any:
    for key in path[:-1]:
        node = node[key]
    return node


def hostile(text: str, step: int) -> Iterator[tuple[str, str]]:
    """What was done to a document, and what became of it: at each place with every `step`-th of the values, in turn."""
    for number, path in enumerate(places(json.loads(text))):
        yield f"without {path}", without(text, path)
        for value in VALUES[number % step :: step]:
            yield f"{path} = {value!r:.40}", replaced(text, path, value)
    yield "nested", '{"format": 1, "x": ' + "[" * 100_000 + "]" * 100_000 + "}"
    for value in VALUES:
        yield f"is {value!r:.40}", json.dumps(value)
    yield "a lone surrogate", text.replace("Pop", "\\ud800")
    yield "not finite", text.replace(": 0.", ": 1e400", 1)


ARRAYS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "empty": lambda array: array.ravel()[:0],
    "one number": lambda array: np.array(array.flat[0] if array.size else 0.0),
    "shorter": lambda array: array[:-1] if array.ndim else array,
    "longer": lambda array: np.concatenate([array, array]) if array.ndim else array[None],
    "one more dimension": lambda array: array[None],
    "turned over": lambda array: np.flip(array.T),
    "float32": lambda array: array.astype(np.float32),
    "int8": lambda array: array.astype(np.int8),
    "complex": lambda array: array.astype(np.complex128),
    "other byte order": lambda array: array.astype(array.dtype.newbyteorder(">")),
    "words": lambda array: array.astype(str),
    "dates": lambda array: array.astype(np.int64).astype("datetime64[s]"),
    "records": lambda array: np.zeros(array.shape, [("a", float)]),
    "not a number": lambda array: np.full_like(array, np.nan, float),
    "infinite": lambda array: np.full_like(array, np.inf, float),
    "minus infinite": lambda array: np.full_like(array, -np.inf, float),
    "enormous": lambda array: np.full_like(array, 1e308, float),
    "minus one": lambda array: np.full(array.shape, -1),
    "far away": lambda array: np.full(array.shape, 2**31 - 1),
    "the least there is": lambda array: np.full(array.shape, -(2**63)),
    "huge shape": lambda array: np.broadcast_to(array, (1, *array.shape)),
}


def header(text: str) -> bytes:
    """The beginning of a .npy file, whatever its description says."""
    return b"\x93NUMPY\x01\x00v\x00" + text.encode().ljust(117) + b"\n"


CONTENTS = {
    "nothing": b"",
    "garbage": b"\x93NUMPY\x01\x00\xff\xff",
    "a zip": b"PK\x03\x04" + bytes(100),
    "a pickle": b"\x80\x04.",
    "objects": header("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }") + b"\x80\x04N.",
    "more than there is": header("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"),
    "less than nothing": header("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }"),
    "code": header("__import__('os').system('touch pwned')"),
}


BODIES = (
    (b"{}", "application/json"),
    (b'{"age": 3, "genres": ["Pop"]}', "application/json"),
    (
        b'{"age": 31, "gender": "female", "country": "US", "genres": ["Rock", "Pop", "Jazz", "Blues"]}',
        "application/json",
    ),
    (b'{"instances": [{}, {"age": 40}]}', "application/json"),
    (b'{}\n{"genres": ["Pop"]}\n', "application/jsonlines"),
    (b"age,gender,country,genres\n31,,US,Rock|Pop\n9,,,\n", "text/csv"),
)


def outcome(folder: Path) -> str:
    """ "refused" by the probe in our words, or "answered" where a service then answers everything."""
    try:
        loaded = bundle.load(folder)
        served = ServedModel.of(loaded)
        probe(loaded, served)
    except InputError as problem:
        foreign = re.search(r"[a-z](Error|Exception)\b|codec can't", str(problem))
        return f"refused in words not ours: {problem}" if foreign else "refused"
    app = new_app()
    app.serve(served)
    for body, encoding in BODIES:
        assert ask(app, "POST", "/invocations", body, content_type=encoding).status == 200, body
    for path in ("/v1/recommendations", "/v1/explanations"):
        body = b'{"user_id": "u", "age": 31}' if "recommend" in path else b'{"age": 31}'
        assert ask(app, "POST", path, body, content_type="application/json").status == 200
    assert ask(app, "GET", "/openapi.json").status == 200
    return "answered"


NAMES = ("a b", "", "user_id", "instances", "age", "genres", "class", "__init__", "__class__", "__eq__", "a\0b", "\n")


@pytest.mark.parametrize("name", [*NAMES, "\u00e9"])
def test_a_further_field_of_any_name_is_refused_or_answered(tmp_path: Path, name: str) -> None:
    pack(tmp_path / "b")
    edit(tmp_path / "b", lambda manifest: manifest.update(extra={name: "text"}))
    for role in ("golden_rule", "golden_further"):
        edit(tmp_path / "b", lambda manifest, role=role: manifest.pop(role))  # type: ignore[misc]
    assert outcome(tmp_path / "b") == ("answered" if name == "\u00e9" else "refused")


KINDS = {"plain": "logistic", "trees": "forest", "network": "network", "cells": "age_gender"}


@pytest.fixture(scope="module")
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp(request.param) / "b"
    if request.param == "further":
        pack_with_further_fields(folder)
    else:
        pack(folder, KINDS[request.param], scorecard={"hits": [1, 2]})
    return folder


DOCUMENTS = [("plain", "manifest.json"), ("plain", "stations.json"), ("further", "manifest.json")]
ALL_VALUES = [pytest.param(*one, 1, marks=pytest.mark.soak) for one in [*DOCUMENTS, ("further", "stations.json")]]


@pytest.mark.parametrize(
    ("whole", "name", "step"), [*((*one, 9) for one in DOCUMENTS), *ALL_VALUES], indirect=["whole"]
)
def test_whatever_a_document_of_a_bundle_says_it_is_refused_or_answered(
    whole: Path, tmp_path: Path, name: str, step: int
) -> None:
    folder, outcomes = tmp_path / "b", []
    shutil.copytree(whole, folder)
    signed = (folder / "manifest.json").read_text()
    for what, text in hostile((folder / name).read_text(), step):
        (folder / "manifest.json").write_text(signed)
        (folder / name).write_text(text)
        if name != "manifest.json":
            sign(folder)
        try:
            outcomes.append(outcome(folder))
        except Exception as problem:
            raise AssertionError(f"{name}: {what}") from problem
    assert outcomes.count("refused") > 50
    assert set(outcomes) == {"refused", "answered"}
    assert "answered" in outcomes  # what does not matter is not looked at


ALL_ARRAYS = [pytest.param(kind, 1, marks=pytest.mark.soak) for kind in (*KINDS, "further")]


@pytest.mark.parametrize(
    ("whole", "step"), [*((kind, 3) for kind in (*KINDS, "further")), *ALL_ARRAYS], indirect=["whole"]
)
def test_whatever_an_array_of_a_bundle_holds_it_is_refused_or_answered(whole: Path, tmp_path: Path, step: int) -> None:
    """Each array with every `step`-th of the changes, in turn."""
    folder, refused = tmp_path / "b", 0
    shutil.copytree(whole, folder)
    for number, path in enumerate(sorted(folder.glob("*.npy"))):
        content, array = path.read_bytes(), np.load(path)
        for what, change in list(ARRAYS.items())[number % step :: step]:
            np.save(path, change(array))
            sign(folder)
            try:
                found = outcome(folder)
                assert found in ("refused", "answered"), found
                refused += found == "refused"
            except Exception as problem:
                raise AssertionError(f"{path.name}: {what}") from problem
        for what, other in list(CONTENTS.items())[number % step :: step]:
            path.write_bytes(other)
            sign(folder)
            assert outcome(folder) == "refused", f"{path.name}: {what}"
        path.write_bytes(content)
    assert refused * step > 100
