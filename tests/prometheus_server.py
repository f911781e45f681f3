"""A real Prometheus with the rules of deploy/prometheus in fast motion."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError

import yaml

PROMETHEUS = Path(__file__).parents[1] / "deploy" / "prometheus"


@dataclass
class Server:
    """A running Prometheus."""

    port: int

    def query(self, promql: str) -> list[dict[str, Any]]:
        """The series of an instant query; none before Prometheus listens."""
        asked = urllib.parse.urlencode({"query": promql})
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1/query?{asked}", timeout=10) as reply:
                return json.load(reply)["data"]["result"]
        except (URLError, ConnectionError):
            return []

    def firing(self, job: str = "firstspin") -> set[str]:
        """The alerts about a job, and those about none."""
        firing = [one["metric"] for one in self.query('ALERTS{alertstate="firing"}')]
        return {one["alertname"] for one in firing if one.get("job", job) == job}


def in_seconds(rules: str) -> str:
    """The rules with seconds for minutes.

    One minute for 15, in which a worker can end three times; 15 seconds for the failures of a store, which is opened
    again every five; 10 for half an hour of silence.
    """
    rules = rules.replace("[15m]", "[1m]").replace("store_failures_total[5m]", "store_failures_total[15s]")
    rules = rules.replace("[30m]", "[10s]").replace("for: 30m", "for: 10s")
    return re.sub(r"\[([35]\d*)m\]|(?<=for: )(\d+)m", lambda found: found[0].replace("m", "s"), rules)


@contextmanager
def scraping(targets: Mapping[str, Sequence[int]], folder: Path) -> Iterator[Server]:
    """Prometheus on a free port, with deploy/prometheus's configuration in fast motion; the ports of each job."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    configuration = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    configuration["global"] |= {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"}
    (scraped,) = configuration["scrape_configs"]
    configuration["scrape_configs"] = [
        scraped | {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{port}" for port in ports]}]}
        for job, ports in targets.items()
    ]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    (folder / "rules.yml").write_text(in_seconds((PROMETHEUS / "rules.yml").read_text()))
    command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
        try:
            yield Server(port)
        finally:
            process.terminate()
            process.wait(20)
