"""Runs a notebook as Jupyter does, without Jupyter: the cells in order, and of each what it prints and shows.

`python tests/notebooks.py` writes the outputs into docs/study.ipynb; tests/test_docs.py compares them with a fresh run.
"""

from __future__ import annotations

import ast
import io
import json
import re
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pandas as pd

STUDY = Path(__file__).parent.parent / "docs" / "study.ipynb"


def run(notebook: dict[str, Any]) -> dict[str, Any]:
    """The same notebook with the outputs of a fresh run."""
    names: dict[str, Any] = {"__name__": "__main__"}
    with pd.option_context("display.max_columns", 20, "display.width", 100):  # whatever the terminal
        cells = [
            {**cell, "outputs": _outputs("".join(cell["source"]), names)} if cell["cell_type"] == "code" else cell
            for cell in notebook["cells"]
        ]
    return {**notebook, "cells": cells}


def texts(notebook: dict[str, Any]) -> list[list[str]]:
    """The text that each cell of code prints and shows, without the ids of bundles."""
    cells = [cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    shown = [["".join(one.get("text") or one["data"]["text/plain"]) for one in outputs] for outputs in cells]
    return [[re.sub(r"\bmodel [0-9a-f]{8}\b", "model …", text) for text in texts] for texts in shown]


def _outputs(source: str, names: dict[str, Any]) -> list[dict[str, Any]]:
    body = ast.parse(source).body
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    printed, outputs = io.StringIO(), []
    with redirect_stdout(printed):
        exec(compile(ast.Module(body, []), "cell", "exec"), names)
        shown = eval(compile(ast.Expression(last.value), "cell", "eval"), names) if last else None
    if text := printed.getvalue():
        outputs.append({"name": "stdout", "output_type": "stream", "text": _lines(text)})
    if shown is not None:
        data = {"text/plain": _lines(repr(shown))}
        if hasattr(shown, "_repr_html_"):
            data["text/html"] = _lines(shown._repr_html_())
        outputs.append({"data": data, "execution_count": None, "metadata": {}, "output_type": "execute_result"})
    return outputs


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


if __name__ == "__main__":
    STUDY.write_text(json.dumps(run(json.loads(STUDY.read_text())), indent=1, ensure_ascii=False) + "\n")
