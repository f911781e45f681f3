"""docs/http-api.md is run: every request is sent to a real service, and what comes back is what the page shows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_bundles import pack
from made_experiments import PLAN
from made_service import Service, serving

from firstspin.experiment.plan import freeze

PAGE = Path(__file__).parent.parent.parent.parent / "docs" / "http-api.md"
BLOCKS = re.findall(r"^```http\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
EXAMPLES = list(zip(BLOCKS[::2], BLOCKS[1::2], strict=True))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder: Path = tmp_path_factory.mktemp("documented")
    pack(folder / "b")
    experiment = folder / "experiment.toml"
    freeze(PLAN, experiment)
    events = f"sqlite:///{folder / 'events.sqlite'}"
    kept = ("--state", str(folder / "state"), "--events", events, "--experiment", str(experiment))
    with serving(folder / "b", "--drain-delay", "0", *kept) as running:
        yield running


@pytest.mark.parametrize(("sent", "shown"), EXAMPLES)
def test_every_example_is_answered_as_shown(service: Service, sent: str, shown: str) -> None:
    head, _, body = sent.partition("\n\n")
    (method, path), *headers = (line.split(" ", 1) for line in head.strip().split("\n"))
    told = {name.rstrip(":").replace("-", "_"): value for name, value in headers}
    status, said, answer = service.ask(method, path, body.rstrip("\n").encode(), **told)
    first, _, expected = shown.partition("\n\n")
    assert f"{status} {said['content-type']}" == first.strip()
    pattern = ".*".join(map(re.escape, expected.rstrip("\n").split("…")))
    assert re.fullmatch(pattern, answer.decode().rstrip("\n"), re.DOTALL), answer


def test_every_path_of_the_page_is_described_for_programs(service: Service) -> None:
    described = service.ask("GET", "/openapi.json")[2].decode()
    listed = re.findall(r"^\| `(?:GET|POST) (/\S*)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(listed) == 14
    assert all(f'"{path}":' in described for path in listed)
