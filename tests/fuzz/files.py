"""Tables as files: as a user may write them, and as no user would."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import IntEnum
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fuzz import values
from fuzz.inputs import Input

Rows = Sequence[Sequence[str]]


class Form(IntEnum):
    """How a file holds its table: as it is, written in another way that means the same, or damaged."""

    plain, same, damaged = range(3)


@dataclass(frozen=True)
class Table:
    """A table of text, and the kind of each column that is not text."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: tuple[str, ...] = ()
    moments: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()


def write(made: Input, folder: Path, name: str, table: Table, *, plain: float = 0.5) -> Form:
    """Write a table as `name.csv` or `name.parquet`; a share of `plain` is as it is, the others are of both forms."""
    form = Form.plain if made.chance(plain) else made.pick((Form.same, Form.damaged))
    if form is Form.plain:
        suffix, content = ".csv", csv_bytes(table)
    elif made.chance(0.6):
        suffix, content = ".csv", (same_csv if form is Form.same else _damaged_csv)(made, table)
    else:
        suffix, content = ".parquet", (_same_parquet if form is Form.same else _damaged_parquet)(made, table)
    if form is Form.damaged and made.chance(0.03):
        suffix = made.pick((".csv", ".parquet", ".CSV", ".txt", ".csv.gz", ""))
    (folder / f"{name}{suffix}").write_bytes(content)
    if form is not Form.plain:
        made.note(f"{form.name} {name}{suffix}", content if len(content) < 20_000 else content[:2_000])
    return form


# ------------------------------------------------------------------------------------------------------------------ CSV


def csv_bytes(table: Table, **dialect: object) -> bytes:
    file = io.StringIO(newline="")
    writer = csv.writer(file, **{"lineterminator": "\n"} | dialect)  # type: ignore[arg-type]
    writer.writerow(table.columns)
    writer.writerows(table.rows)
    return file.getvalue().encode("utf-8", "surrogatepass")


