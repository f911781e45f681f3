"""Without a C compiler at install, answers are the same through numpy, and the service logs it once."""

from __future__ import annotations

import shutil
from pathlib import Path

from compiled import where_it_compiles
from made_service import admin, serving

from firstspin.models.compiled import CompiledScorer

SOURCE = Path(__file__).parent.parent.parent / "src" / "firstspin"
WORDS = "no C code"
OPTIONS = ("--workers", "2", "--admin-port", "0")


@where_it_compiles(CompiledScorer)
def test_what_was_not_compiled_is_logged_once_and_in_metrics_and_state(folder: Path, tmp_path: Path) -> None:
    """Two installations, one of them without the C modules, as after an install where nothing compiles."""
    shutil.copytree(SOURCE, tmp_path / "firstspin", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    with serving(folder, *OPTIONS) as service:
        compiled = service.recommend(age=31, genres=["Rock"])
        assert WORDS not in service.log.read_text()
        assert b"firstspin_compiled 1.0" in service.ask("GET", "/metrics")[2]
    with serving(folder, *OPTIONS, through=("env", f"PYTHONPATH={tmp_path}")) as service:
        assert service.recommend(age=31, genres=["Rock"]) == compiled
        assert b"firstspin_compiled 0.0" in service.ask("GET", "/metrics")[2]
        assert admin(service, "GET", "/state")[1]["compiled"] is False
        (line,) = [line for line in service.lines() if line["event"].startswith(WORDS)]
        assert (line["level"], line["missing"]) == ("warning", ["_bitrows", "_ranking", "_moves"])
