"""The sanitized build reports a wrong access or an overflow of a C function, and ends the process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz import runs, sanitized

pytestmark = pytest.mark.skipif(bool(sanitized.missing()), reason=f"no sanitizers: {sanitized.missing()}")

WRONG = """
#include <Python.h>
#include <string.h>

static PyObject *past_the_end(PyObject *self, PyObject *n)
{
    char *block = PyMem_Malloc(8);
    (void)self;
    memset(block, 0, PyLong_AsSsize_t(n));
    PyMem_Free(block);
    Py_RETURN_NONE;
}

static PyObject *one_more(PyObject *self, PyObject *n)
{
    int number = (int)PyLong_AsLong(n);
    (void)self;
    return PyLong_FromLong(number + 1);
}

static PyMethodDef methods[] = {
    {"past_the_end", past_the_end, METH_O, NULL}, {"one_more", one_more, METH_O, NULL}, {NULL, NULL, 0, NULL}};
static PyModuleDef module = {PyModuleDef_HEAD_INIT, .m_name = "wrong", .m_methods = methods};

PyMODINIT_FUNC PyInit_wrong(void)
{
    return PyModuleDef_Init(&module);
}
"""


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wrong")
    (folder / "wrong.c").write_text(WRONG)
    sanitized.compile_all([folder / "wrong.c"], folder)
    return folder


@pytest.mark.parametrize(
    ("call", "report"),
    [
        ("past_the_end(9)", "heap-buffer-overflow"),
        ("one_more(2**31 - 1)", "runtime error: signed integer overflow"),
    ],
)
def test_a_wrong_function_in_c_is_reported(wrong: Path, call: str, report: str) -> None:
    code = f"import wrong; wrong.past_the_end(8); wrong.one_more(1); print('so far'); wrong.{call}; print('on')"
    environment = os.environ | sanitized.environment(wrong) | {"PYTHONPATH": str(wrong)}
    done = subprocess.run([sys.executable, "-u", "-c", code], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout.split("\n")[0]) == (66, "so far"), done.stderr
    assert "on" not in done.stdout.splitlines()
    assert report in done.stderr


def test_an_index_past_the_end_of_our_own_code_is_found_by_the_fuzzed_inputs(tmp_path: Path) -> None:
    source = (sanitized.SOURCES / "models/_ranking.c").read_text()
    assert source.count("k > FEW ? PyMem_Malloc") == 2
    (tmp_path / "_ranking.c").write_text(source.replace("k > FEW ? PyMem_Malloc", "k > FEW + 1 ? PyMem_Malloc"))
    sanitized.compile_all([tmp_path / "_ranking.c"], tmp_path)
    found = runs.run(["ranking"], range(100), seed=0, environment=sanitized.environment(tmp_path), most_ends=1)
    assert ["stack-buffer-overflow" in failure.said for failure in found.failures] == [True]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    sanitized.build(folder)
    return folder


def test_a_worker_loads_the_sanitized_build_of_every_extension(built: Path) -> None:
    modules = [
        ".".join(("firstspin", *source.relative_to(sanitized.SOURCES).with_suffix("").parts))
        for source in sanitized.SOURCES.rglob("*.c")
    ]
    code = f"""
from importlib import import_module
from fuzz import sanitized
sanitized.take_extensions()
print(*(import_module(name).__file__ for name in {modules}))
"""
    environment = os.environ | sanitized.environment(built) | {"PYTHONPATH": str(runs.TESTS)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert {Path(file).parent for file in done.stdout.split()} == {built}


def test_fuzzed_tables_scores_and_listens_break_nothing_in_c(built: Path) -> None:
    entries = ["scorer", "ranking", "windows"]
    found = runs.run(entries, range(60), seed=0, environment=sanitized.environment(built))
    assert not found.failures, found.failures[0]
    assert {*found.outcomes["windows"]} == {"whole", "taken", "refused"}


def test_a_text_read_past_its_end_is_found_by_the_fuzzed_inputs(tmp_path: Path) -> None:
    source = (sanitized.SOURCES / "data/labels/_windows.c").read_text()
    assert source.count("id->n + before < SHORT") == 1
    (tmp_path / "_windows.c").write_text(source.replace("id->n + before < SHORT", "id->n + before + 1 < SHORT"))
    sanitized.compile_all([tmp_path / "_windows.c"], tmp_path)
    found = runs.run(["windows"], range(200), seed=0, environment=sanitized.environment(tmp_path), most_ends=1)
    assert ["heap-buffer-overflow" in failure.said for failure in found.failures] == [True]
