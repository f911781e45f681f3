"""The dashboard in deploy/grafana is the one that its code makes, and Grafana finds it where compose mounts it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

GRAFANA = Path(__file__).parents[1] / "grafana"
PYTHON = Path(__file__).parent / ".venv" / "bin" / "python"


def test_the_dashboard_is_what_its_code_makes() -> None:
    made = subprocess.run([PYTHON, GRAFANA / "dashboard.py"], check=True, capture_output=True, text=True).stdout
    assert made == (GRAFANA / "firstspin.json").read_text(), "run python deploy/grafana/dashboard.py > firstspin.json"


def test_every_panel_and_every_query_of_a_panel_has_an_id_of_its_own() -> None:
    panels = json.loads((GRAFANA / "firstspin.json").read_text())["panels"]
    ids = [panel["id"] for panel in panels]
    assert len(set(ids)) == len(ids)
    for panel in panels:
        letters = [target["refId"] for target in panel.get("targets", [])]
        assert letters == list("ABC"[: len(letters)]), panel["title"]
