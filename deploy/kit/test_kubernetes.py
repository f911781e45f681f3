"""The manifests of deploy/kubernetes: valid, consistent, and their command run as a process within their limits."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from made_bundles import pack

KUBERNETES = Path(__file__).parents[1] / "kubernetes"
VALIDATE = Path(__file__).parent / ".venv" / "bin" / "kubernetes-validate"
OVERLAYS = ("base", "overlays/production", "overlays/postgresql")
VERSIONS = ("1.32", "1.37")
pytestmark = pytest.mark.skipif(not shutil.which("kubectl"), reason="needs kubectl, which renders the manifests")


@cache
def rendered(overlay: str) -> str:
    command = ["kubectl", "kustomize", KUBERNETES / overlay]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def resources(overlay: str) -> dict[str, Any]:
    return {one["kind"]: one for one in yaml.safe_load_all(rendered(overlay))}


def container(overlay: str) -> Any:
    [only] = resources(overlay)["Deployment"]["spec"]["template"]["spec"]["containers"]
    return only


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_overlay_is_valid(overlay: str, tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(rendered(overlay))
    for version in VERSIONS:
        command = [VALIDATE, "--strict", "--no-warn", "-k", version, tmp_path / "all.yaml"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_pod_has_no_rights_and_writes_only_into_its_volumes(overlay: str) -> None:
    pod = resources(overlay)["Deployment"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 10001  # the Dockerfile's
    assert resources(overlay)["ServiceAccount"]["automountServiceAccountToken"] is False
    rights = container(overlay)["securityContext"]
    assert rights["readOnlyRootFilesystem"] is True
    assert rights["allowPrivilegeEscalation"] is False
    assert rights["capabilities"] == {"drop": ["ALL"]}
    writable = [mount["mountPath"] for mount in container(overlay)["volumeMounts"] if not mount.get("readOnly")]
    assert writable == ["/state", "/tmp"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_selectors_ports_and_volumes_fit_together(overlay: str) -> None:
    of = resources(overlay)
    template = of["Deployment"]["spec"]["template"]
    labels = template["metadata"]["labels"]
    for selector in (
        of["Deployment"]["spec"]["selector"]["matchLabels"],
        of["Service"]["spec"]["selector"],
        of["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        of["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        template["spec"]["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
    [port] = container(overlay)["ports"]
    assert of["Service"]["spec"]["ports"][0]["targetPort"] == port["name"]
    assert template["metadata"]["annotations"]["prometheus.io/port"] == str(port["containerPort"])
    mounted = {mount["name"] for mount in container(overlay)["volumeMounts"]}
    assert mounted == {volume["name"] for volume in template["spec"]["volumes"]}


def test_a_rollout_and_a_drained_node_always_leave_a_pod() -> None:
    deployment = resources("base")["Deployment"]["spec"]
    budget = resources("base")["PodDisruptionBudget"]["spec"]["maxUnavailable"]
    assert deployment["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert deployment["replicas"] > budget
    scaler = resources("overlays/production")["HorizontalPodAutoscaler"]["spec"]
    assert scaler["minReplicas"] > budget
    assert "replicas" not in resources("overlays/production")["Deployment"]["spec"], (
        "a new apply would undo the scaling"
    )


def test_the_pod_ends_after_its_last_answer() -> None:
    arguments = container("base")["args"]
    drain = float(arguments[arguments.index("--drain-delay") + 1])
    ready = container("base")["readinessProbe"]
    grace = resources("base")["Deployment"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert drain >= ready["periodSeconds"] * ready["failureThreshold"]
    assert grace >= drain + 30  # --body-seconds


def test_egress_is_closed_but_for_the_event_store() -> None:
    assert resources("base")["NetworkPolicy"]["spec"].get("egress", []) == []
    ports = [
        one["port"]
        for rule in resources("overlays/postgresql")["NetworkPolicy"]["spec"]["egress"]
        for one in rule["ports"]
    ]
    assert ports == [53, 53, 5432]


def status(port: int) -> int:
    with suppress(OSError):
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=2).status  # type: ignore[no-any-return]
        except urllib.error.HTTPError as error:
            return error.code
    return 0


def _covered() -> str:
    """A folder of the system that a test may mount over: neither this checkout nor the interpreter is below it."""
    needed = (Path(__file__), Path(sys.prefix), Path(sys.base_prefix))
    usable = (one for one in ("/mnt", "/media", "/srv") if Path(one).is_dir())
    return next(one for one in usable if not any(path.resolve().is_relative_to(one) for path in needed))


def test_the_pods_command_serves_with_a_read_only_root_and_no_rights(tmp_path: Path) -> None:
    """The arguments of the manifest, in a mount namespace of its own: read-only but for state and temporary files."""
    pack(tmp_path / "bundles" / "one")
    (tmp_path / "bundles" / "current").symlink_to("one")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    root = tmp_path / "root"
    root.mkdir()
    given = _covered()
    mounts = f"""
        set -e
        mount --make-rprivate /
        mount --rbind / {root}
        mount -t tmpfs tmpfs {root}{given}
        mkdir {root}{given}/bundles {root}{given}/state {root}{given}/tmp
        mount --bind {tmp_path}/bundles {root}{given}/bundles
        mount -t tmpfs tmpfs {root}{given}/state
        mount -t tmpfs tmpfs {root}{given}/tmp
        for each in / {given} {given}/bundles; do mount -o remount,ro,bind {root}$each; done
        exec chroot {root} setpriv --no-new-privs --bounding-set -all --inh-caps -all "$@"
    """
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("needs the right to make a mount namespace")
    arguments = [
        argument.replace("/bundles", f"{given}/bundles").replace("/state", f"{given}/state")
        for argument in container("base")["args"]
    ]
    serve = [sys.executable, "-m", "firstspin", "serve", "--host", "127.0.0.1", "--bundle", "/bundle", *arguments]
    command = ["unshare", "-m", "sh", "-c", mounts, "sh", *serve, "--port", str(port)]
    environment = {"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    environment["TMPDIR"] = f"{given}/tmp"  # not /tmp itself: the checkout may be there
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd="/")
    try:
        end = time.monotonic() + 60
        while status(port) != 200:
            assert time.monotonic() < end, (tmp_path / "log").read_text()
            assert process.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.2)
        asked = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations", b'{"age": 31}', {"content-type": "application/json"}
        )
        assert json.load(urllib.request.urlopen(asked, timeout=10))["source"] == "model"
        process.terminate()
        while status(port) == 200:
            assert time.monotonic() < end + 60
            time.sleep(0.1)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait(10)
