"""Further fields have names that requests, labels and databases can hold; commands check them before reading."""

from __future__ import annotations

import json
from pathlib import Path

import made_tables
import pyarrow.parquet as pq
import pytest
from command_line import failed
from made_bundles import pack

from firstspin.data.dataset import Reading
from firstspin.data.formats.written_values import Spelling
from firstspin.data.further_fields import check_names, with_further_fields
from firstspin.data.ingest import open_tables
from firstspin.data.labels.labelling import label_tables
from firstspin.data.registrations.reading import read_people
from firstspin.records import InputError, LabelRule
from firstspin.serving import bundle
from firstspin.serving.bodies.encodings import Encoding
from firstspin.serving.bodies.wire import BodyReader

TAKEN = {
    "age": "this column is always used",
    "Age": "this column is always used",
    "user_id": "this column is always used",
    "registered_at": "this column is always used",
    "instances": "requests use this name",
    "listens": "requests use this name",
    "INSTANCES": "requests use this name",
    "top_genre": "the labels have a column of this name",
    "seconds": "the labels have a column of this name",
    "played": "the labels have a column of this name",
    "Played": "the labels have a column of this name",
}
NO_FIELDS = (
    "device-type",
    "a b",
    "",
    "7up",
    "a.b",
    'a"b',
    "a;b",
    "a\nb",
    "a\0b",
    "__slots__",
    "__class__",
    "_hidden",
    "\ufb01eld",
    "x" * 10_000,
    "class",
    "None",
    "lambda",
)
FIELDS = (
    "device",
    "Device",
    "row",
    "broken",
    "dropped",
    "bad",
    "received",
    "größe",
    "性别",
    "row_right",
    "model",
    "self",
)


@pytest.mark.parametrize("name", TAKEN)
def test_a_name_that_is_taken_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"^further column {name}: {TAKEN[name]}"):
        check_names([name])


@pytest.mark.parametrize("name", NO_FIELDS)
def test_what_no_request_can_name_is_refused_in_one_short_line(name: str) -> None:
    with pytest.raises(InputError, match="rename the column") as refused:
        check_names(["device", name])
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize("name", FIELDS)
def test_any_other_name_is_a_field_of_requests(name: str) -> None:
    assert getattr(with_further_fields([name])(**{name: "x"}), name) == "x"  # type: ignore[arg-type]
    body = json.dumps({name: "x", "age": 31}).encode()
    (asked,) = BodyReader({name: "text"}).read(body, Encoding.json).registrations
    assert getattr(asked, name) == "x"


def test_a_name_given_twice_is_refused() -> None:
    for names in (["device", "device"], ["device", "Device"]):
        with pytest.raises(InputError, match="named twice"):
            check_names(names)


@pytest.mark.parametrize("name", ["device-type", "instances", "top_genre", 'market" AS zz; --'])
def test_every_command_refuses_the_name_before_it_reads_a_table(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        Reading(extra=(name,))
    nothing = tmp_path / "nothing"
    label = ("label", "--data", nothing, "--out", tmp_path / "labels.parquet")
    assert failed(*label, "--extra", name) == str(refused.value)
    assert failed("train", "--data", nothing, "--out", tmp_path / "b", "--extra", name) == str(refused.value)
    assert failed("evaluate", "--data", nothing, "--extra", name) == str(refused.value)


@pytest.mark.parametrize("extra", [{"user_id": "text"}, {"instances": "text"}, {"a b": "text"}])
def test_a_bundle_that_asks_such_a_field_is_refused_with_the_reason(extra: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "b"
    pack(folder)
    manifest = json.loads((folder / "manifest.json").read_text()) | {"extra": extra}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=rf"b: further column {next(iter(extra))}: "):
        bundle.load(folder)
    registrations = tmp_path / "nothing.csv"
    said = failed("score", "--bundle", folder, "--registrations", registrations, "--out", tmp_path / "o.csv")
    assert "further column" in said


def test_columns_may_have_the_names_that_statements_use(tmp_path: Path) -> None:
    """A name is ambiguous where a statement joins tables and says it without its table."""
    names = ("started_at", "station_id", "split", "joined", "n", "labelled", "r", "l", "p")
    people = [("a", "2025-01-01T00:00:00Z", "", "", "", "folk, world", *names)]
    listens = [("a", "2025-02-05T00:00:00Z", "1", 900), ("b", "2025-06-01T00:00:00Z", "1", 1)]
    made_tables.tables(tmp_path / "data", people, listens, [("1", "One", "Folk, World")])
    made_tables.write(tmp_path / "data", "registrations", (*made_tables.REGISTRATIONS, *names), people)
    tables = open_tables(tmp_path / "data", workspace=tmp_path, extra=names, spelling=Spelling(pick_separator=","))
    label_tables(tables, LabelRule(), tmp_path / "out.parquet")
    (row,) = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row[name] for name in names] == list(names)
    assert (row["genres"], row["top_genre"]) == (["Folk, World"], "Folk, World")
    ((users, (answers,)),) = read_people(tables.connection, names, listens=True)
    assert (users, answers.genres, len(answers.listens)) == (["a"], ("Folk, World",), 1)  # type: ignore[attr-defined]
