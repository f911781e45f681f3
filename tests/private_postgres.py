"""A PostgreSQL cluster of the tests' own: no port, a socket in its own folder, gone at the end."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cluster:
    """A running server; `url` is where its superuser finds the database postgres."""

    folder: Path
    url: str
    tools: Path
    as_user: tuple[str, ...]

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def control(self, *action: str) -> None:
        """pg_ctl: start, or stop in some mode."""
        options = f"-k {self.folder} -c listen_addresses='' -c unix_socket_permissions=0777"
        command = [str(self.tools / "pg_ctl"), "-D", str(self.data), "-l", str(self.folder / "log"), "-w", *action]
        subprocess.run([*self.as_user, *command, "-o", options], check=True, stdout=subprocess.DEVNULL)

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """While this lasts, all its processes are stopped: connections stay, and nothing answers."""
        server = int((self.data / "postmaster.pid").read_text().split()[0])
        os.kill(server, signal.SIGSTOP)  # first, so that it starts no other
        told = subprocess.run(["ps", "-o", "pid=", "--ppid", str(server)], capture_output=True, text=True, check=True)
        stopped = [server, *map(int, told.stdout.split())]
        for pid in stopped[1:]:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in stopped:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)


def missing() -> str:
    """Why no cluster can be started here; empty where one can."""
    if _tools() is None:
        return "PostgreSQL's initdb is not installed"
    if os.getuid() == 0 and _account() is None:
        return "initdb refuses root, and there is no account 'postgres'"
    return ""


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A fresh cluster, started."""
    tools = _tools()
    assert tools is not None
    with tempfile.TemporaryDirectory(prefix="firstspin-pg-") as name:  # not tmp_path: a socket's path must be short
        folder = Path(name)
        as_user: tuple[str, ...] = ()
        if os.getuid() == 0:
            as_user = ("runuser", "-u", "postgres", "--")
            shutil.chown(folder, "postgres")
        server = Cluster(folder, f"postgresql://postgres@/postgres?host={folder}", tools, as_user)
        init = [str(tools / "initdb"), "-D", str(server.data), "-A", "trust", "-U", "postgres", "-E", "UTF8", "-N"]
        subprocess.run([*as_user, *init], check=True, stdout=subprocess.DEVNULL)
        server.control("start")
        try:
            yield server
        finally:
            server.control("stop", "-m", "immediate")


def _tools() -> Path | None:
    found = shutil.which("initdb")
    places = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((place for place in places if (place / "initdb").exists()), None)


def _account() -> str | None:
    return next((account.pw_name for account in pwd.getpwall() if account.pw_name == "postgres"), None)
