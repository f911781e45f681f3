"""Arrow and NumPy arrays of the same memory.

pyarrow's own conversions import pandas wherever it is installed: 0.4 s of a command that has no use for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

Value = TypeVar("Value", bound=np.generic)


def arrow_array(values: NDArray[Any]) -> pa.Array:
    """A column of the numbers (n,), without nulls."""
    import pyarrow as pa

    values = np.ascontiguousarray(values)
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, pa.py_buffer(values)])


def arrow_texts(values: Sequence[str]) -> pa.Array:
    """A column of texts."""
    import pyarrow as pa

    encoded = [value.encode() for value in values]
    offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    return pa.StringArray.from_buffers(len(encoded), pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded)))


def numpy_array(column: pa.Array, kind: type[Value]) -> NDArray[Value]:
    """The numbers (n,) of a column of this kind. Raises ValueError where it has nulls, or another type."""
    import pyarrow as pa

    if column.null_count or column.type != pa.from_numpy_dtype(kind):
        raise ValueError(f"{column.type} with {column.null_count} nulls is no array of {np.dtype(kind)}")
    buffer = column.buffers()[1]
    of = np.frombuffer(buffer, kind) if buffer else np.empty(0, kind)
    return of[column.offset : column.offset + len(column)]


def numbers_of(column: pa.Array, kind: type[Value], none: int | None = None) -> NDArray[Value]:
    """The numbers, times or booleans (n,) of a column, cast to this kind; nulls become `none`.

    Raises ValueError where there are nulls and `none` is None, and ArrowException where a value can't be cast.
    """
    import pyarrow as pa

    column = column.cast(pa.from_numpy_dtype(kind))
    if none is not None:
        column = column.fill_null(arrow_array(np.array([none], kind))[0])
    return numpy_array(column, kind)
