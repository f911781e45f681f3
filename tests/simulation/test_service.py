"""The service of a simulation is set by the simulation alone."""

from __future__ import annotations

import urllib.request
from datetime import UTC, datetime, time
from pathlib import Path

import pytest
from made_bundles import pack

from firstspin.service.process.clock import set_clock
from firstspin.simulation.run import Setting, simulated_plan
from firstspin.simulation.service import SimulationPaths, serving


def test_neither_a_settings_file_nor_a_variable_reaches_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack(tmp_path / "b")
    (tmp_path / "firstspin.toml").write_text("[service]\nworkers = 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FIRSTSPIN_LOG_LEVEL", "shout")
    paths, plan = SimulationPaths(tmp_path), simulated_plan(Setting(users=100, days=1))
    set_clock(paths.clock, datetime.combine(plan.starts_on, time(), UTC))
    with (
        serving(tmp_path / "b", plan, paths, 1) as port,
        urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=60) as answer,
    ):
        assert answer.status == 200