def same_csv(made: Input, table: Table) -> bytes:
    """The same table, as other programs write CSV."""
    if made.chance(0.5):
        table = _more_columns(made, table)
    if made.chance(0.3):
        table = _shuffled(made, table)
    quoting = made.pick((csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
    if any("\r" in cell for row in (table.columns, *table.rows) for cell in row):
        quoting = csv.QUOTE_ALL  # Python leaves a lone carriage return bare, which is the end of a row
    content = csv_bytes(table, lineterminator=made.pick(("\n", "\r\n")), quoting=quoting)
    if made.chance(0.2):
        content = codecs.BOM_UTF8 + content
    return content.rstrip(b"\r\n") if made.chance(0.2) else content


def _damaged_csv(made: Input, table: Table) -> bytes:
    for _ in range(made.number(0, 3)):
        table = made.pick(DAMAGES)(made, table)
    how = made.number(0, 14)
    if how == 0:
        return made.random.randbytes(made.number(0, 300))
    if how == 1:
        return b""
    if how < 6:
        return values.mutated(made, csv_bytes(table))
    content = csv_bytes(table, **_dialect(made))
    if how == 6:
        encoding = made.pick(("utf-16", "utf-16-le", "utf-32", "cp1252", "latin-1", "shift_jis", "utf-7", "cp500"))
        return content.decode("utf-8", "replace").encode(encoding, "replace")
    if how == 7:
        return gzip.compress(content)
    if how == 8:
        lines = content.split(b"\n")
        return b"".join(line + made.pick((b"\n", b"\r\n", b"\r", b"\n\n", b"\n\r")) for line in lines)
    if how == 9:
        line = made.pick(
            (b"sep=,\n", b"sep=;\n", b"# a comment\n", b"\n", b"\n\n", b",,,\n", b" \n", b"\xef\xbb\xbf" * 2)
        )
        return line + content
    return content


def _dialect(made: Input) -> dict[str, object]:
    if made.chance(0.5):
        return {}
    return {
        "delimiter": made.pick((",", ";", "\t", "|", " ", ":")),
        "quotechar": made.pick(('"', "'", "`")),
        "quoting": made.pick((csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC)),
        "doublequote": made.chance(0.8),
        "escapechar": made.pick(("\\", "^")),
        "lineterminator": made.pick(("\n", "\r\n", "\r", "\n\n", "\x85", "\u2028", ";\n")),
    }


def _more_columns(made: Input, table: Table) -> Table:
    """Further columns of any name but those that are there."""
    columns, rows = list(table.columns), [list(row) for row in table.rows]
    for _ in range(made.number(1, 3)):
        name = values.name(made)
        if name in columns:
            continue
        at = made.number(0, len(columns))
        columns.insert(at, name)
        for row in rows:
            row.insert(at, values.cell(made) if made.chance(0.5) else "x")
    return replace(table, columns=tuple(columns), rows=tuple(map(tuple, rows)))


def _shuffled(made: Input, table: Table) -> Table:
    order = list(range(len(table.columns)))
    made.random.shuffle(order)
    return replace(
        table,
        columns=tuple(table.columns[i] for i in order),
        rows=tuple(tuple(row[i] for i in order if i < len(row)) for row in table.rows),
    )


def _cells(made: Input, table: Table) -> Table:
    rows = [list(row) for row in table.rows]
    for _ in range(made.number(1, 3)):
        row = made.pick(rows) if rows else []
        if row:
            row[made.number(0, len(row) - 1)] = values.cell(made)
    return replace(table, rows=tuple(map(tuple, rows)))


def _column(made: Input, table: Table) -> Table:
    """One column holds the same in every row, or something else in each."""
    if not table.columns:
        return table
    at, same = made.number(0, len(table.columns) - 1), made.chance(0.5)
    value = values.cell(made)
    rows = ((*row[:at], value if same else values.cell(made), *row[at + 1 :]) for row in table.rows)
    return replace(table, rows=tuple(rows))


def _renamed(made: Input, table: Table) -> Table:
    columns = list(table.columns)
    if columns:
        columns[made.number(0, len(columns) - 1)] = values.name(made)
    return replace(table, columns=tuple(columns))


def _fewer_columns(made: Input, table: Table) -> Table:
    if not table.columns:
        return table
    at = made.number(0, len(table.columns) - 1)
    return replace(
        table,
        columns=table.columns[:at] + table.columns[at + 1 :],
        rows=tuple(tuple(row[:at] + row[at + 1 :]) for row in table.rows),
    )


def _ragged(made: Input, table: Table) -> Table:
    """Some rows of too many cells or too few."""
    rows = []
    for row in table.rows:
        if made.chance(0.3):
            row = (
                row[: made.number(0, len(row))]
                if made.chance(0.5)
                else (*row, *[values.cell(made)] * made.number(1, 3))
            )
        rows.append(tuple(row))
    return replace(table, rows=tuple(rows))


def _rows(made: Input, table: Table) -> Table:
    """Rows twice, in another order, or gone."""
    rows = list(table.rows)
    kind = made.number(0, 3)
    if kind == 0:
        rows = []
    elif kind == 1:
        rows += made.random.choices(rows, k=3) if rows else []
    elif kind == 2:
        made.random.shuffle(rows)
    else:
        del rows[made.number(0, len(rows)) :]
    return replace(table, rows=tuple(rows))


DAMAGES: tuple[Callable[[Input, Table], Table], ...] = (
    *(_cells, _cells, _cells, _column, _column, _renamed),
    *(_more_columns, _fewer_columns, _ragged, _rows, _shuffled),
)


# -------------------------------------------------------------------------------------------------------------- Parquet


def _same_parquet(made: Input, table: Table) -> bytes:
    """The same table, of other types that hold its values."""
    arrays = [_same_column(made, table, name, [row[i] for row in table.rows]) for i, name in enumerate(table.columns)]
    names = list(table.columns)
    if made.chance(0.5):
        name = values.name(made)
        if name not in names:
            at = made.number(0, len(names))
            names.insert(at, name)
            arrays.insert(at, arrow_array(made, len(table.rows)))
    return parquet(made, names, arrays)


def _same_column(made: Input, table: Table, name: str, cells: Sequence[str]) -> pa.Array:
    if name in table.moments:
        return _moments(made, cells)
    if name in table.numbers:
        return _numbers(made, cells)
    if name in table.lists and made.chance(0.7):
        wrap = made.pick((pa.list_, pa.large_list))
        return pa.array([cell.split("|") if cell else [] for cell in cells], wrap(_text_type(made)))
    kind = _text_type(made)
    array = pa.array([cell if cell or made.chance(0.5) else None for cell in cells], kind)
    return array.dictionary_encode() if kind == pa.string() and made.chance(0.3) else array


def _text_type(made: Input) -> pa.DataType:
    return made.pick((pa.string(), pa.string(), pa.large_string(), pa.string_view()))


def _moments(made: Input, cells: Sequence[str]) -> pa.Array:
    if made.chance(0.2):
        return pa.array(list(cells), pa.string())
    zone = made.pick((None, "UTC", "+00:00", "Europe/Berlin", "America/New_York"))
    unit = made.pick(("s", "ms", "us", "ns"))
    moments = [datetime.fromisoformat(cell) for cell in cells]
    if zone is None:
        moments = [moment.astimezone(UTC).replace(tzinfo=None) for moment in moments]
    return pa.array(moments, pa.timestamp(unit, zone))


def _numbers(made: Input, cells: Sequence[str]) -> pa.Array:
    numbers = [float(cell) if cell else None for cell in cells]
    whole = all(number is None or number.is_integer() for number in numbers)
    kinds = [pa.float64(), pa.float32(), pa.decimal128(12, 3), pa.decimal256(40, 2), pa.string()]
    kinds += [pa.int16(), pa.int32(), pa.int64(), pa.uint16(), pa.uint64(), pa.decimal128(18, 0)] if whole else []
    kind = made.pick(kinds)
    if kind == pa.string():
        return pa.array(list(cells), kind)
    if pa.types.is_decimal(kind):
        return pa.array([None if number is None else Decimal(str(number)) for number in numbers], kind)
    if pa.types.is_integer(kind):
        return pa.array([None if number is None else int(number) for number in numbers], kind)
    return pa.array(numbers, kind)


def _damaged_parquet(made: Input, table: Table) -> bytes:
    for _ in range(made.number(0, 2)):
        table = made.pick((_cells, _column, _renamed, _fewer_columns, _rows))(made, table)
    names, n = list(table.columns), len(table.rows)
    arrays = [pa.array([row[i] for row in table.rows], pa.string()) for i in range(len(names))]
    for _ in range(made.number(0, 3)):
        if names:
            arrays[made.number(0, len(names) - 1)] = arrow_array(made, n)
    for _ in range(made.number(0, 2)):
        names.append(values.name(made))
        arrays.append(arrow_array(made, n))
    content = parquet(made, names, arrays)
    return values.mutated(made, content) if made.chance(0.3) else content


def parquet(made: Input, names: Sequence[str], arrays: Sequence[pa.Array]) -> bytes:
    """A Parquet file of these columns, written as one of its versions has it."""
    settings = {
        "compression": made.pick(("none", "snappy", "zstd", "gzip")),
        "version": made.pick(("2.6", "2.4", "1.0")),
        "use_dictionary": made.chance(0.5),
        "row_group_size": made.pick((1, 3, 1000)),
        "data_page_version": made.pick(("1.0", "2.0")),
        "coerce_timestamps": made.pick((None, None, "us")),
        "allow_truncated_timestamps": True,
    }

    def written(arrays: Sequence[pa.Array], names: Sequence[str]) -> bytes:
        sink = io.BytesIO()
        pq.write_table(pa.table(arrays, [name.replace("\0", "0") for name in names]), sink, **settings)
        return sink.getvalue()

    def held(array: pa.Array) -> pa.Array:
        """The column; as text where Parquet, as these settings have it, can't hold its type."""
        try:
            written([array], ["x"])
        except (pa.ArrowException, OSError):
            return pa.array([None if value is None else str(value) for value in array.to_pylist()], pa.string())
        return array

    try:
        return written(arrays, names)
    except (pa.ArrowException, OSError):
        return written([held(array) for array in arrays], names)


PLAIN_TYPES: tuple[pa.DataType, ...] = (
    *(pa.bool_(), pa.int8(), pa.int32(), pa.int64(), pa.uint8(), pa.uint64(), pa.float16(), pa.float32(), pa.float64()),
    *(pa.null(), pa.date32(), pa.date64(), pa.time32("s"), pa.time64("ns"), pa.string(), pa.large_string()),
    *(pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(4)),
)
TYPES_OF_SIZES: tuple[Callable[[Input], pa.DataType], ...] = (
    lambda made: pa.decimal128(made.number(1, 38), made.number(-2, 10)),
    lambda made: pa.decimal256(made.number(39, 76), made.number(0, 10)),
    lambda made: pa.timestamp(made.pick(("s", "ms", "us", "ns")), made.pick((None, "UTC", "Europe/Berlin"))),
    lambda made: pa.duration(made.pick(("s", "ms", "us", "ns"))),
)


def arrow_type(made: Input, depth: int = 2) -> pa.DataType:
    """Any type of Arrow."""
    if depth and made.chance(0.25):
        inner = arrow_type(made, depth - 1)
        kind = made.number(0, 4)
        if kind == 0:
            return pa.list_(inner)
        if kind == 1:
            return pa.large_list(inner)
        if kind == 2:
            return pa.list_(inner, made.number(1, 3))
        if kind == 3:
            return pa.struct([(values.name(made).replace("\0", ""), inner), ("b", pa.int32())])
        return pa.map_(pa.string(), inner)
    if made.chance(0.1):
        return pa.dictionary(pa.int8(), made.pick((pa.string(), pa.int64(), pa.float64())))
    return made.pick(PLAIN_TYPES) if made.chance(0.7) else made.pick(TYPES_OF_SIZES)(made)


def arrow_array(made: Input, n: int) -> pa.Array:
    """n values of any type, gaps among them."""
    kind = arrow_type(made)
    gaps = made.pick((0.0, 0.2, 1.0))
    try:
        return pa.array([None if made.chance(gaps) else arrow_value(made, kind) for _ in range(n)], kind)
    except (pa.ArrowException, OverflowError, ValueError):
        return pa.nulls(n, kind)


def arrow_value(made: Input, kind: pa.DataType) -> object:
    types = pa.types
    if types.is_boolean(kind):
        return made.chance(0.5)
    if types.is_integer(kind):
        low, high = (-(2 ** (kind.bit_width - 1)), 2 ** (kind.bit_width - 1) - 1)
        low, high = (low, high) if types.is_signed_integer(kind) else (0, 2**kind.bit_width - 1)
        return made.pick((low, high, 0, 1, 31, made.number(low, high)))
    if types.is_floating(kind):
        return made.pick((0.0, -0.0, 31.0, 31.5, float("nan"), float("inf"), float("-inf"), 900.0))
    if types.is_decimal(kind):
        return Decimal(made.number(-9, 9))
    if types.is_timestamp(kind):
        return made.pick((datetime(2026, 1, 1), datetime(1970, 1, 1), datetime(1700, 1, 1), datetime(2200, 1, 1)))
    if types.is_date(kind):
        return made.pick((date(2026, 1, 1), date(1, 1, 1), date(9999, 12, 31)))
    if types.is_time(kind):
        return time(made.number(0, 23), 30)
    if types.is_duration(kind):
        return timedelta(seconds=made.pick((0, 900, -1)))
    if types.is_dictionary(kind):
        return arrow_value(made, kind.value_type)
    if types.is_fixed_size_binary(kind):
        return made.random.randbytes(kind.byte_width)
    if types.is_struct(kind):
        return {field.name: arrow_value(made, field.type) for field in kind}
    if types.is_map(kind):
        return [(values.cell(made), arrow_value(made, kind.item_type)) for _ in range(made.number(0, 2))]
    if types.is_fixed_size_list(kind):
        return [arrow_value(made, kind.value_type) for _ in range(kind.list_size)]
    if types.is_nested(kind):
        return [arrow_value(made, kind.value_type) for _ in range(made.number(0, 3))]
    if types.is_null(kind):
        return None
    word = values.cell(made)
    return word if "string" in str(kind) else word.encode()
