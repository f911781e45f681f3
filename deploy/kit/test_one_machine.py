"""compose and systemd: their files fit together, and the commands in them run as processes with the same settings."""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from made_bundles import pack
from made_service import Service, click, counted, send, until, wait_until_ready
from private_postgres import cluster, missing

DEPLOY = Path(__file__).parents[1]
COMPOSE = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
UNIT = (DEPLOY / "systemd" / "firstspin.service").read_text()
FIRSTSPIN = str(Path(sys.executable).with_name("firstspin"))
NO_WRITABLE_CODE = 65
"""PR_SET_MDWE, the kernel's own of what MemoryDenyWriteExecute forbids; since Linux 6.3."""


@contextmanager
def running(
    command: list[str], folder: Path, before: Callable[[], object] | None = None, **environment: str
) -> Iterator[Service]:
    """This command of `firstspin serve` on a free port, once it is ready; SIGTERM must end it with status 0."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "log"
    command = [*command, "--host", "127.0.0.1", "--port", str(port)]
    with log.open("w") as stderr:
        process = subprocess.Popen(
            command,
            stderr=stderr,
            stdout=stderr,
            text=True,
            cwd="/",
            preexec_fn=before,
            env=dict(os.environ) | environment,
        )
    try:
        service = Service(process, port, log, folder)
        wait_until_ready(service, 60)
        yield service
        process.terminate()
        assert process.wait(60) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def bundles(tmp_path: Path) -> Path:
    """The folder of bundles as deployments have it: a link to the one in service."""
    pack(tmp_path / "bundles" / "one")
    (tmp_path / "bundles" / "current").symlink_to("one")
    (tmp_path / "state").mkdir()
    return tmp_path / "bundles"


def mounts(service: str) -> dict[str, Any]:
    return {one["target"]: one for one in SERVICES[service]["volumes"]}


def test_what_compose_mounts_is_there_and_what_it_names_is_a_service_of_it() -> None:
    for service in SERVICES:
        for mount in SERVICES[service].get("volumes", ()):
            if mount["type"] == "volume":
                assert mount["source"] in COMPOSE["volumes"]
            elif not mount["source"].startswith("${"):
                assert (DEPLOY / "compose" / mount["source"]).exists(), mount
    scraped = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"][0]
    assert scraped["static_configs"][0]["targets"] == ["firstspin:8080"]
    source = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text())["datasources"][0]
    assert urlsplit(source["url"]).netloc == "prometheus:9090"
    assert {"firstspin", "prometheus"} <= set(SERVICES)
    assert "/etc/prometheus/prometheus.yml" in "".join(SERVICES["prometheus"]["command"])
    provider = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/firstspin.yml").read_text())["providers"][0]
    assert provider["options"]["path"] + "/firstspin.json" in mounts("grafana")


def test_compose_publishes_loopback_ports_alone_and_has_no_password() -> None:
    for service in SERVICES.values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
        for name, value in service.get("environment", {}).items():
            assert "PASSWORD" not in name or value.startswith("${"), name
    assert SERVICES["firstspin"]["read_only"] is True
    assert SERVICES["firstspin"]["cap_drop"] == ["ALL"]


@pytest.mark.skipif(bool(missing()), reason=missing() or "PostgreSQL is there")
def test_the_command_of_compose_stores_events_in_postgresql(bundles: Path) -> None:
    folder = bundles.parent
    (folder / "events.secret").write_text("0f" * 32)
    places = {
        "/bundles": str(bundles),
        "/state": str(folder / "state"),
        "/run/secrets/events": str(folder / "events.secret"),
    }
    arguments = [
        re.sub("|".join(places), lambda found: places[found[0]], one) for one in SERVICES["firstspin"]["command"]
    ]
    with (
        cluster() as server,
        running([FIRSTSPIN, "serve", *arguments], folder, FIRSTSPIN_EVENTS=server.url) as service,
    ):
        assert service.recommend(age=31)["source"] == "model"
        assert send(service, click("one")) == (202, ["stored"])
        until(lambda: counted(service, "firstspin_events_stored_total") == 1, 60)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_systemd_takes_the_unit_and_finds_it_closed(tmp_path: Path) -> None:
    unit = tmp_path / "firstspin.service"
    unit.write_text(UNIT.replace("/opt/firstspin/bin/firstspin", FIRSTSPIN))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--threshold=20", unit], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def no_writable_code() -> None:
    if ctypes.CDLL(None).prctl(NO_WRITABLE_CODE, 1, 0, 0, 0):
        raise OSError("this kernel cannot forbid memory that is writable and executable")


def test_the_command_of_the_unit_serves_without_writable_code_and_reloads(bundles: Path) -> None:
    folder = bundles.parent
    settings = folder / "firstspin.toml"
    settings.write_text("[service]\nworkers = 1\nleast-age = 16\n")
    [command] = re.findall(r"^ExecStart=(.+)$", UNIT, re.MULTILINE)
    places = {
        "/opt/firstspin/bin/firstspin": FIRSTSPIN,
        "/etc/firstspin/firstspin.toml": str(settings),
        "/var/lib/firstspin-bundles": str(bundles),
        "/var/lib/firstspin": str(folder / "state"),
    }
    command = re.sub("|".join(places), lambda found: places[found[0]], command)
    try:
        no_writable_code_here = subprocess.run(["true"], preexec_fn=no_writable_code).returncode == 0
    except subprocess.SubprocessError:
        no_writable_code_here = False  # an older kernel: all but that is tested
    with running(command.split(), folder, no_writable_code if no_writable_code_here else None) as service:
        assert service.recommend(age=31)["source"] == "model"
        assert service.recommend(age=15)["source"] == "under-age"  # the settings file
        first = service.recommend(age=31)["model"]
        pack(bundles / "two", seed=3)
        (bundles / "beside").symlink_to("two")
        (bundles / "beside").replace(bundles / "current")
        service.process.send_signal(signal.SIGHUP)  # ExecReload
        until(lambda: service.recommend(age=31)["model"] != first, 60)
    assert [json.loads(line)["event"] for line in service.log.read_text().splitlines() if '"stopping"' in line]
