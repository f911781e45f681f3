"""Tables of outcomes that hypothesis makes: as files of any bytes, and with columns of any type."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

import pyarrow as pa
from hypothesis import strategies as st

COLUMNS = ("user_id", "arm", "clicked", "seconds", "sessions", "day", "age")
ROWS = tuple(
    f"{i:03},{('rule', 'model')[i % 2]},{i % 3 % 2},{60.5 * (i % 7)},{1 + i % 3},2026-01-{1 + i:02}T00:00:00Z,{20 + i}"
    for i in range(12)
)
GOOD = "\n".join([",".join(COLUMNS), *ROWS, ""]).encode()

_TEXTS = ("", "true", "maybe", "rule", "'=rule", "=1", "\0", "\u2028", "1,2", '"', "A" * 300, "\ud7ff", "\uffff")
_NUMERALS = ("0", "1", "-1", "1.5", "1e308", "1e999", "1e-400", "nan", "inf", "007", "1_000", "0x1")
_TIMES = ("2026-01-01", "2026-02-30", "2026-01-01 10:00", "9999-12-31T23:59:59Z", "2026-01-01t00:00z")
CELLS = st.sampled_from((*_TEXTS, *_NUMERALS, *_TIMES))
NAMES = st.sampled_from(
    [*COLUMNS, "ARM", " arm ", "", 'a"; DROP TABLE received; --', "column 1", "row of the file", "v0", "unit", "x\ny"]
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A good CSV file, some bytes of it cut, doubled or replaced, in some encoding and with some line ends."""
    content = bytearray(GOOD)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(content)))
        content[at : at + draw(st.integers(0, 20))] = draw(st.binary(max_size=6))
    for old, new in draw(st.lists(st.sampled_from([(b",", b";"), (b",", b"\t"), (b"\n", b"\r\n"), (b"\n", b"\r")]))):
        content = content.replace(old, new, draw(st.sampled_from([-1, 3])))
    before = draw(st.sampled_from([b"", b"sep=,\n", b"\xef\xbb\xbf", b"\n", b"# outcomes\n"]))
    encoding = draw(st.sampled_from(["utf-8", "utf-8", "utf-16", "utf-32", "latin-1"]))
    return (before + bytes(content)).decode("latin-1").encode(encoding, "replace")


@st.composite
def written(draw: st.DrawFn) -> bytes:
    """A CSV file of any names and cells, rows of any length among them."""
    names = draw(st.lists(NAMES, min_size=1, max_size=8))
    rows = draw(st.lists(st.lists(CELLS, min_size=1, max_size=9), max_size=8))
    lines = [",".join(f'"{cell}"' if "," in cell else cell for cell in row) for row in (names, *rows)]
    return "\n".join(lines).encode("utf-8", "surrogatepass")


FILES = st.one_of(st.binary(max_size=200), mutated(), written(), st.sampled_from([GOOD, b"", b"PAR1", b"\x1f\x8b\0"]))

_NUMBERS = st.integers(-2, 2)
_MOMENTS = st.datetimes(datetime(1600, 1, 1), datetime(2200, 1, 1))
TYPES: dict[pa.DataType, st.SearchStrategy[object]] = {
    pa.string(): CELLS,
    pa.large_string(): CELLS,
    pa.string_view(): CELLS,
    pa.dictionary(pa.int32(), pa.string()): CELLS,
    pa.dictionary(pa.int8(), pa.int64()): _NUMBERS,
    pa.int8(): _NUMBERS,
    pa.uint64(): st.integers(0, 2**64 - 1),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.float16(): st.floats(width=16),
    pa.float32(): st.floats(width=32),
    pa.float64(): st.floats(),
    pa.bool_(): st.booleans(),
    pa.decimal128(38, 2): st.decimals(-10, 10, places=2),
    pa.decimal256(60, 0): st.integers(-(10**50), 10**50).map(Decimal),
    pa.null(): st.none(),
    pa.binary(): st.binary(max_size=3),
    pa.duration("s"): st.integers(-1000, 1000).map(lambda s: timedelta(seconds=s)),
    pa.time64("us"): st.just(time(12, 30)),
    pa.date32(): st.dates(date(1, 1, 1)),
    pa.timestamp("s"): _MOMENTS,
    pa.timestamp("us", "UTC"): _MOMENTS.map(lambda at: at.replace(tzinfo=UTC)),
    pa.timestamp("us", "Europe/Vienna"): _MOMENTS.map(lambda at: at.replace(tzinfo=UTC)),
    pa.list_(pa.int64()): st.lists(_NUMBERS, max_size=2),
    pa.struct([("x", pa.int64())]): st.fixed_dictionaries({"x": _NUMBERS}),
}


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    """An Arrow table with the columns of outcomes, each of a usual or of any type, with gaps."""
    n = draw(st.integers(0, 8))
    usual = {
        "user_id": [f"{i}" for i in range(n)],
        "arm": [("rule", "model")[i % 2] for i in range(n)],
        "clicked": [i % 2 == 0 for i in range(n)],
        "seconds": [float(i) for i in range(n)],
        "sessions": list(range(n)),
        "day": [datetime(2026, 1, 1 + i, tzinfo=UTC) for i in range(n)],
        "age": [20 + i for i in range(n)],
    }
    columns = {name: pa.array(values) for name, values in usual.items()}
    for name in draw(st.lists(st.sampled_from(COLUMNS), max_size=3)):
        kind = draw(st.sampled_from(list(TYPES)))
        values = draw(st.lists(st.none() | TYPES[kind], min_size=n, max_size=n))
        columns[name] = pa.array(values, kind)
    return pa.table(columns)


METRICS = st.sampled_from(
    ("clicked:binary", "clicked", "seconds:continuous", "seconds:continuous:cap=p99", "seconds:ratio=sessions")
)
OPTIONS = st.fixed_dictionaries(
    {
        "metrics": st.lists(METRICS, min_size=1, max_size=2),
        "unit": st.sampled_from([None, None, "user_id", "user_id", "seconds"]),
        "day": st.sampled_from([None, None, "day", "day", "age"]),
        "covariates": st.sampled_from([(), (), ("age",), ("age",), ("user_id",), ("day",), ("arm",)]),
    }
)
