"""Registrations as the batches of columns that batch scoring reads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from firstspin.records import Registration
from firstspin.serving.batch import Answers

TYPES = {
    "age": pa.int32(),
    "gender": pa.string(),
    "country": pa.string(),
    "genres": pa.list_(pa.string()),
    "device": pa.string(),
    "visits": pa.float64(),
    "listens": pa.list_(pa.struct([("station_id", pa.string()), ("seconds", pa.float64())])),
}


def columns(registrations: Sequence[Registration], *further: str) -> pa.RecordBatch:
    """The registrations with user ids u0, u1 …; `further` may name "listens", which are null where there are none."""
    arrays = {"user_id": pa.array([f"u{i}" for i in range(len(registrations))], pa.string())}
    for name in ("age", "gender", "country", "genres", *further):
        values = [getattr(registration, name) for registration in registrations]
        if name == "listens":
            values = [[{"station_id": x.station_id, "seconds": x.seconds} for x in of] or None for of in values]
        arrays[name] = pa.array(values, TYPES[name])
    return pa.record_batch(arrays)


def answers(users: Sequence[str], genre: str) -> Answers:
    """The model's answer of this one genre to each user."""
    n = len(users)
    places, ends = np.zeros(n, dtype=np.int32), np.arange(n + 1, dtype=np.int32)
    return Answers(pa.array(users, pa.string()), (genre,), places, np.ones(n), ends, np.zeros(n, dtype=np.int8))
