"""An event store with the sums of answers of past days, as `firstspin watch` reads them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from datetime import date
from pathlib import Path

from firstspin.events.answer_counts import AnswerCell, AnswerSum, DayCounts, InputCounts, write_counts
from firstspin.events.schema import Secret
from firstspin.events.store import open_database
from firstspin.models.calibration import TOPS, CalibrationBin, HoldOutCalibration
from firstspin.serving.bundle import Bundle

KEY = bytes(range(32))
ANSWERS = 50


def well_calibrated() -> HoldOutCalibration:
    """A hold-out of 1,000 users in which half of the answers were expected to hit, and 500 did."""
    return HoldOutCalibration(tuple(CalibrationBin("model", "all", top, 0, 1_000, 500_000_000, 500) for top in TOPS))


def answered(folder: Path, made: Bundle, days: Sequence[date], inputs: Sequence[InputCounts] = ()) -> tuple[str, ...]:
    """Fill a store in the folder: ANSWERS a day, half of them expected to hit. The options of a service with it."""
    url, secret = f"sqlite:///{folder / 'answers.sqlite'}", folder / "answers.secret"
    secret.write_text(KEY.hex() + "\n")
    cells = [AnswerCell(made.id, "model", "model", "1", top, 10) for top in TOPS]
    sums = tuple(AnswerSum(cell, ANSWERS, ANSWERS * 500_000) for cell in cells)
    counts = [(day.isoformat(), DayCounts(day.isoformat(), sums, tuple(inputs))) for day in days]
    with closing(open_database(url, Secret(KEY))) as database:
        database.transact(lambda session: write_counts(session, counts))
    return "--events", url, "--events-secret", str(secret)
