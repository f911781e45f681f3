"""A busy service stores exposures in batches: none is lost or doubled when it is stopped or killed."""

from __future__ import annotations

import json
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from made_events import SECRET
from made_experiments import PLAN
from made_service import QUICK, counted, kill_group, serving, until

from firstspin.events.export import export
from firstspin.events.store import open_database
from firstspin.experiment.plan import experiment_key, freeze

REQUESTS, USERS = 6, 500


@pytest.mark.parametrize("ends", [signal.SIGTERM, signal.SIGKILL])
def test_every_exposure_of_a_busy_service_is_exported_once(folder: Path, tmp_path: Path, ends: signal.Signals) -> None:
    plan, secret, url = tmp_path / "plan.toml", tmp_path / "secret", f"sqlite:///{tmp_path / 'events.sqlite'}"
    freeze(PLAN, plan)
    secret.write_text(bytes(range(32)).hex())
    store = ("--events", url, "--events-secret", str(secret), "--experiment", str(plan))
    with serving(folder, "--workers", "2", *store, *QUICK) as service:
        for number in range(REQUESTS):
            asked = [{"user_id": f"{number} {i}", "age": 31} for i in range(USERS)]
            body = json.dumps({"instances": asked}).encode()
            status, _, answer = service.ask("POST", "/v1/recommendations", body)
            assert (status, len(json.loads(answer)["predictions"])) == (200, USERS)
        if ends is signal.SIGKILL:  # one that waits is lost: at most those of the last 0.2 s
            until(lambda: counted(service, "firstspin_exposures_stored_total") == REQUESTS * USERS)
            kill_group(service.process.pid)
        service.process.send_signal(ends)
        service.process.wait(30)
    with closing(sqlite3.connect(tmp_path / "events.sqlite")) as connection:
        assert connection.execute("SELECT COUNT(*) FROM exposure_batches").fetchone()[0] > 0
    with closing(open_database(url, SECRET)) as database:
        assert export(database, tmp_path / "out", experiment_key(PLAN)).exposures == REQUESTS * USERS
    users = pq.read_table(tmp_path / "out" / "exposures.parquet")["user_key"].to_pylist()
    assert len(set(users)) == REQUESTS * USERS
