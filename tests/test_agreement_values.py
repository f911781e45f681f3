"""Every value has one verdict, whichever way it comes: the same parsed value, or a refusal.

The ways: tables in CSV and Parquet (`score`, `label`), HTTP in JSON, JSON Lines and CSV, /v1, events, the Lambda,
`firstspin recommend`, and the Python API. Each spelling is sent through every way that takes it.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import made_tables
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import firstspin
from hypothesis import given, settings
from hypothesis import strategies as st
from library import Recommender
from made_bundles import EXTRA, pack_with_further_fields
from msgspec.structs import asdict
from spellings import AGES, NUMBERS, REFUSED, TIMES
from test_agreement_doors import Doors, doors, told_in_figures
from typer.testing import CliRunner

from firstspin import api
from firstspin.cli.main import app
from firstspin.data.further_fields import with_further_fields
from firstspin.data.ingest import open_tables, read_registrations
from firstspin.data.registrations.reading import read_people
from firstspin.events.schema import EPOCH, Secret, read_batch
from firstspin.files import workspace
from firstspin.records import InputError
from firstspin.serving import bundle
from firstspin.serving.bodies.encodings import Encoding
from firstspin.serving.bodies.wire import BodyReader
from firstspin.serving.refusal import Refusal
from firstspin.tools.sagemaker_check.payloads import Payload

Registered = with_further_fields(tuple(EXTRA), EXTRA)
FIELDS = ("age", "gender", "country", "genres", "device", "visits")
TABLE = ("user_id", "registered_at", *FIELDS)

WORDS: dict[str, object] = {
    "female": "female",
    " Female\t": "Female",
    "FEMALE": "FEMALE",
    "Côte d'Ivoire": "Côte d'Ivoire",
    "31": "31",
    'one "quoted", cell': 'one "quoted", cell',
    "": None,
    " ": None,
    "\u00a0\u3000": None,
    "NA": "NA",
    "NULL": "NULL",
    "null": "null",
    "NaN": "NaN",
    "x" * 200: "x" * 200,
    f" {'x' * 200} ": "x" * 200,
    "x" * 201: REFUSED,
}
PICKS: dict[str, object] = {
    "Rock": ("Rock",),
    "Rock|Jazz": ("Rock", "Jazz"),
    " Rock | Jazz ": ("Rock", "Jazz"),
    "Rock||Jazz|": ("Rock", "Jazz"),
    "ROCK|rock": ("ROCK", "rock"),
    "Rock,Jazz": ("Rock,Jazz",),
    '["Rock"]': ('["Rock"]',),
    "Hip\u00a0 Hop": ("Hip\u00a0 Hop",),
    "": (),
    "|": (),
    " | \u00a0|": (),
    "|".join(["Rock"] * 100): ("Rock",) * 100,  # known ones: most picks of a table must be
    "|".join(["Rock"] * 101): REFUSED,
    "x" * 200: ("x" * 200,),
    "x" * 201: REFUSED,
}
CELLS: list[tuple[str, str, object]] = [
    (field, text, value)
    for field, corpus in zip(FIELDS, (AGES, WORDS, WORDS, PICKS, WORDS, NUMBERS), strict=True)
    for text, value in corpus.items()
]

TYPED: dict[str, dict[str, object]] = {
    "age": {
        **{"31": 31, "31.0": 31, "3.1e1": 31, "0": 0, "-0.0": 0, "120": 120, "null": None},
        **dict.fromkeys(('"31"', '""', "30.5", "121", "-1", "1e400", "true", "[31]", "{}", "9" * 30), REFUSED),
    },
    "gender": {
        **{'"female"': "female", '" Female "': "Female", '""': None, '" "': None, "null": None, '"NA"': "NA"},
        **dict.fromkeys(("1", "true", '["female"]', json.dumps("x" * 201)), REFUSED),
    },
    "country": {'"US"': "US", '"us\\n"': "us", "null": None, "1": REFUSED},
    "genres": {
        **{'["Rock", " Jazz "]': ("Rock", "Jazz"), '["", " ", null, "Rock|Jazz"]': ("Rock|Jazz",)},
        **{"[]": (), "null": (), json.dumps(["g"] * 100): ("g",) * 100},
        **dict.fromkeys(('"Rock"', "[1]", '[["Rock"]]', "{}", "true", json.dumps(["g"] * 101)), REFUSED),
    },
    "device": {'"phone"': "phone", '" phone"': "phone", '""': None, "null": None, "5": REFUSED, "true": REFUSED},
    "visits": {
        **{"5": 5.0, "5.0": 5.0, "-1e3": -1000.0, "null": None},
        **dict.fromkeys(('"5"', '"NaN"', "true", "1e400", "[5]"), REFUSED),
    },
}

Figures = tuple[list[str], list[str]]
"""Genres and probabilities as `score` writes them."""


@pytest.fixture(scope="module")
def open_doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    folder = tmp_path_factory.mktemp("values")
    pack_with_further_fields(folder / "b")
    with pytest.MonkeyPatch.context() as patch, doors(folder / "b", folder, patch) as opened:
        yield opened


@pytest.fixture(scope="module")
def answer(open_doors: Doors) -> Callable[[str, object], bytes]:
    """What the library answers to one field of this value, as JSON."""
    recommender = Recommender(bundle.load(open_doors.bundle))
    return lambda field, value: msgspec.json.encode(recommender.recommend(Registered(**{field: value})))  # type: ignore[arg-type]


def row(number: int, field: str, value: object) -> list[object]:
    return [f"{number:04}", "2026-01-01T00:00:00Z", *(value if name == field else "" for name in FIELDS)]


def written(rows: list[list[object]], header: tuple[str, ...] = ()) -> str:
    out = io.StringIO()
    csv.writer(out).writerows([header, *rows] if header else rows)
    return out.getvalue()


def scored(packed: Path, registrations: Path) -> dict[int, Figures]:
    out = registrations.with_suffix(".out.csv")
    words = ["score", "--bundle", packed, "--registrations", registrations, "--skip-bad-rows", "--out", out]
    done = firstspin(*words)
    assert done.returncode == 0, done.stderr
    with out.open(encoding="utf-8", newline="") as file:
        return {
            int(r["user_id"]): (r["genres"].split("|"), r["probabilities"].split("|")) for r in csv.DictReader(file)
        }


def test_a_cell_has_one_verdict_in_tables_and_over_http(
    open_doors: Doors, answer: Callable[[str, object], bytes], tmp_path: Path
) -> None:
    rows = [row(number, field, text) for number, (field, text, _) in enumerate(CELLS)]
    expected: dict[int, Figures] = {
        number: told_in_figures(answer(field, value))
        for number, (field, _, value) in enumerate(CELLS)
        if value is not REFUSED
    }
    (tmp_path / "table.csv").write_text(written(rows, TABLE), encoding="utf-8")
    assert scored(open_doors.bundle, tmp_path / "table.csv") == expected
    columns = {name: pa.array([cells[i] for cells in rows], pa.string()) for i, name in enumerate(TABLE)}
    pq.write_table(pa.table(columns), tmp_path / "table.parquet")
    assert scored(open_doors.bundle, tmp_path / "table.parquet") == expected

    for number, cells in enumerate(rows):
        for body in (written([cells], TABLE), written([cells]), written([cells[2:]], FIELDS), written([cells[2:]])):
            posted = open_doors.invoke(body.encode(), Encoding.csv)
            assert (posted.status == 200) == (number in expected), (CELLS[number], posted.body)
            assert posted.status in (200, 422)
            assert open_doors.through_lambda(body.encode(), Encoding.csv) == (posted.status, posted.body)
            if posted.status == 200:
                assert figures(posted.body) == [expected[number]], CELLS[number]

    good = [cells for number, cells in enumerate(rows) if number in expected]
    whole = open_doors.invoke(written(good, TABLE).encode(), Encoding.csv)
    assert figures(whole.body) == list(expected.values())
    parts = [written(good[:50], TABLE), written(good[50:])]  # as batch transform splits a file by line
    assert (
        b"".join(open_doors.in_batch.invoke(Payload(Encoding.csv.value, part.encode())).body for part in parts)
        == whole.body
    )


def figures(body: bytes) -> list[Figures]:
    cells = csv.reader(io.StringIO(body.decode(), newline=""))
    return [(genres.split("|"), probabilities.split("|")) for genres, probabilities in cells]


@pytest.mark.parametrize("field", TYPED)
def test_a_typed_value_has_one_verdict_in_every_encoding(
    open_doors: Doors, answer: Callable[[str, object], bytes], field: str
) -> None:
    for literal, value in TYPED[field].items():
        one, user = (f'{{{start}"{field}":{literal}}}'.encode() for start in ("", '"user_id":"u",'))
        several, lines = b'{"instances":[' + one + b"]}", Encoding.lines
        replies = [
            by_invoking(open_doors, one),
            by_invoking(open_doors, several),
            by_invoking(open_doors, one, lines),
            open_doors.through_lambda(one),
            open_doors.through_lambda(several),
            open_doors.through_lambda(one, lines),
            posted(open_doors, "/v1/recommendations", user),
            posted(open_doors, "/v1/recommendations", b'{"instances":[' + user + b"]}"),
        ]
        explained, _ = posted(open_doors, "/v1/explanations", one)
        if value is REFUSED:
            assert [status for status, _ in replies] == [422] * len(replies), literal
            assert explained == 422
        else:
            expected = answer(field, value)
            assert [(status, bare(body)) for status, body in replies] == [(200, expected)] * len(replies), literal
            assert explained == 200


def by_invoking(open_doors: Doors, body: bytes, encoding: Encoding = Encoding.json) -> tuple[int, bytes]:
    reply = open_doors.invoke(body, encoding)
    return reply.status, reply.body


def posted(open_doors: Doors, path: str, body: bytes) -> tuple[int, bytes]:
    reply = open_doors.client.post(path, Payload(Encoding.json.value, body))
    return reply.status, reply.body


def bare(body: bytes) -> bytes:
    """One answer out of a list of one, or a line."""
    several = b'{"predictions":['
    return body.removeprefix(several).removesuffix(b"]}") if body.startswith(several) else body.removesuffix(b"\n")


# ------------------------------------------------------------------------------------------------------ parsed values


def test_tables_and_requests_parse_a_cell_to_the_same_value(tmp_path: Path) -> None:
    rows = [row(number, field, text) for number, (field, text, _) in enumerate(CELLS)]
    expected = {
        f"{number:04}": asdict(Registered(**{field: value}))  # type: ignore[arg-type]
        for number, (field, _, value) in enumerate(CELLS)
        if value is not REFUSED
    }
    (tmp_path / "table.csv").write_text(written(rows, TABLE), encoding="utf-8")
    assert people(tmp_path / "table.csv") == expected
    columns = {name: pa.array([cells[i] for cells in rows], pa.string()) for i, name in enumerate(TABLE)}
    pq.write_table(pa.table(columns), tmp_path / "table.parquet")
    assert people(tmp_path / "table.parquet") == expected
    reader = BodyReader(EXTRA)
    for number, cells in enumerate(rows):
        try:
            (asked,) = reader.read(written([cells], TABLE).encode(), Encoding.csv).registrations
        except Refusal:
            assert f"{number:04}" not in expected, CELLS[number]
        else:
            assert asdict(asked) == expected[f"{number:04}"], CELLS[number]


def test_columns_of_numbers_and_lists_hold_the_values_that_json_has(tmp_path: Path) -> None:
    ages = [31.0, math.nan, None, 30.5, 121.0, -1.0, math.inf, 0.0]
    picks = [["Rock", " Jazz "], [], None, ["", None, "Rock|Jazz"], ["x" * 201], ["g"] * 101, ["Rock"], ["ROCK"]]
    visits = [5.0, math.nan, None, 1e3, 0.0, 0.0, 0.0, -math.inf]
    users = [str(number) for number in range(len(ages))]
    told = {
        "user_id": users,
        "registered_at": pa.array([datetime(2026, 1, 1, tzinfo=UTC)] * len(ages), pa.timestamp("ns", "UTC")),
        "age": pa.array(ages, pa.float64()),
        "gender": pa.array([" Female "] * len(ages)).dictionary_encode(),
        "country": pa.nulls(len(ages), pa.string()),
        "genres": pa.array(picks, pa.list_(pa.string())),
        "device": pa.array(["phone"] * len(ages), pa.large_string()),
        "visits": pa.array(visits, pa.float64()),
    }
    pq.write_table(pa.table(told), tmp_path / "t.parquet")
    reader, expected = BodyReader(EXTRA), {}
    for user, age, genres, number in zip(users, ages, picks, visits, strict=True):
        typed = {"age": gap(age), "gender": " Female ", "genres": genres, "device": "phone", "visits": gap(number)}
        body = json.dumps(typed).replace("Infinity", "1e999").encode()  # what JSON has for it
        with suppress(Refusal):
            expected[user] = asdict(reader.read(body, Encoding.lines).registrations[0])
    assert list(expected) == ["0", "1", "2"]
    assert people(tmp_path / "t.parquet") == expected


def gap(number: float | None) -> float | None:
    return None if number is None or math.isnan(number) else number


def people(registrations: Path) -> dict[str, dict[str, object]]:
    """What `score` makes of a file, bad rows left out."""
    with workspace("people") as folder:
        received = read_registrations(registrations, workspace=folder, extra=EXTRA, skip_bad_rows=True)
        pairs = [pair for part in read_people(received.connection, tuple(EXTRA)) for pair in zip(*part, strict=True)]
        return {user: asdict(told) for user, told in pairs}


@pytest.fixture(scope="module")
def in_python(open_doors: Doors) -> api.Recommender:
    return api.Recommender(open_doors.bundle)


@pytest.mark.filterwarnings("ignore:.* is not a genre of this bundle")
@pytest.mark.filterwarnings("ignore:.* is no value that the model knows")
@pytest.mark.parametrize(("field", "text", "value"), CELLS)
def test_recommend_takes_its_answers_as_cells(
    open_doors: Doors,
    answer: Callable[[str, object], bytes],
    in_python: api.Recommender,
    field: str,
    text: str,
    value: object,
) -> None:
    value = ("Rock", "Jazz") if text == "Rock,Jazz" else value  # people may separate picks by commas, tables may not
    option = f"--answer={field}={text}" if field in EXTRA else f"--{field}={text}"
    result = CliRunner().invoke(app, ["recommend", "--bundle", str(open_doors.bundle), option, "--json"])
    if value is REFUSED:
        assert isinstance(result.exception, InputError)
        with pytest.raises(InputError):
            in_python.recommend({field: text})
    else:
        assert result.stdout.encode() == answer(field, value) + b"\n"
        assert msgspec.json.encode(in_python.recommend({field: text})) == answer(field, value)


def test_a_time_has_one_verdict_in_tables_and_events(tmp_path: Path) -> None:
    stations = [(str(number), "FM", "Rock") for number in range(len(TIMES))]
    registered = [(str(number), at, "", "", "", "") for number, at in enumerate(TIMES)]
    everybody = [(str(number), "2026-01-01T00:00Z", "", "", "", "") for number in range(len(TIMES))]
    heard = [(str(number), at, str(number), 900) for number, at in enumerate(TIMES)]
    expected = {str(number): at for number, at in enumerate(TIMES.values()) if at is not REFUSED}

    made_tables.tables(tmp_path / "listens", everybody, heard, stations)
    assert times(tmp_path / "listens", "started_at", "listens") == expected
    made_tables.tables(tmp_path / "registrations", registered, [("1", "2026-03-01T00:00Z", "1", 9)], stations)
    assert times(tmp_path / "registrations", "registered_at", "registrations") == expected
    as_parquet(tmp_path / "listens")
    assert times(tmp_path / "listens", "started_at", "listens") == expected
    as_parquet(tmp_path / "registrations")
    assert times(tmp_path / "registrations", "registered_at", "registrations") == expected

    events = [
        {"event_id": str(number), "type": "click", "user_id": "u", "station_id": "1", "at": at}
        for number, at in enumerate(TIMES)
    ]
    batch = read_batch(json.dumps({"events": events}).encode(), Secret(bytes(32)), received_at=datetime.now(UTC))
    stored = [item for item in batch.items if isinstance(item, str)]
    assert {
        item: EPOCH + timedelta(microseconds=event.at) for item, event in zip(stored, batch.events, strict=True)
    } == expected


def times(data: Path, column: str, table: str) -> dict[str, datetime]:
    """The times of a table as its reader understands them, bad rows left out."""
    with workspace("times") as folder:
        read = open_tables(data, workspace=folder, skip_bad_rows=True)
        rows = read.connection.sql(f"SELECT user_id, {column} FROM {table}").fetchall()
    return {user: at.replace(tzinfo=UTC) for user, at in rows}


def as_parquet(data: Path) -> None:
    """The same tables as Parquet, all columns of text."""
    for path in list(data.glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        columns = {name: pa.array([cells[i] for cells in rows], pa.string()) for i, name in enumerate(header)}
        pq.write_table(pa.table(columns), path.with_suffix(".parquet"))
        path.unlink()


NEAR = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12) | st.sampled_from(
    [text for _, text, _ in CELLS]
)
ROWS = st.lists(st.tuples(*([NEAR] * len(FIELDS))), min_size=1, max_size=20)


@pytest.mark.parametrize("examples", [10, pytest.param(300, marks=pytest.mark.soak)])
def test_tables_and_requests_never_differ(examples: int) -> None:
    settings(max_examples=examples)(given(ROWS)(alike_in_tables_and_requests))()


def alike_in_tables_and_requests(rows: list[tuple[str, ...]]) -> None:
    cells = [[f"{number:04}", "2026-01-01T00:00:00Z", *told] for number, told in enumerate(rows)]
    reader, expected = BodyReader(EXTRA), {}
    for one in cells:
        with suppress(Refusal):
            (asked,) = reader.read(written([one], TABLE).encode(), Encoding.csv).registrations
            expected[one[0]] = asdict(asked)
    with workspace("table") as folder:
        (folder / "t.csv").write_text(written(cells, TABLE), encoding="utf-8", newline="")
        assert people(folder / "t.csv") == expected
        columns = {name: pa.array([one[i] for one in cells], pa.string()) for i, name in enumerate(TABLE)}
        pq.write_table(pa.table(columns), folder / "t.parquet")
        assert people(folder / "t.parquet") == expected
