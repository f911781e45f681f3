from __future__ import annotations

import resource
from pathlib import Path

from made_bundles import pack

from firstspin.service.bundles.facts import bundle_facts


def test_a_manifest_that_could_not_be_opened_for_a_moment_is_read_again(tmp_path: Path) -> None:
    pack(tmp_path / "b", data={"labels_end": "2025-03-01T00:00:00Z"})
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        assert bundle_facts(tmp_path / "b") is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    facts = bundle_facts(tmp_path / "b")
    assert facts
    assert facts.labels_end == "2025-03-01T00:00:00Z"
